#include "flight_client.hpp"

#include <arrow/c/bridge.h>
#include <arrow/flight/client.h>
#include <arrow/record_batch.h>

#include <atomic>
#include <stdexcept>

namespace sabot {
namespace {

namespace flight = arrow::flight;

void require(const arrow::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.ToString());
}

// What comes from another process is data, not fact: offsets, lengths and text are checked before anybody follows them.
class ValidatingReader : public arrow::RecordBatchReader {
 public:
  ValidatingReader(std::shared_ptr<flight::FlightClient> client, std::shared_ptr<arrow::RecordBatchReader> reader)
      : client_(std::move(client)), reader_(std::move(reader)) {}

  [[nodiscard]] std::shared_ptr<arrow::Schema> schema() const override { return reader_->schema(); }
  arrow::Status ReadNext(std::shared_ptr<arrow::RecordBatch>* batch) override {
    ARROW_RETURN_NOT_OK(reader_->ReadNext(batch));
    return *batch ? (*batch)->ValidateFull() : arrow::Status::OK();
  }

 private:
  std::shared_ptr<flight::FlightClient> client_;
  std::shared_ptr<arrow::RecordBatchReader> reader_;
};

}  // namespace

class FlightClientPool::Implementation {
 public:
  explicit Implementation(const FlightClientConfig& config) {
    const bool tls = !config.tls_root_certificate.empty();
    auto location = tls ? flight::Location::ForGrpcTls(config.host, config.port) : flight::Location::ForGrpcTcp(config.host, config.port);
    require(location.status());
    flight::FlightClientOptions options = flight::FlightClientOptions::Defaults();
    options.tls_root_certs = config.tls_root_certificate;
    for (uint32_t i = 0; i < std::max(1u, config.connections); ++i) {
      // Channels with the same arguments share one connection unless they differ in something.
      options.generic_options = {{"sabot.connection", static_cast<int>(i)}};
      auto client = flight::FlightClient::Connect(*location, options);
      require(client.status());
      clients_.push_back(std::move(*client));
    }
  }

  std::shared_ptr<arrow::RecordBatchReader> read(const std::string& ticket, int64_t deadline_ms) {
    const std::shared_ptr<flight::FlightClient> client = clients_[next_.fetch_add(1) % clients_.size()];
    flight::FlightCallOptions options;
    if (deadline_ms >= 0) options.timeout = flight::TimeoutDuration(static_cast<double>(deadline_ms) / 1000.0);
    // gRPC gives buffers at any address; consumers expect values to be aligned.
    options.read_options.ensure_alignment = arrow::ipc::Alignment::kDataTypeSpecificAlignment;
    auto stream = client->DoGet(options, flight::Ticket(ticket));
    require(stream.status());
    auto reader = flight::MakeRecordBatchReader(std::shared_ptr<flight::MetadataRecordBatchReader>(std::move(*stream)));
    require(reader.status());
    return std::make_shared<ValidatingReader>(client, std::move(*reader));
  }

 private:
  std::vector<std::shared_ptr<flight::FlightClient>> clients_;
  std::atomic<size_t> next_{0};
};

FlightClientPool::FlightClientPool(const FlightClientConfig& config) : implementation_(std::make_shared<Implementation>(config)) {}

FlightClientPool::~FlightClientPool() = default;

void FlightClientPool::read(const std::string& ticket, int64_t deadline_ms, ArrowArrayStream* out) {
  require(arrow::ExportRecordBatchReader(implementation_->read(ticket, deadline_ms), out));
}

}  // namespace sabot
