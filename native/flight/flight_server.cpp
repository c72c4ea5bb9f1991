#include "flight_server.hpp"

#include <arrow/buffer.h>
#include <arrow/flight/server.h>
#include <arrow/flight/server_middleware.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>
#include <system_error>
#include <vector>

#include "addresses.hpp"
#include "call_token.hpp"
#include "control_client.hpp"
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

// Closed connections end within half a minute also where the other end vanished without a word, or its link was cut.
constexpr int kIdleSeconds = 10;
constexpr int kProbeSeconds = 5;
constexpr int kProbes = 3;
constexpr unsigned kUnacknowledgedMs = 25'000;

// gRPC lets nobody set the options of a server's sockets through Flight; accepted ones have those of the one that listens.
void end_dead_connections(int port) {
  std::error_code failed;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", failed)) {
    const int descriptor = std::atoi(entry.path().filename().c_str());
    int listens = 0;
    socklen_t size = sizeof listens;
    if (::getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || listens == 0) continue;
    sockaddr_storage address{};
    size = sizeof address;
    if (::getsockname(descriptor, reinterpret_cast<sockaddr*>(&address), &size) != 0) continue;
    const in_port_t bound = address.ss_family == AF_INET    ? reinterpret_cast<sockaddr_in*>(&address)->sin_port
                            : address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&address)->sin6_port
                                                            : 0;
    if (ntohs(bound) != port) continue;
    const auto set = [&](int level, int option, const auto& value) { ::setsockopt(descriptor, level, option, &value, sizeof value); };
    set(SOL_SOCKET, SO_KEEPALIVE, 1);
    set(IPPROTO_TCP, TCP_KEEPIDLE, kIdleSeconds);
    set(IPPROTO_TCP, TCP_KEEPINTVL, kProbeSeconds);
    set(IPPROTO_TCP, TCP_KEEPCNT, kProbes);
    set(IPPROTO_TCP, TCP_USER_TIMEOUT, kUnacknowledgedMs);
  }
}

class OwnedSource {
 public:
  explicit OwnedSource(SabotTicketSource source) : source_(source) {}
  OwnedSource(const OwnedSource&) = delete;
  OwnedSource& operator=(const OwnedSource&) = delete;
  ~OwnedSource() { source_.release(source_.context); }
  [[nodiscard]] const SabotTicketSource& get() const noexcept { return source_; }

 private:
  const SabotTicketSource source_;
};

}  // namespace

class FlightServer::Implementation : public flight::FlightServerBase {
 public:
  explicit Implementation(const CompressionConfig& compression) : compression_(compression) {}

  arrow::Status DoGet(const flight::ServerCallContext& context, const flight::Ticket& request,
                      std::unique_ptr<flight::FlightDataStream>* stream) override {
    SabotTicketStream opened{};
    char message[512] = "the ticket is refused: nothing is served here";
    const SabotCaller caller{[](const void* call) -> int { return static_cast<const flight::ServerCallContext*>(call)->is_cancelled(); },
                             &context};
    int code = static_cast<int>(ErrorCode::kTicket) + 1;
    // A ticket fits the key of one source and no other.
    for (const auto& owned : sources()) {
      const SabotTicketSource& source = owned->get();
      code = source.open(source.context, caller, request.ticket.data(), request.ticket.size(), &opened, message, sizeof message);
      if (code != static_cast<int>(ErrorCode::kTicket) + 1) break;
    }
    if (code != 0) {
      ++counters_->refused;
      return to_status(static_cast<ErrorCode>(code - 1), message);
    }
    ARROW_ASSIGN_OR_RAISE(*stream, PayloadStream::open(opened, counters_, compression_, context.peer()));
    return arrow::Status::OK();
  }

  arrow::Status DoExchange(const flight::ServerCallContext& context, std::unique_ptr<flight::FlightMessageReader> reader,
                           std::unique_ptr<flight::FlightMessageWriter> writer) override {
    const std::string command = reader->descriptor().cmd;
    if (command == kPulseCommand) return echo(*reader, *writer);
    const auto exchange = std::make_shared<ServerExchange>(command, context.peer(), *reader, *writer);
    if (!exchanges_.offer(exchange)) return to_status(ErrorCode::kLost, "nobody takes exchanges here");
    exchange->wait_until_closed();
    return arrow::Status::OK();
  }

  arrow::Status DoAction(const flight::ServerCallContext&, const flight::Action& action, std::unique_ptr<flight::ResultStream>* results) override {
    if (action.type != kHealthAction) return arrow::Status::NotImplemented("no such action");
    const std::lock_guard lock(mutex_);
    *results = std::make_unique<flight::SimpleResultStream>(std::vector{flight::Result{arrow::Buffer::FromString(health_)}});
    return arrow::Status::OK();
  }

  void add(const std::string& name, SabotTicketSource source) {
    const std::lock_guard lock(mutex_);
    sources_[name] = std::make_shared<OwnedSource>(source);
  }

  void remove(const std::string& name) {
    const std::lock_guard lock(mutex_);
    sources_.erase(name);
  }

  void set_health(const std::string& text) {
    const std::lock_guard lock(mutex_);
    health_ = text;
  }

  ExchangeQueue& exchanges() { return exchanges_; }
  const std::shared_ptr<ServerCounters>& counters() const { return counters_; }

 private:
  static arrow::Status echo(flight::FlightMessageReader& reader, flight::FlightMessageWriter& writer) {
    while (true) {
      ARROW_ASSIGN_OR_RAISE(const auto chunk, reader.Next());
      if (!chunk.app_metadata) return arrow::Status::OK();
      ARROW_RETURN_NOT_OK(writer.WriteMetadata(chunk.app_metadata));
    }
  }

  std::vector<std::shared_ptr<OwnedSource>> sources() {
    const std::lock_guard lock(mutex_);
    std::vector<std::shared_ptr<OwnedSource>> found;
    for (const auto& [name, source] : sources_) found.push_back(source);
    return found;
  }

  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<OwnedSource>> sources_;
  std::string health_;
  ExchangeQueue exchanges_;
  const CompressionConfig compression_;
  const std::shared_ptr<ServerCounters> counters_ = std::make_shared<ServerCounters>();
};

FlightServer::FlightServer(const FlightServerConfig& config) : implementation_(std::make_unique<Implementation>(config.compression)) {
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
  end_dead_connections(implementation_->port());
}

FlightServer::~FlightServer() { shutdown(); }

void FlightServer::add_source(const std::string& name, SabotTicketSource source) { implementation_->add(name, source); }

void FlightServer::remove_source(const std::string& name) { implementation_->remove(name); }

void FlightServer::set_health(const std::string& text) { implementation_->set_health(text); }

std::shared_ptr<Exchange> FlightServer::accept(int64_t timeout_ms) { return implementation_->exchanges().take(timeout_ms); }

int FlightServer::port() const { return implementation_->port(); }

FlightServerMetrics FlightServer::metrics() const {
  const ServerCounters& counters = *implementation_->counters();
  return {counters.streams, counters.lz4_streams, counters.zstd_streams, counters.refused, counters.messages, counters.rows, counters.bytes, counters.sent_bytes};
}

void FlightServer::shutdown() {
  constexpr auto kGrace = std::chrono::seconds(1);
  const auto deadline = std::chrono::system_clock::now() + kGrace;
  implementation_->exchanges().close();
  // Calls that are under way end by the deadline; a second shutdown does nothing.
  static_cast<void>(implementation_->Shutdown(&deadline));
}

}  // namespace sabot
