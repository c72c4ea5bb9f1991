// How many distinct keys a writer's rows have, from the least of their hashes.
//
// The k least distinct values of a hash are a uniform sample of the distinct keys (Bar-Yossef et al. 2002): the k-th of
// them, as a share of all values that a hash may have, tells how densely they lie. (k - 1) / share is an estimate without
// bias, with a standard error of 1 / sqrt(k - 2) of it (Beyer et al. 2007). Sketches of several tasks merge into that of
// all their rows: the least of their union.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sabot {

// k: 2 KiB in a manifest, and an error of 6.3 %, enough to plan by; 512 cost the partitioner 5 % more at N = 4. Fewer
// distinct keys are counted exactly, see kQuietRows.
constexpr size_t kKeptHashes = 256;

// The least distinct hashes, ascending, at most kKeptHashes of them.
using LeastHashes = std::vector<uint64_t>;

// Not thread-safe: one per output being written.
class DistinctSketch {
 public:
  void add(const uint64_t* hashes, size_t count);
  [[nodiscard]] LeastHashes least() const;

 private:
  // Twice as many as are reported may wait; the table then is half full.
  static constexpr size_t kMostEntries = 2 * kKeptHashes;
  static constexpr size_t kPlaces = 2 * kMostEntries;
  // Not an entry, since it is not below the bound: one of 2^64 hashes is never counted.
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  // Looking up every row would cost more than the rest of the partitioner's work where there are few keys. Once so many
  // rows in a row brought no new one, every kStride-th row is looked up until there is one again. Above kDenseBound only:
  // there a key in 64 is below the bound, so that rows of ever new keys are never quiet.
  static constexpr size_t kQuietRows = 1 << 14;
  static constexpr size_t kStride = 16;
  static constexpr uint64_t kDenseBound = uint64_t{1} << 58;

  bool look_at(const uint64_t* hashes, size_t count);
  bool insert(uint64_t hash) noexcept;
  void keep_least();

  std::vector<uint64_t> table_;       // open addressing by the low bits; no memory before the first row
  std::vector<uint64_t> entries_;     // what the table holds
  std::vector<uint64_t> listed_;
  uint64_t bound_ = kEmpty;           // hashes that are not below it are not among the least
  size_t quiet_rows_ = 0;             // since the last new key
  size_t phase_ = 0;
};

// Raises Error(kCorrupt) for anything that least() could not give.
void check_least_hashes(const LeastHashes& hashes);

// Distinct keys of all rows that the sketches saw together: exact below kKeptHashes. Each is a manifest's least hashes
// as their bytes; raises Error(kCorrupt) for any others.
uint64_t distinct_count(const std::vector<std::string>& sketches);

std::string sketch_bytes(const LeastHashes& hashes);

}  // namespace sabot
