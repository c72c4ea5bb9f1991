// Bitmaps, least significant bit first, as in Arrow.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace sabot {

inline uint64_t low_mask(unsigned count) noexcept { return count >= 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1; }

inline bool get_bit(const uint8_t* bits, int64_t at) noexcept { return (bits[at >> 3] >> (at & 7)) & 1; }

// `count` <= 64 bits from position `at`; touches no byte past the last of them.
inline uint64_t read_bits(const uint8_t* bits, uint64_t at, unsigned count) noexcept {
  const uint8_t* first = bits + (at >> 3);
  const unsigned shift = at & 7;
  const size_t bytes = (shift + count + 7) / 8;
  uint64_t word = 0;
  std::memcpy(&word, first, std::min<size_t>(bytes, 8));
  word >>= shift;
  if (bytes > 8) word |= uint64_t{first[8]} << (64 - shift);
  return word & low_mask(count);
}

// Writes `count` <= 64 bits at position `at` of a bitmap made of whole words; bits behind them become 0.
inline void write_bits(uint8_t* bits, uint64_t at, uint64_t word, unsigned count) noexcept {
  uint8_t* place = bits + (at >> 6) * 8;
  const unsigned shift = at & 63;
  uint64_t old;
  std::memcpy(&old, place, 8);
  const uint64_t merged = (old & low_mask(shift)) | (word << shift);
  std::memcpy(place, &merged, 8);
  if (shift + count > 64) {
    const uint64_t rest = word >> (64 - shift);
    std::memcpy(place + 8, &rest, 8);
  }
}

inline void write_ones(uint8_t* bits, uint64_t at, uint64_t count) noexcept {
  while (count > 0) {
    const auto step = static_cast<unsigned>(std::min<uint64_t>(count, 64 - (at & 63)));
    write_bits(bits, at, low_mask(step), step);
    at += step;
    count -= step;
  }
}

}  // namespace sabot
