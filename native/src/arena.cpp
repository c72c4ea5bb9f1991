#include "sabot/arena.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstring>

namespace sabot {
namespace {

constexpr uint64_t kMagic = 0x314e455241544253;  // "SBTAREN1"
constexpr uint32_t kVersion = 1;
constexpr uint32_t kEntryCount = 1u << 20;       // sparse: only entries in use take memory
constexpr uint64_t kHugePageBytes = uint64_t{2} << 20;

uint64_t round_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

// Identity of a process: its pid and start time, so that a recycled pid is not taken for it. 0: no such process.
uint64_t process_identity(uint32_t pid) {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/%u/stat", pid);
  const UniqueFd fd(::open(path, O_RDONLY | O_CLOEXEC));
  if (!fd) return 0;
  char text[1024];
  const ssize_t size = ::read(fd.get(), text, sizeof text - 1);
  if (size <= 0) return 0;
  text[size] = '\0';
  const char* at = std::strrchr(text, ')');  // the command may contain spaces
  if (at == nullptr || at[1] == '\0' || at[2] == 'Z') return 0;
  constexpr int kFieldsToStartTime = 20;
  for (int i = 0; i < kFieldsToStartTime && at != nullptr; ++i) at = std::strchr(at + 1, ' ');
  const uint64_t started = at != nullptr ? std::strtoull(at + 1, nullptr, 10) : 0;
  return (started << 22) | (pid & ((1u << 22) - 1));
}

bool is_alive(uint64_t identity) { return process_identity(static_cast<uint32_t>(identity & ((1u << 22) - 1))) == identity; }

}  // namespace

std::unique_ptr<Arena> Arena::create(uint64_t data_bytes) {
  std::unique_ptr<Arena> arena(new Arena);
  arena->fd_ = UniqueFd(::memfd_create("sabot-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!arena->fd_) throw Error(ErrorCode::kInternal, system_message("cannot create the shuffle arena", errno));
  const uint64_t control = round_up(sizeof(ArenaHeader), 64) + uint64_t{kEntryCount} * sizeof(SegmentEntry);
  const uint64_t data_offset = round_up(control, kHugePageBytes);
  const int fd = arena->fd_.get();
  if (::ftruncate(fd, static_cast<off_t>(data_offset + data_bytes)) != 0) {
    throw Error(ErrorCode::kInternal, system_message("cannot size the shuffle arena", errno));
  }
  // A peer must not be able to shrink it under our feet.
  ::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  arena->control_ = MemoryMap(fd, data_offset, PROT_READ | PROT_WRITE);
  arena->data_map_ = MemoryMap(fd, data_bytes, PROT_READ | PROT_WRITE, data_offset);
  ::madvise(arena->data_map_.data(), data_bytes, MADV_HUGEPAGE);
  auto* header = reinterpret_cast<ArenaHeader*>(arena->control_.data());
  header->magic = kMagic;
  header->version = kVersion;
  header->entry_count = kEntryCount;
  header->data_offset = data_offset;
  header->data_bytes = data_bytes;
  if (::getrandom(header->nonce.data(), header->nonce.size(), 0) != static_cast<ssize_t>(header->nonce.size())) {
    throw Error(ErrorCode::kInternal, "no random bytes");
  }
  header->processes[0].store(process_identity(static_cast<uint32_t>(::getpid())));
  arena->header_ = header;
  arena->entries_ = reinterpret_cast<SegmentEntry*>(arena->control_.data() + round_up(sizeof(ArenaHeader), 64));
  arena->entry_count_ = kEntryCount;
  arena->data_ = arena->data_map_.data();
  arena->data_bytes_ = data_bytes;
  return arena;
}

std::unique_ptr<Arena> Arena::attach(int fd) {
  std::unique_ptr<Arena> arena(new Arena);
  arena->fd_ = UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  const auto refuse = [](const char* why) { throw Error(ErrorCode::kInvalidArgument, std::string("not a shuffle arena: ") + why); };
  struct stat status {};
  if (!arena->fd_ || ::fstat(fd, &status) != 0) refuse("bad descriptor");
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) refuse("not sealed");
  const auto file_bytes = static_cast<uint64_t>(status.st_size);
  const uint64_t control = round_up(sizeof(ArenaHeader), 64) + uint64_t{kEntryCount} * sizeof(SegmentEntry);
  const uint64_t data_offset = round_up(control, kHugePageBytes);
  if (file_bytes <= data_offset) refuse("too small");
  arena->control_ = MemoryMap(fd, data_offset, PROT_READ | PROT_WRITE);
  auto* header = reinterpret_cast<ArenaHeader*>(arena->control_.data());
  if (header->magic != kMagic || header->version != kVersion || header->entry_count != kEntryCount ||
      header->data_offset != data_offset || header->data_bytes != file_bytes - data_offset) {
    refuse("another version");
  }
  arena->data_map_ = MemoryMap(fd, header->data_bytes, PROT_READ, data_offset);
  arena->header_ = header;
  arena->entries_ = reinterpret_cast<SegmentEntry*>(arena->control_.data() + round_up(sizeof(ArenaHeader), 64));
  arena->entry_count_ = kEntryCount;
  arena->data_ = arena->data_map_.data();
  arena->data_bytes_ = header->data_bytes;
  const uint64_t self = process_identity(static_cast<uint32_t>(::getpid()));
  for (uint32_t slot = 1; slot < kProcessSlots; ++slot) {
    uint64_t expected = 0;
    if (header->processes[slot].compare_exchange_strong(expected, self)) {
      arena->slot_ = slot;
      return arena;
    }
  }
  throw Error(ErrorCode::kInternal, "too many processes share the shuffle arena");
}

Arena::~Arena() {
  // Everything that pins keeps the arena alive, so no pin of this process is left here.
  if (header_ != nullptr && slot_ != 0) header_->processes[slot_].store(0, std::memory_order_release);
}

PinResult Arena::pin(SegmentId id) {
  if (id.index >= entry_count_) return {};
  SegmentEntry& entry = entries_[id.index];
  const std::lock_guard lock(mutex_);
  if (entry.generation.load(std::memory_order_acquire) != id.generation) return {};
  uint64_t pins = entry.pins.load(std::memory_order_acquire);
  while ((pins & kClosed) == 0 && !entry.pins.compare_exchange_weak(pins, pins | bit(), std::memory_order_acq_rel)) {
  }
  PinResult result;
  result.bytes = entry.bytes.load(std::memory_order_relaxed);
  if ((pins & kClosed) != 0) {
    result.spill = {entry.file.load(std::memory_order_acquire), entry.file_offset.load(std::memory_order_relaxed),
                    result.bytes, entry.checksum.load(std::memory_order_relaxed)};
    std::atomic_thread_fence(std::memory_order_acquire);
    const bool same = entry.generation.load(std::memory_order_relaxed) == id.generation;
    if (same && result.spill.file != 0) result.state = PinResult::State::kSpilled;
    return result;
  }
  const uint64_t offset = entry.offset.load(std::memory_order_relaxed);
  const bool same = entry.generation.load(std::memory_order_acquire) == id.generation;
  const bool inside = result.bytes <= data_bytes_ && offset <= data_bytes_ - result.bytes;
  if (!same || !inside) {
    if (pin_counts_.find(id.index) == pin_counts_.end()) entry.pins.fetch_and(~bit(), std::memory_order_acq_rel);
    return {};
  }
  ++pin_counts_[id.index];
  result.state = PinResult::State::kPinned;
  result.data = data_ + offset;
  return result;
}

bool Arena::unpin(uint32_t index) {
  const std::lock_guard lock(mutex_);
  const auto found = pin_counts_.find(index);
  if (--found->second != 0) return false;
  pin_counts_.erase(found);
  return (entries_[index].pins.fetch_and(~bit(), std::memory_order_acq_rel) & ~bit()) == kClosed;
}

void Arena::drop_dead_processes() {
  uint64_t dead = 0;
  for (uint32_t slot = 1; slot < kProcessSlots; ++slot) {
    const uint64_t identity = header_->processes[slot].load(std::memory_order_acquire);
    if (identity != 0 && !is_alive(identity)) dead |= uint64_t{1} << slot;
  }
  if (dead == 0) return;
  const uint32_t used = header_->entries_used.load(std::memory_order_acquire);
  for (uint32_t i = 0; i < used; ++i) {
    if ((entries_[i].pins.load(std::memory_order_relaxed) & dead) != 0) entries_[i].pins.fetch_and(~dead);
  }
  for (uint32_t slot = 1; slot < kProcessSlots; ++slot) {
    if ((dead >> slot) & 1) header_->processes[slot].store(0, std::memory_order_release);
  }
}

}  // namespace sabot
