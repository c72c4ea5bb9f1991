// A batch being filled in place: typed buffers in one block, with capacities.
#pragma once

#include <cstdint>
#include <vector>

#include "sabot/batch_layout.hpp"
#include "sabot/segment_store.hpp"
#include "sabot/streaming.hpp"

namespace sabot {

// One node of the batch. What lies behind the committed state may be written at will: it is not there until commit().
struct NodeBuffer {
  uint64_t rows = 0;
  uint64_t bytes = 0;
  uint64_t nulls = 0;
  uint64_t row_capacity = 0;
  uint64_t byte_capacity = 0;
  uint8_t* validity = nullptr;
  uint8_t* first = nullptr;
  uint8_t* second = nullptr;
  bool has_validity = false;   // the bits of all `rows` are written

  bool committed_validity = false;
  uint64_t committed_rows = 0;
  uint64_t committed_bytes = 0;
  uint64_t committed_nulls = 0;

  OpenLine first_open;
  OpenLine second_open;
};

// Why an append did not fit: the node and what it would have to hold.
struct Shortage {
  uint32_t node = 0;
  NodeExtent need;
};

class BatchBuilder {
 public:
  explicit BatchBuilder(const BatchShape& shape) : shape_(&shape), nodes_(shape.size()) {}

  // Lays the batch out anew in `block`, keeping its rows. The buffers start `stagger` bytes, a multiple of 64, later than
  // they could.
  void move_to(Block block, const std::vector<NodeExtent>& capacity, uint64_t stagger);

  [[nodiscard]] bool is_open() const noexcept { return static_cast<bool>(block_); }
  [[nodiscard]] uint64_t rows() const noexcept { return nodes_[0].committed_rows; }
  [[nodiscard]] uint64_t free_rows() const noexcept { return nodes_[0].row_capacity - nodes_[0].committed_rows; }
  [[nodiscard]] uint64_t block_bytes() const noexcept { return block_.bytes(); }
  [[nodiscard]] NodeBuffer* nodes() noexcept { return nodes_.data(); }
  [[nodiscard]] const BatchShape& shape() const noexcept { return *shape_; }
  [[nodiscard]] std::vector<NodeExtent> capacity() const;

  void commit() noexcept;
  void roll_back() noexcept;
  // Bytes that the rows take, without the room that is left.
  [[nodiscard]] uint64_t used_bytes() const noexcept;

  // Writes the headers, closing gaps where they would waste memory; gives the block and the bytes of it that count.
  struct Finished {
    Block block;
    uint64_t bytes;
    uint64_t rows;
  };
  Finished finish();

 private:
  void settle() noexcept;
  void compact();
  void reset() noexcept;

  const BatchShape* shape_;
  Block block_;
  uint64_t end_ = 0;           // of the last buffer in the block
  std::vector<NodeBuffer> nodes_;
};

}  // namespace sabot
