#include "sabot/readahead.hpp"

namespace sabot {

void Readahead::plan(const Field& field, const ArrowArray& array, int64_t first, int64_t rows) noexcept {
  if (field.dictionary || rows <= 0 || (field.kind != Kind::kFixed && field.kind != Kind::kBinary32)) return;
  const auto begin = static_cast<uint64_t>(array.offset + first);
  const auto end = begin + static_cast<uint64_t>(rows);
  if (array.null_count != 0) add(array.buffers[0], begin / 8, (end + 7) / 8);
  if (field.kind == Kind::kFixed) return add(array.buffers[1], begin * field.width, end * field.width);
  const auto* offsets = static_cast<const uint32_t*>(array.buffers[1]);
  add(offsets, begin * sizeof(uint32_t), (end + 1) * sizeof(uint32_t));
  add(array.buffers[2], offsets[begin], offsets[end]);
}

void Readahead::add(const void* buffer, uint64_t begin, uint64_t end) noexcept {
  if (buffer == nullptr || begin >= end || planned_ == spans_.size()) return;
  const uint64_t lines = (end - begin + kLineBytes - 1) / kLineBytes;
  const uint8_t* from = static_cast<const uint8_t*>(buffer) + begin;
  spans_[planned_++] = {from, from + lines * kLineBytes};
  lines_ += lines;
}

}  // namespace sabot
