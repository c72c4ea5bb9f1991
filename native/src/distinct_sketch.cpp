#include "sabot/distinct_sketch.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include "kernels.hpp"
#include "sabot/errors.hpp"

namespace sabot {
namespace {

// Rows at a time: few enough that the bound falls soon while the first ones fill the table.
constexpr size_t kRows = 1024;

}  // namespace

void DistinctSketch::add(const uint64_t* hashes, size_t count) {
  for (size_t at = 0; at < count; at += kRows) {
    const size_t rows = std::min(kRows, count - at);
    bool is_new = false;
    if (quiet_rows_ < kQuietRows || bound_ < kDenseBound) {
      is_new = look_at(hashes + at, rows);
    } else {
      uint64_t some[kRows / kStride];
      size_t taken = 0;
      for (size_t i = at + phase_; i < at + rows; i += kStride) some[taken++] = hashes[i];
      // The phase walks, so that a period in the data does not line up with the stride for long.
      phase_ = (phase_ + 7) % kStride;
      is_new = look_at(some, taken);
    }
    quiet_rows_ = is_new ? 0 : quiet_rows_ + rows;
  }
}

// Whether one of them is new.
bool DistinctSketch::look_at(const uint64_t* hashes, size_t count) {
  if (table_.empty()) {
    table_.assign(kPlaces, kEmpty);
    entries_.reserve(kMostEntries);
    listed_.resize(kRows + kListSlack);
  }
  bool is_new = false;
  const size_t listed = kernels().list_below(hashes, count, bound_, listed_.data());
  for (size_t i = 0; i < listed; ++i) {
    if (listed_[i] >= bound_ || !insert(listed_[i])) continue;
    is_new = true;
    entries_.push_back(listed_[i]);
    if (entries_.size() == kMostEntries) keep_least();
  }
  return is_new;
}

// Whether it was not there yet.
bool DistinctSketch::insert(uint64_t hash) noexcept {
  size_t at = hash % kPlaces;
  while (table_[at] != kEmpty) {
    if (table_[at] == hash) return false;
    at = (at + 1) % kPlaces;
  }
  table_[at] = hash;
  return true;
}

void DistinctSketch::keep_least() {
  // Half of uniform hashes lie below half of the bound: a little more than that holds enough of them, without sorting.
  const uint64_t guess = bound_ / 16 * 9;
  const auto below = static_cast<size_t>(std::count_if(entries_.begin(), entries_.end(), [&](uint64_t h) { return h < guess; }));
  if (below >= kKeptHashes && below < kMostEntries * 3 / 4) {
    bound_ = guess;
  } else {
    const auto last = entries_.begin() + (kKeptHashes - 1);
    std::nth_element(entries_.begin(), last, entries_.end());
    bound_ = *last + 1;
  }
  std::erase_if(entries_, [&](uint64_t h) { return h >= bound_; });
  std::fill(table_.begin(), table_.end(), kEmpty);
  for (const uint64_t hash : entries_) insert(hash);
}

LeastHashes DistinctSketch::least() const {
  LeastHashes found = entries_;
  std::sort(found.begin(), found.end());
  if (found.size() > kKeptHashes) found.resize(kKeptHashes);
  return found;
}

void check_least_hashes(const LeastHashes& hashes) {
  const bool ascends = std::adjacent_find(hashes.begin(), hashes.end(), std::greater_equal<>()) == hashes.end();
  if (hashes.size() > kKeptHashes || !ascends) throw Error(ErrorCode::kCorrupt, "the sketch of distinct keys is malformed");
}

uint64_t distinct_count(const std::vector<std::string>& sketches) {
  LeastHashes all;
  for (const std::string& bytes : sketches) {
    LeastHashes hashes(bytes.size() / sizeof(uint64_t));
    if (!hashes.empty()) std::memcpy(hashes.data(), bytes.data(), hashes.size() * sizeof(uint64_t));
    if (bytes.size() % sizeof(uint64_t) != 0) throw Error(ErrorCode::kCorrupt, "the sketch of distinct keys is cut off");
    check_least_hashes(hashes);
    all.insert(all.end(), hashes.begin(), hashes.end());
  }
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  if (all.size() < kKeptHashes) return all.size();
  // The least hash is at least 0, so that the k-th is not.
  const double share = std::ldexp(static_cast<double>(all[kKeptHashes - 1]), -64);
  return static_cast<uint64_t>(std::min(std::round((kKeptHashes - 1) / share), 0x1p62));
}

std::string sketch_bytes(const LeastHashes& hashes) {
  return {reinterpret_cast<const char*>(hashes.data()), hashes.size() * sizeof(uint64_t)};
}

}  // namespace sabot
