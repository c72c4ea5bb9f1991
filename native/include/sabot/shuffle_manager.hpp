// An agent's shuffle: writes outputs, commits them, reads committed outputs of any manager of this host.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "sabot/arrow_abi.hpp"
#include "sabot/partition_stream.hpp"
#include "sabot/shuffle_buffer.hpp"
#include "sabot/ticket.hpp"
#include "sabot/ticket_source.hpp"

namespace sabot {

using ManifestPtr = std::shared_ptr<const Manifest>;

struct ManagerMetrics {
  StoreMetrics store;
  uint64_t rows, bytes, batches, outputs, writers, write_ms, wait_ms;
};

// Thread-safe: tasks write and read through one manager at the same time.
class ShuffleManager {
 public:
  ShuffleManager(std::string agent_id, const StoreConfig& config);
  ~ShuffleManager();
  ShuffleManager(const ShuffleManager&) = delete;
  ShuffleManager& operator=(const ShuffleManager&) = delete;

  // The edges of this query may be written here until the query is released.
  void register_shuffle(const std::string& query_id);
  // Writes what one task, a partition of its operator, gives: drains the stream into every output, then commits them all; on
  // any error none of them. With `live`, readers may follow the outputs while they are written. Raises
  // Error(kInvalidArgument) for a query that is not registered: what comes after its release would be freed by nobody.
  std::vector<ManifestPtr> write_partition(OwnedStream stream, const std::vector<OutputSpec>& outputs, const Watch& watch, bool live = false);
  // Batches of outputs written with `live`, as they are sealed; each is delivered once, to one reader.
  std::shared_ptr<LiveRead> follow(std::vector<OutputKey> keys, uint32_t first, uint32_t last, Watch watch);
  // Partitions [first, last) of the manifests, manifest by manifest, in the order written.
  std::shared_ptr<ReadPlan> read(const std::vector<ManifestPtr>& manifests, uint32_t first, uint32_t last, Watch watch);
  // What a ticket names. Raises Error(kLost) for an output that is not here, Error(kTicket) for a ticket of the other kind.
  std::shared_ptr<ReadPlan> read(const Ticket& ticket, Watch watch);
  std::shared_ptr<LiveRead> follow(const Ticket& ticket, Watch watch);
  // Partitions a committed output that kept its sort key by `bounds`; the new output takes the old one's place.
  ManifestPtr split(const ManifestPtr& manifest, std::vector<std::string> bounds, uint32_t attempt);
  // Frees the outputs of an edge, or with an empty edge of a query, and ends writes to them that are under way. An edge may be
  // written again; a query is forgotten.
  void release(const std::string& query_id, const std::string& edge_id);
  [[nodiscard]] ManagerMetrics metrics() const;

  [[nodiscard]] int arena_fd() const { return store_->arena_fd(); }
  // A second agent of the same name takes the first one's place.
  void attach_peer(const std::string& agent_id, int arena_fd, const std::string& spill_directory);
  // Gives up the mapping, and with it the memory of an agent that is dead, once nothing read from it is held any more.
  void detach_peer(const std::string& agent_id);
  // Gives memory that holds nothing back to the system.
  void trim() { store_->trim(); }
  // Frees everything. Arrays that consumers hold stay valid.
  void close();

 private:
  using Key = OutputKey;

  // A write under way, for release() to end.
  struct ActiveWrite {
    std::vector<OutputName> names;
    std::atomic<bool> released{false};
  };

  std::vector<ManifestPtr> write_outputs(OwnedStream stream, const std::vector<OutputSpec>& outputs, const Watch& watch,
                                         const ManifestPtr& replaced, bool live);
  void drain(ArrowArrayStream& stream, std::vector<std::unique_ptr<OutputWriter>>& writers, const ActiveWrite& active, const Watch& watch);
  std::vector<ManifestPtr> commit(std::vector<std::unique_ptr<OutputWriter>>& writers, const ActiveWrite& active,
                                  const ManifestPtr& replaced);
  std::shared_ptr<SegmentSource> source_of(const Manifest& manifest) const;
  [[nodiscard]] BatchLimits limits_for(uint32_t partitions) const;
  void check_open() const;
  void check_registered(const ActiveWrite& active) const;
  void drop(const Manifest& manifest) noexcept { store_->drop(manifest.segments()); }

  const std::string agent_id_;
  const std::shared_ptr<SegmentStore> store_;
  mutable std::mutex mutex_;
  const std::shared_ptr<LiveChannels> channels_;
  bool closed_ = false;
  std::set<std::string> registered_;
  std::map<Key, ManifestPtr> outputs_;
  std::vector<ActiveWrite*> active_;
  std::map<std::string, std::shared_ptr<SegmentSource>> peers_;
  std::atomic<uint64_t> next_output_{1};
  std::atomic<uint64_t> rows_{0};
  std::atomic<uint64_t> bytes_{0};
  std::atomic<uint64_t> batches_{0};
  std::atomic<uint64_t> write_ns_{0};
};

// Serves tickets sealed with `key`, keeping the manager alive.
SabotTicketSource make_ticket_source(std::shared_ptr<ShuffleManager> manager, std::string key);

}  // namespace sabot
