// Stores that bypass the cache. A shuffle writes far more than the cache holds and reads it back much later: without
// them every line written is first read from memory, and what will be read next is evicted for it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace sabot {

constexpr size_t kLineBytes = 64;

#if defined(__SSE2__)

inline void stream_line(uint8_t* to, const uint8_t* from) noexcept {
  for (size_t i = 0; i < kLineBytes; i += 16) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + i), _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
  }
}

// Makes streamed data visible to other threads and processes; before it is published.
inline void finish_streaming() noexcept { _mm_sfence(); }

#else

inline void stream_line(uint8_t* to, const uint8_t* from) noexcept { std::memcpy(to, from, kLineBytes); }
inline void finish_streaming() noexcept {}

#endif

// Moves whole lines to an address below, past the cache unless the two overlap.
inline void move_down(uint8_t* to, const uint8_t* from, size_t bytes) noexcept {
  if (to + bytes > from) {
    std::memmove(to, from, bytes);
    return;
  }
  for (size_t i = 0; i < bytes; i += kLineBytes) stream_line(to + i, from + i);
}

// The last line of a buffer that grows past the cache, while it is not full: its bytes wait here, and memory lacks them.
// Storing them each time would fetch the line from memory first.
class alignas(kLineBytes) OpenLine {
 public:
  // Takes the line that `end` lies in over from memory, unless it is here already.
  void resume(const uint8_t* end) noexcept {
    if (!held_) std::memcpy(bytes_, line_of(end), filled(end));
    held_ = true;
  }
  // Stores what memory lacks of a buffer's first `size` bytes.
  void settle(uint8_t* buffer, size_t size) noexcept {
    if (held_) std::memcpy(line_of(buffer + size), bytes_, filled(buffer + size));
    held_ = false;
  }
  // Memory has it all: the buffer ends in a line that was stored.
  void forget() noexcept { held_ = false; }

  void read(uint8_t* line) const noexcept { std::memcpy(line, bytes_, sizeof bytes_); }
  void write(const uint8_t* line) noexcept { std::memcpy(bytes_, line, sizeof bytes_); }

  static size_t filled(const uint8_t* end) noexcept { return reinterpret_cast<uintptr_t>(end) % kLineBytes; }
  static uint8_t* line_of(uint8_t* end) noexcept { return end - filled(end); }
  static const uint8_t* line_of(const uint8_t* end) noexcept { return end - filled(end); }

 private:
  uint8_t bytes_[kLineBytes - 1];
  bool held_ = false;
};
static_assert(sizeof(OpenLine) == kLineBytes);

// Appends bytes to a buffer through a small stage, whole lines of it past the cache. The caller keeps the cursor into
// the stage, so that it stays in a register: write up to kRoom bytes at it, move it on, and call advance().
class StreamWriter {
 public:
  static constexpr size_t kRoom = 4096;

  StreamWriter(uint8_t* end, OpenLine& open) noexcept : to_(OpenLine::line_of(end)), open_(open) {
    open.resume(end);
    open.read(stage_);
    written_ = stage_ + OpenLine::filled(end);
  }

  [[nodiscard]] uint8_t* cursor() const noexcept { return written_; }

  // Stores the whole lines that were written before the last call: by now their bytes have left the CPU's store buffer,
  // from which a line made of many stores cannot be read. Gives the cursor from which to go on.
  uint8_t* advance(uint8_t* cursor) noexcept {
    store_lines(written_);
    written_ = cursor;
    return cursor < stage_ + kRoom ? cursor : flush(cursor);
  }

  // Appends any number of bytes.
  uint8_t* put(uint8_t* cursor, const uint8_t* from, uint64_t bytes) noexcept {
    for (;;) {
      const uint64_t step = std::min<uint64_t>(bytes, kRoom);
      cursor = flush(cursor);
      std::memcpy(cursor, from, step);
      cursor += step;
      if (step == bytes) return flush(cursor);
      from += step;
      bytes -= step;
    }
  }

  // Stores all whole lines and keeps what is left for the next writer. Nothing may be written after it.
  void finish(const uint8_t* cursor) noexcept {
    flush(cursor);
    open_.write(stage_);
  }

 private:
  void store_lines(const uint8_t* end) noexcept {
    for (; stored_ + kLineBytes <= end; stored_ += kLineBytes, to_ += kLineBytes) stream_line(to_, stored_);
  }

  // Stores all whole lines and goes on at the start of the stage.
  uint8_t* flush(const uint8_t* cursor) noexcept {
    store_lines(cursor);
    const ptrdiff_t rest = cursor - stored_;
    if (stored_ != stage_) std::memcpy(stage_, stored_, kLineBytes);
    stored_ = stage_;
    written_ = stage_ + rest;
    return stage_ + rest;
  }

  uint8_t* to_;                       // where the line at `stored_` goes
  const uint8_t* stored_ = stage_;
  uint8_t* written_;                  // up to here, at the last call
  OpenLine& open_;
  alignas(kLineBytes) uint8_t stage_[2 * kRoom + 2 * kLineBytes];
};

}  // namespace sabot
