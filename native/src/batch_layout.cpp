#include "sabot/batch_layout.hpp"

#include <cstring>

namespace sabot {

const uint64_t kBatchMagic = 0x3148435441425342;

BatchShape::BatchShape(const Field& stored) { add(stored); }

void BatchShape::add(const Field& field) {
  const size_t at = nodes_.size();
  nodes_.push_back({field.kind, field.width, 0, field.type_ids});
  for (const Field& child : field.children) add(child);
  nodes_[at].end = static_cast<uint32_t>(nodes_.size());
}

uint64_t BatchShape::header_bytes() const noexcept {
  return align64(sizeof(BatchHeader) + nodes_.size() * sizeof(NodeHeader));
}

BufferSizes buffer_sizes(const Node& node, NodeExtent extent) noexcept {
  const uint64_t rows = extent.rows;
  const uint64_t bits = (rows + 63) / 64 * 8;
  switch (node.kind) {
    case Kind::kNull: return {0, 0, 0};
    case Kind::kBool: return {bits, bits, 0};
    case Kind::kFixed: return {bits, rows * node.width, 0};
    case Kind::kBinary32: return {bits, (rows + 1) * 4, extent.bytes};
    case Kind::kBinary64: return {bits, (rows + 1) * 8, extent.bytes};
    case Kind::kList32: return {bits, (rows + 1) * 4, 0};
    case Kind::kList64: return {bits, (rows + 1) * 8, 0};
    case Kind::kFixedList: case Kind::kStruct: return {bits, 0, 0};
    case Kind::kSparseUnion: return {0, rows, 0};
    case Kind::kDenseUnion: return {0, rows, rows * 4};
    case Kind::kBinaryView: case Kind::kListView32: case Kind::kListView64: break;
  }
  return {0, 0, 0};
}

uint64_t block_bytes(const BatchShape& shape, const std::vector<NodeExtent>& capacity) noexcept {
  uint64_t total = shape.header_bytes();
  for (uint32_t i = 1; i < shape.size(); ++i) {
    const BufferSizes sizes = buffer_sizes(shape[i], capacity[i]);
    total += align64(sizes.validity) + align64(sizes.first) + align64(sizes.second);
  }
  return total;
}

namespace {

[[noreturn]] void corrupt() { throw Error(ErrorCode::kCorrupt, "a segment's batch is malformed"); }

template <typename Offset>
Offset last_offset(const uint8_t* offsets, uint64_t rows) {
  Offset value;
  std::memcpy(&value, offsets + rows * sizeof(Offset), sizeof value);
  return value;
}

void check_inside(uint64_t offset, uint64_t size, uint64_t bytes, bool optional) {
  if (offset == 0 && (optional || size == 0)) return;
  if (offset == 0 || offset % 8 != 0 || size > bytes || offset > bytes - size) corrupt();
}

// The rows that a child must have at least.
void check_node(const BatchShape& shape, const BatchView& view, uint32_t at, uint64_t bytes) {
  const Node& node = shape[at];
  const NodeHeader& header = view.nodes[at];
  if (header.rows > kMaxOffset32 * 8 || header.bytes > bytes || header.nulls > header.rows) corrupt();
  const BufferSizes sizes = buffer_sizes(node, {header.rows, header.bytes});
  check_inside(header.validity, sizes.validity, bytes, true);
  check_inside(header.first, sizes.first, bytes, false);
  check_inside(header.second, sizes.second, bytes, false);
  if (header.nulls != 0 && header.validity == 0 && sizes.validity != 0) corrupt();
  const uint8_t* first = view.data + header.first;
  uint64_t child_rows = header.rows;
  switch (node.kind) {
    case Kind::kBinary32:
      if (last_offset<uint32_t>(first, header.rows) != header.bytes) corrupt();
      return;
    case Kind::kBinary64:
      if (last_offset<uint64_t>(first, header.rows) != header.bytes) corrupt();
      return;
    case Kind::kList32: child_rows = last_offset<uint32_t>(first, header.rows); break;
    case Kind::kList64: child_rows = last_offset<uint64_t>(first, header.rows); break;
    case Kind::kFixedList: child_rows = header.rows * node.width; break;
    case Kind::kDenseUnion: return;
    default: break;
  }
  for (uint32_t child = at + 1; child < node.end; child = shape[child].end) {
    if (view.nodes[child].rows != child_rows) corrupt();
  }
}

}  // namespace

BatchView open_batch(const BatchShape& shape, const uint8_t* data, uint64_t bytes) {
  if (bytes < shape.header_bytes()) corrupt();
  const BatchView view{reinterpret_cast<const BatchHeader*>(data),
                       reinterpret_cast<const NodeHeader*>(data + sizeof(BatchHeader)), data};
  if (view.header->magic != kBatchMagic || view.header->nodes != shape.size() || view.header->bytes != bytes) corrupt();
  if (view.nodes[0].rows != view.header->rows) corrupt();
  for (uint32_t i = 0; i < shape.size(); ++i) check_node(shape, view, i, bytes);
  return view;
}

}  // namespace sabot
