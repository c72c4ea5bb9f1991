#include "control_client.hpp"

#include <arrow/buffer.h>

#include "call_token.hpp"
#include "flight_errors.hpp"

namespace sabot {

namespace flight = arrow::flight;

ControlClient::ControlClient(const FlightClientConfig& config) : token_(config.token), client_(connect_flight(config, new_connection(), 0)) {}

std::string ControlClient::health(int64_t deadline_ms) {
  auto options = call_options(token_);
  options.timeout = flight::TimeoutDuration(static_cast<double>(deadline_ms) / 1000.0);
  const auto results = require(client_->DoAction(options, flight::Action{kHealthAction, nullptr}));
  const auto result = require(results->Next());
  if (!result || !result->body) throw Error(ErrorCode::kLost, "the server says nothing of itself");
  return result->body->ToString();
}

std::shared_ptr<Exchange> ControlClient::open(const std::string& command) {
  auto call = require(client_->DoExchange(call_options(token_), flight::FlightDescriptor::Command(command)));
  return std::make_shared<ClientExchange>(command, client_, std::move(call));
}

std::unique_ptr<Pulse> ControlClient::pulse(int64_t interval_ms) {
  return std::make_unique<Pulse>(client_, call_options(token_), std::chrono::milliseconds(interval_ms), nullptr);
}

}  // namespace sabot
