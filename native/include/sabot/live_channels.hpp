// Streaming channels: batches of an output that is still being written, handed to a reader as they are sealed.
//
// A channel is one partition of one output. Its batches are segments of the store, so memory stays within the budget and a
// reader that falls behind finds its batches on disk. Credit is what a writer may have unread in memory; a writer out of credit waits
// for its readers for a while and then goes on, leaving the eviction to the store. So two branches of a diamond may be read one
// after the other.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "sabot/manifest.hpp"
#include "sabot/partition_stream.hpp"
#include "sabot/schema.hpp"
#include "sabot/segment_store.hpp"
#include "sabot/watch.hpp"

namespace sabot {

using OutputKey = std::tuple<std::string, std::string, uint32_t, uint32_t>;   // query, edge, task, attempt

inline OutputKey key_of(const OutputName& name) { return {name.query_id, name.edge_id, name.task, name.attempt}; }

// Thread-safe. Every wait ends by data, the end of the stream, failure, cancel, deadline or release.
class LiveChannels {
 public:
  explicit LiveChannels(uint64_t credit_bytes) : credit_bytes_(credit_bytes) {}

  // The writer's side.
  void open(const OutputKey& key, uint32_t partitions, const Field& schema);
  void publish(const OutputKey& key, uint32_t partition, const SegmentRef& segment);
  // Waits until less than the credit is unread, but not for long, and not again until a reader has moved. Gives the
  // nanoseconds that took.
  uint64_t await_credit(const OutputKey& key, const Watch& watch);
  void finish(const OutputKey& key);
  void fail(const OutputKey& key, const Error& error);

  // The reader's side. Waits for the output to be opened.
  Field schema(const OutputKey& key, const Watch& watch);
  // The next batch of any of the outputs in partitions [first, last), each to one caller once; none when all have ended.
  std::optional<SegmentRef> next(const std::vector<OutputKey>& keys, uint32_t first, uint32_t last, const Watch& watch);

  // Ends the channels of an edge, or with an empty edge of a query.
  void release(const std::string& query_id, const std::string& edge_id);
  [[nodiscard]] uint64_t wait_ms() const;

 private:
  struct Output {
    Field schema;
    std::vector<std::deque<SegmentRef>> partitions;
    uint64_t unread_bytes = 0;
    bool credit_denied = false;       // waited in vain since a reader last moved
    bool finished = false;
    std::optional<Error> error;
  };

  // Wakes up for a change, and often enough to see a cancel. Gives the nanoseconds that took, which the metrics add up.
  uint64_t wait(std::unique_lock<std::mutex>& lock, const Watch& watch);
  Output& find(const OutputKey& key);
  // Whether an output that nobody has opened was released after the first `releases` releases.
  [[nodiscard]] bool released_since(uint64_t releases, const OutputKey& key) const;

  const uint64_t credit_bytes_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<OutputKey, Output> outputs_;
  uint64_t releases_ = 0;
  std::deque<std::pair<std::string, std::string>> recent_releases_;   // the last of them: query, edge
  uint64_t wait_ns_ = 0;
};

// A reader of outputs that may still be written; each batch is delivered once.
struct LiveRead {
  std::shared_ptr<LiveChannels> channels;
  std::shared_ptr<SegmentStore> store;
  std::vector<OutputKey> keys;
  uint32_t first = 0;
  uint32_t last = 0;
  Watch watch;
  ErrorSlot error;
};
void open_live_stream(std::shared_ptr<LiveRead> read, ArrowArrayStream* out);
// Of a stream that open_live_stream() made: see SabotTicketStream.
int live_stream_failure(ArrowArrayStream* stream);

}  // namespace sabot
