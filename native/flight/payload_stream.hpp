// The messages of one answer: batches straight from the segments that hold them, small ones put together.
#pragma once

#include <arrow/flight/server.h>
#include <arrow/ipc/options.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "compression.hpp"
#include "message_header.hpp"
#include "sabot/arrow_abi.hpp"
#include "sabot/ticket_source.hpp"

namespace sabot {

// Of all answers of a server. Readable while it runs.
struct ServerCounters {
  std::atomic<uint64_t> streams{0};
  std::atomic<uint64_t> lz4_streams{0};
  std::atomic<uint64_t> zstd_streams{0};
  std::atomic<uint64_t> refused{0};
  std::atomic<uint64_t> messages{0};
  std::atomic<uint64_t> rows{0};
  std::atomic<uint64_t> bytes{0};          // of batches, as they lie in memory
  std::atomic<uint64_t> sent_bytes{0};     // of batches, as they are sent
};

class PayloadStream : public arrow::flight::FlightDataStream {
 public:
  // Owns `source`. `peer` is who asked, as gRPC names it.
  static arrow::Result<std::unique_ptr<PayloadStream>> open(SabotTicketStream source, std::shared_ptr<ServerCounters> counters,
                                                            const CompressionConfig& compression, std::string peer);

  std::shared_ptr<arrow::Schema> schema() override { return schema_; }
  arrow::Result<arrow::flight::FlightPayload> GetSchemaPayload() override;
  arrow::Result<arrow::flight::FlightPayload> Next() override;

 private:
  PayloadStream(SabotTicketStream source, std::shared_ptr<ServerCounters> counters, const CompressionConfig& compression, std::string peer);

  struct Piece {
    std::shared_ptr<arrow::RecordBatch> batch;
    uint64_t bytes = 0;
    SabotStreamExtent remaining{};
  };

  // What ended the source, as its reader is to see it.
  arrow::Status failure(const char* otherwise);
  // The next batch of the source; none at its end.
  arrow::Result<std::optional<Piece>> pull();
  // Decides by the stream's first batch whether it is compressed.
  arrow::Status choose(const arrow::RecordBatch& batch, uint64_t batch_bytes, const MessageHeader& header);
  // As many small batches as make a message, or one that is large enough.
  arrow::Result<std::vector<Piece>> gather();

  SabotTicketStream source_;
  OwnedStream batches_;
  std::shared_ptr<ServerCounters> counters_;
  const CompressionConfig compression_;
  const std::string peer_;
  std::shared_ptr<arrow::Schema> schema_;
  arrow::ipc::IpcWriteOptions options_;
  std::optional<Piece> held_;              // pulled, but for the next message
  uint64_t rows_sent_ = 0;
  bool ended_ = false;
};

}  // namespace sabot
