#include <atomic>
#include <vector>

#include "sabot/partition_stream.hpp"

namespace sabot {
namespace {

constexpr uint32_t kMaxBuffers = 3;

// Every array of a batch, and the segment below them. Consumers may move children away and release them in any order
// and thread: the last release of any of them frees it.
struct ExportedBatch {
  struct Array {
    ArrowArray value{};
    const void* buffers[kMaxBuffers] = {};
  };
  std::atomic<uint32_t> references;
  PinnedSegment segment;
  std::vector<Array> arrays;             // of the nodes; that of node 0 lives with the consumer
  std::vector<ArrowArray*> children;
};

void release_array(ArrowArray* array) {
  for (int64_t i = 0; i < array->n_children; ++i) {
    ArrowArray* child = array->children[i];
    if (child->release != nullptr) child->release(child);
  }
  auto* batch = static_cast<ExportedBatch*>(array->private_data);
  array->release = nullptr;
  if (batch->references.fetch_sub(1, std::memory_order_acq_rel) == 1) const std::unique_ptr<ExportedBatch> last(batch);
}

void set_buffers(const Node& node, const NodeHeader& header, const uint8_t* data, ExportedBatch::Array& array) {
  const auto at = [&](uint64_t offset) -> const void* { return offset != 0 ? data + offset : nullptr; };
  switch (node.kind) {
    case Kind::kNull:
      array.value.n_buffers = 0;
      return;
    case Kind::kSparseUnion: case Kind::kDenseUnion:
      array.value.n_buffers = node.kind == Kind::kDenseUnion ? 2 : 1;
      array.buffers[0] = at(header.first);
      array.buffers[1] = at(header.second);
      return;
    case Kind::kFixedList: case Kind::kStruct:
      array.value.n_buffers = 1;
      array.buffers[0] = at(header.validity);
      return;
    case Kind::kBinary32: case Kind::kBinary64:
      array.value.n_buffers = 3;
      array.buffers[0] = at(header.validity);
      array.buffers[1] = at(header.first);
      // Some readers refuse a null pointer even where there is nothing to read.
      array.buffers[2] = header.second != 0 ? at(header.second) : data;
      return;
    default:
      array.value.n_buffers = 2;
      array.buffers[0] = at(header.validity);
      array.buffers[1] = at(header.first);
  }
}

}  // namespace

void export_batch(const BatchShape& shape, PinnedSegment segment, ArrowArray* out) {
  const BatchView view = open_batch(shape, segment.data(), segment.bytes());
  auto batch = std::make_unique<ExportedBatch>();
  batch->references.store(shape.size(), std::memory_order_relaxed);
  batch->arrays.resize(shape.size());
  batch->children.resize(shape.size());
  size_t next_child = 0;
  for (uint32_t i = 0; i < shape.size(); ++i) {
    auto& array = batch->arrays[i];
    set_buffers(shape[i], view.nodes[i], view.data, array);
    array.value.length = static_cast<int64_t>(view.nodes[i].rows);
    array.value.null_count = static_cast<int64_t>(view.nodes[i].nulls);
    array.value.buffers = array.buffers;
    array.value.children = batch->children.data() + next_child;
    for (uint32_t child = i + 1; child < shape[i].end; child = shape[child].end) {
      batch->children[next_child++] = &batch->arrays[child].value;
      ++array.value.n_children;
    }
    array.value.release = release_array;
    array.value.private_data = batch.get();
  }
  batch->segment = std::move(segment);
  *out = batch->arrays[0].value;
  batch.release();  // owned by the arrays from here
}

}  // namespace sabot
