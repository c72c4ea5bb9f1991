#include "flight_server.hpp"

#include <arrow/flight/server.h>
#include <arrow/flight/server_middleware.h>

#include "addresses.hpp"
#include "call_token.hpp"
#include "flight_errors.hpp"
#include "payload_stream.hpp"

namespace sabot {
namespace {

namespace flight = arrow::flight;

// Turns a call away before anything of it is looked at, whatever its verb.
class TokenGuard : public flight::ServerMiddlewareFactory {
 public:
  TokenGuard(std::string token, std::shared_ptr<ServerCounters> counters) : token_(std::move(token)), counters_(std::move(counters)) {}

  arrow::Status StartCall(const flight::CallInfo&, const flight::ServerCallContext& context,
                          std::shared_ptr<flight::ServerMiddleware>*) override {
    const auto [first, last] = context.incoming_headers().equal_range(kTokenHeader);
    if (first != last && std::next(first) == last && same_token(first->second, bearer(token_))) return arrow::Status::OK();
    ++counters_->refused;
    return to_status(ErrorCode::kTicket, "the call has no token of this session");
  }

 private:
  const std::string token_;
  const std::shared_ptr<ServerCounters> counters_;
};

}  // namespace

class FlightServer::Implementation : public flight::FlightServerBase {
 public:
  Implementation(SabotTicketSource source, const CompressionConfig& compression) : source_(source), compression_(compression) {}
  ~Implementation() override { source_.release(source_.context); }

  arrow::Status DoGet(const flight::ServerCallContext& context, const flight::Ticket& request,
                      std::unique_ptr<flight::FlightDataStream>* stream) override {
    SabotTicketStream opened{};
    char message[512] = "";
    const SabotCaller caller{[](const void* call) -> int { return static_cast<const flight::ServerCallContext*>(call)->is_cancelled(); },
                             &context};
    const int code = source_.open(source_.context, caller, request.ticket.data(), request.ticket.size(), &opened, message, sizeof message);
    if (code != 0) {
      ++counters_->refused;
      return to_status(static_cast<ErrorCode>(code - 1), message);
    }
    ARROW_ASSIGN_OR_RAISE(*stream, PayloadStream::open(opened, counters_, compression_, context.peer()));
    return arrow::Status::OK();
  }

  const std::shared_ptr<ServerCounters>& counters() const { return counters_; }

 private:
  SabotTicketSource source_;
  const CompressionConfig compression_;
  const std::shared_ptr<ServerCounters> counters_ = std::make_shared<ServerCounters>();
};

FlightServer::FlightServer(SabotTicketSource source, const FlightServerConfig& config)
    : implementation_(std::make_unique<Implementation>(source, config.compression)) {
  check_compression(config.compression);
  const bool tls = !config.tls_certificate.empty();
  if (!is_loopback(config.host) && (!tls || config.tls_key.empty() || config.token.empty())) {
    throw Error(ErrorCode::kInvalidArgument,
                "refusing to serve on " + config.host + " without TLS and a token: give tls_certificate, tls_key and token");
  }
  const std::string host = uri_host(config.host);
  flight::FlightServerOptions options(
      require(tls ? flight::Location::ForGrpcTls(host, config.port) : flight::Location::ForGrpcTcp(host, config.port)));
  if (tls) options.tls_certificates.push_back({config.tls_certificate, config.tls_key});
  options.verify_client = !config.tls_client_root.empty();
  options.root_certificates = config.tls_client_root;
  if (!config.token.empty()) options.middleware.emplace_back("token", std::make_shared<TokenGuard>(config.token, implementation_->counters()));
  const arrow::Status status = implementation_->Init(options);
  if (!status.ok()) throw Error(ErrorCode::kInternal, "cannot serve on " + config.host + ": " + status.message());
}

FlightServer::~FlightServer() { shutdown(); }

int FlightServer::port() const { return implementation_->port(); }

FlightServerMetrics FlightServer::metrics() const {
  const ServerCounters& counters = *implementation_->counters();
  return {counters.streams, counters.lz4_streams, counters.zstd_streams, counters.refused, counters.messages, counters.rows, counters.bytes, counters.sent_bytes};
}

void FlightServer::shutdown() {
  constexpr auto kGrace = std::chrono::seconds(1);
  const auto deadline = std::chrono::system_clock::now() + kGrace;
  // Calls that are under way end by the deadline; a second shutdown does nothing.
  static_cast<void>(implementation_->Shutdown(&deadline));
}

}  // namespace sabot
