// The connections to one agent's Flight server.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "flight_channels.hpp"
#include "pulse.hpp"
#include "remote_stream.hpp"

namespace sabot {

// Reads share the connections: a call is a stream within one. Thread-safe.
class FlightClientPool {
 public:
  explicit FlightClientPool(const FlightClientConfig& config);

  // The partitions that a ticket names; every call to the server is to end within `deadline_ms`. Where a silence is configured, it
  // ends with Error(kLost) as well once the server has answered nothing for so long.
  std::shared_ptr<RemoteRead> read(const std::string& ticket, int64_t deadline_ms);

 private:
  void watch();
  void end_silent(uint64_t silent_ms);

  const FlightClientConfig config_;
  std::mutex mutex_;
  std::vector<std::weak_ptr<RemoteRead>> reads_;
  std::shared_ptr<FlightChannels> channels_;
  std::unique_ptr<Pulse> pulse_;  // once there is something to read; it calls into all of the above
};

}  // namespace sabot
