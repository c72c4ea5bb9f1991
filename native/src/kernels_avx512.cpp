#include "kernels.hpp"

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

#include <algorithm>
#include <bit>

// GCC 12 takes the undefined upper halves in its own header for mistakes.
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#define SABOT_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi2,popcnt")))

namespace sabot {
namespace {

constexpr size_t kWords = 8;    // 64-bit lanes of a register
constexpr size_t kHalves = 32;  // 16-bit lanes
constexpr size_t kBytes = 64;   // 8-bit lanes

SABOT_AVX512 __mmask8 first_words(size_t count) noexcept { return static_cast<__mmask8>((1U << std::min(count, kWords)) - 1); }

SABOT_AVX512 __mmask32 first_halves(size_t count) noexcept {
  return static_cast<__mmask32>(count >= kHalves ? ~0U : (1U << count) - 1);
}

SABOT_AVX512 __m512i mix_words(__m512i value) noexcept {
  const __m512i a = _mm512_set1_epi64(static_cast<int64_t>(0xd6e8feb86659fd93));
  const __m512i b = _mm512_set1_epi64(static_cast<int64_t>(0x9fb21c651e98df25));
  value = _mm512_mullo_epi64(_mm512_xor_si512(value, _mm512_srli_epi64(value, 32)), a);
  value = _mm512_mullo_epi64(_mm512_xor_si512(value, _mm512_srli_epi64(value, 29)), b);
  return _mm512_xor_si512(value, _mm512_srli_epi64(value, 32));
}

SABOT_AVX512 void hash_words(const uint64_t* values, size_t count, uint64_t* hashes) noexcept {
  size_t j = 0;
  for (; j + kWords <= count; j += kWords) _mm512_storeu_si512(hashes + j, mix_words(_mm512_loadu_si512(values + j)));
  const __mmask8 rest = first_words(count - j);
  _mm512_mask_storeu_epi64(hashes + j, rest, mix_words(_mm512_maskz_loadu_epi64(rest, values + j)));
}

SABOT_AVX512 __m128i ids_of(__m512i hashes, __m512i partitions) noexcept {
  return _mm512_cvtepi64_epi16(_mm512_srli_epi64(_mm512_mul_epu32(_mm512_srli_epi64(hashes, 32), partitions), 32));
}

SABOT_AVX512 void partition_ids(const uint64_t* hashes, size_t count, uint32_t partitions, uint16_t* ids) noexcept {
  const __m512i factor = _mm512_set1_epi64(partitions);
  size_t j = 0;
  for (; j + kWords <= count; j += kWords) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(ids + j), ids_of(_mm512_loadu_si512(hashes + j), factor));
  }
  const __mmask8 rest = first_words(count - j);
  _mm_mask_storeu_epi16(ids + j, rest, ids_of(_mm512_maskz_loadu_epi64(rest, hashes + j), factor));
}

// One pass over the ids for each partition: beyond this many, dealing the rows out is faster.
constexpr uint32_t kMaxPasses = 32;
constexpr uint8_t kNoPartition = 0xff;

// The ids as bytes, whole registers of them: behind the last row none that a partition has.
SABOT_AVX512 const uint8_t* narrow(const uint16_t* ids, size_t count, std::vector<uint8_t>& bytes) {
  bytes.resize(count + kBytes);
  uint8_t* to = bytes.data();
  size_t j = 0;
  for (; j + kHalves <= count; j += kHalves) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + j), _mm512_cvtepi16_epi8(_mm512_loadu_si512(ids + j)));
  }
  for (; j < count; ++j) to[j] = static_cast<uint8_t>(ids[j]);
  std::fill_n(to + count, kBytes, kNoPartition);
  return to;
}

// The instruction waits for what its target held before, even where it clears it: five cycles from one to the next. A
// target that has just been cleared spares the wait; the compiler must not see that it was, or leaves it out.
SABOT_AVX512 __m512i compress_bytes(__mmask64 chosen, __m512i bytes) noexcept {
  __m512i target = _mm512_setzero_si512();
  asm("" : "+v"(target));
  return _mm512_mask_compress_epi8(target, chosen, bytes);
}

SABOT_AVX512 void permute(const uint16_t* ids, size_t count, uint32_t partitions, uint16_t* permutation, uint32_t* starts,
                          PermuteScratch& scratch) {
  if (partitions > kMaxPasses) return kPortableKernels.permute(ids, count, partitions, permutation, starts, scratch);
  const uint8_t* byte_ids = narrow(ids, count, scratch.byte_ids);
  alignas(64) uint8_t lane_numbers[kBytes];
  for (size_t i = 0; i < kBytes; ++i) lane_numbers[i] = static_cast<uint8_t>(i);
  const __m512i lanes = _mm512_load_si512(lane_numbers);
  const __m512i step = _mm512_set1_epi16(kBytes);
  uint16_t* cursor = permutation;
  for (uint32_t p = 0; p < partitions; ++p) {
    starts[p] = static_cast<uint32_t>(cursor - permutation);
    const __m512i wanted = _mm512_set1_epi8(static_cast<char>(p));
    __m512i first_row = _mm512_setzero_si512();
    for (size_t at = 0; at < count; at += kBytes) {
      const __mmask64 mine = _mm512_cmpeq_epi8_mask(_mm512_loadu_si512(byte_ids + at), wanted);
      const int found = std::popcount(static_cast<uint64_t>(mine));
      const __m512i chosen = compress_bytes(mine, lanes);
      _mm512_storeu_si512(cursor, _mm512_add_epi16(first_row, _mm512_cvtepu8_epi16(_mm512_castsi512_si256(chosen))));
      if (found > static_cast<int>(kHalves)) {
        const __m256i others = _mm512_extracti64x4_epi64(chosen, 1);
        _mm512_storeu_si512(cursor + kHalves, _mm512_add_epi16(first_row, _mm512_cvtepu8_epi16(others)));
      }
      cursor += found;
      first_row = _mm512_add_epi16(first_row, step);
    }
  }
  starts[partitions] = static_cast<uint32_t>(count);
}

// Two registers hold 1,024 bits, in which 32 rows at a time look up the 16-bit word that has theirs. Neighbouring rows
// of a partition lie close together, so few such tables hold 64 rows.
SABOT_AVX512 uint64_t gather_bits(const uint8_t* bits, uint64_t first, const uint16_t* rows, unsigned count) noexcept {
  constexpr uint64_t kTableBits = 1024;
  constexpr uint64_t kMaxTables = 16;
  const uint64_t low = (first + rows[0]) / 8 * 8;
  const uint64_t high = first + rows[count - 1];
  const uint64_t tables = (high - low) / kTableBits + 1;
  if (tables > kMaxTables) return kPortableKernels.gather_bits(bits, first, rows, count);
  const auto shift = _mm512_set1_epi16(static_cast<int16_t>(first - low));  // modulo 2^16, as the sum is
  const __m512i low_bits = _mm512_set1_epi16(15);
  const __m512i one = _mm512_set1_epi16(1);
  const __mmask32 some = first_halves(count);
  const __mmask32 more = count > kHalves ? first_halves(count - kHalves) : 0;
  const __m512i at_a = _mm512_add_epi16(_mm512_maskz_loadu_epi16(some, rows), shift);
  const __m512i at_b = _mm512_add_epi16(_mm512_maskz_loadu_epi16(more, rows + kHalves), shift);
  const __m512i word_a = _mm512_srli_epi16(at_a, 4);
  const __m512i word_b = _mm512_srli_epi16(at_b, 4);
  __m512i found_a = _mm512_setzero_si512();
  __m512i found_b = found_a;
  uint64_t left = high / 8 - low / 8 + 1;  // bytes that may be read
  const uint8_t* from = bits + low / 8;
  for (uint64_t t = 0; t < tables; ++t, from += kTableBits / 8) {
    const auto half = [](uint64_t bytes) { return bytes >= 64 ? ~uint64_t{0} : (uint64_t{1} << bytes) - 1; };
    const __m512i table_low = _mm512_maskz_loadu_epi8(half(left), from);
    const __m512i table_high = _mm512_maskz_loadu_epi8(half(left > 64 ? left - 64 : 0), from + 64);
    left -= std::min<uint64_t>(left, kTableBits / 8);
    const __m512i number = _mm512_set1_epi16(static_cast<int16_t>(t));
    const __mmask32 in_a = _mm512_cmpeq_epi16_mask(_mm512_srli_epi16(word_a, 6), number);
    const __mmask32 in_b = _mm512_cmpeq_epi16_mask(_mm512_srli_epi16(word_b, 6), number);
    found_a = _mm512_or_si512(found_a, _mm512_maskz_permutex2var_epi16(in_a, table_low, word_a, table_high));
    found_b = _mm512_or_si512(found_b, _mm512_maskz_permutex2var_epi16(in_b, table_low, word_b, table_high));
  }
  const __m512i bit_a = _mm512_sllv_epi16(one, _mm512_and_si512(at_a, low_bits));
  const __m512i bit_b = _mm512_sllv_epi16(one, _mm512_and_si512(at_b, low_bits));
  const uint64_t word = _mm512_mask_test_epi16_mask(some, found_a, bit_a);
  return word | uint64_t{_mm512_mask_test_epi16_mask(more, found_b, bit_b)} << kHalves;
}

// The hashes of `words` below the limit to the end of a list; how many there are.
SABOT_AVX512 size_t append_below(__m512i words, __m512i limit, __mmask8 some, uint64_t* end) noexcept {
  const __mmask8 below = _mm512_mask_cmplt_epu64_mask(some, words, limit);
  _mm512_storeu_si512(end, _mm512_maskz_compress_epi64(below, words));
  return static_cast<size_t>(std::popcount(static_cast<uint32_t>(below)));
}

// Mostly none of many hashes is below the bound: one comparison tells for four registers.
SABOT_AVX512 size_t list_below(const uint64_t* hashes, size_t count, uint64_t bound, uint64_t* listed) noexcept {
  constexpr size_t kStep = 4 * kWords;
  const __m512i limit = _mm512_set1_epi64(static_cast<int64_t>(bound));
  size_t found = 0;
  size_t j = 0;
  for (; j + kStep <= count; j += kStep) {
    const __m512i a = _mm512_loadu_si512(hashes + j);
    const __m512i b = _mm512_loadu_si512(hashes + j + kWords);
    const __m512i c = _mm512_loadu_si512(hashes + j + 2 * kWords);
    const __m512i d = _mm512_loadu_si512(hashes + j + 3 * kWords);
    const __m512i least = _mm512_min_epu64(_mm512_min_epu64(a, b), _mm512_min_epu64(c, d));
    if (_mm512_cmplt_epu64_mask(least, limit) == 0) continue;
    for (const __m512i words : {a, b, c, d}) found += append_below(words, limit, 0xff, listed + found);
  }
  for (; j < count; j += kWords) {
    const __mmask8 rest = first_words(count - j);
    found += append_below(_mm512_maskz_loadu_epi64(rest, hashes + j), limit, rest, listed + found);
  }
  return found;
}

const Kernels kAvx512Kernels{"avx512", hash_words, partition_ids, permute, gather_bits, list_below};

}  // namespace

const Kernels* avx512_kernels() noexcept {
  static const bool can_run = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                              __builtin_cpu_supports("avx512vbmi2");
  return can_run ? &kAvx512Kernels : nullptr;
}

}  // namespace sabot

#else

namespace sabot {

const Kernels* avx512_kernels() noexcept { return nullptr; }

}  // namespace sabot

#endif
