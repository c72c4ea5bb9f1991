#include "sabot/column_gather.hpp"

#include <bit>
#include <cstring>

#include "gather_kernels.hpp"

namespace sabot {

ColumnGather::Scratch::Scratch(ColumnGather& gather)
    : gather_(gather),
      rows_(gather.depth_ < gather.scratch_.size() ? gather.scratch_[gather.depth_] : gather.scratch_.emplace_back()) {
  ++gather_.depth_;
  rows_.clear();
}

bool ColumnGather::lacks_rows(uint32_t node, const NodeBuffer& buffer, uint64_t rows) {
  if (rows <= buffer.row_capacity) return false;
  shortage_ = {node, {rows, buffer.bytes}};
  return true;
}

bool ColumnGather::lacks_bytes(uint32_t node, const NodeBuffer& buffer, uint64_t rows, uint64_t bytes) {
  if (bytes <= buffer.byte_capacity) return false;
  shortage_ = {node, {rows, bytes}};
  return true;
}

template <typename Rows>
bool ColumnGather::append(const Field& field, const ArrowArray& array, Rows rows, size_t count, NodeBuffer* nodes,
                          uint32_t node) {
  if (count == 0) return true;
  NodeBuffer& out = nodes[node];
  if (lacks_rows(node, out, out.rows + count)) return false;
  const Rows at = rows.shifted(array.offset);
  if (field.dictionary) return append_dictionary(field, array, at, count, nodes, node);
  switch (field.kind) {
    case Kind::kNull:
      out.nulls += count;
      break;
    case Kind::kBool:
      append_validity(array, at, count, out);
      append_bools(static_cast<const uint8_t*>(array.buffers[1]), at, count, out);
      break;
    case Kind::kFixed:
      append_validity(array, at, count, out);
      append_fixed(static_cast<const uint8_t*>(array.buffers[1]), field.width, at, count, out, ahead_);
      break;
    case Kind::kBinary32: return append_binary<Rows, uint32_t>(array, at, count, nodes, node);
    case Kind::kBinary64: return append_binary<Rows, uint64_t>(array, at, count, nodes, node);
    case Kind::kBinaryView: return append_views(array, at, count, nodes, node);
    case Kind::kList32: case Kind::kListView32: return append_lists<Rows, uint32_t>(field, array, at, count, nodes, node);
    case Kind::kList64: case Kind::kListView64: return append_lists<Rows, uint64_t>(field, array, at, count, nodes, node);
    case Kind::kFixedList: return append_fixed_lists(field, array, at, count, nodes, node);
    case Kind::kStruct:
      append_validity(array, at, count, out);
      return append_children(field, array, at, count, nodes, node);
    case Kind::kSparseUnion:
      append_type_ids(field, static_cast<const int8_t*>(array.buffers[0]), at, count, out);
      return append_children(field, array, at, count, nodes, node);
    case Kind::kDenseUnion: return append_dense_union(field, array, at, count, nodes, node);
  }
  out.rows += count;
  return true;
}

template <typename Rows>
bool ColumnGather::append_dictionary(const Field& field, const ArrowArray& array, Rows rows, size_t count, NodeBuffer* nodes,
                                     uint32_t node) {
  Scratch scratch(*this);
  auto& values = scratch.rows();
  values.resize(count);
  const uint8_t* validity = validity_of(array);
  for (size_t j = 0; j < count; ++j) {
    const int64_t row = rows[j];
    const bool null = row < 0 || (validity != nullptr && !get_bit(validity, row));
    values[j] = null ? -1 : dictionary_index(array.buffers[1], field.width, row);
  }
  return append(*field.dictionary, *array.dictionary, RowList{values.data(), 0}, count, nodes, node);
}

namespace {

template <typename Rows, typename Offset>
uint64_t total_bytes(const Offset* offsets, Rows rows, size_t count) noexcept {
  uint64_t total = 0;
  for (size_t j = 0; j < count; ++j) {
    const int64_t row = rows[j];
    if (!Rows::kNullable || row >= 0) total += offsets[row + 1] - offsets[row];
  }
  return total;
}

template <typename Offset>
struct StringSource {
  const Offset* offsets;
  const uint8_t* data;
  uint64_t bytes;
};

// Appends strings and where they end. Gives the end of the last one, or something beyond the capacity if they do not fit.
// The rows from `before_end` on are not copied as short ones.
template <typename Rows, typename Offset>
uint64_t stream_strings(StringSource<Offset> source, Rows rows, size_t before_end, size_t count, NodeBuffer& out, Readahead& plan) {
  constexpr size_t kBlockRows = 64;
  static_assert(kBlockRows * kShortBytes <= StreamWriter::kRoom);
  Readahead::Pace ahead(plan);
  StreamWriter data(out.second + out.bytes, out.second_open);
  StreamWriter ends(out.first + (out.rows + 1) * sizeof(Offset), out.first_open);
  uint8_t* data_cursor = data.cursor();
  uint8_t* ends_cursor = ends.cursor();
  uint64_t end = out.bytes;
  for (size_t at = 0; at < count; at += kBlockRows) {
    const size_t last = std::min(count, at + kBlockRows);
    for (size_t j = at; j < last;) {
      const size_t short_rows = std::max(j, std::min(last, before_end)) - j;
      const size_t done = append_short(source.offsets, source.data, source.bytes, rows_from(rows, j), short_rows, data_cursor, end, ends_cursor);
      j += done;
      ends_cursor += done * sizeof(Offset);
      if (j == last) break;
      const int64_t row = rows[j];
      const uint64_t from = source.offsets[row];
      const uint64_t size = source.offsets[row + 1] - from;
      end += size;
      if (end > out.byte_capacity) return end;
      if (size != 0) data_cursor = data.put(data_cursor, source.data + from, size);
      const auto offset = static_cast<Offset>(end);
      std::memcpy(ends_cursor, &offset, sizeof(Offset));
      ends_cursor += sizeof(Offset);
      ++j;
    }
    if (end > out.byte_capacity) return end;
    ahead.advance(last - at);
    data_cursor = data.advance(data_cursor);
    ends_cursor = ends.advance(ends_cursor);
  }
  data.finish(data_cursor);
  ends.finish(ends_cursor);
  return end;
}

}  // namespace

template <typename Rows, typename Offset>
bool ColumnGather::append_binary(const ArrowArray& array, Rows rows, size_t count, NodeBuffer* nodes, uint32_t node) {
  NodeBuffer& out = nodes[node];
  const auto* offsets = static_cast<const Offset*>(array.buffers[1]);
  const auto* data = static_cast<const uint8_t*>(array.buffers[2]);
  const uint64_t source_bytes = offsets != nullptr ? offsets[array.offset + array.length] : 0;
  uint64_t bytes = out.bytes;
  auto* out_offsets = reinterpret_cast<Offset*>(out.first) + out.rows + 1;
  if constexpr (Rows::kContiguous) {
    const Offset begin = offsets[rows[0]];
    const uint64_t total = offsets[rows[count]] - begin;
    if (lacks_bytes(node, out, out.rows + count, bytes + total)) return false;
    out.first_open.settle(reinterpret_cast<uint8_t*>(out_offsets), 0);
    out.second_open.settle(out.second, bytes);
    for (size_t j = 0; j < count; ++j) out_offsets[j] = static_cast<Offset>(bytes + (offsets[rows[j + 1]] - begin));
    if (total != 0) std::memcpy(out.second + bytes, data + begin, total);
    bytes += total;
  } else {
    const StringSource<Offset> source{offsets, data, source_bytes};
    uint64_t end = 0;
    if constexpr (Rows::kNullable) {
      end = stream_strings(source, rows, count, count, out, ahead_);
    } else {
      const StringSource<Offset> local{offsets + rows.base, data, source_bytes};
      end = stream_strings(local, rows.local(), rows_before_end(local.offsets, source_bytes, rows.local(), count), count, out, ahead_);
    }
    if (end > out.byte_capacity) {
      shortage_ = {node, {out.rows + count, bytes + total_bytes(offsets, rows, count)}};
      return false;
    }
    bytes = end;
  }
  append_validity(array, rows, count, out);
  out.bytes = bytes;
  out.rows += count;
  return true;
}

template <typename Rows>
bool ColumnGather::append_views(const ArrowArray& array, Rows rows, size_t count, NodeBuffer* nodes, uint32_t node) {
  NodeBuffer& out = nodes[node];
  const uint8_t* validity = validity_of(array);
  auto* out_offsets = reinterpret_cast<uint32_t*>(out.first) + out.rows + 1;
  uint64_t bytes = out.bytes;
  for (size_t j = 0; j < count; ++j) {
    const int64_t row = rows[j];
    if (row >= 0 && (validity == nullptr || get_bit(validity, row))) {
      const BytesView view = view_at(array, row);
      if (bytes + view.bytes <= out.byte_capacity && view.bytes != 0) std::memcpy(out.second + bytes, view.data, view.bytes);
      bytes += view.bytes;
    }
    out_offsets[j] = static_cast<uint32_t>(bytes);
  }
  if (lacks_bytes(node, out, out.rows + count, bytes)) return false;
  append_validity(array, rows, count, out);
  out.bytes = bytes;
  out.rows += count;
  return true;
}

template <typename Rows, typename Offset>
bool ColumnGather::append_lists(const Field& field, const ArrowArray& array, Rows rows, size_t count, NodeBuffer* nodes,
                                uint32_t node) {
  NodeBuffer& out = nodes[node];
  const bool views = field.kind == Kind::kListView32 || field.kind == Kind::kListView64;
  const auto* offsets = static_cast<const Offset*>(array.buffers[1]);
  const auto* sizes = views ? static_cast<const Offset*>(array.buffers[2]) : nullptr;
  const uint8_t* validity = validity_of(array);
  auto* out_offsets = reinterpret_cast<Offset*>(out.first) + out.rows + 1;
  uint64_t end = nodes[node + 1].rows;
  Scratch scratch(*this);
  auto& items = scratch.rows();
  for (size_t j = 0; j < count; ++j) {
    const int64_t row = rows[j];
    if (row >= 0 && (validity == nullptr || get_bit(validity, row))) {
      const auto first = static_cast<int64_t>(offsets[row]);
      const uint64_t size = views ? sizes[row] : offsets[row + 1] - offsets[row];
      for (uint64_t i = 0; i < size; ++i) items.push_back(first + static_cast<int64_t>(i));
      end += size;
    }
    out_offsets[j] = static_cast<Offset>(end);
  }
  if (lacks_rows(node + 1, nodes[node + 1], end)) return false;
  append_validity(array, rows, count, out);
  out.rows += count;
  return append(field.children[0], *array.children[0], RowList{items.data(), 0}, items.size(), nodes, node + 1);
}

template <typename Rows>
bool ColumnGather::append_fixed_lists(const Field& field, const ArrowArray& array, Rows rows, size_t count, NodeBuffer* nodes,
                                      uint32_t node) {
  NodeBuffer& out = nodes[node];
  append_validity(array, rows, count, out);
  out.rows += count;
  const int64_t width = field.width;
  if constexpr (Rows::kContiguous) {
    return append(field.children[0], *array.children[0], RowRange{rows[0] * width}, count * field.width, nodes, node + 1);
  } else {
    Scratch scratch(*this);
    auto& items = scratch.rows();
    for (size_t j = 0; j < count; ++j) {
      const int64_t row = rows[j];
      for (int64_t i = 0; i < width; ++i) items.push_back(row < 0 ? -1 : row * width + i);
    }
    return append(field.children[0], *array.children[0], RowList{items.data(), 0}, items.size(), nodes, node + 1);
  }
}

template <typename Rows>
bool ColumnGather::append_children(const Field& field, const ArrowArray& array, Rows rows, size_t count, NodeBuffer* nodes,
                                   uint32_t node) {
  nodes[node].rows += count;
  uint32_t child = node + 1;
  for (size_t i = 0; i < field.children.size(); ++i) {
    if (!append(field.children[i], *array.children[i], rows, count, nodes, child)) return false;
    child = shape_[child].end;
  }
  return true;
}

template <typename Rows>
bool ColumnGather::append_dense_union(const Field& field, const ArrowArray& array, Rows rows, size_t count, NodeBuffer* nodes,
                                      uint32_t node) {
  NodeBuffer& out = nodes[node];
  const auto* type_ids = static_cast<const int8_t*>(array.buffers[0]);
  const auto* offsets = static_cast<const int32_t*>(array.buffers[1]);
  append_type_ids(field, type_ids, rows, count, out);
  auto* out_offsets = reinterpret_cast<int32_t*>(out.second) + out.rows;
  out.rows += count;
  uint32_t child = node + 1;
  for (size_t i = 0; i < field.children.size(); ++i) {
    Scratch scratch(*this);
    auto& items = scratch.rows();
    const uint64_t first = nodes[child].rows;
    for (size_t j = 0; j < count; ++j) {
      const int64_t row = rows[j];
      if (field.type_ids[i] != (row < 0 ? field.type_ids[0] : type_ids[row])) continue;
      out_offsets[j] = static_cast<int32_t>(first + items.size());
      items.push_back(row < 0 ? -1 : offsets[row]);
    }
    if (!append(field.children[i], *array.children[i], RowList{items.data(), 0}, items.size(), nodes, child)) return false;
    child = shape_[child].end;
  }
  return true;
}

template bool ColumnGather::append(const Field&, const ArrowArray&, RowRange, size_t, NodeBuffer*, uint32_t);
template bool ColumnGather::append(const Field&, const ArrowArray&, ChunkRows, size_t, NodeBuffer*, uint32_t);

}  // namespace sabot
