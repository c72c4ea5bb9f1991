// The connections to one agent's Flight server.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "remote_stream.hpp"

namespace sabot {

struct FlightClientConfig {
  std::string host;
  int port = 0;
  std::string token;                  // empty: none is sent
  bool tls = false;
  std::string tls_root_certificate;   // PEM; empty: those of the system
  std::string tls_certificate;        // PEM; empty: the client shows none
  std::string tls_key;
  uint32_t connections = 1;
  uint32_t credit_bytes = 4 << 20;    // of a stream that nobody has taken yet; gRPC may double it
};

// Reads share the connections: a call is a stream within one. Thread-safe.
class FlightClientPool {
 public:
  explicit FlightClientPool(const FlightClientConfig& config);

  // The partitions that a ticket names; every call to the server is to end within `deadline_ms`.
  std::shared_ptr<RemoteRead> read(const std::string& ticket, int64_t deadline_ms);

 private:
  std::string token_;
  std::vector<std::shared_ptr<arrow::flight::FlightClient>> clients_;
  std::atomic<size_t> next_{0};
};

}  // namespace sabot
