// The inner loops of ColumnGather, and access to the values of Arrow arrays. Rows include the array's offset.
#pragma once

#include <bit>
#include <cstring>
#include <type_traits>

#include "kernels.hpp"
#include "sabot/batch_builder.hpp"
#include "sabot/bits.hpp"
#include "sabot/readahead.hpp"
#include "sabot/row_index.hpp"
#include "sabot/streaming.hpp"

namespace sabot {

inline const uint8_t* validity_of(const ArrowArray& array) noexcept {
  return array.null_count == 0 ? nullptr : static_cast<const uint8_t*>(array.buffers[0]);
}

struct BytesView {
  const uint8_t* data;
  uint64_t bytes;
};

// An element of a string_view or binary_view array.
inline BytesView view_at(const ArrowArray& array, int64_t row) noexcept {
  constexpr int32_t kInlineBytes = 12;
  const uint8_t* view = static_cast<const uint8_t*>(array.buffers[1]) + row * 16;
  int32_t words[4];
  std::memcpy(words, view, sizeof words);
  const auto bytes = static_cast<uint64_t>(words[0]);
  if (words[0] <= kInlineBytes) return {view + 4, bytes};
  return {static_cast<const uint8_t*>(array.buffers[2 + words[2]]) + words[3], bytes};
}

inline int64_t dictionary_index(const void* indices, uint32_t width, int64_t row) noexcept {
  switch (width) {
    case 1: return static_cast<const uint8_t*>(indices)[row];
    case 2: return static_cast<const uint16_t*>(indices)[row];
    case 4: return static_cast<const uint32_t*>(indices)[row];
    default: return static_cast<const int64_t*>(indices)[row];
  }
}

template <typename Rows>
uint64_t gather_bits(const uint8_t* bits, Rows rows, size_t at, unsigned count) noexcept {
  if constexpr (Rows::kContiguous) return read_bits(bits, static_cast<uint64_t>(rows[at]), count);
  if constexpr (std::is_same_v<Rows, ChunkRows>) {
    return kernels().gather_bits(bits, static_cast<uint64_t>(rows.base), rows.rows + at, count);
  }
  uint64_t word = 0;
  for (unsigned b = 0; b < count; ++b) {
    const int64_t row = rows[at + b];
    if (Rows::kNullable && row < 0) continue;
    word |= uint64_t{get_bit(bits, row)} << b;
  }
  return word;
}

template <typename Rows>
uint64_t gather_presence(Rows rows, size_t at, unsigned count) noexcept {
  uint64_t word = 0;
  for (unsigned b = 0; b < count; ++b) word |= uint64_t{rows[at + b] >= 0} << b;
  return word;
}

// Appends validity bits. The bitmap comes into being with the first NULL.
template <typename Rows>
void append_validity(const ArrowArray& array, Rows rows, size_t count, NodeBuffer& out) noexcept {
  const uint8_t* bits = validity_of(array);
  if (bits == nullptr && !Rows::kNullable) {
    if (out.has_validity) write_ones(out.validity, out.rows, count);
    return;
  }
  __builtin_prefetch(out.validity + (out.rows + count) / 8 + kLineBytes, 1);
  for (size_t at = 0; at < count; at += 64) {
    const auto step = static_cast<unsigned>(std::min<size_t>(64, count - at));
    const uint64_t word = bits != nullptr ? gather_bits(bits, rows, at, step) : gather_presence(rows, at, step);
    if (!out.has_validity) {
      if (word == low_mask(step)) continue;
      write_ones(out.validity, 0, out.rows + at);
      out.has_validity = true;
    }
    out.nulls += step - static_cast<unsigned>(std::popcount(word));
    write_bits(out.validity, out.rows + at, word, step);
  }
}

template <typename Rows>
void append_bools(const uint8_t* bits, Rows rows, size_t count, NodeBuffer& out) noexcept {
  for (size_t at = 0; at < count; at += 64) {
    const auto step = static_cast<unsigned>(std::min<size_t>(64, count - at));
    write_bits(out.first, out.rows + at, gather_bits(bits, rows, at, step), step);
  }
}

template <size_t Width>
void stream_fixed(const uint8_t* values, LocalRows rows, size_t count, uint8_t* end, OpenLine& open, Readahead& plan) noexcept {
  constexpr size_t kPerLine = kLineBytes / Width;
  Readahead::Pace ahead(plan);
  const auto copy = [&](uint8_t* line, size_t slot, size_t j) {
    std::memcpy(line + slot * Width, values + rows[j] * static_cast<int64_t>(Width), Width);
  };
  alignas(kLineBytes) uint8_t edge[kLineBytes];
  open.resume(end);
  size_t slot = OpenLine::filled(end) / Width;
  uint8_t* to = OpenLine::line_of(end);
  size_t j = 0;
  if (slot != 0) {
    open.read(edge);
    for (; slot < kPerLine && j < count; ++slot, ++j) copy(edge, slot, j);
    if (slot < kPerLine) {
      ahead.advance(count);
      return open.write(edge);
    }
    stream_line(to, edge);
    to += kLineBytes;
    ahead.advance(j);
  }
  for (; j + kPerLine <= count; j += kPerLine, to += kLineBytes) {
    alignas(kLineBytes) uint8_t line[kLineBytes];
    for (size_t i = 0; i < kPerLine; ++i) copy(line, i, j + i);
    stream_line(to, line);
    ahead.advance(kPerLine);
  }
  ahead.advance(count - j);
  for (slot = 0; j < count; ++slot, ++j) copy(edge, slot, j);
  open.write(edge);
}

template <size_t Width, typename Rows>
void copy_fixed(const uint8_t* values, Rows rows, size_t count, uint8_t* to, OpenLine& open, Readahead& ahead) noexcept {
  if constexpr (!Rows::kNullable) {
    return stream_fixed<Width>(values + rows.base * static_cast<int64_t>(Width), rows.local(), count, to, open, ahead);
  }
  open.settle(to, 0);
  for (size_t j = 0; j < count; ++j) {
    const int64_t row = rows[j];
    if (row < 0) {
      std::memset(to + j * Width, 0, Width);
    } else {
      std::memcpy(to + j * Width, values + row * static_cast<int64_t>(Width), Width);
    }
  }
}

template <typename Rows>
void append_fixed(const uint8_t* values, uint32_t width, Rows rows, size_t count, NodeBuffer& out, Readahead& ahead) noexcept {
  uint8_t* to = out.first + out.rows * width;
  if constexpr (Rows::kContiguous) {
    out.first_open.settle(to, 0);
    if (width != 0) std::memcpy(to, values + rows[0] * static_cast<int64_t>(width), count * width);
  } else {
    switch (width) {
      case 1: return copy_fixed<1>(values, rows, count, to, out.first_open, ahead);
      case 2: return copy_fixed<2>(values, rows, count, to, out.first_open, ahead);
      case 4: return copy_fixed<4>(values, rows, count, to, out.first_open, ahead);
      case 8: return copy_fixed<8>(values, rows, count, to, out.first_open, ahead);
      case 16: return copy_fixed<16>(values, rows, count, to, out.first_open, ahead);
      default: break;
    }
    for (size_t j = 0; j < count; ++j, to += width) {
      const int64_t row = rows[j];
      if (row < 0) {
        std::memset(to, 0, width);
      } else if (width != 0) {
        std::memcpy(to, values + row * static_cast<int64_t>(width), width);
      }
    }
  }
}

// Strings up to this long are copied in one step of it, where that does not read past the end of the buffer.
constexpr uint64_t kShortBytes = 16;

// The number of rows before the first whose short string lies at the end of the buffer.
template <typename Offset>
size_t rows_before_end(const Offset* offsets, uint64_t source_bytes, LocalRows rows, size_t count) noexcept {
  while (count > 0 && offsets[rows[count - 1]] + kShortBytes > source_bytes) --count;
  return count;
}

// Appends rows up to the first whose string is not short; gives their number. `ends[j]` is where row j's string ends.
template <typename Rows, typename Offset>
size_t append_short(const Offset* offsets, const uint8_t* data, uint64_t source_bytes, Rows rows, size_t count, uint8_t*& cursor,
                    uint64_t& end, uint8_t* ends) noexcept {
  uint8_t* to = cursor;
  uint64_t at = end;
  size_t j = 0;
#pragma GCC unroll 4
  for (; j < count; ++j) {
    const int64_t row = rows[j];
    if (!Rows::kNullable || row >= 0) {
      const uint64_t from = offsets[row];
      const uint64_t size = offsets[row + 1] - from;
      if (size > kShortBytes || (Rows::kNullable && from + kShortBytes > source_bytes)) break;
      std::memcpy(to, data + from, kShortBytes);
      to += size;
      at += size;
    }
    const auto offset = static_cast<Offset>(at);
    std::memcpy(ends + j * sizeof(Offset), &offset, sizeof(Offset));
  }
  cursor = to;
  end = at;
  return j;
}

template <typename Rows>
void append_type_ids(const Field& field, const int8_t* type_ids, Rows rows, size_t count, NodeBuffer& out) noexcept {
  auto* to = reinterpret_cast<int8_t*>(out.first) + out.rows;
  for (size_t j = 0; j < count; ++j) {
    const int64_t row = rows[j];
    to[j] = row < 0 ? field.type_ids[0] : type_ids[row];
  }
}

}  // namespace sabot
