// What a server says beside each batch, in `app_metadata`: how much is in the message and how much is still to come.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

namespace sabot {

struct MessageHeader {
  uint64_t rows_before = 0;     // in earlier messages
  uint64_t rows = 0;
  uint64_t segments = 0;
  // After this message; kUnknown of an output that is still being written. A stream is complete with the message that
  // has `last`, and not without it.
  static constexpr uint64_t kUnknown = std::numeric_limits<uint64_t>::max();
  uint64_t remaining_segments = 0;
  uint64_t remaining_rows = 0;
  uint64_t remaining_bytes = 0;
  bool last = false;
};

// Followed by as many zeros as make the whole message's body begin at a multiple of kBodyAlignment: a reader that gets
// the message in one block need not copy the values to align them.
std::string encode_header(const MessageHeader& header, uint64_t metadata_bytes, uint64_t body_bytes);

// None for anything that encode_header() did not write.
std::optional<MessageHeader> decode_header(std::string_view app_metadata);

constexpr uint64_t kBodyAlignment = 16;

}  // namespace sabot
