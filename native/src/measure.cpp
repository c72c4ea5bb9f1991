#include "gather_kernels.hpp"
#include "sabot/column_gather.hpp"

namespace sabot {
namespace {

constexpr int64_t kSampleRows = 256;

template <typename Offset>
uint64_t span(const ArrowArray& array, int64_t first, int64_t count) {
  const auto* offsets = static_cast<const Offset*>(array.buffers[1]);
  return offsets[first + count] - offsets[first];
}

// Sum over a sample of rows of the range, scaled to all of it.
template <typename Size>
uint64_t extrapolate(const ArrowArray& array, int64_t first, int64_t count, Size size) {
  const int64_t step = std::max<int64_t>(1, count / kSampleRows);
  const uint8_t* validity = validity_of(array);
  uint64_t sum = 0;
  int64_t looked = 0;
  for (int64_t row = first; row < first + count; row += step, ++looked) {
    if (validity == nullptr || get_bit(validity, row)) sum += size(row);
  }
  return looked == 0 ? 0 : sum * static_cast<uint64_t>(count) / static_cast<uint64_t>(looked);
}

// A dictionary's values are met again and again: their mean is what a row takes.
void measure_dictionary(const Field& field, const ArrowArray& array, int64_t count, const BatchShape& shape, uint32_t node,
                        std::vector<NodeExtent>& totals) {
  const int64_t values = array.dictionary->length;
  std::vector<NodeExtent> all(totals.size());
  if (values > 0) measure(*field.dictionary, *array.dictionary, 0, values, shape, node, all);
  for (uint32_t i = node; i < shape[node].end; ++i) {
    const auto scale = [&](uint64_t total) { return values == 0 ? 0 : total * static_cast<uint64_t>(count) / static_cast<uint64_t>(values); };
    totals[i].rows += i == node ? static_cast<uint64_t>(count) : scale(all[i].rows);
    totals[i].bytes += scale(all[i].bytes);
  }
}

}  // namespace

void measure(const Field& field, const ArrowArray& array, int64_t first, int64_t count, const BatchShape& shape, uint32_t node,
             std::vector<NodeExtent>& totals) {
  if (count == 0) return;
  if (field.dictionary) return measure_dictionary(field, array, count, shape, node, totals);
  NodeExtent& total = totals[node];
  total.rows += static_cast<uint64_t>(count);
  const int64_t at = first + array.offset;
  const auto child = [&](int64_t start, int64_t rows) {
    measure(field.children[0], *array.children[0], start, rows, shape, node + 1, totals);
  };
  switch (field.kind) {
    case Kind::kBinary32: total.bytes += span<uint32_t>(array, at, count); return;
    case Kind::kBinary64: total.bytes += span<uint64_t>(array, at, count); return;
    case Kind::kBinaryView:
      total.bytes += extrapolate(array, at, count, [&](int64_t row) { return view_at(array, row).bytes; });
      return;
    case Kind::kList32: return child(static_cast<const int32_t*>(array.buffers[1])[at], static_cast<int64_t>(span<uint32_t>(array, at, count)));
    case Kind::kList64: return child(static_cast<const int64_t*>(array.buffers[1])[at], static_cast<int64_t>(span<uint64_t>(array, at, count)));
    case Kind::kListView32: case Kind::kListView64: {
      const bool wide = field.kind == Kind::kListView64;
      const uint64_t rows = extrapolate(array, at, count, [&](int64_t row) {
        return wide ? static_cast<const uint64_t*>(array.buffers[2])[row] : static_cast<const uint32_t*>(array.buffers[2])[row];
      });
      return child(0, std::min(static_cast<int64_t>(rows), array.children[0]->length));
    }
    case Kind::kFixedList: return child(at * field.width, count * field.width);
    case Kind::kStruct: case Kind::kSparseUnion: case Kind::kDenseUnion: {
      uint32_t next = node + 1;
      for (size_t i = 0; i < field.children.size(); ++i) {
        const ArrowArray& values = *array.children[i];
        const bool dense = field.kind == Kind::kDenseUnion;
        const int64_t rows = dense ? std::min(count, values.length) : count;
        measure(field.children[i], values, dense ? 0 : at, rows, shape, next, totals);
        next = shape[next].end;
      }
      return;
    }
    default: return;
  }
}

}  // namespace sabot
