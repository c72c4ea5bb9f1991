// Committed batches as an Arrow stream, without copying.
#pragma once

#include <memory>
#include <vector>

#include "sabot/arrow_abi.hpp"
#include "sabot/batch_layout.hpp"
#include "sabot/manifest.hpp"
#include "sabot/segment_source.hpp"
#include "sabot/stream_guard.hpp"
#include "sabot/ticket_source.hpp"
#include "sabot/watch.hpp"

namespace sabot {

// The batches a stream delivers, in order. Immutable but for the last error; any number of streams may read it.
class ReadPlan {
 public:
  struct Item {
    std::shared_ptr<SegmentSource> source;
    SegmentRef segment;
  };

  ReadPlan(Field schema, std::vector<Item> items, Watch watch);

  [[nodiscard]] const Field& schema() const noexcept { return schema_; }
  [[nodiscard]] const BatchShape& shape() const noexcept { return shape_; }
  [[nodiscard]] const std::vector<Item>& items() const noexcept { return items_; }
  [[nodiscard]] const Watch& watch() const noexcept { return watch_; }
  [[nodiscard]] uint64_t rows() const noexcept { return rows_; }
  [[nodiscard]] uint64_t bytes() const noexcept { return bytes_; }

  [[nodiscard]] ErrorSlot& error() noexcept { return error_; }

 private:
  Field schema_;
  BatchShape shape_;
  std::vector<Item> items_;
  Watch watch_;
  uint64_t rows_ = 0;
  uint64_t bytes_ = 0;
  ErrorSlot error_;
};

// Starts reading from the first batch. The stream keeps the plan, and each array its segment, as long as they live.
void open_stream(std::shared_ptr<ReadPlan> plan, ArrowArrayStream* out);
// Of a stream that open_stream() made: see SabotTicketStream.
int stream_failure(ArrowArrayStream* stream);
void stream_remaining(ArrowArrayStream* stream, SabotStreamExtent* out);

// The batch in a pinned segment as an array, without copying.
void export_batch(const BatchShape& shape, PinnedSegment segment, ArrowArray* out);

}  // namespace sabot
