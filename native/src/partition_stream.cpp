#include "sabot/partition_stream.hpp"

#include <cerrno>

namespace sabot {

ReadPlan::ReadPlan(Field schema, std::vector<Item> items, Watch watch)
    : schema_(std::move(schema)), shape_(schema_), items_(std::move(items)), watch_(std::move(watch)) {
  for (const Item& item : items_) rows_ += item.segment.rows;
}

void ReadPlan::set_error(const Error& error) {
  const std::lock_guard lock(mutex_);
  error_ = error;
}

std::optional<Error> ReadPlan::error() const {
  const std::lock_guard lock(mutex_);
  return error_;
}

namespace {

struct StreamState {
  std::shared_ptr<ReadPlan> plan;
  size_t next = 0;
  std::string last_error;
};

StreamState& state_of(ArrowArrayStream* stream) { return *static_cast<StreamState*>(stream->private_data); }

int error_number(ErrorCode code) {
  switch (code) {
    case ErrorCode::kCancelled: return ECANCELED;
    case ErrorCode::kDeadline: return ETIMEDOUT;
    default: return EIO;
  }
}

// Runs the body of a callback; an exception becomes the stream's last error.
template <typename Body>
int guarded(StreamState& state, Body body) {
  try {
    body();
    return 0;
  } catch (const Error& error) {
    state.last_error = error.what();
    state.plan->set_error(error);
    return error_number(error.code());
  } catch (const std::exception& error) {
    state.last_error = error.what();
    state.plan->set_error(Error(ErrorCode::kInternal, error.what()));
    return EIO;
  }
}

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
  return guarded(state, [&] { export_field(state.plan->schema(), out); });
}

int get_next(ArrowArrayStream* stream, ArrowArray* out) {
  StreamState& state = state_of(stream);
  return guarded(state, [&] { next_batch(state, out); });
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
