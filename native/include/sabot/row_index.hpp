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

// Rows counted from where a chunk starts in an array, ascending.
struct LocalRows {
  static constexpr bool kNullable = false;
  const uint16_t* rows;
  int64_t operator[](size_t j) const noexcept { return rows[j]; }
};

// Rows of one chunk, relative to its first row, ascending.
struct ChunkRows {
  static constexpr bool kNullable = false;
  static constexpr bool kContiguous = false;
  const uint16_t* rows;
  int64_t base;
  int64_t operator[](size_t j) const noexcept { return base + rows[j]; }
  [[nodiscard]] ChunkRows shifted(int64_t by) const noexcept { return {rows, base + by}; }
  // For loops that move a pointer on by `base` once, rather than each row.
  [[nodiscard]] LocalRows local() const noexcept { return {rows}; }
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

// Without the first `at`.
inline RowRange rows_from(RowRange rows, size_t at) noexcept { return {rows.base + static_cast<int64_t>(at)}; }
inline ChunkRows rows_from(ChunkRows rows, size_t at) noexcept { return {rows.rows + at, rows.base}; }
inline LocalRows rows_from(LocalRows rows, size_t at) noexcept { return {rows.rows + at}; }
inline RowList rows_from(RowList rows, size_t at) noexcept { return {rows.rows + at, rows.base}; }

}  // namespace sabot
