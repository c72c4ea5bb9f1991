#include "pulse.hpp"

#include <arrow/buffer.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <utility>

namespace sabot {

namespace flight = arrow::flight;

namespace {

// Of its own tick; whatever passed beyond that, the watching thread was not running.
constexpr int kLatenessAllowed = 2;

}  // namespace

Pulse::Pulse(std::shared_ptr<flight::FlightClient> client, const flight::FlightCallOptions& options, std::chrono::milliseconds interval,
             Silent on_silence)
    : client_(std::move(client)), options_(options), interval_(interval), on_silence_(std::move(on_silence)), owner_(::getpid()) {
  asking_ = new std::thread([this] { ask(); });
  watching_ = new std::thread([this] { watch(); });
}

Pulse::~Pulse() { stop(); }

void Pulse::stop() noexcept {
  if (::getpid() != owner_) return;
  std::unique_ptr<std::thread> asking;
  std::unique_ptr<std::thread> watching;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    if (reader_ != nullptr) reader_->Cancel();
    changed_.notify_all();
    // Of several that stop it at a time, one waits.
    asking.reset(std::exchange(asking_, nullptr));
    watching.reset(std::exchange(watching_, nullptr));
  }
  if (asking) asking->join();
  if (watching) watching->join();
}

bool Pulse::sleep_until(std::chrono::steady_clock::time_point when) {
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, when, [&] { return stopping_; });
  return !stopping_;
}

void Pulse::ask() {
  auto call = client_->DoExchange(options_, flight::FlightDescriptor::Command(kPulseCommand));
  if (!call.ok()) return;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) {
      call->reader->Cancel();
      static_cast<void>(call->writer->Close());
      return;
    }
    reader_ = call->reader.get();
  }
  const auto question = arrow::Buffer::FromString("?");
  do {
    if (!call->writer->WriteMetadata(question).ok()) break;
    const auto answer = call->reader->Next();
    if (!answer.ok() || !answer->app_metadata) break;
    answers_.fetch_add(1, std::memory_order_acq_rel);
  } while (sleep_until(std::chrono::steady_clock::now() + interval_));
  const std::lock_guard lock(mutex_);
  reader_ = nullptr;
  call->reader->Cancel();
  static_cast<void>(call->writer->Close());  // nobody waits for how that ends, and Arrow would print it
}

void Pulse::watch() {
  uint64_t seen = answers_.load(std::memory_order_acquire);
  auto before = std::chrono::steady_clock::now();
  while (sleep_until(before + interval_)) {
    const auto now = std::chrono::steady_clock::now();
    const auto passed = std::min<std::chrono::steady_clock::duration>(now - before, kLatenessAllowed * interval_);
    before = now;
    const uint64_t answers = answers_.load(std::memory_order_acquire);
    if (answers != seen) {
      seen = answers;
      silent_ms_.store(0, std::memory_order_release);
    } else {
      silent_ms_.fetch_add(static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(passed).count()),
                           std::memory_order_acq_rel);
    }
    if (on_silence_) on_silence_(silent_ms());
  }
}

}  // namespace sabot
