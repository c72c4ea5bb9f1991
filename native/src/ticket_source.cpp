#include "sabot/ticket_source.hpp"

#include <cstdio>

#include "sabot/shuffle_manager.hpp"

namespace sabot {
namespace {

struct Context {
  std::shared_ptr<ShuffleManager> manager;
  std::string key;
};

void open_ticket(const Context& self, std::string_view sealed, Watch watch, SabotTicketStream* out) {
  const Ticket ticket = Ticket::open(sealed, self.key);
  if (ticket.live) {
    open_live_stream(self.manager->follow(ticket, std::move(watch)), &out->batches);
    out->failure = live_stream_failure;
    out->remaining = nullptr;
  } else {
    open_stream(self.manager->read(ticket, std::move(watch)), &out->batches);
    out->failure = stream_failure;
    out->remaining = stream_remaining;
  }
}

int open_sealed(void* context, SabotCaller caller, const char* ticket, size_t ticket_bytes, SabotTicketStream* out, char* message,
                size_t message_bytes) {
  try {
    open_ticket(*static_cast<Context*>(context), {ticket, ticket_bytes}, Watch::until([caller] { return caller.gone(caller.call) != 0; }), out);
    return 0;
  } catch (const Error& error) {
    std::snprintf(message, message_bytes, "%s", error.what());
    return static_cast<int>(error.code()) + 1;
  } catch (const std::exception& error) {
    std::snprintf(message, message_bytes, "%s", error.what());
    return static_cast<int>(ErrorCode::kInternal) + 1;
  }
}

void release_context(void* context) { const std::unique_ptr<Context> last(static_cast<Context*>(context)); }

}  // namespace

SabotTicketSource make_ticket_source(std::shared_ptr<ShuffleManager> manager, std::string key) {
  check_ticket_key(key);
  auto context = std::make_unique<Context>(Context{std::move(manager), std::move(key)});
  return {open_sealed, release_context, context.release()};
}

}  // namespace sabot
