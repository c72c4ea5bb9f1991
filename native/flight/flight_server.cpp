#include "flight_server.hpp"

#include <arrow/c/bridge.h>
#include <arrow/flight/server.h>
#include <arrow/record_batch.h>

#include <stdexcept>

namespace sabot {
namespace {

namespace flight = arrow::flight;

void require(const arrow::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.ToString());
}

// The numbers are those of sabot::ErrorCode plus 1; the client finds the code again in the message's prefix.
arrow::Status to_status(int code, const char* message) {
  return arrow::Status::IOError("sabot-error ", code, ": ", message);
}

}  // namespace

class FlightServer::Implementation : public flight::FlightServerBase {
 public:
  explicit Implementation(SabotTicketSource source) : source_(source) {}
  ~Implementation() override { source_.release(source_.context); }

  arrow::Status DoGet(const flight::ServerCallContext&, const flight::Ticket& request,
                      std::unique_ptr<flight::FlightDataStream>* stream) override {
    ArrowArrayStream batches{};
    char message[512] = "";
    const int code = source_.open(source_.context, request.ticket.data(), request.ticket.size(), &batches, message, sizeof message);
    if (code != 0) return to_status(code, message);
    ARROW_ASSIGN_OR_RAISE(auto reader, arrow::ImportRecordBatchReader(&batches));
    *stream = std::make_unique<flight::RecordBatchStream>(std::move(reader));
    return arrow::Status::OK();
  }

 private:
  SabotTicketSource source_;
};

FlightServer::FlightServer(SabotTicketSource source, const FlightServerConfig& config)
    : implementation_(std::make_unique<Implementation>(source)) {
  const bool tls = !config.tls_certificate.empty();
  auto location = tls ? flight::Location::ForGrpcTls(config.host, config.port) : flight::Location::ForGrpcTcp(config.host, config.port);
  require(location.status());
  flight::FlightServerOptions options(*location);
  if (tls) options.tls_certificates.push_back({config.tls_certificate, config.tls_key});
  require(implementation_->Init(options));
}

FlightServer::~FlightServer() { shutdown(); }

int FlightServer::port() const { return implementation_->port(); }

void FlightServer::shutdown() {
  constexpr auto kGrace = std::chrono::seconds(1);
  const auto deadline = std::chrono::system_clock::now() + kGrace;
  // Calls that are under way end by the deadline; a second shutdown does nothing.
  static_cast<void>(implementation_->Shutdown(&deadline));
}

}  // namespace sabot
