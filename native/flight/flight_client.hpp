// The connections to one agent's Flight server.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "flight_channels.hpp"
#include "remote_stream.hpp"

namespace sabot {

// Reads share the connections: a call is a stream within one. Thread-safe.
class FlightClientPool {
 public:
  explicit FlightClientPool(const FlightClientConfig& config);

  // The partitions that a ticket names; every call to the server is to end within `deadline_ms`.
  std::shared_ptr<RemoteRead> read(const std::string& ticket, int64_t deadline_ms);

 private:
  std::string token_;
  std::shared_ptr<FlightChannels> channels_;
};

}  // namespace sabot
