// What the Cython module of the core needs beyond plain calls.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "python_errors.hpp"
#include "sabot/live_channels.hpp"
#include "sabot/manifest.hpp"
#include "sabot/partition_stream.hpp"
#include "sabot/shuffle_manager.hpp"
#include "sabot/ticket.hpp"

namespace sabot {

inline std::shared_ptr<const Manifest> manifest_from_bytes(const char* data, size_t bytes) {
  return std::make_shared<const Manifest>(Manifest::from_bytes({data, bytes}));
}

inline void add_output(std::vector<OutputSpec>& outputs, const std::string& query_id, const std::string& edge_id, uint32_t task,
                       uint32_t attempt, const Scheme& scheme, bool all_columns, const std::vector<std::string>& columns) {
  outputs.push_back({{query_id, edge_id, task, attempt}, scheme, std::nullopt});
  if (!all_columns) outputs.back().columns = columns;
}

// A ticket for outputs of one edge.
inline std::string seal_ticket(const std::vector<std::shared_ptr<const Manifest>>& manifests, uint32_t first, uint32_t last,
                               const std::string& key) {
  if (manifests.empty()) throw Error(ErrorCode::kInvalidArgument, "there is no manifest to read");
  const OutputName& name = manifests.front()->name;
  Ticket ticket{name.query_id, name.edge_id, {}, first, last, false};
  for (const auto& manifest : manifests) {
    if (manifest->name.query_id != name.query_id || manifest->name.edge_id != name.edge_id) {
      throw Error(ErrorCode::kInvalidArgument, "a ticket is for outputs of one edge");
    }
    ticket.outputs.emplace_back(manifest->name.task, manifest->name.attempt);
  }
  return ticket.seal(key);
}

inline std::string seal_live_ticket(const std::vector<OutputKey>& keys, uint32_t first, uint32_t last, const std::string& key) {
  if (keys.empty()) throw Error(ErrorCode::kInvalidArgument, "there is nothing to follow");
  const auto& [query_id, edge_id, first_task, first_attempt] = keys.front();
  Ticket ticket{query_id, edge_id, {}, first, last, true};
  for (const auto& [query, edge, task, attempt] : keys) ticket.outputs.emplace_back(task, attempt);
  return ticket.seal(key);
}

inline std::shared_ptr<ReadPlan> read_sealed(ShuffleManager& manager, const std::string& sealed, const std::string& key) {
  return manager.read(Ticket::open(sealed, key), {});
}

inline void add_key(std::vector<OutputKey>& keys, const std::string& query_id, const std::string& edge_id, uint32_t task, uint32_t attempt) {
  keys.emplace_back(query_id, edge_id, task, attempt);
}

}  // namespace sabot
