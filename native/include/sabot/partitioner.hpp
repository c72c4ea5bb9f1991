// Which partition each row of a chunk goes to.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "sabot/distinct_sketch.hpp"
#include "sabot/readahead.hpp"
#include "sabot/schema.hpp"
#include "sabot/sketch.hpp"

namespace sabot {

constexpr uint32_t kMaxPartitions = 1 << 14;
// Of a sort key, for bounds to be cut from: the beginning of a key is a bound as good as the key, but for keys that
// begin alike, which stay together.
constexpr size_t kSampledKeyBytes = 1024;

struct Scheme {
  enum class Kind { kSingle, kHashColumn, kHashColumns, kRange, kSampled, kRoundRobin };
  Kind kind = Kind::kSingle;
  uint32_t partitions = 1;
  std::vector<std::string> columns;   // the keys
  std::vector<std::string> bounds;    // of kRange, ascending
  uint32_t sample_rows = 0;           // of kSampled

  static Scheme single() { return {}; }
  static Scheme hash_column(std::string column, uint32_t partitions);
  static Scheme hash_columns(std::vector<std::string> columns, uint32_t partitions);
  static Scheme range(std::string column, std::vector<std::string> bounds);
  static Scheme sampled(std::string column, uint32_t sample_rows);
  static Scheme round_robin(uint32_t partitions);

  // Whether the key column exists for the shuffle alone and is not stored.
  [[nodiscard]] bool drops_key() const noexcept { return kind == Kind::kHashColumn || kind == Kind::kRange; }
};

// The rows of a chunk by partition. Either every partition has a range of rows (`permutation` is null), or `permutation`
// lists the chunk's rows, partition after partition.
struct ChunkSplit {
  const uint16_t* permutation = nullptr;
  const uint32_t* starts = nullptr;   // partitions + 1
};

// Memory of a permutation under way, kept for the next chunk.
struct PermuteScratch {
  std::vector<uint32_t> cursors;
  std::vector<uint16_t> lists;
  std::vector<uint8_t> byte_ids;
};

// Not thread-safe: one per output being written.
class Partitioner {
 public:
  // Raises Error(kInvalidArgument) when a key column is missing or has the wrong type.
  Partitioner(Scheme scheme, const Field& input);

  [[nodiscard]] uint32_t partitions() const noexcept { return scheme_.partitions; }
  [[nodiscard]] int64_t chunk_rows() const noexcept;
  // Splits rows [first, first + count) of a batch; count <= chunk_rows(). Valid until the next call.
  ChunkSplit split(const ArrowArray& batch, int64_t first, int64_t count);
  // What split() will read of these rows.
  void plan_keys(const ArrowArray& batch, int64_t first, int64_t count, Readahead& ahead) const;

  [[nodiscard]] std::vector<HeavyHitter> heavy() const;
  // Of the keys of a hash scheme; no hash otherwise.
  [[nodiscard]] LeastHashes least_hashes() const { return distinct_.least(); }
  [[nodiscard]] const std::vector<std::string>& sample() const noexcept { return sample_.values(); }

 private:
  [[nodiscard]] const uint64_t* hashes(const ArrowArray& batch, int64_t first, int64_t count);
  void range_partitions(const ArrowArray& batch, int64_t first, int64_t count);
  void take_sample(const ArrowArray& batch, int64_t first, int64_t count);
  void deal_out(int64_t count);
  void permute(int64_t count);
  [[nodiscard]] bool is_hash() const noexcept {
    return scheme_.kind == Scheme::Kind::kHashColumn || scheme_.kind == Scheme::Kind::kHashColumns;
  }

  Scheme scheme_;
  std::vector<Field> keys_;
  std::vector<size_t> key_columns_;
  std::vector<uint64_t> bound_prefixes_;
  HeavyHitterSketch heavy_;
  DistinctSketch distinct_;
  ReservoirSample sample_;
  uint32_t turn_ = 0;                 // of kRoundRobin: the partition that gets the first row left over
  std::vector<uint64_t> hashes_;
  std::vector<uint16_t> ids_;
  std::vector<uint16_t> permutation_;
  std::vector<uint32_t> starts_;
  PermuteScratch scratch_;
};

}  // namespace sabot
