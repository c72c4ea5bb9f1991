// Files that hold segments which left the arena.
//
// A file is a sequence of frames, each a 64-byte header and the segment's bytes padded to 64. It is written once, read
// through one mapping, and unlinked when the last of its segments is dropped. Peers of the same host read it by name.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "sabot/arena.hpp"

namespace sabot {

constexpr uint64_t kFrameHeaderBytes = 64;

class SpillDirectory;

class SpillFile {
 public:
  SpillFile(std::shared_ptr<SpillDirectory> directory, uint64_t number);
  ~SpillFile();
  SpillFile(const SpillFile&) = delete;
  SpillFile& operator=(const SpillFile&) = delete;

  [[nodiscard]] uint64_t number() const noexcept { return number_; }
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

  // Disk space for `bytes` more, reserved now so that writing cannot fail half-way; gives its offset.
  uint64_t extend(uint64_t bytes);
  // Gives back the end of the file.
  void truncate(uint64_t bytes);
  void write(uint64_t offset, const void* data, uint64_t bytes);

 private:
  std::shared_ptr<SpillDirectory> directory_;
  uint64_t number_;
  std::string path_;
  UniqueFd fd_;
  uint64_t bytes_ = 0;
};

// Where a manager creates spill files, within a quota. Thread-safe.
class SpillDirectory : public std::enable_shared_from_this<SpillDirectory> {
 public:
  SpillDirectory(std::string path, const Nonce& nonce, uint64_t quota_bytes);

  std::shared_ptr<SpillFile> create_file();
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] uint64_t used_bytes() const noexcept { return used_bytes_.load(std::memory_order_relaxed); }
  [[nodiscard]] uint64_t files_created() const noexcept { return next_number_.load(std::memory_order_relaxed) - 1; }

  static std::string file_path(const std::string& directory, const Nonce& nonce, uint64_t number);

 private:
  friend class SpillFile;
  void reserve(uint64_t bytes);
  void give_back(uint64_t bytes) noexcept { used_bytes_.fetch_sub(bytes, std::memory_order_relaxed); }

  std::string path_;
  Nonce nonce_;
  uint64_t quota_bytes_;
  std::atomic<uint64_t> used_bytes_{0};
  std::atomic<uint64_t> next_number_{1};
};

// Reads segments from a manager's spill files, in any process. Thread-safe.
class SpillReader {
 public:
  SpillReader(std::string directory, const Nonce& nonce) : directory_(std::move(directory)), nonce_(nonce) {}

  // The mapping that holds the segment; its bytes start at `location.offset`. Raises Error(kCorrupt) when frame or
  // checksum do not match, Error(kLost) when the file is gone.
  std::shared_ptr<const MemoryMap> open(const SpillLocation& location);

 private:
  std::shared_ptr<const MemoryMap> map_file(const SpillLocation& location);

  std::string directory_;
  Nonce nonce_;
  std::mutex mutex_;
  std::unordered_map<uint64_t, std::weak_ptr<const MemoryMap>> maps_;
};

// The 64 bytes before a segment of `bytes` bytes.
struct FrameHeader {
  uint64_t magic;
  uint64_t bytes;
  uint64_t checksum;
  uint64_t reserved[5];
};
static_assert(sizeof(FrameHeader) == kFrameHeaderBytes);
FrameHeader make_frame(uint64_t bytes, uint64_t checksum);

constexpr uint64_t frame_bytes(uint64_t payload) { return kFrameHeaderBytes + (payload + 63) / 64 * 64; }

}  // namespace sabot
