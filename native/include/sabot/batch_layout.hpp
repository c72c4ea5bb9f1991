// How one record batch lies in one contiguous block.
//
//   [ BatchHeader | NodeHeader × nodes | buffers, each 64-byte aligned ]
//
// Nodes are the stored schema's fields in pre-order; node 0 is the batch itself, a struct.
#pragma once

#include <cstdint>
#include <vector>

#include "sabot/schema.hpp"

namespace sabot {

struct Node {
  Kind kind;
  uint32_t width;
  uint32_t end;                // one past the last node of the subtree
  std::vector<int8_t> type_ids;
};

class BatchShape {
 public:
  explicit BatchShape(const Field& stored);
  [[nodiscard]] uint32_t size() const noexcept { return static_cast<uint32_t>(nodes_.size()); }
  [[nodiscard]] const Node& operator[](uint32_t node) const noexcept { return nodes_[node]; }
  [[nodiscard]] uint64_t header_bytes() const noexcept;

 private:
  void add(const Field& field);
  std::vector<Node> nodes_;
};

struct BatchHeader {
  uint64_t magic;
  uint32_t nodes;
  uint32_t reserved;
  uint64_t rows;
  uint64_t bytes;              // of the whole block
};

// Offsets are from the start of the block; 0 means: no such buffer.
struct NodeHeader {
  uint64_t rows;
  uint64_t nulls;
  uint64_t bytes;              // of variable-size data
  uint64_t validity;
  uint64_t first;              // values, offsets or type ids
  uint64_t second;             // variable-size data, or offsets of a dense union
};

// What a node can hold, or holds.
struct NodeExtent {
  uint64_t rows = 0;
  uint64_t bytes = 0;
};

// The bytes of a node's buffers.
struct BufferSizes {
  uint64_t validity;
  uint64_t first;
  uint64_t second;
};
BufferSizes buffer_sizes(const Node& node, NodeExtent extent) noexcept;

// Whether a node's rows are bounded by 32-bit offsets of its parent or its own.
constexpr uint64_t kMaxOffset32 = (uint64_t{1} << 31) - 1;

constexpr uint64_t align64(uint64_t value) noexcept { return (value + 63) & ~uint64_t{63}; }

// The size of a block whose nodes have these capacities.
uint64_t block_bytes(const BatchShape& shape, const std::vector<NodeExtent>& capacity) noexcept;

// The headers of a block, after checking that every buffer lies inside it. Raises Error(kCorrupt).
struct BatchView {
  const BatchHeader* header;
  const NodeHeader* nodes;
  const uint8_t* data;
};
BatchView open_batch(const BatchShape& shape, const uint8_t* data, uint64_t bytes);

extern const uint64_t kBatchMagic;

}  // namespace sabot
