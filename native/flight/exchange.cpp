#include "exchange.hpp"

#include <arrow/buffer.h>
#include <arrow/c/bridge.h>
#include <arrow/record_batch.h>
#include <arrow/util/byte_size.h>

#include <algorithm>
#include <chrono>
#include <string_view>

#include "batch_validation.hpp"
#include "flight_errors.hpp"

namespace sabot {

namespace flight = arrow::flight;

namespace {

constexpr size_t kPieceBytes = 1 << 20;
constexpr size_t kMaxMessageBytes = size_t{5} << 28;  // what a frame may have, and its header
constexpr size_t kMaxBatchBytes = 8 << 20;
constexpr size_t kMaxWaiting = 256;
// First byte of a piece: there is more of this message, it ends here, or it ends a stream and says how many rows that had.
constexpr char kMore = '+';
constexpr char kLast = '.';
constexpr char kRows = '#';

Error lost(const arrow::Status& status) {
  const Error error = from_status(status);
  return error.code() == ErrorCode::kTicket ? error : Error(ErrorCode::kLost, error.what());
}

std::string_view piece_of(const flight::FlightStreamChunk& chunk) {
  const auto piece = chunk.app_metadata ? std::string_view(*chunk.app_metadata) : std::string_view();
  if (piece.empty()) throw Error(ErrorCode::kCorrupt, "a message of the exchange is malformed");
  return piece;
}

}  // namespace

Exchange::Use::Use(Exchange& exchange) : exchange_(exchange) {
  const std::lock_guard lock(exchange_.mutex_);
  if (exchange_.closed_) throw Error(ErrorCode::kLost, "the exchange was closed");
  ++exchange_.uses_;
}

Exchange::Use::~Use() {
  const std::lock_guard lock(exchange_.mutex_);
  --exchange_.uses_;
  exchange_.idle_.notify_all();
}

void Exchange::send_piece(std::string piece) {
  const arrow::Status status = writer().WriteMetadata(arrow::Buffer::FromString(std::move(piece)));
  if (!status.ok()) throw lost(status);
}

void Exchange::send(const std::string& message) {
  const Use use(*this);
  const std::lock_guard lock(sending_);
  size_t at = 0;
  do {
    const size_t size = std::min(kPieceBytes, message.size() - at);
    send_piece((at + size < message.size() ? kMore : kLast) + message.substr(at, size));
    at += size;
  } while (at < message.size());
}

std::optional<std::string> Exchange::receive() {
  const Use use(*this);
  std::string message;
  for (bool first = true;; first = false) {
    auto chunk = next();
    if (!chunk.ok()) throw lost(chunk.status());
    if (!chunk->data && !chunk->app_metadata) {
      if (first) return std::nullopt;
      throw Error(ErrorCode::kLost, "the exchange ended inside a message");
    }
    const std::string_view piece = piece_of(*chunk);
    if (chunk->data || (piece.front() != kMore && piece.front() != kLast) || message.size() + piece.size() > kMaxMessageBytes) {
      throw Error(ErrorCode::kCorrupt, "a message of the exchange is malformed or too large");
    }
    message.append(piece.substr(1));
    if (piece.front() == kLast) return message;
  }
}

namespace {

// Row by row if need be, so that no message is much larger than its largest row.
arrow::Status write_in_pieces(flight::MetadataRecordBatchWriter& writer, const std::shared_ptr<arrow::RecordBatch>& batch) {
  ARROW_ASSIGN_OR_RAISE(const int64_t bytes, arrow::util::ReferencedBufferSize(*batch));
  if (batch->num_rows() < 2 || bytes <= static_cast<int64_t>(kMaxBatchBytes)) return writer.WriteRecordBatch(*batch);
  const int64_t half = batch->num_rows() / 2;
  ARROW_RETURN_NOT_OK(write_in_pieces(writer, batch->Slice(0, half)));
  return write_in_pieces(writer, batch->Slice(half));
}

}  // namespace

void Exchange::send_stream(ArrowArrayStream* stream) {
  const Use use(*this);
  const std::lock_guard lock(sending_);
  const auto source = arrow::ImportRecordBatchReader(stream);
  if (!source.ok()) throw Error(ErrorCode::kStream, source.status().message());
  arrow::Status status = writer().Begin((*source)->schema());
  uint64_t rows = 0;
  while (status.ok()) {
    auto batch = (*source)->Next();
    if (!batch.ok()) throw Error(ErrorCode::kStream, batch.status().message());
    if (!*batch) break;
    rows += static_cast<uint64_t>((*batch)->num_rows());
    status = write_in_pieces(writer(), *batch);
  }
  if (!status.ok()) throw lost(status);
  send_piece(kRows + std::to_string(rows));
}

// The batches of an upload, up to the message that says how many rows there were.
class UploadReader {
 public:
  explicit UploadReader(std::shared_ptr<Exchange> exchange) : exchange_(std::move(exchange)), use_(*exchange_) {
    auto schema = exchange_->schema();
    if (!schema.ok()) throw lost(schema.status());
    const arrow::Status valid = validate_schema(**schema);
    if (!valid.ok()) throw Error(ErrorCode::kCorrupt, "the schema of an upload is damaged: " + valid.message());
    schema_ = std::move(*schema);
  }

  void export_schema(ArrowSchema* out) const { require(arrow::ExportSchema(*schema_, out)); }

  void next(ArrowArray* out) {
    *out = ArrowArray{};
    while (!complete_) {
      auto chunk = exchange_->next();
      if (!chunk.ok()) throw lost(chunk.status());
      if (chunk->data) {
        const arrow::Status valid = validate_batch(*chunk->data);
        if (!valid.ok()) throw Error(ErrorCode::kCorrupt, "a batch of an upload is damaged: " + valid.message());
        rows_ += static_cast<uint64_t>(chunk->data->num_rows());
        if (chunk->data->num_rows() == 0) continue;
        require(arrow::ExportRecordBatch(*chunk->data, out));
        return;
      }
      if (!chunk->app_metadata) throw Error(ErrorCode::kLost, "an upload ended before all of its rows had come");
      if (piece_of(*chunk) != kRows + std::to_string(rows_)) throw Error(ErrorCode::kCorrupt, "an upload has other rows than it says");
      complete_ = true;
    }
  }

  [[nodiscard]] ErrorSlot& error() noexcept { return exchange_->error(); }

  std::string last_error;

 private:
  const std::shared_ptr<Exchange> exchange_;
  const Exchange::Use use_;
  std::shared_ptr<arrow::Schema> schema_;
  uint64_t rows_ = 0;
  bool complete_ = false;
};

namespace {

UploadReader& upload_of(ArrowArrayStream* stream) { return *static_cast<UploadReader*>(stream->private_data); }

int upload_schema(ArrowArrayStream* stream, ArrowSchema* out) {
  UploadReader& upload = upload_of(stream);
  return guard_stream(upload.last_error, upload.error(), [&] { upload.export_schema(out); });
}

int upload_next(ArrowArrayStream* stream, ArrowArray* out) {
  UploadReader& upload = upload_of(stream);
  return guard_stream(upload.last_error, upload.error(), [&] { upload.next(out); });
}

const char* upload_error(ArrowArrayStream* stream) {
  const UploadReader& upload = upload_of(stream);
  return upload.last_error.empty() ? nullptr : upload.last_error.c_str();
}

void release_upload(ArrowArrayStream* stream) {
  const std::unique_ptr<UploadReader> upload(static_cast<UploadReader*>(stream->private_data));
  stream->release = nullptr;
}

}  // namespace

void Exchange::receive_stream(ArrowArrayStream* out) {
  auto upload = std::make_unique<UploadReader>(shared_from_this());
  *out = {upload_schema, upload_next, upload_error, release_upload, upload.release()};
}

ClientExchange::ClientExchange(std::string command, std::shared_ptr<flight::FlightClient> client, flight::FlightClient::DoExchangeResult call)
    : Exchange(std::move(command), ""), client_(std::move(client)), call_(std::move(call)) {}

ClientExchange::~ClientExchange() {
  call_.reader->Cancel();
  static_cast<void>(call_.writer->Close());  // nobody waits for how that ends, and Arrow would print it
}

void ClientExchange::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  call_.reader->Cancel();
}

void ServerExchange::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  idle_.notify_all();
}

void ServerExchange::wait_until_closed() {
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [&] { return closed_ && uses_ == 0; });
}

bool ExchangeQueue::offer(std::shared_ptr<ServerExchange> exchange) {
  const std::lock_guard lock(mutex_);
  if (closed_ || waiting_.size() >= kMaxWaiting) return false;
  std::erase_if(offered_, [](const auto& known) { return known.expired(); });
  offered_.push_back(exchange);
  waiting_.push_back(std::move(exchange));
  came_.notify_one();
  return true;
}

std::shared_ptr<Exchange> ExchangeQueue::take(int64_t timeout_ms) {
  std::unique_lock lock(mutex_);
  came_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] { return closed_ || !waiting_.empty(); });
  if (waiting_.empty()) return nullptr;
  auto exchange = std::move(waiting_.front());
  waiting_.pop_front();
  return exchange;
}

void ExchangeQueue::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  for (const auto& known : offered_) {
    if (const auto exchange = known.lock()) exchange->close();
  }
  waiting_.clear();
  came_.notify_all();
}

}  // namespace sabot
