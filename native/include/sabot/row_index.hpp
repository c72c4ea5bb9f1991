// Which rows of an array are meant: a range, or a list.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sabot {

struct RowRange {
  static constexpr bool kNullable = false;
  static constexpr bool kContiguous = true;
  int64_t base;
  int64_t operator[](size_t j) const noexcept { return base + static_cast<int64_t>(j); }
  [[nodiscard]] RowRange shifted(int64_t by) const noexcept { return {base + by}; }
};

// Rows of one chunk, relative to its first row.
struct ChunkRows {
  static constexpr bool kNullable = false;
  static constexpr bool kContiguous = false;
  const uint16_t* rows;
  int64_t base;
  int64_t operator[](size_t j) const noexcept { return base + rows[j]; }
  [[nodiscard]] ChunkRows shifted(int64_t by) const noexcept { return {rows, base + by}; }
};

// Rows of a nested array; a negative row stands for NULL.
struct RowList {
  static constexpr bool kNullable = true;
  static constexpr bool kContiguous = false;
  const int64_t* rows;
  int64_t base;
  int64_t operator[](size_t j) const noexcept { return rows[j] < 0 ? -1 : rows[j] + base; }
  [[nodiscard]] RowList shifted(int64_t by) const noexcept { return {rows, base + by}; }
};

}  // namespace sabot
