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

// Writes bytes to consecutive addresses through a small stage, whole lines of it past the cache. The caller keeps the
// cursor into the stage, so that it stays in a register: write up to kSlack bytes at it, move it on, and call flush()
// once it is at limit() or behind.
class StreamWriter {
 public:
  static constexpr size_t kSlack = 64;

  // Nothing else may write to the lines of what is written meanwhile.
  explicit StreamWriter(uint8_t* to) noexcept
      : line_(to - reinterpret_cast<uintptr_t>(to) % kLineBytes), foreign_(reinterpret_cast<uintptr_t>(to) % kLineBytes) {}

  uint8_t* begin() noexcept { return stage_ + foreign_; }
  [[nodiscard]] const uint8_t* limit() const noexcept { return stage_ + kStageBytes; }

  // Stores the whole lines before the cursor; gives the cursor from which to go on.
  uint8_t* flush(const uint8_t* cursor) noexcept {
    uint8_t* from = stage_;
    if (foreign_ != 0 && cursor >= stage_ + kLineBytes) {
      std::memcpy(line_ + foreign_, stage_ + foreign_, kLineBytes - foreign_);
      foreign_ = 0;
      from += kLineBytes;
      line_ += kLineBytes;
    }
    for (; from + kLineBytes <= cursor; from += kLineBytes, line_ += kLineBytes) stream_line(line_, from);
    std::memcpy(stage_, from, kLineBytes);
    return stage_ + (cursor - from);
  }

  // Appends any number of bytes.
  uint8_t* put(uint8_t* cursor, const uint8_t* from, uint64_t bytes) noexcept {
    while (bytes > 0) {
      const uint64_t step = std::min<uint64_t>(bytes, static_cast<uint64_t>(limit() - cursor));
      std::memcpy(cursor, from, step);
      cursor += step;
      from += step;
      bytes -= step;
      if (cursor >= limit()) cursor = flush(cursor);
    }
    return cursor;
  }

  // Stores what is left. Nothing may be written after it.
  void finish(const uint8_t* cursor) noexcept {
    cursor = flush(cursor);
    std::memcpy(line_ + foreign_, stage_ + foreign_, static_cast<size_t>(cursor - stage_) - foreign_);
  }

 private:
  static constexpr size_t kStageBytes = 2048;
  uint8_t* line_;               // where stage_[0] goes
  size_t foreign_;              // bytes at the start of that line that are not ours
  alignas(kLineBytes) uint8_t stage_[kStageBytes + 2 * kSlack];
};

}  // namespace sabot
