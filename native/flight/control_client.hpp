// A connection of its own to one agent's server, for commands and events.
#pragma once

#include <arrow/flight/client.h>

#include <cstdint>
#include <memory>
#include <string>

#include "exchange.hpp"
#include "flight_channels.hpp"
#include "pulse.hpp"

namespace sabot {

// The action that tells how a server does.
constexpr const char* kHealthAction = "health";

// Thread-safe. Every new client has a new connection: one that broke is not waited for.
class ControlClient {
 public:
  // Raises Error(kInvalidArgument) for an address beyond loopback without TLS.
  explicit ControlClient(const FlightClientConfig& config);

  // What the server says of itself. Raises Error(kLost) or Error(kDeadline) when it does not answer in time, Error(kTicket) when
  // it refuses the token.
  std::string health(int64_t deadline_ms);
  // An exchange of any length; whether somebody answers shows with the first message.
  std::shared_ptr<Exchange> open(const std::string& command);
  std::unique_ptr<Pulse> pulse(int64_t interval_ms);

 private:
  const std::string token_;
  std::shared_ptr<arrow::flight::FlightClient> client_;
};

}  // namespace sabot
