// Tells whether the process at the other end of a socket runs, whatever its interpreter is doing.
#pragma once

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#include "sabot/unique_fd.hpp"

namespace sabot {

// A thread without any lock of the process's: it asks once an interval and answers what the other end asks. A process
// answers as long as it is scheduled; one that is stopped does not. Both ends have one, on a socket of its own.
class Heartbeat {
 public:
  // Takes a duplicate of a connected stream socket. An interval of 0 asks nothing and only answers.
  Heartbeat(int descriptor, std::chrono::milliseconds interval);
  ~Heartbeat();
  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;

  // How long the last question has been without an answer. Time in which this thread itself was late does not count.
  [[nodiscard]] uint64_t silent_ms() const noexcept { return silent_ms_.load(std::memory_order_acquire); }
  // Ends the thread.
  void stop() noexcept;

 private:
  using Time = std::chrono::steady_clock::time_point;

  void run() noexcept;
  // Reads what came and answers it. False once the other end is gone.
  bool receive() noexcept;
  void ask(Time now) noexcept;
  bool send(char what) noexcept;

  const std::chrono::milliseconds interval_;
  const pid_t owner_ = ::getpid();
  UniqueFd socket_;
  UniqueFd stop_;  // an eventfd
  bool asked_ = false;
  Time asked_at_{};  // of the last tick that counted
  std::atomic<uint64_t> silent_ms_{0};
  std::thread* thread_ = nullptr;  // leaked in a forked child, which does not have it
};

}  // namespace sabot
