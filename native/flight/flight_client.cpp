#include "flight_client.hpp"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "call_token.hpp"
#include "flight_errors.hpp"

namespace sabot {
namespace {

namespace flight = arrow::flight;

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

FlightClientPool::FlightClientPool(const FlightClientConfig& config) : token_(config.token) {
  keep_freed_memory();
  channels_ = std::make_shared<FlightChannels>(config);
}

std::shared_ptr<RemoteRead> FlightClientPool::read(const std::string& ticket, int64_t deadline_ms) {
  flight::FlightCallOptions options;
  options.timeout = flight::TimeoutDuration(static_cast<double>(deadline_ms) / 1000.0);
  if (!token_.empty()) options.headers.emplace_back(kTokenHeader, bearer(token_));
  // Where the server's padding did not achieve it.
  options.read_options.ensure_alignment = arrow::ipc::Alignment::kDataTypeSpecificAlignment;
  options.read_options.use_threads = false;
  return std::make_shared<RemoteRead>(channels_, flight::Ticket(ticket), options);
}

}  // namespace sabot
