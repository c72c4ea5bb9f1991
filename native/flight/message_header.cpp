#include "message_header.hpp"

#include <algorithm>

#include "sabot/byte_io.hpp"

namespace sabot {
namespace {

constexpr uint32_t kMagic = 0x314d4253;
constexpr size_t kHeaderBytes = 4 + 1 + 6 * 8;

uint64_t varint_bytes(uint64_t value) {
  uint64_t bytes = 1;
  for (; value >= 128; value >>= 7) ++bytes;
  return bytes;
}

// Of a FlightData message before the bytes of its body: data_header, app_metadata (tags of one byte), tag and length of
// data_body (field 1000: a tag of two bytes).
uint64_t body_offset(uint64_t metadata_bytes, uint64_t header_bytes, uint64_t body_bytes) {
  return 1 + varint_bytes(metadata_bytes) + metadata_bytes + 1 + varint_bytes(header_bytes) + header_bytes + 2 + varint_bytes(body_bytes);
}

}  // namespace

std::string encode_header(const MessageHeader& header, uint64_t metadata_bytes, uint64_t body_bytes) {
  ByteWriter out;
  out.number(kMagic);
  out.number(static_cast<uint8_t>(header.last));
  out.number(header.rows_before);
  out.number(header.rows);
  out.number(header.segments);
  out.number(header.remaining_segments);
  out.number(header.remaining_rows);
  out.number(header.remaining_bytes);
  std::string bytes = out.take();
  const uint64_t over = body_offset(metadata_bytes, bytes.size(), body_bytes) % kBodyAlignment;
  bytes.append((kBodyAlignment - over) % kBodyAlignment, '\0');
  return bytes;
}

std::optional<MessageHeader> decode_header(std::string_view app_metadata) {
  if (app_metadata.size() < kHeaderBytes || app_metadata.size() >= kHeaderBytes + kBodyAlignment) return std::nullopt;
  ByteReader in(app_metadata);
  if (in.number<uint32_t>() != kMagic) return std::nullopt;
  MessageHeader header;
  const auto last = in.number<uint8_t>();
  header.last = last == 1;
  header.rows_before = in.number<uint64_t>();
  header.rows = in.number<uint64_t>();
  header.segments = in.number<uint64_t>();
  header.remaining_segments = in.number<uint64_t>();
  header.remaining_rows = in.number<uint64_t>();
  header.remaining_bytes = in.number<uint64_t>();
  const std::string_view padding = app_metadata.substr(kHeaderBytes);
  if (last > 1 || std::any_of(padding.begin(), padding.end(), [](char c) { return c != 0; })) return std::nullopt;
  return header;
}

}  // namespace sabot
