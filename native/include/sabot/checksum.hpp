// Checksum of spilled data.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sabot {

// 64 bits over four independent lanes; every single flipped bit changes it.
uint64_t checksum(const uint8_t* data, size_t bytes) noexcept;

}  // namespace sabot
