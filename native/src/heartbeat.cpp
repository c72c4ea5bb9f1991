#include "sabot/heartbeat.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>

#include "sabot/errors.hpp"

namespace sabot {
namespace {

constexpr char kAsk = '?';
constexpr char kAnswer = '!';
// Of its own tick; whatever passed beyond that, this thread was not running.
constexpr int kLatenessAllowed = 2;

}  // namespace

Heartbeat::Heartbeat(int descriptor, std::chrono::milliseconds interval)
    : interval_(interval), socket_(::fcntl(descriptor, F_DUPFD_CLOEXEC, 0)), stop_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!socket_ || !stop_) throw Error(ErrorCode::kInternal, std::string("no heartbeat: ") + std::strerror(errno));
  thread_ = new std::thread([this] { run(); });
}

Heartbeat::~Heartbeat() { stop(); }

void Heartbeat::stop() noexcept {
  if (thread_ == nullptr || ::getpid() != owner_) return;
  const uint64_t one = 1;
  static_cast<void>(::write(stop_.get(), &one, sizeof one));
  thread_->join();
  delete thread_;
  thread_ = nullptr;
  socket_.reset();
  stop_.reset();
}

void Heartbeat::run() noexcept {
  const int wait_ms = interval_.count() > 0 ? static_cast<int>(interval_.count()) : -1;
  Time due = std::chrono::steady_clock::now();
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(due - std::chrono::steady_clock::now()).count();
    std::array<pollfd, 2> waited{pollfd{socket_.get(), POLLIN, 0}, pollfd{stop_.get(), POLLIN, 0}};
    const int timeout = wait_ms < 0 ? -1 : static_cast<int>(std::clamp<int64_t>(left, 0, wait_ms));
    if (::poll(waited.data(), waited.size(), timeout) < 0 && errno != EINTR) return;
    if (waited[1].revents != 0) return;
    // An answer that came while this thread was late is seen before anything is counted.
    if (!receive()) return;
    const Time now = std::chrono::steady_clock::now();
    if (wait_ms > 0 && now >= due) {
      ask(now);
      due = now + interval_;
    }
  }
}

bool Heartbeat::receive() noexcept {
  std::array<char, 64> bytes{};
  while (true) {
    const ssize_t count = ::recv(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (count == 0) return false;
    if (count < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    for (const char byte : std::string_view(bytes.data(), static_cast<size_t>(count))) {
      if (byte == kAsk) send(kAnswer);
      if (byte == kAnswer) {
        asked_ = false;
        silent_ms_.store(0, std::memory_order_release);
      }
    }
  }
}

void Heartbeat::ask(Time now) noexcept {
  if (!asked_) {
    asked_ = send(kAsk);  // a question that could not be sent is none
  } else {
    const auto passed = std::min<std::chrono::steady_clock::duration>(now - asked_at_, kLatenessAllowed * interval_);
    silent_ms_.fetch_add(static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(passed).count()),
                         std::memory_order_acq_rel);
  }
  asked_at_ = now;
}

bool Heartbeat::send(char what) noexcept { return ::send(socket_.get(), &what, 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1; }

}  // namespace sabot
