#include "flight_errors.hpp"

#include <arrow/flight/types.h>

#include <string_view>

namespace sabot {
namespace {

namespace flight = arrow::flight;

// Marks the extra information of a status as ours; the code and the text follow.
constexpr std::string_view kMark = "sabot-error:";

flight::FlightStatusCode flight_code(ErrorCode code) {
  switch (code) {
    case ErrorCode::kTicket: return flight::FlightStatusCode::Unauthenticated;
    case ErrorCode::kCancelled: return flight::FlightStatusCode::Cancelled;
    case ErrorCode::kDeadline: return flight::FlightStatusCode::TimedOut;
    default: return flight::FlightStatusCode::Failed;
  }
}

ErrorCode code_of(flight::FlightStatusCode code) {
  switch (code) {
    case flight::FlightStatusCode::TimedOut: return ErrorCode::kDeadline;
    case flight::FlightStatusCode::Cancelled: return ErrorCode::kCancelled;
    case flight::FlightStatusCode::Unauthenticated: case flight::FlightStatusCode::Unauthorized: return ErrorCode::kTicket;
    default: return ErrorCode::kLost;   // nobody answers, or not with what was asked for
  }
}

}  // namespace

arrow::Status to_status(ErrorCode code, const std::string& message) {
  return flight::MakeFlightError(flight_code(code), message, std::string(kMark) + static_cast<char>(code) + message);
}

Error from_status(const arrow::Status& status) {
  const auto detail = flight::FlightStatusDetail::UnwrapStatus(status);
  if (!detail) {
    // Flight itself could not make sense of what came; a verb that a server lacks is the one thing that says so plainly.
    return {status.IsNotImplemented() ? ErrorCode::kLost : ErrorCode::kCorrupt, status.message()};
  }
  const std::string extra = detail->extra_info();
  if (extra.size() > kMark.size() && extra.starts_with(kMark)) {
    const auto code = static_cast<uint8_t>(extra[kMark.size()]);
    if (code <= static_cast<uint8_t>(ErrorCode::kStream)) return {static_cast<ErrorCode>(code), extra.substr(kMark.size() + 1)};
  }
  return {code_of(detail->code()), status.message()};
}

}  // namespace sabot
