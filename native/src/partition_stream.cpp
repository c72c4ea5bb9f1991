#include "sabot/partition_stream.hpp"

namespace sabot {

ReadPlan::ReadPlan(Field schema, std::vector<Item> items, Watch watch)
    : schema_(std::move(schema)), shape_(schema_), items_(std::move(items)), watch_(std::move(watch)) {
  for (const Item& item : items_) rows_ += item.segment.rows;
}

namespace {

struct StreamState {
  std::shared_ptr<ReadPlan> plan;
  size_t next = 0;
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
  state->plan = std::move(plan);
  *out = {get_schema, get_next, get_last_error, release_stream, state.release()};
}

}  // namespace sabot
