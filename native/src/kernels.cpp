#include "kernels.hpp"

#include <cstring>

#include "sabot/bits.hpp"
#include "sabot/row_hash.hpp"

namespace sabot {
namespace {

// Independent cursors per partition, so that neighbouring rows of one partition do not wait for each other.
constexpr size_t kLanes = 4;
// What all lists of a chunk may take: beyond the cache, a second pass over the rows costs less.
constexpr size_t kMaxListRows = size_t{1} << 20;

void hash_words(const uint64_t* values, size_t count, uint64_t* hashes) noexcept {
  for (size_t j = 0; j < count; ++j) hashes[j] = mix(values[j]);
}

void partition_ids(const uint64_t* hashes, size_t count, uint32_t partitions, uint16_t* ids) noexcept {
  for (size_t j = 0; j < count; ++j) ids[j] = partition_of(hashes[j], partitions);
}

// Rows are dealt out to a list for each partition and lane; lane l walks the l-th quarter of the rows. One pass, but
// any list must have room for a whole quarter.
void deal_out(const uint16_t* ids, size_t count, uint32_t partitions, uint16_t* permutation, uint32_t* starts, PermuteScratch& scratch) {
  const size_t quarter = count / kLanes;
  const size_t room = quarter + kPermutationSlack;
  scratch.lists.resize(partitions * kLanes * room);
  scratch.cursors.resize(partitions * kLanes);
  uint16_t* lists = scratch.lists.data();
  uint32_t* cursors = scratch.cursors.data();
  for (size_t i = 0; i < partitions * kLanes; ++i) cursors[i] = static_cast<uint32_t>(i * room);
  for (size_t j = 0; j < quarter; ++j) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const size_t row = lane * quarter + j;
      lists[cursors[ids[row] * kLanes + lane]++] = static_cast<uint16_t>(row);
    }
  }
  for (size_t j = quarter * kLanes; j < count; ++j) lists[cursors[ids[j] * kLanes + kLanes - 1]++] = static_cast<uint16_t>(j);
  uint32_t at = 0;
  for (size_t i = 0; i < partitions * kLanes; ++i) {
    if (i % kLanes == 0) starts[i / kLanes] = at;
    const auto rows = static_cast<uint32_t>(cursors[i] - i * room);
    for (uint32_t j = 0; j < rows; j += kPermutationSlack) {
      std::memcpy(permutation + at + j, lists + i * room + j, kPermutationSlack * sizeof(uint16_t));
    }
    at += rows;
  }
  starts[partitions] = at;
}

// A stable counting sort, in the same lanes.
void count_and_place(const uint16_t* ids, size_t count, uint32_t partitions, uint16_t* permutation, uint32_t* starts,
                     PermuteScratch& scratch) {
  scratch.cursors.assign(partitions * kLanes, 0);
  const size_t quarter = count / kLanes;
  uint32_t* cursors = scratch.cursors.data();
  for (size_t j = 0; j < quarter; ++j) {
    for (size_t lane = 0; lane < kLanes; ++lane) ++cursors[ids[lane * quarter + j] * kLanes + lane];
  }
  for (size_t j = quarter * kLanes; j < count; ++j) ++cursors[ids[j] * kLanes + kLanes - 1];
  uint32_t at = 0;
  for (size_t p = 0; p < partitions; ++p) {
    starts[p] = at;
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const uint32_t rows = cursors[p * kLanes + lane];
      cursors[p * kLanes + lane] = at;
      at += rows;
    }
  }
  starts[partitions] = at;
  for (size_t j = 0; j < quarter; ++j) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const size_t row = lane * quarter + j;
      permutation[cursors[ids[row] * kLanes + lane]++] = static_cast<uint16_t>(row);
    }
  }
  for (size_t j = quarter * kLanes; j < count; ++j) permutation[cursors[ids[j] * kLanes + kLanes - 1]++] = static_cast<uint16_t>(j);
}

void permute(const uint16_t* ids, size_t count, uint32_t partitions, uint16_t* permutation, uint32_t* starts, PermuteScratch& scratch) {
  const bool lists_fit = partitions * (count + kLanes * kPermutationSlack) <= kMaxListRows;
  return (lists_fit ? deal_out : count_and_place)(ids, count, partitions, permutation, starts, scratch);
}

uint64_t gather_bits(const uint8_t* bits, uint64_t first, const uint16_t* rows, unsigned count) noexcept {
  uint64_t word = 0;
  for (unsigned b = 0; b < count; ++b) word |= uint64_t{get_bit(bits, static_cast<int64_t>(first + rows[b]))} << b;
  return word;
}

size_t list_below(const uint64_t* hashes, size_t count, uint64_t bound, uint64_t* listed) noexcept {
  size_t found = 0;
  for (size_t j = 0; j < count; ++j) {
    listed[found] = hashes[j];
    found += hashes[j] < bound ? 1 : 0;
  }
  return found;
}

}  // namespace

const Kernels kPortableKernels{"portable", hash_words, partition_ids, permute, gather_bits, list_below};

const Kernels& kernels() noexcept {
  static const Kernels& best = avx512_kernels() != nullptr ? *avx512_kernels() : kPortableKernels;
  return best;
}

std::vector<const Kernels*> available_kernels() {
  std::vector<const Kernels*> all{&kPortableKernels};
  if (avx512_kernels() != nullptr) all.push_back(avx512_kernels());
  return all;
}

}  // namespace sabot
