#include "sabot/sketch.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace sabot {

// Boyer and Moore's vote, weighted and without a branch that data could mispredict.
void HeavyHitterSketch::vote(uint64_t hash, int64_t weight) noexcept {
  // The low bits: the high ones chose the partition already.
  const size_t at = hash & (kBuckets - 1);
  Bucket& bucket = buckets_[at];
  rows_[at] += static_cast<uint64_t>(weight);
  const int64_t votes = bucket.votes + (bucket.hash == hash ? weight : -weight);
  // All ones when the challenger takes the bucket; spelled out, because compilers make a branch of a condition.
  const int64_t taken = votes >> 63;
  bucket.hash ^= (bucket.hash ^ hash) & static_cast<uint64_t>(taken);
  bucket.votes = (votes ^ taken) - taken;
}

void HeavyHitterSketch::add(const uint64_t* hashes, size_t count) noexcept {
  size_t at = 0;
  for (; at < count && seen_ < kExactRows; ++at, ++seen_) vote(hashes[at], 1);
  if (at == count) return;
  // The phase walks, so that a period in the data does not line up with the stride for long.
  for (size_t i = at + phase_; i < count; i += kStride) vote(hashes[i], static_cast<int64_t>(kStride));
  phase_ = (phase_ + 7) % kStride;
  seen_ += count - at;
}

std::vector<HeavyHitter> HeavyHitterSketch::heaviest() const {
  constexpr uint64_t kShare = 256;
  std::vector<HeavyHitter> result;
  for (size_t i = 0; i < kBuckets; ++i) {
    const auto votes = static_cast<uint64_t>(buckets_[i].votes);
    if (votes == 0 || votes < seen_ / kShare) continue;
    // Each vote against the winner cancelled one for it, at most.
    uint64_t error = (rows_[i] - votes + 1) / 2;
    if (seen_ > kExactRows) {
      const double variance = static_cast<double>(kStride) * static_cast<double>(votes + error);
      error += static_cast<uint64_t>(6 * std::sqrt(variance)) + kStride;
    }
    result.push_back({buckets_[i].hash, votes, error});
  }
  std::sort(result.begin(), result.end(), [](const auto& a, const auto& b) { return a.count > b.count; });
  return result;
}

namespace {
// A fixed seed: the same input gives the same bounds, so that a task that runs again is comparable.
constexpr uint64_t kSeed = 0x5ab07;
}  // namespace

ReservoirSample::ReservoirSample(size_t capacity) : capacity_(capacity), random_(kSeed) {
  if (capacity_ == 0) skip_ = std::numeric_limits<uint64_t>::max();
}

void ReservoirSample::add(std::string_view value) {
  if (values_.size() < capacity_) {
    values_.emplace_back(value);
    if (values_.size() == capacity_) draw_skip();
    return;
  }
  values_[std::uniform_int_distribution<size_t>(0, capacity_ - 1)(random_)] = value;
  draw_skip();
}

// Algorithm L (Li, 1994): the number of rows until the next one that enters is geometric.
void ReservoirSample::draw_skip() {
  std::uniform_real_distribution<double> uniform(std::numeric_limits<double>::min(), 1.0);
  weight_ *= std::exp(std::log(uniform(random_)) / static_cast<double>(capacity_));
  const double skip = std::floor(std::log(uniform(random_)) / std::log1p(-weight_));
  skip_ = skip < 1e18 ? static_cast<uint64_t>(skip) : std::numeric_limits<uint64_t>::max();
}

}  // namespace sabot
