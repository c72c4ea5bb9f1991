// The memfd that holds a manager's segments, and the table in it by which processes share them.
//
//   [ ArenaHeader | SegmentEntry × entry_count | data pages ]
//
// The owner alone allocates, publishes and closes segments. Every process that maps the arena pins the segments it
// reads with its own bit of `pins`; a segment's pages are reused only once it is closed and no bit is left.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

#include "sabot/memory_map.hpp"
#include "sabot/unique_fd.hpp"

namespace sabot {

constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kClosed = uint64_t{1} << 63;
constexpr uint32_t kProcessSlots = 62;  // slot 0 is the owner

using Nonce = std::array<uint8_t, 16>;

struct SegmentId {
  uint32_t index = 0;
  uint32_t generation = 0;
};

struct ArenaHeader {
  uint64_t magic;
  uint32_t version;
  uint32_t entry_count;
  uint64_t data_offset;
  uint64_t data_bytes;
  Nonce nonce;
  std::atomic<uint32_t> entries_used;
  std::array<std::atomic<uint64_t>, kProcessSlots> processes;  // identity of the process in a slot, 0: free
};

struct alignas(64) SegmentEntry {
  std::atomic<uint64_t> pins;
  std::atomic<uint32_t> generation;
  std::atomic<uint64_t> offset;       // of the data in the arena
  std::atomic<uint64_t> bytes;
  std::atomic<uint64_t> file;         // number of the spill file, 0: in memory only
  std::atomic<uint64_t> file_offset;
  std::atomic<uint64_t> checksum;     // of the spilled data
};
static_assert(sizeof(SegmentEntry) == 64);
static_assert(std::atomic<uint64_t>::is_always_lock_free);

// Where a segment lies once it left the arena.
struct SpillLocation {
  uint64_t file;
  uint64_t offset;
  uint64_t bytes;
  uint64_t checksum;
};

struct PinResult {
  enum class State { kPinned, kSpilled, kLost } state = State::kLost;
  const uint8_t* data = nullptr;
  uint64_t bytes = 0;
  SpillLocation spill{};
};

// One process's mapping of an arena, its own or a peer's. Thread-safe.
class Arena {
 public:
  // A new arena with `data_bytes` of segment memory.
  static std::unique_ptr<Arena> create(uint64_t data_bytes);
  // Another process's arena; the descriptor is duplicated.
  static std::unique_ptr<Arena> attach(int fd);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] const Nonce& nonce() const noexcept { return header_->nonce; }
  [[nodiscard]] uint64_t data_bytes() const noexcept { return data_bytes_; }
  [[nodiscard]] uint8_t* data() const noexcept { return data_; }
  [[nodiscard]] SegmentEntry& entry(uint32_t index) const noexcept { return entries_[index]; }
  [[nodiscard]] uint32_t entry_count() const noexcept { return entry_count_; }
  [[nodiscard]] ArenaHeader& header() const noexcept { return *header_; }

  PinResult pin(SegmentId id);
  // True if this was the last pin of a closed segment.
  bool unpin(uint32_t index);
  // Drops the pins of attached processes that are dead. Owner only.
  void drop_dead_processes();

 private:
  Arena() = default;
  [[nodiscard]] uint64_t bit() const noexcept { return uint64_t{1} << slot_; }

  UniqueFd fd_;
  MemoryMap control_;
  MemoryMap data_map_;
  ArenaHeader* header_ = nullptr;
  SegmentEntry* entries_ = nullptr;
  uint8_t* data_ = nullptr;
  uint64_t data_bytes_ = 0;
  uint32_t entry_count_ = 0;
  uint32_t slot_ = 0;
  std::mutex mutex_;
  std::unordered_map<uint32_t, uint32_t> pin_counts_;  // of this process, by segment
};

}  // namespace sabot
