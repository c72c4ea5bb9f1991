// Callbacks of an ArrowArrayStream: exceptions become error numbers and a text.
#pragma once

#include <cerrno>
#include <mutex>
#include <optional>
#include <string>

#include "sabot/errors.hpp"

namespace sabot {

// The error that ended a stream last, for callers whose consumer turns it into one of its own. Thread-safe.
class ErrorSlot {
 public:
  void set(const Error& error) {
    const std::lock_guard lock(mutex_);
    error_ = error;
  }
  [[nodiscard]] std::optional<Error> get() const {
    const std::lock_guard lock(mutex_);
    return error_;
  }

 private:
  mutable std::mutex mutex_;
  std::optional<Error> error_;
};

inline int error_number(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::kCancelled: return ECANCELED;
    case ErrorCode::kDeadline: return ETIMEDOUT;
    default: return EIO;
  }
}

template <typename Body>
int guard_stream(std::string& last_error, ErrorSlot& slot, Body body) {
  try {
    body();
    return 0;
  } catch (const Error& error) {
    last_error = error.what();
    slot.set(error);
    return error_number(error.code());
  } catch (const std::exception& error) {
    last_error = error.what();
    slot.set(Error(ErrorCode::kInternal, error.what()));
    return EIO;
  }
}

}  // namespace sabot
