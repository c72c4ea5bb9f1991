#include "sabot/partition_stream.hpp"

namespace sabot {

ReadPlan::ReadPlan(Field schema, std::vector<Item> items, Watch watch)
    : schema_(std::move(schema)), shape_(schema_), items_(std::move(items)), watch_(std::move(watch)) {
  for (const Item& item : items_) {
    rows_ += item.segment.rows;
    bytes_ += item.segment.bytes;
  }
}

namespace {

struct StreamState {
  std::shared_ptr<ReadPlan> plan;
  size_t next = 0;
  uint64_t rows_left = 0;
  uint64_t bytes_left = 0;
  std::string last_error;
};

StreamState& state_of(ArrowArrayStream* stream) { return *static_cast<StreamState*>(stream->private_data); }

void next_batch(StreamState& state, ArrowArray* out) {
  const ReadPlan& plan = *state.plan;
  plan.watch().check();
  *out = ArrowArray{};
  if (state.next == plan.items().size()) return;
  const ReadPlan::Item& item = plan.items()[state.next];
  PinnedSegment segment = item.source->pin(item.segment.id);
  export_batch(plan.shape(), std::move(segment), out);
  if (static_cast<uint64_t>(out->length) != item.segment.rows) {
    out->release(out);
    throw Error(ErrorCode::kCorrupt, "a segment does not hold the rows of its manifest");
  }
  ++state.next;
  state.rows_left -= item.segment.rows;
  state.bytes_left -= item.segment.bytes;
}

int get_schema(ArrowArrayStream* stream, ArrowSchema* out) {
  StreamState& state = state_of(stream);
  return guard_stream(state.last_error, state.plan->error(), [&] { export_field(state.plan->schema(), out); });
}

int get_next(ArrowArrayStream* stream, ArrowArray* out) {
  StreamState& state = state_of(stream);
  return guard_stream(state.last_error, state.plan->error(), [&] { next_batch(state, out); });
}

const char* get_last_error(ArrowArrayStream* stream) {
  const StreamState& state = state_of(stream);
  return state.last_error.empty() ? nullptr : state.last_error.c_str();
}

void release_stream(ArrowArrayStream* stream) {
  const std::unique_ptr<StreamState> state(static_cast<StreamState*>(stream->private_data));
  stream->release = nullptr;
}

}  // namespace

void open_stream(std::shared_ptr<ReadPlan> plan, ArrowArrayStream* out) {
  auto state = std::make_unique<StreamState>();
  state->rows_left = plan->rows();
  state->bytes_left = plan->bytes();
  state->plan = std::move(plan);
  *out = {get_schema, get_next, get_last_error, release_stream, state.release()};
}

int stream_failure(ArrowArrayStream* stream) {
  const auto error = state_of(stream).plan->error().get();
  return static_cast<int>(error ? error->code() : ErrorCode::kInternal) + 1;
}

void stream_remaining(ArrowArrayStream* stream, SabotStreamExtent* out) {
  const StreamState& state = state_of(stream);
  *out = {state.plan->items().size() - state.next, state.rows_left, state.bytes_left};
}

}  // namespace sabot
