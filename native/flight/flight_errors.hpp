// Errors of the core across Flight: the server's code and text arrive as they were.
#pragma once

#include <arrow/result.h>
#include <arrow/status.h>

#include <string>

#include "sabot/errors.hpp"

namespace sabot {

// What a server answers with, for from_status() at the other end.
arrow::Status to_status(ErrorCode code, const std::string& message);

// What a failed call or a damaged message means to a reader.
Error from_status(const arrow::Status& status);

inline void require(const arrow::Status& status) {
  if (!status.ok()) throw from_status(status);
}

template <typename T>
T require(arrow::Result<T> result) {
  require(result.status());
  return std::move(result).ValueUnsafe();
}

}  // namespace sabot
