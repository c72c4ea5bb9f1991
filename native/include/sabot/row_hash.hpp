// Hashes of column values that agree with SQL equality.
//
// Values that SQL calls equal hash equal within a type, and across integer widths, decimal scales and floating-point
// values that are integers: 5::INT, 5::BIGINT, 5.00::DECIMAL(9, 2) and 5.0::DOUBLE have one hash. -0.0 equals 0.0, all
// NaN are one value, all NULLs are one value, '1 month' equals '30 days'. Strings hash by their bytes.
#pragma once

#include <cstdint>

#include "sabot/schema.hpp"

namespace sabot {

// Hashes of rows [first, first + count) of a column.
void hash_column(const Field& field, const ArrowArray& array, int64_t first, int64_t count, uint64_t* hashes);
// Combines those of a further column into `hashes`.
void combine_hashes(const Field& field, const ArrowArray& array, int64_t first, int64_t count, uint64_t* hashes);

// Well mixed in its upper half, from which partition_of() draws.
uint64_t hash_bytes(const uint8_t* data, uint64_t bytes) noexcept;

inline uint16_t partition_of(uint64_t hash, uint32_t partitions) noexcept {
  return static_cast<uint16_t>(((hash >> 32) * partitions) >> 32);
}

}  // namespace sabot
