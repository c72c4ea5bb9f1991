#include "sabot/segment_store.hpp"

#include <algorithm>
#include <cstring>

#include "sabot/checksum.hpp"

namespace sabot {
namespace {

constexpr uint64_t kMinPages = 16;
constexpr int kEvictionRounds = 3;
constexpr uint64_t kEvictionShare = 8;  // an eviction frees at least this part of the budget, so that files are large

uint64_t pages_for(uint64_t bytes) { return std::max<uint64_t>(1, (bytes + kPageBytes - 1) / kPageBytes); }

uint64_t group_key(PartitionKey key) { return (key.output << 16) | key.partition; }

class Timer {
 public:
  Timer(std::atomic<uint64_t>& total, uint64_t& part) : total_(total), part_(part), start_(std::chrono::steady_clock::now()) {}
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  ~Timer() {
    const auto spent = std::chrono::steady_clock::now() - start_;
    const auto ns = static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(spent).count());
    total_ += ns;
    part_ += ns;
  }

 private:
  std::atomic<uint64_t>& total_;
  uint64_t& part_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace

Block& Block::operator=(Block&& other) noexcept {
  if (this != &other) {
    reset();
    store_ = std::exchange(other.store_, nullptr);
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
    first_page_ = other.first_page_;
    file_ = std::move(other.file_);
    map_ = std::move(other.map_);
    file_offset_ = other.file_offset_;
  }
  return *this;
}

void Block::reset() noexcept {
  if (data_ != nullptr && !file_) {
    const std::lock_guard lock(store_->mutex_);
    store_->pages_.release(first_page_, bytes_ / kPageBytes);
  }
  map_.reset();
  file_.reset();
  store_ = nullptr;
  data_ = nullptr;
  bytes_ = 0;
}

SegmentStore::SegmentStore(const StoreConfig& config)
    : arena_(Arena::create(std::max(kMinPages, config.budget_bytes / kPageBytes) * kPageBytes)),
      pages_total_(arena_->data_bytes() / kPageBytes),
      segment_bytes_(std::clamp(config.segment_bytes / kPageBytes * kPageBytes, kPageBytes, arena_->data_bytes())),
      directory_(std::make_shared<SpillDirectory>(config.spill_directory, arena_->nonce(), config.spill_quota_bytes)),
      spill_reader_(config.spill_directory, arena_->nonce()),
      pages_(pages_total_) {}

SegmentStore::~SegmentStore() = default;

std::optional<uint64_t> SegmentStore::allocate_pages(uint64_t pages) {
  std::unique_lock lock(mutex_);
  auto first = pages_.allocate(pages);
  if (!first && !zombies_.empty()) {
    reap();
    first = pages_.allocate(pages);
  }
  if (!first) return std::nullopt;
  peak_pages_ = std::max(peak_pages_, pages_.used_pages());
  const uint64_t fresh = std::max(populated_pages_, *first);
  const uint64_t end = *first + pages;
  if (end > populated_pages_) {
    populated_pages_ = end;
    lock.unlock();
    // One call is several times cheaper than a fault per page. Where the kernel lacks it, the pages fault one by one.
    ::madvise(arena_->data() + fresh * kPageBytes, (end - fresh) * kPageBytes, MADV_POPULATE_WRITE);
  }
  return first;
}

Block SegmentStore::acquire(uint64_t bytes, WriterCost& cost) {
  const uint64_t pages = pages_for(bytes);
  auto first = pages <= pages_total_ / 2 ? allocate_pages(pages) : std::nullopt;
  for (int round = 0; !first && pages <= pages_total_ / 2 && round < kEvictionRounds; ++round) {
    if (!evict(std::max(pages * kPageBytes, budget_bytes() / kEvictionShare), cost)) break;
    first = allocate_pages(pages);
  }
  if (!first) return disk_block(pages * kPageBytes, cost.overflow);
  Block block;
  block.store_ = this;
  block.first_page_ = *first;
  block.data_ = arena_->data() + *first * kPageBytes;
  block.bytes_ = pages * kPageBytes;
  return block;
}

Block SegmentStore::disk_block(uint64_t bytes, std::shared_ptr<SpillFile>& overflow) {
  if (!overflow) {
    overflow = directory_->create_file();
    ++spill_events_;
  }
  // The frame's header takes a page of its own, so that the mapping starts at a page.
  const uint64_t offset = overflow->extend(kPageBytes + bytes);
  Block block;
  block.store_ = this;
  block.map_ = MemoryMap(overflow->fd(), bytes, PROT_READ | PROT_WRITE, offset + kPageBytes);
  block.data_ = block.map_.data();
  block.bytes_ = bytes;
  block.file_ = overflow;
  block.file_offset_ = offset + kPageBytes - kFrameHeaderBytes;
  return block;
}

void SegmentStore::shrink(Block& block, uint64_t bytes) {
  const uint64_t keep = pages_for(bytes) * kPageBytes;
  if (keep >= block.bytes_ || block.file_) return;
  const std::lock_guard lock(mutex_);
  pages_.release(block.first_page_ + keep / kPageBytes, (block.bytes_ - keep) / kPageBytes);
  block.bytes_ = keep;
}

SegmentId SegmentStore::publish(Block&& block, uint64_t bytes, PartitionKey key, WriterCost& cost) {
  Block taken = std::move(block);
  uint64_t sum = 0;
  if (taken.file_) {
    sum = checksum(taken.data_, bytes);
    const FrameHeader frame = make_frame(bytes, sum);
    taken.file_->write(taken.file_offset_, &frame, sizeof frame);
    spilled_total_ += bytes;
    cost.spilled_bytes += bytes;
  } else {
    shrink(taken, bytes);
  }
  const std::lock_guard lock(mutex_);
  const uint32_t index = new_entry();
  SegmentEntry& entry = arena_->entry(index);
  Local& local = locals_[index];
  local = Local{};
  local.group = group_key(key);
  entry.bytes.store(bytes, std::memory_order_relaxed);
  ++segments_;
  if (taken.file_) {
    local.file = taken.file_;
    entry.file_offset.store(taken.file_offset_ + kFrameHeaderBytes, std::memory_order_relaxed);
    entry.checksum.store(sum, std::memory_order_relaxed);
    entry.file.store(local.file->number(), std::memory_order_release);
  } else {
    local.first_page = taken.first_page_;
    local.pages = taken.bytes_ / kPageBytes;
    entry.offset.store(taken.first_page_ * kPageBytes, std::memory_order_relaxed);
    join_group(index);
    taken.data_ = nullptr;  // the pages are the segment's now
    entry.pins.store(0, std::memory_order_release);
  }
  return {index, entry.generation.load(std::memory_order_relaxed)};
}

void SegmentStore::drop(std::span<const SegmentId> segments) noexcept {
  const std::lock_guard lock(mutex_);
  for (const SegmentId id : segments) {
    if (arena_->entry(id.index).generation.load(std::memory_order_relaxed) == id.generation) close_segment(id.index);
  }
}

void SegmentStore::trim() noexcept {
  const std::lock_guard lock(mutex_);
  reap();
  pages_.each_free_run(populated_pages_, [&](uint64_t first, uint64_t count) {
    ::madvise(arena_->data() + first * kPageBytes, count * kPageBytes, MADV_REMOVE);
    if (first + count == populated_pages_) populated_pages_ = first;
  });
}

PinnedSegment SegmentStore::pin(SegmentId id) {
  const PinResult result = arena_->pin(id);
  if (result.state == PinResult::State::kPinned) return {shared_from_this(), id.index, result.data, result.bytes};
  if (result.state == PinResult::State::kLost) throw Error(ErrorCode::kLost, "a segment was released");
  auto map = spill_reader_.open(result.spill);
  const uint8_t* data = map->data() + result.spill.offset;
  return {std::move(map), data, result.spill.bytes};
}

void SegmentStore::unpin(uint32_t index) noexcept {
  if (!arena_->unpin(index)) return;
  const std::lock_guard lock(mutex_);
  if (zombies_.contains(index)) free_pages_if_unpinned(index);
}

StoreMetrics SegmentStore::metrics() const {
  const std::lock_guard lock(mutex_);
  return {budget_bytes(), pages_.used_pages() * kPageBytes, peak_pages_ * kPageBytes, segments_, spilled_total_,
          spill_events_, directory_->used_bytes(), spill_ns_ / 1'000'000};
}

// The rest runs under the mutex, but for evict() and write_victims().

uint32_t SegmentStore::new_entry() {
  if (!free_entries_.empty()) {
    const uint32_t index = free_entries_.back();
    free_entries_.pop_back();
    return index;
  }
  const auto index = static_cast<uint32_t>(locals_.size());
  if (index == arena_->entry_count()) throw Error(ErrorCode::kInternal, "the shuffle holds too many segments");
  locals_.emplace_back();
  arena_->entry(index).pins.store(kClosed, std::memory_order_relaxed);
  arena_->header().entries_used.store(index + 1, std::memory_order_release);
  return index;
}

void SegmentStore::free_entry(uint32_t index) {
  SegmentEntry& entry = arena_->entry(index);
  entry.file.store(0, std::memory_order_relaxed);
  entry.generation.fetch_add(1, std::memory_order_release);
  locals_[index] = Local{};
  free_entries_.push_back(index);
}

void SegmentStore::join_group(uint32_t index) {
  Local& local = locals_[index];
  Group& group = groups_[local.group];
  local.position = static_cast<uint32_t>(group.segments.size());
  group.segments.push_back(index);
  group.bytes += local.pages * kPageBytes;
}

void SegmentStore::leave_group(uint32_t index) {
  const Local& local = locals_[index];
  const auto found = groups_.find(local.group);
  Group& group = found->second;
  group.segments[local.position] = group.segments.back();
  locals_[group.segments.back()].position = local.position;
  group.segments.pop_back();
  group.bytes -= local.pages * kPageBytes;
  if (group.segments.empty()) groups_.erase(found);
}

void SegmentStore::close_segment(uint32_t index) {
  Local& local = locals_[index];
  if (local.dropped) return;
  local.dropped = true;
  --segments_;
  if (local.pages != 0 && !local.spilling && !local.file) leave_group(index);
  local.file.reset();
  arena_->entry(index).pins.fetch_or(kClosed, std::memory_order_acq_rel);
  if (local.spilling) return;  // finish_victim() frees it
  free_pages_if_unpinned(index);
}

// A closed segment's pages go back once no reader is left; its entry once it is dropped, too.
void SegmentStore::free_pages_if_unpinned(uint32_t index) {
  Local& local = locals_[index];
  if (arena_->entry(index).pins.load(std::memory_order_acquire) != kClosed) {
    zombies_.insert(index);
    if (local.dropped) arena_->entry(index).file.store(0, std::memory_order_release);
    return;
  }
  zombies_.erase(index);
  pages_.release(local.first_page, local.pages);
  local.pages = 0;
  if (local.dropped) free_entry(index);
}

void SegmentStore::reap() {
  arena_->drop_dead_processes();
  const std::vector<uint32_t> closed(zombies_.begin(), zombies_.end());
  for (const uint32_t index : closed) free_pages_if_unpinned(index);
}

std::vector<SegmentStore::Victim> SegmentStore::choose_victims(uint64_t bytes) {
  std::vector<std::pair<uint64_t, uint64_t>> by_size;
  by_size.reserve(groups_.size());
  for (const auto& [key, group] : groups_) by_size.emplace_back(group.bytes, key);
  std::sort(by_size.begin(), by_size.end(), std::greater<>());
  std::vector<Victim> victims;
  uint64_t chosen = 0;
  for (const auto& [size, key] : by_size) {
    if (chosen >= bytes) break;
    std::vector<uint32_t> segments = groups_[key].segments;
    std::sort(segments.begin(), segments.end());
    for (const uint32_t index : segments) {
      if (chosen >= bytes) break;
      if (arena_->entry(index).pins.load(std::memory_order_relaxed) != 0) continue;  // being read
      leave_group(index);
      locals_[index].spilling = true;
      chosen += locals_[index].pages * kPageBytes;
      victims.push_back({index, 0, 0});
    }
  }
  return victims;
}

bool SegmentStore::evict(uint64_t bytes, WriterCost& cost) {
  std::vector<Victim> victims;
  {
    const std::lock_guard lock(mutex_);
    victims = choose_victims(bytes);
  }
  if (victims.empty()) return false;
  const Timer timer(spill_ns_, cost.wait_ns);
  std::shared_ptr<SpillFile> file;
  try {
    file = directory_->create_file();
    cost.spilled_bytes += write_victims(victims, *file);
  } catch (...) {
    const std::lock_guard lock(mutex_);
    for (const Victim& victim : victims) {
      locals_[victim.index].spilling = false;
      if (locals_[victim.index].dropped) {
        free_pages_if_unpinned(victim.index);
      } else {
        join_group(victim.index);
      }
    }
    throw;
  }
  ++spill_events_;
  const std::lock_guard lock(mutex_);
  for (const Victim& victim : victims) finish_victim(victim, file);
  return true;
}

uint64_t SegmentStore::write_victims(std::vector<Victim>& victims, SpillFile& file) {
  uint64_t total = 0;
  for (Victim& victim : victims) {
    victim.frame_offset = total;
    total += frame_bytes(arena_->entry(victim.index).bytes.load(std::memory_order_relaxed));
  }
  file.extend(total);
  uint64_t written = 0;
  for (Victim& victim : victims) {
    const SegmentEntry& entry = arena_->entry(victim.index);
    const uint8_t* data = arena_->data() + entry.offset.load(std::memory_order_relaxed);
    const uint64_t size = entry.bytes.load(std::memory_order_relaxed);
    victim.checksum = checksum(data, size);
    const FrameHeader frame = make_frame(size, victim.checksum);
    file.write(victim.frame_offset, &frame, sizeof frame);
    file.write(victim.frame_offset + kFrameHeaderBytes, data, size);
    spilled_total_ += size;
    written += size;
  }
  return written;
}

void SegmentStore::finish_victim(const Victim& victim, const std::shared_ptr<SpillFile>& file) {
  Local& local = locals_[victim.index];
  local.spilling = false;
  SegmentEntry& entry = arena_->entry(victim.index);
  if (!local.dropped) {
    local.file = file;
    entry.file_offset.store(victim.frame_offset + kFrameHeaderBytes, std::memory_order_relaxed);
    entry.checksum.store(victim.checksum, std::memory_order_relaxed);
    entry.file.store(file->number(), std::memory_order_release);
    entry.pins.fetch_or(kClosed, std::memory_order_acq_rel);
  }
  free_pages_if_unpinned(victim.index);
}

}  // namespace sabot
