// One output of a task while it is written: an open batch per partition, sealed batches published as segments.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sabot/column_gather.hpp"
#include "sabot/live_channels.hpp"
#include "sabot/manifest.hpp"
#include "sabot/partitioner.hpp"
#include "sabot/segment_store.hpp"
#include "sabot/watch.hpp"

namespace sabot {

struct OutputSpec {
  OutputName name;
  Scheme scheme;
  std::optional<std::vector<std::string>> columns;   // none: all of the stream's
};

// How large the open batches of a writer may grow.
struct BatchLimits {
  uint64_t max_bytes = uint64_t{1} << 20;
  uint64_t max_rows = 131'072;
};

// Not thread-safe. What was written is dropped on destruction unless release_manifest() was called.
class OutputWriter {
 public:
  OutputWriter(std::shared_ptr<SegmentStore> store, uint64_t output_number, const OutputSpec& spec, const Field& input,
               BatchLimits limits);
  ~OutputWriter();
  OutputWriter(const OutputWriter&) = delete;
  OutputWriter& operator=(const OutputWriter&) = delete;

  // From here on every sealed batch goes to a channel as well, and none stays open for long.
  void stream_to(std::shared_ptr<LiveChannels> channels);

  void append(const ArrowArray& batch, const Watch& watch);
  // Seals what is open. append() must not follow.
  void finish();
  // The manifest, whose segments are then the caller's to drop. After finish().
  Manifest release_manifest(const std::string& agent_id);

 private:
  struct Column {
    Field field;
    size_t input;
    uint32_t node;
  };

  void append_chunk(const ArrowArray& batch, int64_t first, int64_t count);
  template <typename Rows>
  void append_columns(const ArrowArray& batch, const ChunkSplit& split, Rows rows);
  void read_ahead(const ArrowArray& batch, size_t at, int64_t first, int64_t rows);
  template <typename Rows>
  void append_slowly(const ArrowArray& batch, uint32_t partition, Rows rows, size_t count);
  template <typename Rows>
  bool try_append(const ArrowArray& batch, uint32_t partition, Rows rows, size_t count);

  bool make_room(uint32_t partition, uint64_t rows);
  void open(uint32_t partition, uint64_t rows);
  bool grow(BatchBuilder& builder, const Shortage& shortage, bool beyond_limit);
  void lay_out(BatchBuilder& builder, const std::vector<NodeExtent>& capacity);
  void seal(uint32_t partition);

  void seal_aged();
  void seal_all();

  [[nodiscard]] std::vector<NodeExtent> capacity_for(uint64_t rows) const;
  [[nodiscard]] uint64_t rows_within(uint64_t bytes) const;

  std::shared_ptr<SegmentStore> store_;
  const uint64_t output_number_;
  const OutputName name_;
  const BatchLimits limits_;
  const std::string sort_key_;
  Partitioner partitioner_;
  Field stored_;
  std::vector<Column> columns_;
  BatchShape shape_;
  ColumnGather gather_;
  std::vector<uint64_t> rows_per_row_;     // rows of a node per row of the batch, 0 where data decides it
  std::vector<NodeExtent> totals_;         // measured so far, to size batches
  std::vector<BatchBuilder> builders_;
  std::vector<uint8_t> deferred_;
  std::vector<PartitionSegments> partitions_;
  WriterCost cost_;
  std::shared_ptr<LiveChannels> channels_;
  Clock::time_point sealed_all_{};
  bool owns_segments_ = true;
};

}  // namespace sabot
