#include "payload_stream.hpp"

#include <arrow/c/bridge.h>
#include <arrow/ipc/dictionary.h>
#include <arrow/ipc/writer.h>
#include <arrow/record_batch.h>

#include "flight_errors.hpp"

namespace sabot {
namespace {

namespace flight = arrow::flight;

// gRPC and IPC cost some 20 us a message: below this size that is more than copying the rows into a larger message.
constexpr uint64_t kMessageBytes = 1 << 20;
constexpr uint64_t kLargeBytes = kMessageBytes / 8;

}  // namespace

PayloadStream::PayloadStream(SabotTicketStream source, std::shared_ptr<ServerCounters> counters, const CompressionConfig& compression,
                             std::string peer)
    : source_(source), batches_(&source.batches), counters_(std::move(counters)), compression_(compression), peer_(std::move(peer)),
      options_(arrow::ipc::IpcWriteOptions::Defaults()) {
  options_.alignment = kBodyAlignment;
}

arrow::Result<std::unique_ptr<PayloadStream>> PayloadStream::open(SabotTicketStream source, std::shared_ptr<ServerCounters> counters,
                                                                  const CompressionConfig& compression, std::string peer) {
  std::unique_ptr<PayloadStream> stream(new PayloadStream(source, std::move(counters), compression, std::move(peer)));
  ArrowSchema schema{};
  if (stream->batches_->get_schema(stream->batches_.get(), &schema) != 0) {
    return stream->failure("the stream has no schema");
  }
  ARROW_ASSIGN_OR_RAISE(stream->schema_, arrow::ImportSchema(&schema));
  ++stream->counters_->streams;
  return stream;
}

arrow::Result<flight::FlightPayload> PayloadStream::GetSchemaPayload() {
  flight::FlightPayload payload;
  ARROW_RETURN_NOT_OK(arrow::ipc::GetSchemaPayload(*schema_, options_, arrow::ipc::DictionaryFieldMapper(*schema_), &payload.ipc_message));
  return payload;
}

arrow::Status PayloadStream::failure(const char* otherwise) {
  ArrowArrayStream* batches = batches_.get();
  const char* message = batches->get_last_error(batches);
  return to_status(static_cast<ErrorCode>(source_.failure(batches) - 1), message != nullptr ? message : otherwise);
}

arrow::Result<std::optional<PayloadStream::Piece>> PayloadStream::pull() {
  if (held_) return std::exchange(held_, std::nullopt);
  ArrowArrayStream* batches = batches_.get();
  SabotStreamExtent before{};
  if (source_.remaining != nullptr) source_.remaining(batches, &before);
  ArrowArray array{};
  if (batches->get_next(batches, &array) != 0) {
    return failure("the stream failed");
  }
  if (array.release == nullptr) return std::nullopt;
  Piece piece;
  ARROW_ASSIGN_OR_RAISE(piece.batch, arrow::ImportRecordBatch(&array, schema_));
  if (source_.remaining != nullptr) {
    source_.remaining(batches, &piece.remaining);
    piece.bytes = before.bytes - piece.remaining.bytes;
  } else {
    piece.remaining = {MessageHeader::kUnknown, MessageHeader::kUnknown, MessageHeader::kUnknown};
  }
  return piece;
}

arrow::Result<std::vector<PayloadStream::Piece>> PayloadStream::gather() {
  std::vector<Piece> pieces;
  uint64_t bytes = 0;
  while (bytes < kMessageBytes) {
    ARROW_ASSIGN_OR_RAISE(auto piece, pull());
    if (!piece) break;
    if (!pieces.empty() && piece->bytes >= kLargeBytes) {
      held_ = std::move(piece);
      break;
    }
    bytes += piece->bytes;
    pieces.push_back(std::move(*piece));
    // A batch does not wait for another that is yet to be written.
    if (pieces.back().bytes >= kLargeBytes || source_.remaining == nullptr) break;
  }
  return pieces;
}

arrow::Status PayloadStream::choose(const arrow::RecordBatch& batch, uint64_t batch_bytes, const MessageHeader& header) {
  const uint64_t to_come = source_.remaining != nullptr ? header.remaining_bytes : 0;
  ARROW_ASSIGN_OR_RAISE(const auto codec, choose_codec(compression_, peer_, batch, batch_bytes, batch_bytes + to_come));
  if (codec == arrow::Compression::LZ4_FRAME) ++counters_->lz4_streams;
  if (codec == arrow::Compression::ZSTD) ++counters_->zstd_streams;
  return use_codec(codec, options_);
}

arrow::Result<flight::FlightPayload> PayloadStream::Next() {
  flight::FlightPayload payload;
  if (ended_) return payload;
  ARROW_ASSIGN_OR_RAISE(const auto pieces, gather());
  MessageHeader header;
  header.rows_before = rows_sent_;
  uint64_t bytes = 0;
  for (const Piece& piece : pieces) bytes += piece.bytes;
  std::shared_ptr<arrow::RecordBatch> batch;
  if (pieces.empty()) {
    // The end of a stream that had no batch, or did not know its last one, must be said, too.
    ARROW_ASSIGN_OR_RAISE(batch, arrow::RecordBatch::MakeEmpty(schema_));
  } else if (pieces.size() == 1) {
    batch = pieces.front().batch;
  } else {
    arrow::RecordBatchVector batches;
    for (const Piece& piece : pieces) batches.push_back(piece.batch);
    ARROW_ASSIGN_OR_RAISE(batch, arrow::ConcatenateRecordBatches(batches));
  }
  if (!pieces.empty()) {
    const SabotStreamExtent& remaining = pieces.back().remaining;
    header = {rows_sent_, static_cast<uint64_t>(batch->num_rows()), pieces.size(), remaining.batches, remaining.rows, remaining.bytes, false};
  }
  if (header.rows_before == 0 && !pieces.empty()) ARROW_RETURN_NOT_OK(choose(*batch, bytes, header));
  rows_sent_ += header.rows;
  ended_ = header.last = header.remaining_segments == 0;
  ARROW_RETURN_NOT_OK(arrow::ipc::GetRecordBatchPayload(*batch, options_, &payload.ipc_message));
  const auto body_bytes = static_cast<uint64_t>(payload.ipc_message.body_length);
  payload.app_metadata = arrow::Buffer::FromString(
      encode_header(header, static_cast<uint64_t>(payload.ipc_message.metadata->size()), body_bytes));
  ++counters_->messages;
  counters_->rows += header.rows;
  counters_->bytes += source_.remaining != nullptr ? bytes : body_bytes;
  counters_->sent_bytes += body_bytes;
  return payload;
}

}  // namespace sabot
