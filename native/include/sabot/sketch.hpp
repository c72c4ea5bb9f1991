// What a writer learns of its rows as they pass: heavy hitters, and a uniform sample of sort keys.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace sabot {

struct HeavyHitter {
  uint64_t hash;
  uint64_t count;   // rows counted for the hash
  uint64_t error;   // the true count lies within count ± error
};

// One majority vote per bucket of hashes. A hash that has more than half of the rows of its bucket is always found,
// with count <= truth <= count + (rows of the bucket - count) / 2. Long inputs are counted every kStride-th row, which
// adds six standard deviations of that sampling to the error.
class HeavyHitterSketch {
 public:
  HeavyHitterSketch() : buckets_(kBuckets), rows_(kBuckets) {}
  void add(const uint64_t* hashes, size_t count) noexcept;
  // Heaviest first; only hashes that hold at least 1 / 256 of all rows.
  [[nodiscard]] std::vector<HeavyHitter> heaviest() const;

 private:
  static constexpr size_t kBuckets = 512;
  static constexpr uint64_t kExactRows = 1 << 16;
  static constexpr uint64_t kStride = 16;

  struct Bucket {
    uint64_t hash = 0;
    int64_t votes = 0;
  };
  void vote(uint64_t hash, int64_t weight) noexcept;

  std::vector<Bucket> buckets_;
  std::vector<uint64_t> rows_;
  uint64_t seen_ = 0;
  uint64_t phase_ = 0;
};

// Every row seen is in the sample with the same probability.
class ReservoirSample {
 public:
  explicit ReservoirSample(size_t capacity);
  void add(std::string_view value);
  [[nodiscard]] bool wants_next() const noexcept { return skip_ == 0; }
  // Rows that will not be taken.
  [[nodiscard]] uint64_t skip() const noexcept { return skip_; }
  void skipped(uint64_t rows) noexcept { skip_ -= rows; }
  [[nodiscard]] const std::vector<std::string>& values() const noexcept { return values_; }

 private:
  void draw_skip();
  size_t capacity_;
  std::mt19937_64 random_;
  double weight_ = 1.0;
  uint64_t skip_ = 0;
  std::vector<std::string> values_;
};

}  // namespace sabot
