#include "sabot/segment_source.hpp"

#include <map>
#include <mutex>

#include "sabot/spill.hpp"

namespace sabot {

PinnedSegment& PinnedSegment::operator=(PinnedSegment&& other) noexcept {
  if (this != &other) {
    reset();
    source_ = std::move(other.source_);
    index_ = other.index_;
    map_ = std::move(other.map_);
    data_ = other.data_;
    bytes_ = other.bytes_;
  }
  return *this;
}

void PinnedSegment::reset() noexcept {
  if (source_) source_->unpin(index_);
  source_.reset();
  map_.reset();
}

PeerSource::PeerSource(int arena_fd, std::string spill_directory)
    : arena_(Arena::attach(arena_fd)),
      spill_reader_(std::make_unique<SpillReader>(std::move(spill_directory), arena_->nonce())) {}

PeerSource::~PeerSource() = default;

PinnedSegment PeerSource::pin(SegmentId id) {
  const PinResult result = arena_->pin(id);
  if (result.state == PinResult::State::kPinned) return {shared_from_this(), id.index, result.data, result.bytes};
  if (result.state == PinResult::State::kLost) throw Error(ErrorCode::kLost, "a segment of a peer was released");
  auto map = spill_reader_->open(result.spill);
  const uint8_t* data = map->data() + result.spill.offset;
  return {std::move(map), data, result.spill.bytes};
}

void PeerSource::unpin(uint32_t index) noexcept { arena_->unpin(index); }

namespace {

std::mutex registry_mutex;
std::map<Nonce, std::weak_ptr<SegmentSource>>& registry() {
  static std::map<Nonce, std::weak_ptr<SegmentSource>> sources;
  return sources;
}

}  // namespace

void register_source(const std::shared_ptr<SegmentSource>& source) {
  const std::lock_guard lock(registry_mutex);
  std::erase_if(registry(), [](const auto& item) { return item.second.expired(); });
  registry()[source->nonce()] = source;
}

std::shared_ptr<SegmentSource> find_source(const Nonce& nonce) {
  const std::lock_guard lock(registry_mutex);
  const auto found = registry().find(nonce);
  return found == registry().end() ? nullptr : found->second.lock();
}

}  // namespace sabot
