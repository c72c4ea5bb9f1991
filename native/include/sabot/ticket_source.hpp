// How a transport in another library gets at a manager's committed partitions: plain C, no exceptions across.
#pragma once

#include <cstddef>

#include "sabot/arrow_abi.hpp"

extern "C" {

struct SabotTicketSource {
  // Opens the stream that a sealed ticket names. 0, or the number of a sabot::ErrorCode plus 1 and a message.
  int (*open)(void* context, const char* ticket, size_t ticket_bytes, struct ArrowArrayStream* out, char* message, size_t message_bytes);
  void (*release)(void* context);
  void* context;
};

}  // extern "C"

constexpr const char* kTicketSourceCapsule = "sabot_ticket_source";
