// Arrow Flight server over a manager's committed partitions.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "compression.hpp"
#include "sabot/ticket_source.hpp"

namespace sabot {

struct FlightServerConfig {
  std::string host;
  int port = 0;                 // 0: any
  std::string token;            // empty: none is asked for
  std::string tls_certificate;  // PEM; empty: no TLS
  std::string tls_key;
  std::string tls_client_root;  // PEM; empty: clients need no certificate
  CompressionConfig compression;
};

struct FlightServerMetrics {
  uint64_t streams, lz4_streams, zstd_streams, refused, messages, rows, bytes, sent_bytes;
};

// Serves DoGet on threads of its own; every other verb is refused by Flight itself.
class FlightServer {
 public:
  // Owns `source`. Raises Error when it cannot listen.
  FlightServer(SabotTicketSource source, const FlightServerConfig& config);
  ~FlightServer();
  FlightServer(const FlightServer&) = delete;
  FlightServer& operator=(const FlightServer&) = delete;

  [[nodiscard]] int port() const;
  [[nodiscard]] FlightServerMetrics metrics() const;
  void shutdown();

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace sabot
