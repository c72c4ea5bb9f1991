// Copies chosen rows of Arrow columns to the end of a batch being built.
#pragma once

#include <deque>
#include <vector>

#include "sabot/batch_builder.hpp"
#include "sabot/readahead.hpp"
#include "sabot/row_index.hpp"
#include "sabot/schema.hpp"

namespace sabot {

class ColumnGather {
 public:
  explicit ColumnGather(const BatchShape& shape) : shape_(shape) {}

  // Appends `count` rows of `array`, whose type is `field`, to node `node` and its children. False if they do not
  // fit: shortage() then tells what is needed; the caller rolls the batch back.
  template <typename Rows>
  bool append(const Field& field, const ArrowArray& array, Rows rows, size_t count, NodeBuffer* nodes, uint32_t node);

  // What to bring into the cache meanwhile.
  Readahead& readahead() noexcept { return ahead_; }
  [[nodiscard]] const Shortage& shortage() const noexcept { return shortage_; }

 private:
  template <typename Rows>
  bool append_dictionary(const Field& field, const ArrowArray& array, Rows rows, size_t count, NodeBuffer* nodes, uint32_t node);
  template <typename Rows, typename Offset>
  bool append_binary(const ArrowArray& array, Rows rows, size_t count, NodeBuffer* nodes, uint32_t node);
  template <typename Rows>
  bool append_views(const ArrowArray& array, Rows rows, size_t count, NodeBuffer* nodes, uint32_t node);
  template <typename Rows, typename Offset>
  bool append_lists(const Field& field, const ArrowArray& array, Rows rows, size_t count, NodeBuffer* nodes, uint32_t node);
  template <typename Rows>
  bool append_fixed_lists(const Field& field, const ArrowArray& array, Rows rows, size_t count, NodeBuffer* nodes, uint32_t node);
  template <typename Rows>
  bool append_children(const Field& field, const ArrowArray& array, Rows rows, size_t count, NodeBuffer* nodes, uint32_t node);
  template <typename Rows>
  bool append_dense_union(const Field& field, const ArrowArray& array, Rows rows, size_t count, NodeBuffer* nodes, uint32_t node);

  bool lacks_rows(uint32_t node, const NodeBuffer& buffer, uint64_t rows);
  bool lacks_bytes(uint32_t node, const NodeBuffer& buffer, uint64_t rows, uint64_t bytes);

  // A list of rows for one nesting level, kept for the next call.
  class Scratch {
   public:
    explicit Scratch(ColumnGather& gather);
    ~Scratch() { --gather_.depth_; }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    std::vector<int64_t>& rows() { return rows_; }

   private:
    ColumnGather& gather_;
    std::vector<int64_t>& rows_;
  };

  const BatchShape& shape_;
  Readahead ahead_;
  Shortage shortage_;
  size_t depth_ = 0;
  std::deque<std::vector<int64_t>> scratch_;
};

// Adds, per node of the stored shape, how many rows and variable-size bytes the rows [first, first + count) hold.
// Exact for plain types, extrapolated from a sample for views and dictionaries.
void measure(const Field& field, const ArrowArray& array, int64_t first, int64_t count, const BatchShape& shape, uint32_t node,
             std::vector<NodeExtent>& totals);

}  // namespace sabot
