// How a transport in another library gets at a manager's committed partitions: plain C, no exceptions across.
#pragma once

#include <cstddef>
#include <cstdint>

#include "sabot/arrow_abi.hpp"

extern "C" {

struct SabotStreamExtent {
  uint64_t batches;
  uint64_t rows;
  uint64_t bytes;
};

struct SabotTicketStream {
  struct ArrowArrayStream batches;
  // The number of the sabot::ErrorCode that ended `batches`, plus 1.
  int (*failure)(struct ArrowArrayStream* batches);
  // What `batches` has not delivered yet. Null where nobody knows: the output is still being written.
  void (*remaining)(struct ArrowArrayStream* batches, struct SabotStreamExtent* out);
};

// Who asks. Valid until the stream is released.
struct SabotCaller {
  int (*gone)(const void* call);
  const void* call;
};

struct SabotTicketSource {
  // Opens the stream that a sealed ticket names. 0, or the number of a sabot::ErrorCode plus 1 and a message.
  int (*open)(void* context, struct SabotCaller caller, const char* ticket, size_t ticket_bytes, struct SabotTicketStream* out,
              char* message, size_t message_bytes);
  void (*release)(void* context);
  void* context;
};

}  // extern "C"

constexpr const char* kTicketSourceCapsule = "sabot_ticket_source";
