// What ends a wait early: a cancel token and a deadline.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "sabot/errors.hpp"

namespace sabot {

class CancelToken {
 public:
  void cancel() noexcept { cancelled_.store(true, std::memory_order_release); }
  [[nodiscard]] bool cancelled() const noexcept { return cancelled_.load(std::memory_order_acquire); }

 private:
  std::atomic<bool> cancelled_{false};
};

using Clock = std::chrono::steady_clock;

// A cancel token and a deadline, polled together. Either may be absent.
class Watch {
 public:
  Watch() = default;
  Watch(std::shared_ptr<CancelToken> token, std::optional<Clock::time_point> deadline)
      : token_(std::move(token)), deadline_(deadline) {}

  // A negative number of milliseconds means: no deadline.
  static Watch after(std::shared_ptr<CancelToken> token, int64_t deadline_ms) {
    if (deadline_ms < 0) return Watch(std::move(token), std::nullopt);
    return Watch(std::move(token), Clock::now() + std::chrono::milliseconds(deadline_ms));
  }

  // Ends waits once `gone` says that nobody wants their result any more.
  static Watch until(std::function<bool()> gone) {
    Watch watch;
    watch.gone_ = std::move(gone);
    return watch;
  }

  [[nodiscard]] bool cancelled() const noexcept { return (token_ && token_->cancelled()) || (gone_ && gone_()); }
  [[nodiscard]] const std::optional<Clock::time_point>& deadline() const noexcept { return deadline_; }

  void check() const {
    if (cancelled()) throw Error(ErrorCode::kCancelled, "the operation was cancelled");
    if (deadline_ && Clock::now() >= *deadline_) throw Error(ErrorCode::kDeadline, "the deadline has passed");
  }

 private:
  std::shared_ptr<CancelToken> token_;
  std::optional<Clock::time_point> deadline_;
  std::function<bool()> gone_;
};

}  // namespace sabot
