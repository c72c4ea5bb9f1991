#include "remote_stream.hpp"

#include <arrow/c/bridge.h>
#include <arrow/record_batch.h>

#include <optional>
#include <thread>

#include "batch_validation.hpp"
#include "flight_errors.hpp"
#include "message_header.hpp"

namespace sabot {

namespace flight = arrow::flight;

RemoteRead::RemoteRead(std::shared_ptr<FlightChannels> channels, flight::Ticket ticket, flight::FlightCallOptions options)
    : channels_(std::move(channels)), ticket_(std::move(ticket)), options_(std::move(options)) {}

std::shared_ptr<RemoteRead::Opening> RemoteRead::begin() {
  {
    const std::lock_guard lock(mutex_);
    if (ended_) throw *ended_;
  }
  auto opening = std::make_shared<Opening>();
  std::thread([read = shared_from_this(), opening] {
    std::unique_ptr<FlightChannels::Lease> lease;
    std::unique_ptr<flight::FlightStreamReader> reader;
    std::optional<Error> failure;
    try {
      lease = read->channels_->lease();
      auto opened = lease->client().DoGet(read->options_, read->ticket_);
      if (opened.ok()) {
        reader = std::move(*opened);
      } else {
        failure = from_status(opened.status());
      }
    } catch (const Error& error) {
      failure = error;
    } catch (const std::exception& error) {
      failure = Error(ErrorCode::kInternal, error.what());
    }
    const std::lock_guard lock(read->mutex_);
    if (opening->abandoned) {
      if (reader) reader->Cancel();
      return;
    }
    if (reader) read->calls_.insert(reader.get());
    opening->lease = std::move(lease);
    opening->reader = std::move(reader);
    opening->failure = failure;
    opening->done = true;
    read->changed_.notify_all();
  }).detach();
  return opening;
}

void RemoteRead::await(Opening& opening) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return opening.done || ended_; });
  if (ended_) throw *ended_;
  if (opening.failure) throw *opening.failure;
}

void RemoteRead::abandon(Opening& opening) noexcept {
  const std::lock_guard lock(mutex_);
  opening.abandoned = true;
}

void RemoteRead::leave(flight::FlightStreamReader* reader) noexcept {
  const std::lock_guard lock(mutex_);
  calls_.erase(reader);
}

void RemoteRead::end(const Error& reason) {
  const std::lock_guard lock(mutex_);
  if (!ended_) ended_ = reason;
  for (flight::FlightStreamReader* reader : calls_) reader->Cancel();
  changed_.notify_all();
}

Error RemoteRead::error_of(const arrow::Status& status) {
  const std::lock_guard lock(mutex_);
  return ended_ ? *ended_ : from_status(status);
}

// One call to the server.
class RemoteCall {
 public:
  explicit RemoteCall(std::shared_ptr<RemoteRead> read) : read_(std::move(read)), opening_(read_->begin()) {}
  RemoteCall(const RemoteCall&) = delete;
  RemoteCall& operator=(const RemoteCall&) = delete;
  ~RemoteCall() {
    read_->abandon(*opening_);
    if (!opening_->reader) return;
    read_->leave(opening_->reader.get());
    if (!complete_) opening_->reader->Cancel();  // the server must not go on sending to nobody
  }

  void learn_schema() {
    if (schema_) return;
    read_->await(*opening_);
    auto schema = opening_->reader->GetSchema();
    if (!schema.ok()) throw read_->error_of(schema.status());
    const arrow::Status valid = validate_schema(**schema);
    if (!valid.ok()) throw Error(ErrorCode::kCorrupt, "the schema of the stream is damaged: " + valid.message());
    schema_ = std::move(*schema);
  }

  void export_schema(ArrowSchema* out) {
    learn_schema();
    require(arrow::ExportSchema(*schema_, out));
  }

  void next(ArrowArray* out) {
    *out = ArrowArray{};
    learn_schema();
    while (!complete_) {
      const auto batch = receive();
      if (batch && batch->num_rows() > 0) {
        require(arrow::ExportRecordBatch(*batch, out));
        return;
      }
    }
  }

  [[nodiscard]] ErrorSlot& error() noexcept { return read_->error(); }

  std::string last_error;

 private:
  // None at the end of the stream, which must have been announced.
  std::shared_ptr<arrow::RecordBatch> receive() {
    auto chunk = opening_->reader->Next();
    if (!chunk.ok()) throw read_->error_of(chunk.status());
    if (!chunk->data && !chunk->app_metadata) {
      if (!announced_end_) throw Error(ErrorCode::kLost, "the stream ended before all of its rows had come");
      complete_ = true;
      return nullptr;
    }
    check(*chunk);
    return chunk->data;
  }

  void check(const flight::FlightStreamChunk& chunk) {
    const auto header = chunk.app_metadata ? decode_header(std::string_view(*chunk.app_metadata)) : std::nullopt;
    if (!chunk.data || !header) throw Error(ErrorCode::kCorrupt, "a message of the stream is malformed");
    const bool continues = !announced_end_ && header->rows_before == rows_ && header->rows == static_cast<uint64_t>(chunk.data->num_rows()) &&
                           header->last == (header->remaining_segments == 0);
    if (!continues) throw Error(ErrorCode::kCorrupt, "a message of the stream has other rows than it says, or another was left out");
    rows_ += header->rows;
    announced_end_ = header->last;
    const arrow::Status valid = validate_batch(*chunk.data);
    if (!valid.ok()) throw Error(ErrorCode::kCorrupt, "a batch of the stream is damaged: " + valid.message());
  }

  const std::shared_ptr<RemoteRead> read_;
  const std::shared_ptr<RemoteRead::Opening> opening_;
  std::shared_ptr<arrow::Schema> schema_;
  uint64_t rows_ = 0;
  bool announced_end_ = false;
  bool complete_ = false;
};

namespace {

RemoteCall& call_of(ArrowArrayStream* stream) { return *static_cast<RemoteCall*>(stream->private_data); }

int get_schema(ArrowArrayStream* stream, ArrowSchema* out) {
  RemoteCall& call = call_of(stream);
  return guard_stream(call.last_error, call.error(), [&] { call.export_schema(out); });
}

int get_next(ArrowArrayStream* stream, ArrowArray* out) {
  RemoteCall& call = call_of(stream);
  return guard_stream(call.last_error, call.error(), [&] { call.next(out); });
}

const char* get_last_error(ArrowArrayStream* stream) {
  const RemoteCall& call = call_of(stream);
  return call.last_error.empty() ? nullptr : call.last_error.c_str();
}

void release_stream(ArrowArrayStream* stream) {
  const std::unique_ptr<RemoteCall> call(static_cast<RemoteCall*>(stream->private_data));
  stream->release = nullptr;
}

}  // namespace

void RemoteRead::open(ArrowArrayStream* out) {
  auto call = std::make_unique<RemoteCall>(shared_from_this());
  call->learn_schema();
  *out = {get_schema, get_next, get_last_error, release_stream, call.release()};
}

void RemoteRead::start(ArrowArrayStream* out) {
  *out = {get_schema, get_next, get_last_error, release_stream, std::make_unique<RemoteCall>(shared_from_this()).release()};
}

}  // namespace sabot
