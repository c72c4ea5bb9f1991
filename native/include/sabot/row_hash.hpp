// Hashes of column values that agree with SQL equality.
//
// Values that SQL calls equal hash equal within a type, and across integer widths, decimal scales and floating-point
// values that are integers: 5::INT, 5::BIGINT, 5.00::DECIMAL(9, 2) and 5.0::DOUBLE have one hash. -0.0 equals 0.0, all
// NaN are one value, all NULLs are one value, '1 month' equals '30 days'. Strings hash by their bytes.
#pragma once

#include <cstdint>

#include "sabot/schema.hpp"

namespace sabot {

// Combines the hashes of rows [first, first + count) of a column into `hashes`, which start at hash_seed().
void combine_hashes(const Field& field, const ArrowArray& array, int64_t first, int64_t count, uint64_t* hashes);

constexpr uint64_t hash_seed() noexcept { return 0x5ab07a11c0ffee11; }

// Well mixed in its upper half, from which partition_of() draws.
uint64_t hash_bytes(const uint8_t* data, uint64_t bytes) noexcept;

inline uint16_t partition_of(uint64_t hash, uint32_t partitions) noexcept {
  return static_cast<uint16_t>(((hash >> 32) * partitions) >> 32);
}

}  // namespace sabot
