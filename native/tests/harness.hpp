// A unit test harness of one header: TEST, CHECK, CHECK_THROWS, and a seeded random source.
#pragma once

#include <cstdio>
#include <exception>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "sabot/errors.hpp"

namespace harness {

struct Case {
  const char* name;
  std::function<void()> body;
};

inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

struct Register {
  Register(const char* name, std::function<void()> body) { cases().push_back({name, std::move(body)}); }
};

struct Failure : std::exception {
  explicit Failure(std::string text) : text(std::move(text)) {}
  [[nodiscard]] const char* what() const noexcept override { return text.c_str(); }
  std::string text;
};

inline void check(bool right, const char* expression, const char* file, int line) {
  if (!right) throw Failure(std::string(file) + ":" + std::to_string(line) + ": " + expression);
}

template <typename Body>
void check_throws(sabot::ErrorCode code, Body body, const char* expression, const char* file, int line) {
  try {
    body();
  } catch (const sabot::Error& error) {
    check(error.code() == code, error.what(), file, line);
    return;
  }
  check(false, expression, file, line);
}

using Random = std::mt19937_64;

inline uint64_t below(Random& random, uint64_t limit) { return std::uniform_int_distribution<uint64_t>(0, limit - 1)(random); }

}  // namespace harness

#define TEST(name)                                                 \
  static void name();                                              \
  static const harness::Register register_##name(#name, name);     \
  static void name()
#define CHECK(...) harness::check((__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)
#define CHECK_THROWS(code, ...) \
  harness::check_throws(sabot::ErrorCode::code, [&] { __VA_ARGS__; }, #__VA_ARGS__, __FILE__, __LINE__)
