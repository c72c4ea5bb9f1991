// The loops whose best form depends on the CPU: one version that runs everywhere, one for AVX-512. Both give the same
// results.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "sabot/partitioner.hpp"

namespace sabot {

// A permutation's buffer is this much longer than its rows: whole vectors are stored at its end.
constexpr size_t kPermutationSlack = 32;
// As much for the hashes listed by `list_below`.
constexpr size_t kListSlack = 8;

struct Kernels {
  const char* name;
  // hashes[j] = mix(values[j]); the two may be the same.
  void (*hash_words)(const uint64_t* values, size_t count, uint64_t* hashes) noexcept;
  // ids[j] = partition_of(hashes[j], partitions)
  void (*partition_ids)(const uint64_t* hashes, size_t count, uint32_t partitions, uint16_t* ids) noexcept;
  // Lists the rows of partition 0 in ascending order, then those of 1 and so on; starts[p] is where those of p begin,
  // starts[partitions] is `count`.
  void (*permute)(const uint16_t* ids, size_t count, uint32_t partitions, uint16_t* permutation, uint32_t* starts,
                  PermuteScratch& scratch);
  // Bit j of the result is bit `first + rows[j]` of `bits`, for 1 to 64 rows, which ascend.
  uint64_t (*gather_bits)(const uint8_t* bits, uint64_t first, const uint16_t* rows, unsigned count) noexcept;
  // Lists, in order, the hashes below `bound`, and says how many there are.
  size_t (*list_below)(const uint64_t* hashes, size_t count, uint64_t bound, uint64_t* listed) noexcept;
};

// The fastest that this CPU can run.
const Kernels& kernels() noexcept;
// All that this CPU can run, for tests.
std::vector<const Kernels*> available_kernels();

extern const Kernels kPortableKernels;
// Null where the compiler or the CPU lacks AVX-512 with VBMI2.
const Kernels* avx512_kernels() noexcept;

// A bijection of 64-bit words whose bits all depend on all bits of the value: two rounds of multiply and shift-xor, as
// in the finalizers of MurmurHash3 and SplitMix64. Unlike a 128-bit product it has a vector form.
inline uint64_t mix(uint64_t value) noexcept {
  value = (value ^ (value >> 32)) * 0xd6e8feb86659fd93;
  value = (value ^ (value >> 29)) * 0x9fb21c651e98df25;
  return value ^ (value >> 32);
}

}  // namespace sabot
