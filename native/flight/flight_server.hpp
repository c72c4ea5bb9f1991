// Arrow Flight server over a manager's committed partitions.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "compression.hpp"
#include "exchange.hpp"
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

// Serves DoGet from its sources, exchanges and the health action, on threads of its own; every other verb is refused by Flight
// itself. A pulse is answered and health is told without any lock of an interpreter's.
class FlightServer {
 public:
  // Raises Error when it cannot listen.
  explicit FlightServer(const FlightServerConfig& config);
  ~FlightServer();
  FlightServer(const FlightServer&) = delete;
  FlightServer& operator=(const FlightServer&) = delete;

  // Opens the tickets that were sealed with the key of `source`, which it owns, until it is removed. Streams that are open stay so.
  void add_source(const std::string& name, SabotTicketSource source);
  void remove_source(const std::string& name);
  // What the health action answers from now on.
  void set_health(const std::string& text);
  // The next exchange that a client opened; none within the time, or where it is shut down.
  std::shared_ptr<Exchange> accept(int64_t timeout_ms);

  [[nodiscard]] int port() const;
  [[nodiscard]] FlightServerMetrics metrics() const;
  void shutdown();

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace sabot
