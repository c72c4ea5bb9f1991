#include "flight_channels.hpp"

#include <algorithm>
#include <atomic>

#include "addresses.hpp"
#include "flight_errors.hpp"

namespace sabot {
namespace {

namespace flight = arrow::flight;

// So many calls have the whole credit; what all further ones have together grows with the logarithm of their number.
constexpr uint64_t kFullCredits = 8;
constexpr uint32_t kTierFactor = 4;
constexpr uint32_t kLeastCredit = 64 << 10;  // HTTP/2's own
constexpr int kConnectMs = 4000;

}  // namespace

std::shared_ptr<flight::FlightClient> connect_flight(const FlightClientConfig& config, uint32_t connection, uint32_t credit_bytes) {
  if (!config.tls && !is_loopback(config.host)) {
    throw Error(ErrorCode::kInvalidArgument, "refusing to read from " + config.host + " without TLS: give tls_root_certificate");
  }
  const std::string host = uri_host(config.host);
  const flight::Location location =
      require(config.tls ? flight::Location::ForGrpcTls(host, config.port) : flight::Location::ForGrpcTcp(host, config.port));
  flight::FlightClientOptions options = flight::FlightClientOptions::Defaults();
  options.tls_root_certs = config.tls_root_certificate;
  options.cert_chain = config.tls_certificate;
  options.private_key = config.tls_key;
  options.generic_options = {
      {"sabot.connection", static_cast<int>(connection)},
      // So long may a connection take to be made: until it is, a call cannot be cancelled. By default it is 20 s.
      {"grpc.min_reconnect_backoff_ms", kConnectMs},
      {"grpc.initial_reconnect_backoff_ms", kConnectMs / 10},
      {"grpc.max_reconnect_backoff_ms", kConnectMs},
  };
  if (credit_bytes > 0) {
    // A fixed window instead of one that grows with the speed: it bounds what waits for a slow reader.
    options.generic_options.emplace_back("grpc.http2.bdp_probe", 0);
    options.generic_options.emplace_back("grpc.http2.lookahead_bytes", static_cast<int>(credit_bytes));
  }
  return require(flight::FlightClient::Connect(location, options));
}

uint32_t new_connection() {
  static std::atomic<uint32_t> last{0};
  return ++last & 0x7fffffff;
}

FlightChannels::FlightChannels(FlightClientConfig config) : config_(std::move(config)) {
  clients_[0].push_back(connect(0));  // a wrong certificate or address is said at once
}

FlightChannels::Lease::Lease(std::shared_ptr<FlightChannels> channels, std::shared_ptr<flight::FlightClient> client)
    : channels_(std::move(channels)), client_(std::move(client)) {}

FlightChannels::Lease::~Lease() {
  const std::lock_guard lock(channels_->mutex_);
  --channels_->open_;
}

std::unique_ptr<FlightChannels::Lease> FlightChannels::lease() {
  const std::lock_guard lock(mutex_);
  const uint64_t share = kFullCredits * config_.credit_bytes / (open_ + 1);
  size_t tier = 0;
  while (tier + 1 < kTiers && credit_of(tier) > share && credit_of(tier + 1) < credit_of(tier)) ++tier;
  auto& clients = clients_[tier];
  const uint32_t wanted = std::max(1u, config_.connections);
  if (clients.size() < wanted) clients.push_back(connect(tier));
  auto lease = std::make_unique<Lease>(shared_from_this(), clients[next_++ % clients.size()]);
  ++open_;
  return lease;
}

uint32_t FlightChannels::credit_of(size_t tier) const {
  uint32_t credit = config_.credit_bytes;
  for (size_t i = 0; i < tier; ++i) credit = std::max(std::min(credit, kLeastCredit), credit / kTierFactor);
  return credit;
}

std::shared_ptr<flight::FlightClient> FlightChannels::connect(size_t tier) const {
  return connect_flight(config_, new_connection(), credit_of(tier));
}

}  // namespace sabot
