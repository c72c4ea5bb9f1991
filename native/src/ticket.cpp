#include "sabot/ticket.hpp"

#include <algorithm>

#include "sabot/byte_io.hpp"
#include "sabot/partitioner.hpp"

namespace sabot {
namespace {

constexpr uint32_t kMagic = 0x32544253;
constexpr size_t kMaxIdBytes = 64;
constexpr size_t kMaxTicketBytes = 1 << 20;

[[noreturn]] void refuse(const char* why) { throw Error(ErrorCode::kTicket, std::string("the ticket is refused: ") + why); }

void check(const Ticket& ticket) {
  if (!is_id(ticket.query_id) || !is_id(ticket.edge_id)) refuse("an id is malformed");
  if (ticket.first_partition > ticket.last_partition || ticket.last_partition > kMaxPartitions) refuse("impossible partitions");
}

// Takes the same time wherever they differ.
bool equal(std::string_view a, const Digest& b) {
  uint8_t difference = 0;
  for (size_t i = 0; i < b.size(); ++i) difference = static_cast<uint8_t>(difference | (static_cast<uint8_t>(a[i]) ^ b[i]));
  return difference == 0;
}

}  // namespace

bool is_id(std::string_view id) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  };
  return !id.empty() && id.size() <= kMaxIdBytes && std::all_of(id.begin(), id.end(), allowed);
}

void check_id(const char* what, std::string_view id) {
  if (is_id(id)) return;
  // The id itself is not repeated: it may be long, and hold anything.
  throw Error(ErrorCode::kInvalidArgument, std::string("the id of ") + what + " must be 1 to 64 letters, digits, _ and -");
}

void check_ticket_key(std::string_view key) {
  if (key.size() >= sizeof(Digest)) return;
  throw Error(ErrorCode::kInvalidArgument, "a ticket key must have at least " + std::to_string(sizeof(Digest)) + " bytes, not " +
                                               std::to_string(key.size()));
}

std::string Ticket::seal(std::string_view key) const {
  check_ticket_key(key);
  check(*this);
  ByteWriter out;
  out.number(kMagic);
  out.text(query_id);
  out.text(edge_id);
  out.number(first_partition);
  out.number(last_partition);
  out.number(static_cast<uint8_t>(live));
  out.number(static_cast<uint32_t>(outputs.size()));
  for (const auto& [task, attempt] : outputs) {
    out.number(task);
    out.number(attempt);
  }
  std::string sealed = out.take();
  const Digest digest = hmac_sha256(key, sealed);
  return sealed.append(reinterpret_cast<const char*>(digest.data()), digest.size());
}

Ticket Ticket::open(std::string_view sealed, std::string_view key) {
  check_ticket_key(key);
  if (sealed.size() < sizeof(Digest) || sealed.size() > kMaxTicketBytes) refuse("its size is impossible");
  const std::string_view body = sealed.substr(0, sealed.size() - sizeof(Digest));
  if (!equal(sealed.substr(body.size()), hmac_sha256(key, body))) refuse("it was not made by this session");
  Ticket ticket;
  try {
    ByteReader in(body);
    if (in.number<uint32_t>() != kMagic) refuse("another version");
    ticket.query_id = in.text();
    ticket.edge_id = in.text();
    ticket.first_partition = in.number<uint32_t>();
    ticket.last_partition = in.number<uint32_t>();
    ticket.live = in.number<uint8_t>() != 0;
    ticket.outputs.resize(in.count(8));
    for (auto& [task, attempt] : ticket.outputs) {
      task = in.number<uint32_t>();
      attempt = in.number<uint32_t>();
    }
    if (in.left() != 0) refuse("it is malformed");
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kTicket) throw;
    refuse("it is malformed");
  }
  check(ticket);
  return ticket;
}

}  // namespace sabot
