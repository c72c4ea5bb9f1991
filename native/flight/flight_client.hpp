// Pooled Arrow Flight clients that read partitions of agents on other hosts.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "sabot/arrow_abi.hpp"

namespace sabot {

struct FlightClientConfig {
  std::string host;
  int port = 0;
  std::string tls_root_certificate;   // PEM; empty: no TLS
  uint32_t connections = 2;
};

// One agent's server. Reads are spread over a few connections, each of which multiplexes any number of them. Thread-safe.
class FlightClientPool {
 public:
  explicit FlightClientPool(const FlightClientConfig& config);
  ~FlightClientPool();
  FlightClientPool(const FlightClientPool&) = delete;
  FlightClientPool& operator=(const FlightClientPool&) = delete;

  // The stream a ticket names. Every batch is validated in full before it is handed on. A negative deadline: none.
  void read(const std::string& ticket, int64_t deadline_ms, ArrowArrayStream* out);

 private:
  class Implementation;
  std::shared_ptr<Implementation> implementation_;
};

}  // namespace sabot
