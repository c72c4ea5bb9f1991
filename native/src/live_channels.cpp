#include "sabot/live_channels.hpp"

#include <algorithm>

namespace sabot {
namespace {

constexpr auto kPollInterval = std::chrono::milliseconds(20);
constexpr auto kCreditPatience = std::chrono::milliseconds(100);
constexpr size_t kRememberedReleases = 1024;

bool matches(const OutputKey& key, const std::string& query_id, const std::string& edge_id) {
  return std::get<0>(key) == query_id && (edge_id.empty() || std::get<1>(key) == edge_id);
}

}  // namespace

LiveChannels::Output& LiveChannels::find(const OutputKey& key) {
  const auto found = outputs_.find(key);
  if (found == outputs_.end()) throw Error(ErrorCode::kCancelled, "the query was released");
  return found->second;
}

bool LiveChannels::released_since(uint64_t releases, const OutputKey& key) const {
  const auto fresh = static_cast<ptrdiff_t>(std::min<uint64_t>(releases_ - releases, recent_releases_.size()));
  return std::any_of(recent_releases_.end() - fresh, recent_releases_.end(),
                     [&](const auto& release) { return matches(key, release.first, release.second); });
}

uint64_t LiveChannels::wait(std::unique_lock<std::mutex>& lock, const Watch& watch) {
  watch.check();
  const auto started = Clock::now();
  auto until = started + kPollInterval;
  if (watch.deadline()) until = std::min(until, *watch.deadline());
  changed_.wait_until(lock, until);
  const auto waited_ns = static_cast<uint64_t>(std::chrono::nanoseconds(Clock::now() - started).count());
  wait_ns_ += waited_ns;
  return waited_ns;
}

void LiveChannels::open(const OutputKey& key, uint32_t partitions, const Field& schema) {
  const std::lock_guard lock(mutex_);
  Output output;
  output.schema = schema;
  output.partitions.resize(partitions);
  if (!outputs_.emplace(key, std::move(output)).second) throw Error(ErrorCode::kInvalidArgument, "the output is open already");
  changed_.notify_all();
}

void LiveChannels::publish(const OutputKey& key, uint32_t partition, const SegmentRef& segment) {
  const std::lock_guard lock(mutex_);
  Output& output = find(key);
  output.partitions[partition].push_back(segment);
  output.unread_bytes += segment.bytes;
  changed_.notify_all();
}

uint64_t LiveChannels::await_credit(const OutputKey& key, const Watch& watch) {
  std::unique_lock lock(mutex_);
  const auto patience = Clock::now() + kCreditPatience;
  uint64_t waited_ns = 0;
  while (find(key).unread_bytes > credit_bytes_ && !find(key).credit_denied) {
    if (Clock::now() >= patience) {
      find(key).credit_denied = true;
      return waited_ns;
    }
    waited_ns += wait(lock, watch);
  }
  return waited_ns;
}

void LiveChannels::finish(const OutputKey& key) {
  const std::lock_guard lock(mutex_);
  find(key).finished = true;
  changed_.notify_all();
}

void LiveChannels::fail(const OutputKey& key, const Error& error) {
  const std::lock_guard lock(mutex_);
  const auto found = outputs_.find(key);
  if (found == outputs_.end()) return;
  found->second.error = error;
  for (auto& partition : found->second.partitions) partition.clear();
  changed_.notify_all();
}

Field LiveChannels::schema(const OutputKey& key, const Watch& watch) {
  std::unique_lock lock(mutex_);
  const uint64_t releases = releases_;
  for (;;) {
    if (const auto found = outputs_.find(key); found != outputs_.end()) return found->second.schema;
    if (released_since(releases, key)) throw Error(ErrorCode::kCancelled, "the query was released");
    wait(lock, watch);
  }
}

std::optional<SegmentRef> LiveChannels::next(const std::vector<OutputKey>& keys, uint32_t first, uint32_t last, const Watch& watch) {
  std::unique_lock lock(mutex_);
  const uint64_t releases = releases_;
  for (;;) {
    bool ended = true;
    for (const OutputKey& key : keys) {
      const auto found = outputs_.find(key);
      if (found == outputs_.end()) {
        if (released_since(releases, key)) throw Error(ErrorCode::kCancelled, "the query was released");
        ended = false;  // not opened yet
        continue;
      }
      Output& output = found->second;
      if (output.error) throw *output.error;
      if (last > output.partitions.size()) throw Error(ErrorCode::kInvalidArgument, "the output has fewer partitions");
      for (uint32_t p = first; p < last; ++p) {
        if (output.partitions[p].empty()) continue;
        const SegmentRef segment = output.partitions[p].front();
        output.partitions[p].pop_front();
        output.unread_bytes -= segment.bytes;
        output.credit_denied = false;
        changed_.notify_all();
        return segment;
      }
      ended &= output.finished;
    }
    if (ended) return std::nullopt;
    wait(lock, watch);
  }
}

void LiveChannels::release(const std::string& query_id, const std::string& edge_id) {
  const std::lock_guard lock(mutex_);
  ++releases_;
  recent_releases_.emplace_back(query_id, edge_id);
  if (recent_releases_.size() > kRememberedReleases) recent_releases_.pop_front();
  std::erase_if(outputs_, [&](const auto& item) { return matches(item.first, query_id, edge_id); });
  changed_.notify_all();
}

uint64_t LiveChannels::wait_ms() const {
  const std::lock_guard lock(mutex_);
  return wait_ns_ / 1'000'000;
}

}  // namespace sabot
