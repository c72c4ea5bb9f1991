// Errors of the native core. Each code has one Python exception at the boundary.
#pragma once

#include <stdexcept>
#include <string>

namespace sabot {

enum class ErrorCode {
  kInternal,
  kInvalidArgument,
  kCancelled,
  kDeadline,
  kQuota,
  kCorrupt,
  kLost,
  kTicket,
  kUnsupported,
  kStream,
};

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  [[nodiscard]] ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

// "what: <text of errno>"
std::string system_message(const std::string& what, int error_number);

}  // namespace sabot
