#include "sabot/batch_builder.hpp"

#include <algorithm>
#include <cstring>


namespace sabot {
namespace {

NodeExtent extent(const NodeBuffer& node) { return {node.committed_rows, node.committed_bytes}; }

}  // namespace

void BatchBuilder::move_to(Block block, const std::vector<NodeExtent>& capacity, uint64_t stagger) {
  settle();
  uint8_t* at = block.data() + shape_->header_bytes() + stagger;
  const auto place = [&](uint8_t*& buffer, uint64_t used, uint64_t size) {
    if (used != 0 && buffer != nullptr) std::memcpy(at, buffer, used);
    buffer = at;
    at += align64(size);
  };
  for (uint32_t i = 0; i < shape_->size(); ++i) {
    NodeBuffer& node = nodes_[i];
    node.row_capacity = capacity[i].rows;
    node.byte_capacity = capacity[i].bytes;
    if (i == 0) continue;
    const bool fresh = node.first == nullptr;
    const BufferSizes used = buffer_sizes((*shape_)[i], extent(node));
    const BufferSizes sizes = buffer_sizes((*shape_)[i], capacity[i]);
    place(node.validity, node.committed_validity ? used.validity : 0, sizes.validity);
    place(node.first, used.first, sizes.first);
    place(node.second, used.second, sizes.second);
    if (fresh && sizes.first >= 8) std::memset(node.first, 0, 8);  // the first offset is 0
  }
  end_ = static_cast<uint64_t>(at - block.data());
  block_ = std::move(block);
}

std::vector<NodeExtent> BatchBuilder::capacity() const {
  std::vector<NodeExtent> result;
  result.reserve(nodes_.size());
  for (const NodeBuffer& node : nodes_) result.push_back({node.row_capacity, node.byte_capacity});
  return result;
}

void BatchBuilder::commit() noexcept {
  for (NodeBuffer& node : nodes_) {
    node.committed_rows = node.rows;
    node.committed_bytes = node.bytes;
    node.committed_nulls = node.nulls;
    node.committed_validity = node.has_validity;
  }
}

void BatchBuilder::roll_back() noexcept {
  for (uint32_t i = 0; i < shape_->size(); ++i) {
    NodeBuffer& node = nodes_[i];
    const BufferSizes kept = buffer_sizes((*shape_)[i], extent(node));
    const BufferSizes now = buffer_sizes((*shape_)[i], {node.rows, node.bytes});
    // A line that has been left was full when it was stored.
    if (kept.first / kLineBytes != now.first / kLineBytes) node.first_open.forget();
    if (kept.second / kLineBytes != now.second / kLineBytes) node.second_open.forget();
    node.rows = node.committed_rows;
    node.bytes = node.committed_bytes;
    node.nulls = node.committed_nulls;
    node.has_validity = node.committed_validity;
  }
}

// Writes the open lines of the committed state to memory.
void BatchBuilder::settle() noexcept {
  for (uint32_t i = 1; i < shape_->size(); ++i) {
    NodeBuffer& node = nodes_[i];
    const BufferSizes used = buffer_sizes((*shape_)[i], extent(node));
    node.first_open.settle(node.first, used.first);
    node.second_open.settle(node.second, used.second);
  }
}

uint64_t BatchBuilder::used_bytes() const noexcept {
  uint64_t total = shape_->header_bytes();
  for (uint32_t i = 1; i < shape_->size(); ++i) {
    const BufferSizes used = buffer_sizes((*shape_)[i], extent(nodes_[i]));
    total += align64(nodes_[i].committed_validity ? used.validity : 0) + align64(used.first) + align64(used.second);
  }
  return total;
}

// The first buffer stays where it is: it would move by little, but with all of its bytes.
void BatchBuilder::compact() {
  uint8_t* at = nullptr;
  const auto slide = [&](uint8_t*& buffer, uint64_t used) {
    if (used == 0) return;
    if (at == nullptr) at = buffer;
    if (buffer != at) move_down(at, buffer, align64(used));
    buffer = at;
    at += align64(used);
  };
  for (uint32_t i = 1; i < shape_->size(); ++i) {
    NodeBuffer& node = nodes_[i];
    const BufferSizes used = buffer_sizes((*shape_)[i], extent(node));
    slide(node.validity, node.committed_validity ? used.validity : 0);
    slide(node.first, used.first);
    slide(node.second, used.second);
  }
  end_ = at == nullptr ? shape_->header_bytes() : static_cast<uint64_t>(at - block_.data());
}

BatchBuilder::Finished BatchBuilder::finish() {
  settle();
  // Rows moved are rows written twice: worth it only where half of the block would be held for nothing.
  if (end_ - used_bytes() >= std::max(kPageBytes, end_ / 2)) compact();
  auto* header = reinterpret_cast<BatchHeader*>(block_.data());
  *header = {kBatchMagic, shape_->size(), 0, rows(), end_};
  auto* headers = reinterpret_cast<NodeHeader*>(block_.data() + sizeof(BatchHeader));
  for (uint32_t i = 0; i < shape_->size(); ++i) {
    const NodeBuffer& node = nodes_[i];
    const BufferSizes sizes = buffer_sizes((*shape_)[i], extent(node));
    const auto offset = [&](const uint8_t* buffer, uint64_t size) {
      return i == 0 || size == 0 ? 0 : static_cast<uint64_t>(buffer - block_.data());
    };
    headers[i] = {node.committed_rows,
                  node.committed_nulls,
                  node.committed_bytes,
                  node.committed_validity ? offset(node.validity, sizes.validity) : 0,
                  offset(node.first, sizes.first),
                  offset(node.second, sizes.second)};
  }
  finish_streaming();
  Finished result{std::move(block_), end_, rows()};
  reset();
  return result;
}

void BatchBuilder::reset() noexcept {
  nodes_.assign(nodes_.size(), NodeBuffer{});
  end_ = 0;
}

}  // namespace sabot
