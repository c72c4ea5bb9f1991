// What a reader on another host presents to fetch committed partitions: names, sealed with the session's key.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sabot/manifest.hpp"

namespace sabot {

using Digest = std::array<uint8_t, 32>;

Digest sha256(std::string_view data);
Digest hmac_sha256(std::string_view key, std::string_view message);

// Names of agents, queries and edges: ^[A-Za-z0-9_-]{1,64}$.
[[nodiscard]] bool is_id(std::string_view id);
// Raises Error(kInvalidArgument) for anything else; `what` it is a name of.
void check_id(const char* what, std::string_view id);
// A key shorter than the digest could be found by trying; raises Error(kInvalidArgument).
void check_ticket_key(std::string_view key);

struct Ticket {
  std::string query_id;
  std::string edge_id;
  std::vector<std::pair<uint32_t, uint32_t>> outputs;   // (task, attempt), in the order to read
  uint32_t first_partition = 0;
  uint32_t last_partition = 0;
  bool live = false;            // follow the outputs while they are written

  // Raises Error(kTicket) for an id that is none.
  [[nodiscard]] std::string seal(std::string_view key) const;
  // Raises Error(kTicket) for anything that seal() did not make with this key.
  static Ticket open(std::string_view sealed, std::string_view key);
};

}  // namespace sabot
