#include "sabot/live_channels.hpp"
#include "sabot/stream_guard.hpp"

namespace sabot {
namespace {

struct LiveState {
  std::shared_ptr<LiveRead> read;
  std::optional<Field> schema;
  std::optional<BatchShape> shape;
  std::string last_error;
};

LiveState& state_of(ArrowArrayStream* stream) { return *static_cast<LiveState*>(stream->private_data); }

void learn_schema(LiveState& state) {
  if (state.schema) return;
  state.schema = state.read->channels->schema(state.read->keys.front(), state.read->watch);
  state.shape.emplace(*state.schema);
}

void next_batch(LiveState& state, ArrowArray* out) {
  *out = ArrowArray{};
  learn_schema(state);
  LiveRead& read = *state.read;
  const auto segment = read.channels->next(read.keys, read.first, read.last, read.watch);
  if (!segment) return;
  PinnedSegment pinned = read.store->pin(segment->id);
  read.store->drop({&segment->id, 1});  // freed when the consumer lets go of the batch
  export_batch(*state.shape, std::move(pinned), out);
}

int get_schema(ArrowArrayStream* stream, ArrowSchema* out) {
  LiveState& state = state_of(stream);
  return guard_stream(state.last_error, state.read->error, [&] {
    learn_schema(state);
    export_field(*state.schema, out);
  });
}

int get_next(ArrowArrayStream* stream, ArrowArray* out) {
  LiveState& state = state_of(stream);
  return guard_stream(state.last_error, state.read->error, [&] { next_batch(state, out); });
}

const char* get_last_error(ArrowArrayStream* stream) {
  const LiveState& state = state_of(stream);
  return state.last_error.empty() ? nullptr : state.last_error.c_str();
}

void release_stream(ArrowArrayStream* stream) {
  const std::unique_ptr<LiveState> state(static_cast<LiveState*>(stream->private_data));
  stream->release = nullptr;
}

}  // namespace

int live_stream_failure(ArrowArrayStream* stream) {
  const auto error = state_of(stream).read->error.get();
  return static_cast<int>(error ? error->code() : ErrorCode::kInternal) + 1;
}

void open_live_stream(std::shared_ptr<LiveRead> read, ArrowArrayStream* out) {
  auto state = std::make_unique<LiveState>();
  state->read = std::move(read);
  *out = {get_schema, get_next, get_last_error, release_stream, state.release()};
}

}  // namespace sabot
