// A ticket's batches from an agent on another host, as an Arrow stream.
#pragma once

#include <arrow/flight/client.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "flight_channels.hpp"
#include "sabot/arrow_abi.hpp"
#include "sabot/stream_guard.hpp"

namespace sabot {

// One read of a ticket, which any number of streams may repeat. Thread-safe.
class RemoteRead : public std::enable_shared_from_this<RemoteRead> {
 public:
  RemoteRead(std::shared_ptr<FlightChannels> channels, arrow::flight::Ticket ticket, arrow::flight::FlightCallOptions options);

  // Calls the server and waits for the schema. Raises the server's Error, or kDeadline, kLost, kCancelled.
  void open(ArrowArrayStream* out);
  // As open(), but does not wait: what the server answers is seen when the stream is read.
  void start(ArrowArrayStream* out);
  // Ends every stream of this read with Error(kCancelled), also those whose consumer waits for a batch.
  void cancel() { end(Error(ErrorCode::kCancelled, "the read was cancelled")); }
  // As cancel(), with another reason; the first one stands.
  void end(const Error& reason);
  [[nodiscard]] ErrorSlot& error() noexcept { return error_; }

 private:
  friend class RemoteCall;
  // A call that is being opened, by a thread of its own: until the server has said its first word it cannot be cancelled, so whoever
  // waits for that must be able to leave it alone.
  struct Opening {
    std::unique_ptr<FlightChannels::Lease> lease;
    std::unique_ptr<arrow::flight::FlightStreamReader> reader;
    std::optional<Error> failure;
    bool done = false;
    bool abandoned = false;
  };

  std::shared_ptr<Opening> begin();
  // Waits until it is open. Raises its failure, or what ended the read.
  void await(Opening& opening);
  void abandon(Opening& opening) noexcept;
  void leave(arrow::flight::FlightStreamReader* reader) noexcept;
  // The error to report for a call that ended with `status`.
  [[nodiscard]] Error error_of(const arrow::Status& status);

  const std::shared_ptr<FlightChannels> channels_;
  const arrow::flight::Ticket ticket_;
  const arrow::flight::FlightCallOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<arrow::flight::FlightStreamReader*> calls_;
  std::optional<Error> ended_;
  ErrorSlot error_;
};

}  // namespace sabot
