// The memory of a shuffle manager: blocks to fill, published segments, and their way to disk under pressure.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "sabot/arena.hpp"
#include "sabot/page_allocator.hpp"
#include "sabot/segment_source.hpp"
#include "sabot/spill.hpp"

namespace sabot {

struct StoreConfig {
  uint64_t budget_bytes = 0;
  uint64_t segment_bytes = uint64_t{1} << 20;
  uint64_t spill_quota_bytes = 0;
  std::string spill_directory;
};

struct StoreMetrics {
  uint64_t budget_bytes, pool_bytes, peak_pool_bytes, segments, spilled_bytes, spill_events, disk_bytes, spill_ms;
};

class SegmentStore;

// Memory being filled: pages of the arena, or mapped disk space when the arena has none to give. Move-only; memory
// that was not published goes back when it is destroyed.
class Block {
 public:
  Block() = default;
  Block(Block&& other) noexcept { *this = std::move(other); }
  Block& operator=(Block&& other) noexcept;
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  ~Block() { reset(); }

  void reset() noexcept;
  [[nodiscard]] uint8_t* data() const noexcept { return data_; }
  [[nodiscard]] uint64_t bytes() const noexcept { return bytes_; }
  explicit operator bool() const noexcept { return data_ != nullptr; }

 private:
  friend class SegmentStore;
  SegmentStore* store_ = nullptr;
  uint8_t* data_ = nullptr;
  uint64_t bytes_ = 0;
  uint64_t first_page_ = 0;              // in the arena
  std::shared_ptr<SpillFile> file_;      // if not in the arena
  MemoryMap map_;
  uint64_t file_offset_ = 0;             // of the frame
};

// Whose data a segment is; eviction takes whole partitions, largest first.
struct PartitionKey {
  uint64_t output = 0;
  uint32_t partition = 0;
};

// What one writer cost the store: its blocks on disk, and what it had to wait for room.
struct WriterCost {
  std::shared_ptr<SpillFile> overflow;   // of its blocks on disk, created when it is first needed
  uint64_t spilled_bytes = 0;            // written to disk for it, whoever's rows they are
  uint64_t wait_ns = 0;
};

// Thread-safe. No call waits for another thread: what the arena cannot give comes from disk, within the quota.
class SegmentStore : public SegmentSource, public std::enable_shared_from_this<SegmentStore> {
 public:
  explicit SegmentStore(const StoreConfig& config);
  ~SegmentStore() override;

  // At least `bytes` of memory, from disk where others are read from or wanted more.
  Block acquire(uint64_t bytes, WriterCost& cost);
  // Gives back what lies behind the first `bytes` of a block.
  void shrink(Block& block, uint64_t bytes);
  // Makes the first `bytes` of the block an immutable segment that readers may pin.
  SegmentId publish(Block&& block, uint64_t bytes, PartitionKey key, WriterCost& cost);
  void drop(std::span<const SegmentId> segments) noexcept;
  // Gives the memory of all free pages back to the system; they are as good as new when they are needed again.
  void trim() noexcept;

  PinnedSegment pin(SegmentId id) override;
  [[nodiscard]] const Nonce& nonce() const noexcept override { return arena_->nonce(); }
  [[nodiscard]] int arena_fd() const noexcept { return arena_->fd(); }
  [[nodiscard]] uint64_t budget_bytes() const noexcept { return pages_total_ * kPageBytes; }
  [[nodiscard]] uint64_t segment_bytes() const noexcept { return segment_bytes_; }
  [[nodiscard]] StoreMetrics metrics() const;

 protected:
  void unpin(uint32_t index) noexcept override;

 private:
  friend class Block;

  // What the owner knows of a segment beyond the shared entry.
  struct Local {
    uint64_t group = 0;
    uint32_t position = 0;               // in the group's list
    uint64_t first_page = 0;
    uint64_t pages = 0;                  // 0: not in the arena
    std::shared_ptr<SpillFile> file;
    bool spilling = false;
    bool dropped = false;
  };
  struct Group {
    uint64_t bytes = 0;
    std::vector<uint32_t> segments;      // in the arena, not being spilled
  };
  struct Victim {
    uint32_t index;
    uint64_t frame_offset;
    uint64_t checksum;
  };

  std::optional<uint64_t> allocate_pages(uint64_t pages);
  Block disk_block(uint64_t bytes, std::shared_ptr<SpillFile>& overflow);
  bool evict(uint64_t bytes, WriterCost& cost);
  std::vector<Victim> choose_victims(uint64_t bytes);
  uint64_t write_victims(std::vector<Victim>& victims, SpillFile& file);
  void finish_victim(const Victim& victim, const std::shared_ptr<SpillFile>& file);
  uint32_t new_entry();
  void free_entry(uint32_t index);
  void join_group(uint32_t index);
  void leave_group(uint32_t index);
  void close_segment(uint32_t index);
  void free_pages_if_unpinned(uint32_t index);
  void reap();

  const std::unique_ptr<Arena> arena_;
  const uint64_t pages_total_;
  const uint64_t segment_bytes_;
  const std::shared_ptr<SpillDirectory> directory_;
  SpillReader spill_reader_;

  mutable std::mutex mutex_;
  PageAllocator pages_;
  uint64_t populated_pages_ = 0;         // of the arena, touched at least once
  uint64_t peak_pages_ = 0;
  std::vector<Local> locals_;
  std::vector<uint32_t> free_entries_;
  std::unordered_map<uint64_t, Group> groups_;
  std::unordered_set<uint32_t> zombies_;  // closed, still pinned
  uint64_t segments_ = 0;

  std::atomic<uint64_t> spilled_total_{0};
  std::atomic<uint64_t> spill_events_{0};
  std::atomic<uint64_t> spill_ns_{0};
};

}  // namespace sabot
