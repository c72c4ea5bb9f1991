// Tells whether the process at the other end of a connection runs and can be reached, whatever its interpreter is doing.
#pragma once

#include <arrow/flight/client.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

namespace sabot {

// The command of the exchange that a server answers by itself.
constexpr const char* kPulseCommand = "pulse";

// Asks once an interval over a connection and measures how long the last question has had no answer. Two threads without
// any lock of the process's: one waits in the connection, the other watches it.
class Pulse {
 public:
  using Silent = std::function<void(uint64_t silent_ms)>;

  // `on_silence`, called by the watching thread once a tick, may be empty.
  Pulse(std::shared_ptr<arrow::flight::FlightClient> client, const arrow::flight::FlightCallOptions& options,
        std::chrono::milliseconds interval, Silent on_silence);
  ~Pulse();
  Pulse(const Pulse&) = delete;
  Pulse& operator=(const Pulse&) = delete;

  // Time in which the watching thread itself was late does not count. An exchange that has ended answers nothing.
  [[nodiscard]] uint64_t silent_ms() const noexcept { return silent_ms_.load(std::memory_order_acquire); }
  void stop() noexcept;

 private:
  void ask();
  void watch();
  // False once it is to stop.
  bool sleep_until(std::chrono::steady_clock::time_point when);

  const std::shared_ptr<arrow::flight::FlightClient> client_;
  const arrow::flight::FlightCallOptions options_;
  const std::chrono::milliseconds interval_;
  const Silent on_silence_;
  const pid_t owner_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  arrow::flight::FlightStreamReader* reader_ = nullptr;
  std::atomic<uint64_t> answers_{0};
  std::atomic<uint64_t> silent_ms_{0};
  std::thread* asking_ = nullptr;  // leaked in a forked child, which does not have them
  std::thread* watching_ = nullptr;
};

}  // namespace sabot
