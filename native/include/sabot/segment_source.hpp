// Where readers get segments from: the own store, another manager of this process, a peer process's arena.
#pragma once

#include <cstdint>
#include <memory>

#include "sabot/arena.hpp"

namespace sabot {

class SegmentSource;

// Keeps a segment's bytes valid. Move-only.
class PinnedSegment {
 public:
  PinnedSegment() = default;
  PinnedSegment(std::shared_ptr<SegmentSource> source, uint32_t index, const uint8_t* data, uint64_t bytes)
      : source_(std::move(source)), index_(index), data_(data), bytes_(bytes) {}
  PinnedSegment(std::shared_ptr<const MemoryMap> map, const uint8_t* data, uint64_t bytes)
      : map_(std::move(map)), data_(data), bytes_(bytes) {}
  PinnedSegment(PinnedSegment&& other) noexcept = default;
  PinnedSegment& operator=(PinnedSegment&& other) noexcept;
  PinnedSegment(const PinnedSegment&) = delete;
  PinnedSegment& operator=(const PinnedSegment&) = delete;
  ~PinnedSegment() { reset(); }

  void reset() noexcept;
  [[nodiscard]] const uint8_t* data() const noexcept { return data_; }
  [[nodiscard]] uint64_t bytes() const noexcept { return bytes_; }

 private:
  std::shared_ptr<SegmentSource> source_;       // of a segment in an arena
  uint32_t index_ = 0;
  std::shared_ptr<const MemoryMap> map_;        // of a segment on disk
  const uint8_t* data_ = nullptr;
  uint64_t bytes_ = 0;
};

class SegmentSource {
 public:
  virtual ~SegmentSource() = default;
  // Raises Error(kLost) for a segment that was dropped, Error(kCorrupt) for one damaged on disk.
  virtual PinnedSegment pin(SegmentId id) = 0;
  [[nodiscard]] virtual const Nonce& nonce() const noexcept = 0;

 protected:
  friend class PinnedSegment;
  virtual void unpin(uint32_t index) noexcept = 0;
};

// A process of this host, by its arena's descriptor and its spill directory.
class PeerSource : public SegmentSource, public std::enable_shared_from_this<PeerSource> {
 public:
  PeerSource(int arena_fd, std::string spill_directory);
  PinnedSegment pin(SegmentId id) override;
  [[nodiscard]] const Nonce& nonce() const noexcept override { return arena_->nonce(); }

 protected:
  void unpin(uint32_t index) noexcept override;

 private:
  std::unique_ptr<Arena> arena_;
  std::unique_ptr<class SpillReader> spill_reader_;

 public:
  ~PeerSource() override;
};

// The sources of this process by the nonce of their arena, so that agents in threads read each other by pointer.
void register_source(const std::shared_ptr<SegmentSource>& source);
std::shared_ptr<SegmentSource> find_source(const Nonce& nonce);

}  // namespace sabot
