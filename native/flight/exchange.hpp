// Messages in both directions over one DoExchange call, and at most one Arrow stream from client to server.
#pragma once

#include <arrow/flight/client.h>
#include <arrow/flight/server.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "sabot/arrow_abi.hpp"
#include "sabot/stream_guard.hpp"

namespace sabot {

// One end of an exchange. A message of any size arrives whole: it travels in pieces, so no limit of a message applies.
// Any thread may send, one receives.
class Exchange : public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(std::string command, std::string peer) : command_(std::move(command)), peer_(std::move(peer)) {}
  virtual ~Exchange() = default;
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  // What the client asked for.
  [[nodiscard]] const std::string& command() const noexcept { return command_; }
  // The address of the client, as gRPC names it.
  [[nodiscard]] const std::string& peer() const noexcept { return peer_; }

  // Waits while the connection is full. Raises Error(kLost) once the other end is gone.
  void send(const std::string& message);
  // Waits for the next message; none once the other end has ended the exchange. Raises Error(kLost) where it broke.
  std::optional<std::string> receive();
  // At the client: sends all batches and says how many rows they had, without which the server takes none of them.
  void send_stream(ArrowArrayStream* stream);
  // At the server: the batches that the client sends. They are checked as those of any peer.
  void receive_stream(ArrowArrayStream* out);
  [[nodiscard]] ErrorSlot& error() noexcept { return error_; }

  // Ends the exchange; whoever waits in it is woken, at the client at once.
  virtual void close() = 0;

 protected:
  // Keeps the exchange's reader and writer while they are used. Raises Error(kLost) when it is closed.
  class Use {
   public:
    explicit Use(Exchange& exchange);
    ~Use();
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    Exchange& exchange_;
  };

  virtual arrow::Result<arrow::flight::FlightStreamChunk> next() = 0;
  virtual arrow::Result<std::shared_ptr<arrow::Schema>> schema() = 0;
  virtual arrow::flight::MetadataRecordBatchWriter& writer() = 0;

  std::mutex mutex_;
  std::condition_variable idle_;
  uint32_t uses_ = 0;
  bool closed_ = false;

 private:
  friend class UploadReader;
  void send_piece(std::string piece);

  const std::string command_;
  const std::string peer_;
  std::mutex sending_;
  ErrorSlot error_;
};

class ClientExchange : public Exchange {
 public:
  ClientExchange(std::string command, std::shared_ptr<arrow::flight::FlightClient> client,
                 arrow::flight::FlightClient::DoExchangeResult call);
  ~ClientExchange() override;
  void close() override;

 protected:
  arrow::Result<arrow::flight::FlightStreamChunk> next() override { return call_.reader->Next(); }
  arrow::Result<std::shared_ptr<arrow::Schema>> schema() override { return call_.reader->GetSchema(); }
  arrow::flight::MetadataRecordBatchWriter& writer() override { return *call_.writer; }

 private:
  const std::shared_ptr<arrow::flight::FlightClient> client_;  // outlives the call
  arrow::flight::FlightClient::DoExchangeResult call_;
};

class ServerExchange : public Exchange {
 public:
  ServerExchange(std::string command, std::string peer, arrow::flight::FlightMessageReader& reader, arrow::flight::FlightMessageWriter& writer)
      : Exchange(std::move(command), std::move(peer)), reader_(reader), writer_(writer) {}
  void close() override;
  // Returns when it is closed and nobody uses the call any more, which then may end.
  void wait_until_closed();

 protected:
  arrow::Result<arrow::flight::FlightStreamChunk> next() override { return reader_.Next(); }
  arrow::Result<std::shared_ptr<arrow::Schema>> schema() override { return reader_.GetSchema(); }
  arrow::flight::MetadataRecordBatchWriter& writer() override { return writer_; }

 private:
  arrow::flight::FlightMessageReader& reader_;
  arrow::flight::FlightMessageWriter& writer_;
};

// Exchanges that clients opened and nobody has taken yet. Thread-safe.
class ExchangeQueue {
 public:
  // False where too many wait, or nobody will take any. What was offered is closed with the queue, also once it is taken.
  bool offer(std::shared_ptr<ServerExchange> exchange);
  // None when none came within the time, or the queue is closed.
  std::shared_ptr<Exchange> take(int64_t timeout_ms);
  void close();

 private:
  std::mutex mutex_;
  std::condition_variable came_;
  std::deque<std::shared_ptr<ServerExchange>> waiting_;
  std::vector<std::weak_ptr<ServerExchange>> offered_;
  bool closed_ = false;
};

}  // namespace sabot
