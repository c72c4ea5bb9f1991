// Little-endian writer and bounds-checked reader for the small messages of the shuffle.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

#include "sabot/errors.hpp"

namespace sabot {

class ByteWriter {
 public:
  template <typename T>
  void number(T value) {
    static_assert(std::is_arithmetic_v<T>);
    char raw[sizeof(T)];
    std::memcpy(raw, &value, sizeof(T));
    out_.append(raw, sizeof(T));
  }
  void text(std::string_view value) {
    number(static_cast<uint32_t>(value.size()));
    out_.append(value);
  }
  [[nodiscard]] const std::string& bytes() const noexcept { return out_; }
  [[nodiscard]] std::string take() noexcept { return std::move(out_); }

 private:
  std::string out_;
};

// Every read past the end, and every count larger than the bytes left, is an Error(kCorrupt).
class ByteReader {
 public:
  explicit ByteReader(std::string_view data) : data_(data) {}

  template <typename T>
  T number() {
    static_assert(std::is_arithmetic_v<T>);
    need(sizeof(T));
    T value;
    std::memcpy(&value, data_.data(), sizeof(T));
    data_.remove_prefix(sizeof(T));
    return value;
  }
  std::string text() {
    const auto size = number<uint32_t>();
    need(size);
    std::string value(data_.substr(0, size));
    data_.remove_prefix(size);
    return value;
  }
  // A count of items that take at least `item_bytes` each in what follows.
  uint32_t count(size_t item_bytes) {
    const auto items = number<uint32_t>();
    if (items > data_.size() / item_bytes) fail();
    return items;
  }
  [[nodiscard]] size_t left() const noexcept { return data_.size(); }

  [[noreturn]] static void fail() { throw Error(ErrorCode::kCorrupt, "the message is malformed"); }

 private:
  void need(size_t bytes) const {
    if (bytes > data_.size()) fail();
  }
  std::string_view data_;
};

}  // namespace sabot
