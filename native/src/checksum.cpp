#include "sabot/checksum.hpp"

#include <bit>
#include <cstring>

namespace sabot {
namespace {

// Odd constants: multiplying by them is a bijection.
constexpr uint64_t kPrimes[4] = {0x9fb21c651e98df25, 0xd6e8feb86659fd93, 0xe7037ed1a0b428db, 0xa0761d6478bd642f};

uint64_t load(const uint8_t* at) {
  uint64_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

// Every step is a bijection of the lane. The shift brings high bits down, so that a flip of one of them spreads too.
uint64_t absorb(uint64_t lane, uint64_t word, uint64_t prime) {
  const uint64_t mixed = lane ^ word;
  return std::rotl((mixed ^ (mixed >> 32)) * prime, 29);
}

}  // namespace

uint64_t checksum(const uint8_t* data, size_t bytes) noexcept {
  uint64_t lanes[4] = {kPrimes[0] ^ bytes, kPrimes[1], kPrimes[2], kPrimes[3]};
  size_t at = 0;
  for (; at + 32 <= bytes; at += 32) {
    for (int i = 0; i < 4; ++i) lanes[i] = absorb(lanes[i], load(data + at + 8 * i), kPrimes[i]);
  }
  for (; at + 8 <= bytes; at += 8) lanes[0] = absorb(lanes[0], load(data + at), kPrimes[0]);
  if (at < bytes) {
    uint64_t tail = 0;
    std::memcpy(&tail, data + at, bytes - at);
    lanes[1] = absorb(lanes[1], tail, kPrimes[1]);
  }
  uint64_t result = 0;
  for (int i = 0; i < 4; ++i) result = absorb(result, lanes[i] ^ (lanes[i] >> 31), kPrimes[i]);
  return result ^ (result >> 33);
}

}  // namespace sabot
