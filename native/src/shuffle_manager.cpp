#include "sabot/shuffle_manager.hpp"

#include <algorithm>
#include <chrono>

namespace sabot {
namespace {

// A writer's open batches may take this part of the budget, shared by all writers.
constexpr uint64_t kOpenShare = 4;
constexpr uint64_t kMinBatchBytes = 32 * 1024;

Field read_schema(ArrowArrayStream& stream) {
  OwnedSchema schema;
  if (stream.get_schema(&stream, schema.get()) != 0) {
    const char* message = stream.get_last_error(&stream);
    throw Error(ErrorCode::kStream, message != nullptr ? message : "the stream has no schema");
  }
  Field field = import_field(*schema);
  if (field.kind != Kind::kStruct) throw Error(ErrorCode::kUnsupported, "the stream's items are not record batches");
  return field;
}

}  // namespace

ShuffleManager::ShuffleManager(std::string agent_id, const StoreConfig& config)
    : agent_id_(std::move(agent_id)), store_(std::make_shared<SegmentStore>(config)),
      channels_(std::make_shared<LiveChannels>(store_->budget_bytes() / kOpenShare)) {
  check_id("an agent", agent_id_);
  register_source(store_);
}

ShuffleManager::~ShuffleManager() { close(); }

void ShuffleManager::check_open() const {
  if (closed_) throw Error(ErrorCode::kInvalidArgument, "the shuffle manager of agent " + agent_id_ + " is closed");
}

BatchLimits ShuffleManager::limits_for(uint32_t partitions) const {
  const uint64_t share = store_->budget_bytes() / kOpenShare / (uint64_t{partitions} * std::max<size_t>(1, active_.size()));
  BatchLimits limits;
  limits.max_bytes = std::clamp(share / kPageBytes * kPageBytes, std::min(kMinBatchBytes, store_->segment_bytes()), store_->segment_bytes());
  return limits;
}

void ShuffleManager::check_registered(const ActiveWrite& active) const {
  for (const OutputName& name : active.names) {
    if (registered_.contains(name.query_id)) continue;
    throw Error(ErrorCode::kInvalidArgument, "agent " + agent_id_ + " has no shuffle of query '" + name.query_id +
                                                 "': it was never registered, or is released");
  }
}

void ShuffleManager::register_shuffle(const std::string& query_id) {
  check_id("a query", query_id);
  const std::lock_guard lock(mutex_);
  check_open();
  registered_.insert(query_id);
}

std::vector<ManifestPtr> ShuffleManager::write_partition(OwnedStream stream, const std::vector<OutputSpec>& outputs,
                                                         const Watch& watch, bool live) {
  return write_outputs(std::move(stream), outputs, watch, nullptr, live);
}

std::vector<ManifestPtr> ShuffleManager::write_outputs(OwnedStream stream, const std::vector<OutputSpec>& outputs, const Watch& watch,
                                                       const ManifestPtr& replaced, bool live) {
  const auto started = Clock::now();
  ActiveWrite active;
  for (const OutputSpec& output : outputs) {
    check_id("a query", output.name.query_id);
    check_id("an edge", output.name.edge_id);
    active.names.push_back(output.name);
  }
  {
    const std::lock_guard lock(mutex_);
    check_open();
    check_registered(active);
    active_.push_back(&active);
  }
  struct Leave {
    ShuffleManager& manager;
    ActiveWrite& active;
    Clock::time_point started;
    ~Leave() {
      const std::lock_guard lock(manager.mutex_);
      std::erase(manager.active_, &active);
      manager.write_ns_ += static_cast<uint64_t>(std::chrono::nanoseconds(Clock::now() - started).count());
    }
  } const leave{*this, active, started};
  const Field input = read_schema(*stream.get());
  std::vector<std::unique_ptr<OutputWriter>> writers;
  for (const OutputSpec& output : outputs) {
    BatchLimits limits;
    {
      const std::lock_guard lock(mutex_);
      limits = limits_for(output.scheme.partitions * static_cast<uint32_t>(outputs.size()));
    }
    writers.push_back(std::make_unique<OutputWriter>(store_, next_output_++, output, input, limits));
  }
  std::vector<OutputKey> opened;
  const auto fail_channels = [&](const Error& error) {
    for (const OutputKey& key : opened) channels_->fail(key, error);
  };
  try {
    for (size_t i = 0; live && i < writers.size(); ++i) {
      writers[i]->stream_to(channels_);
      opened.push_back(key_of(active.names[i]));
    }
    drain(*stream.get(), writers, active, watch);
    for (const auto& writer : writers) writer->finish();
    watch.check();
    auto manifests = commit(writers, active, replaced);
    for (const OutputKey& key : opened) channels_->finish(key);
    return manifests;
  } catch (const Error& error) {
    fail_channels(error);
    throw;
  } catch (const std::exception& error) {
    fail_channels(Error(ErrorCode::kInternal, error.what()));
    throw;
  }
}

std::shared_ptr<LiveRead> ShuffleManager::follow(std::vector<OutputKey> keys, uint32_t first, uint32_t last, Watch watch) {
  if (keys.empty() || first > last) throw Error(ErrorCode::kInvalidArgument, "there is nothing to follow");
  auto read = std::make_shared<LiveRead>();
  read->channels = channels_;
  read->store = store_;
  read->keys = std::move(keys);
  read->first = first;
  read->last = last;
  read->watch = std::move(watch);
  return read;
}

void ShuffleManager::drain(ArrowArrayStream& stream, std::vector<std::unique_ptr<OutputWriter>>& writers, const ActiveWrite& active,
                           const Watch& watch) {
  for (;;) {
    watch.check();
    if (active.released.load(std::memory_order_acquire)) throw Error(ErrorCode::kCancelled, "the query was released");
    OwnedArray batch;
    if (stream.get_next(&stream, batch.get()) != 0) {
      watch.check();  // an interrupted producer reports an error of its own: ours says why
      const char* message = stream.get_last_error(&stream);
      throw Error(ErrorCode::kStream, message != nullptr ? message : "the stream failed");
    }
    if (!batch) return;
    rows_ += static_cast<uint64_t>(batch->length);
    for (const auto& writer : writers) writer->append(*batch, watch);
  }
}

std::vector<ManifestPtr> ShuffleManager::commit(std::vector<std::unique_ptr<OutputWriter>>& writers, const ActiveWrite& active,
                                                const ManifestPtr& replaced) {
  std::vector<ManifestPtr> manifests;
  const std::lock_guard lock(mutex_);
  check_open();
  if (active.released) throw Error(ErrorCode::kCancelled, "the query was released");
  for (const OutputName& name : active.names) {
    if (outputs_.contains(key_of(name)) && !(replaced && key_of(replaced->name) == key_of(name))) {
      throw Error(ErrorCode::kInvalidArgument, "task " + std::to_string(name.task) + " of edge " + name.edge_id + " committed attempt " +
                                                   std::to_string(name.attempt) + " before");
    }
  }
  if (replaced) {
    if (outputs_.erase(key_of(replaced->name)) == 0) throw Error(ErrorCode::kLost, "the output to replace was released");
    drop(*replaced);
  }
  for (const auto& writer : writers) {
    auto manifest = std::make_shared<const Manifest>(writer->release_manifest(agent_id_));
    bytes_ += manifest->bytes();
    batches_ += manifest->batches();
    outputs_[key_of(manifest->name)] = manifest;
    manifests.push_back(std::move(manifest));
  }
  return manifests;
}

std::shared_ptr<SegmentSource> ShuffleManager::source_of(const Manifest& manifest) const {
  if (manifest.nonce == store_->nonce()) return store_;
  auto source = find_source(manifest.nonce);
  if (!source) throw Error(ErrorCode::kLost, "the segments of agent " + manifest.agent_id + " cannot be reached from agent " + agent_id_);
  return source;
}

std::shared_ptr<ReadPlan> ShuffleManager::read(const std::vector<ManifestPtr>& manifests, uint32_t first, uint32_t last, Watch watch) {
  if (manifests.empty()) throw Error(ErrorCode::kInvalidArgument, "there is no manifest to read");
  std::vector<ReadPlan::Item> items;
  for (const ManifestPtr& manifest : manifests) {
    if (!same_layout(manifest->schema, manifests.front()->schema)) {
      throw Error(ErrorCode::kInvalidArgument, "the manifests have different schemas");
    }
    if (first > last || last > manifest->partitions.size()) {
      throw Error(ErrorCode::kInvalidArgument, "partitions [" + std::to_string(first) + ", " + std::to_string(last) + ") of " +
                                                   std::to_string(manifest->partitions.size()));
    }
    std::shared_ptr<SegmentSource> source;
    for (uint32_t p = first; p < last; ++p) {
      for (const SegmentRef& segment : manifest->partitions[p].segments) {
        if (!source) source = source_of(*manifest);
        items.push_back({source, segment});
      }
    }
  }
  return std::make_shared<ReadPlan>(manifests.front()->schema, std::move(items), std::move(watch));
}

std::shared_ptr<ReadPlan> ShuffleManager::read(const Ticket& ticket, Watch watch) {
  if (ticket.live) throw Error(ErrorCode::kTicket, "the ticket is refused: it is for following an output, not for reading one");
  std::vector<ManifestPtr> manifests;
  {
    const std::lock_guard lock(mutex_);
    check_open();
    for (const auto& [task, attempt] : ticket.outputs) {
      const auto found = outputs_.find(Key{ticket.query_id, ticket.edge_id, task, attempt});
      if (found == outputs_.end()) throw Error(ErrorCode::kLost, "an output of the ticket was released");
      manifests.push_back(found->second);
    }
  }
  return read(manifests, ticket.first_partition, ticket.last_partition, std::move(watch));
}

std::shared_ptr<LiveRead> ShuffleManager::follow(const Ticket& ticket, Watch watch) {
  if (!ticket.live) throw Error(ErrorCode::kTicket, "the ticket is refused: it is for reading an output, not for following one");
  std::vector<OutputKey> keys;
  for (const auto& [task, attempt] : ticket.outputs) keys.emplace_back(ticket.query_id, ticket.edge_id, task, attempt);
  return follow(std::move(keys), ticket.first_partition, ticket.last_partition, std::move(watch));
}

ManifestPtr ShuffleManager::split(const ManifestPtr& manifest, std::vector<std::string> bounds, uint32_t attempt) {
  if (manifest->sort_key.empty()) throw Error(ErrorCode::kInvalidArgument, "only a sampled output can be split");
  {
    const std::lock_guard lock(mutex_);
    check_open();
    const auto found = outputs_.find(key_of(manifest->name));
    if (found == outputs_.end()) throw Error(ErrorCode::kLost, "the output to split was released");
  }
  ArrowArrayStream stream{};
  open_stream(read({manifest}, 0, static_cast<uint32_t>(manifest->partitions.size()), {}), &stream);
  OutputSpec output{manifest->name, Scheme::range(manifest->sort_key, std::move(bounds)), std::nullopt};
  output.name.attempt = attempt;
  return write_outputs(OwnedStream(&stream), {output}, {}, manifest, false).front();
}

void ShuffleManager::release(const std::string& query_id, const std::string& edge_id) {
  channels_->release(query_id, edge_id);
  const std::lock_guard lock(mutex_);
  if (edge_id.empty()) registered_.erase(query_id);
  const auto matches = [&](const OutputName& name) {
    return name.query_id == query_id && (edge_id.empty() || name.edge_id == edge_id);
  };
  for (ActiveWrite* active : active_) {
    if (std::any_of(active->names.begin(), active->names.end(), matches)) active->released.store(true, std::memory_order_release);
  }
  for (auto at = outputs_.lower_bound(Key{query_id, edge_id, 0, 0}); at != outputs_.end() && matches(at->second->name);) {
    drop(*at->second);
    at = outputs_.erase(at);
  }
}

ManagerMetrics ShuffleManager::metrics() const {
  const StoreMetrics store = store_->metrics();
  const std::lock_guard lock(mutex_);
  return {store, rows_, bytes_, batches_, outputs_.size(), active_.size(), write_ns_ / 1'000'000, store.spill_ms + channels_->wait_ms()};
}

void ShuffleManager::attach_peer(const std::string& agent_id, int arena_fd, const std::string& spill_directory) {
  check_id("an agent", agent_id);
  std::shared_ptr<SegmentSource> peer = std::make_shared<PeerSource>(arena_fd, spill_directory);
  const std::lock_guard lock(mutex_);
  check_open();
  if (auto known = find_source(peer->nonce())) {
    peer = std::move(known);  // of this process, or attached through another manager
  } else {
    register_source(peer);
  }
  peers_[agent_id] = std::move(peer);
}

void ShuffleManager::detach_peer(const std::string& agent_id) {
  const std::lock_guard lock(mutex_);
  peers_.erase(agent_id);
}

void ShuffleManager::close() {
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  closed_ = true;
  for (ActiveWrite* active : active_) active->released.store(true, std::memory_order_release);
  for (const auto& [key, manifest] : outputs_) drop(*manifest);
  outputs_.clear();
  peers_.clear();
  store_->trim();  // the manager itself may be referred to for long
}

}  // namespace sabot
