#include "sabot/spill.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "sabot/checksum.hpp"

namespace sabot {
namespace {

constexpr uint64_t kFrameMagic = 0x314d415246544253;  // "SBTFRAM1"
constexpr mode_t kFileMode = 0600;
constexpr mode_t kDirectoryMode = 0700;

[[noreturn]] void disk_error(const std::string& what, int error_number) {
  const bool full = error_number == ENOSPC || error_number == EDQUOT || error_number == EFBIG;
  throw Error(full ? ErrorCode::kQuota : ErrorCode::kInternal, system_message(what, error_number));
}

}  // namespace

FrameHeader make_frame(uint64_t bytes, uint64_t checksum) { return {kFrameMagic, bytes, checksum, {}}; }

SpillFile::SpillFile(std::shared_ptr<SpillDirectory> directory, uint64_t number)
    : directory_(std::move(directory)),
      number_(number),
      path_(SpillDirectory::file_path(directory_->path_, directory_->nonce_, number)),
      fd_(::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, kFileMode)) {
  if (!fd_) disk_error("cannot create a spill file in " + directory_->path_, errno);
}

SpillFile::~SpillFile() {
  ::unlink(path_.c_str());
  directory_->give_back(bytes_);
}

uint64_t SpillFile::extend(uint64_t bytes) {
  directory_->reserve(bytes);
  const int failed = ::posix_fallocate(fd_.get(), static_cast<off_t>(bytes_), static_cast<off_t>(bytes));
  if (failed != 0) {
    directory_->give_back(bytes);
    disk_error("cannot spill to " + directory_->path_, failed);
  }
  const uint64_t offset = bytes_;
  bytes_ += bytes;
  return offset;
}

void SpillFile::truncate(uint64_t bytes) {
  if (bytes >= bytes_ || ::ftruncate(fd_.get(), static_cast<off_t>(bytes)) != 0) return;
  directory_->give_back(bytes_ - bytes);
  bytes_ = bytes;
}

void SpillFile::write(uint64_t offset, const void* data, uint64_t bytes) {
  const auto* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::pwrite(fd_.get(), at, bytes, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) disk_error("cannot spill to " + directory_->path_, written < 0 ? errno : EIO);
    at += written;
    offset += static_cast<uint64_t>(written);
    bytes -= static_cast<uint64_t>(written);
  }
}

SpillDirectory::SpillDirectory(std::string path, const Nonce& nonce, uint64_t quota_bytes)
    : path_(std::move(path)), nonce_(nonce), quota_bytes_(quota_bytes) {
  if (::mkdir(path_.c_str(), kDirectoryMode) == 0) return;
  struct stat status {};
  if (errno == EEXIST && ::stat(path_.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) return;
  throw Error(ErrorCode::kInvalidArgument, system_message("cannot create the spill directory " + path_, errno));
}

std::shared_ptr<SpillFile> SpillDirectory::create_file() {
  return std::make_shared<SpillFile>(shared_from_this(), next_number_.fetch_add(1, std::memory_order_relaxed));
}

std::string SpillDirectory::file_path(const std::string& directory, const Nonce& nonce, uint64_t number) {
  std::string name = directory + "/";
  char text[32];
  for (const uint8_t byte : nonce) {
    std::snprintf(text, sizeof text, "%02x", byte);
    name += text;
  }
  std::snprintf(text, sizeof text, "-%llu.spill", static_cast<unsigned long long>(number));
  return name + text;
}

void SpillDirectory::reserve(uint64_t bytes) {
  uint64_t used = used_bytes_.load(std::memory_order_relaxed);
  do {
    if (bytes > quota_bytes_ || used > quota_bytes_ - bytes) {
      throw Error(ErrorCode::kQuota, "the shuffle needs more than its quota of " + std::to_string(quota_bytes_) +
                                         " bytes on disk in " + path_);
    }
  } while (!used_bytes_.compare_exchange_weak(used, used + bytes, std::memory_order_relaxed));
}

std::shared_ptr<const MemoryMap> SpillReader::map_file(const SpillLocation& location) {
  const std::lock_guard lock(mutex_);
  const uint64_t end = location.offset + location.bytes;
  if (auto map = maps_[location.file].lock(); map && map->bytes() >= end) return map;
  const std::string path = SpillDirectory::file_path(directory_, nonce_, location.file);
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) throw Error(ErrorCode::kLost, system_message("a spilled segment is gone: " + path, errno));
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0 || static_cast<uint64_t>(status.st_size) < end) {
    throw Error(ErrorCode::kCorrupt, "a spilled segment is truncated: " + path);
  }
  auto map = std::make_shared<const MemoryMap>(fd.get(), static_cast<size_t>(status.st_size), PROT_READ);
  ::madvise(map->data(), map->bytes(), MADV_SEQUENTIAL);
  std::erase_if(maps_, [](const auto& item) { return item.second.expired(); });
  maps_[location.file] = map;
  return map;
}

std::shared_ptr<const MemoryMap> SpillReader::open(const SpillLocation& location) {
  if (location.offset < kFrameHeaderBytes || location.offset + location.bytes < location.offset) {
    throw Error(ErrorCode::kCorrupt, "a spilled segment has an impossible location");
  }
  auto map = map_file(location);
  FrameHeader frame{};
  std::memcpy(&frame, map->data() + location.offset - kFrameHeaderBytes, sizeof frame);
  const bool matches = frame.magic == kFrameMagic && frame.bytes == location.bytes && frame.checksum == location.checksum &&
                       checksum(map->data() + location.offset, location.bytes) == location.checksum;
  if (!matches) {
    throw Error(ErrorCode::kCorrupt, "a spilled segment fails its checksum: " +
                                         SpillDirectory::file_path(directory_, nonce_, location.file));
  }
  return map;
}

}  // namespace sabot
