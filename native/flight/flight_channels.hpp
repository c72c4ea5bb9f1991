// The channels to one Flight server, and how much may wait in them for readers that do not read.
#pragma once

#include <arrow/flight/client.h>

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

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
  uint32_t silence_ms = 0;            // reads of a server that answers nothing for so long end; 0: they do not
};

// A client whose calls share a connection with those of the same `connection` number alone. A credit of 0 is gRPC's own.
// Raises Error(kInvalidArgument) for an address beyond loopback without TLS.
std::shared_ptr<arrow::flight::FlightClient> connect_flight(const FlightClientConfig& config, uint32_t connection, uint32_t credit_bytes);
// A number that no other client of this process has: gRPC joins connections that have the same arguments, also broken ones.
uint32_t new_connection();

// A call's credit is fixed by its channel. The first calls have the whole of it; the more are open at a time, the less a
// further one gets, so that many stalled readers cost little more than a few. Thread-safe.
class FlightChannels : public std::enable_shared_from_this<FlightChannels> {
 public:
  explicit FlightChannels(FlightClientConfig config);

  // Counts a call as open for as long as it lives.
  class Lease {
   public:
    Lease(std::shared_ptr<FlightChannels> channels, std::shared_ptr<arrow::flight::FlightClient> client);
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease();
    arrow::flight::FlightClient& client() { return *client_; }

   private:
    const std::shared_ptr<FlightChannels> channels_;
    const std::shared_ptr<arrow::flight::FlightClient> client_;
  };
  std::unique_ptr<Lease> lease();

 private:
  static constexpr size_t kTiers = 4;

  [[nodiscard]] uint32_t credit_of(size_t tier) const;
  std::shared_ptr<arrow::flight::FlightClient> connect(size_t tier) const;

  const FlightClientConfig config_;
  std::mutex mutex_;
  uint64_t open_ = 0;
  uint64_t next_ = 0;
  std::array<std::vector<std::shared_ptr<arrow::flight::FlightClient>>, kTiers> clients_;  // made when first needed
};

}  // namespace sabot
