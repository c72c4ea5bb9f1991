// The token of a session, in the headers of every call.
#pragma once

#include <arrow/flight/client.h>

#include <string>
#include <string_view>

namespace sabot {

constexpr const char* kTokenHeader = "authorization";

inline std::string bearer(const std::string& token) { return "Bearer " + token; }

// Of a call with this token, or with none.
inline arrow::flight::FlightCallOptions call_options(const std::string& token) {
  arrow::flight::FlightCallOptions options;
  if (!token.empty()) options.headers.emplace_back(kTokenHeader, bearer(token));
  return options;
}

// Takes the same time wherever they differ.
inline bool same_token(std::string_view given, std::string_view wanted) {
  unsigned difference = given.size() != wanted.size() ? 1 : 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const char other = given.empty() ? '\0' : given[i % given.size()];
    difference |= static_cast<unsigned char>(other) ^ static_cast<unsigned char>(wanted[i]);
  }
  return difference == 0;
}

}  // namespace sabot
