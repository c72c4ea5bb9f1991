#include "sabot/ticket_source.hpp"

#include <cstdio>

#include "sabot/shuffle_manager.hpp"

namespace sabot {
namespace {

struct Context {
  std::shared_ptr<ShuffleManager> manager;
  std::string key;
};

int open_ticket(void* context, const char* ticket, size_t ticket_bytes, SabotTicketStream* out, char* message, size_t message_bytes) {
  const auto& self = *static_cast<Context*>(context);
  try {
    open_stream(self.manager->read_ticket({ticket, ticket_bytes}, self.key), &out->batches);
    out->failure = stream_failure;
    out->remaining = stream_remaining;
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
  auto context = std::make_unique<Context>(Context{std::move(manager), std::move(key)});
  return {open_ticket, release_context, context.release()};
}

}  // namespace sabot
