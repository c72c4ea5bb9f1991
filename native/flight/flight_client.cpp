#include "flight_client.hpp"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <algorithm>

#include "call_token.hpp"
#include "flight_errors.hpp"

namespace sabot {
namespace {

namespace flight = arrow::flight;

// In which a silence is measured.
constexpr uint32_t kTicks = 10;

// gRPC takes the memory for what it receives from malloc, in pieces so large that glibc maps and unmaps each of them, or
// gives the top of its heap back at once: every page is faulted in anew, which costs more than all copies of the data
// together. These are the limits at which glibc itself arrives once a process has freed a block of 32 MiB.
void keep_freed_memory() {
#if defined(__GLIBC__)
  static const bool done = [] {
    constexpr int kMapBytes = 32 << 20;
    return mallopt(M_MMAP_THRESHOLD, kMapBytes) != 0 && mallopt(M_TRIM_THRESHOLD, 2 * kMapBytes) != 0;
  }();
  static_cast<void>(done);
#endif
}

}  // namespace

FlightClientPool::FlightClientPool(const FlightClientConfig& config) : config_(config) {
  keep_freed_memory();
  channels_ = std::make_shared<FlightChannels>(config);
}

std::shared_ptr<RemoteRead> FlightClientPool::read(const std::string& ticket, int64_t deadline_ms) {
  flight::FlightCallOptions options = call_options(config_.token);
  options.timeout = flight::TimeoutDuration(static_cast<double>(deadline_ms) / 1000.0);
  // Where the server's padding did not achieve it.
  options.read_options.ensure_alignment = arrow::ipc::Alignment::kDataTypeSpecificAlignment;
  options.read_options.use_threads = false;
  auto read = std::make_shared<RemoteRead>(channels_, flight::Ticket(ticket), options);
  if (config_.silence_ms > 0) {
    const std::lock_guard lock(mutex_);
    std::erase_if(reads_, [](const auto& known) { return known.expired(); });
    reads_.push_back(read);
    watch();
  }
  return read;
}

void FlightClientPool::watch() {
  if (pulse_) return;
  // On a connection of its own: one that is full of rows which nobody takes lets no answer through.
  pulse_ = std::make_unique<Pulse>(connect_flight(config_, new_connection(), 0), call_options(config_.token),
                                   std::chrono::milliseconds(std::max(1u, config_.silence_ms / kTicks)),
                                   [this](uint64_t silent_ms) { end_silent(silent_ms); });
}

void FlightClientPool::end_silent(uint64_t silent_ms) {
  if (silent_ms < config_.silence_ms) return;
  const Error reason(ErrorCode::kLost, config_.host + ":" + std::to_string(config_.port) + " has not answered for " +
                                           std::to_string(silent_ms) + " ms");
  const std::lock_guard lock(mutex_);
  for (const auto& known : reads_) {
    if (const auto read = known.lock()) read->end(reason);
  }
}

}  // namespace sabot
