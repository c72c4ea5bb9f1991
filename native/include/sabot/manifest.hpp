// What a task committed for one output: where its batches lie, and what was learnt of its rows.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sabot/arena.hpp"
#include "sabot/distinct_sketch.hpp"
#include "sabot/schema.hpp"
#include "sabot/sketch.hpp"

namespace sabot {

struct SegmentRef {
  SegmentId id;
  uint64_t rows = 0;
  uint64_t bytes = 0;
};

struct PartitionSegments {
  uint64_t rows = 0;
  uint64_t bytes = 0;
  std::vector<SegmentRef> segments;   // in the order written
};

struct OutputName {
  std::string query_id;
  std::string edge_id;
  uint32_t task = 0;
  uint32_t attempt = 0;
};

struct Manifest {
  OutputName name;
  std::string agent_id;
  Nonce nonce{};                      // of the arena that holds the segments
  Field schema;                       // as stored
  std::string sort_key;               // the column kept for a later split, if any
  std::vector<PartitionSegments> partitions;
  std::vector<HeavyHitter> heavy;
  LeastHashes least_hashes;           // of the keys of a hash scheme
  std::vector<std::string> sample;
  uint64_t spilled_bytes = 0;         // written to disk to make room for it
  uint64_t wait_ns = 0;               // for that, and for the credit of its readers

  [[nodiscard]] uint64_t rows() const noexcept;
  [[nodiscard]] uint64_t bytes() const noexcept;
  [[nodiscard]] uint64_t batches() const noexcept;
  [[nodiscard]] std::vector<SegmentId> segments() const;

  [[nodiscard]] std::string to_bytes() const;
  // Raises Error(kCorrupt) for anything that to_bytes() did not write.
  static Manifest from_bytes(std::string_view data);
};

}  // namespace sabot
