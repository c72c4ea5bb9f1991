// Brings memory that is needed soon into the cache, a little at a time, while something else is stored.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "sabot/arrow_abi.hpp"
#include "sabot/schema.hpp"
#include "sabot/streaming.hpp"

namespace sabot {

// Partitions take rows of a column one here, one there, which no CPU foresees. So the column is asked for beforehand, as
// many lines with each row stored of the column before it as make the two come out even: reads and writes then share the
// memory's time, which one after the other they would not.
class Readahead {
 public:
  // Forgets what was planned.
  void clear() noexcept { at_ = end_ = nullptr, span_ = planned_ = 0, lines_ = lines_per_row_ = due_ = 0; }
  // Plans rows [first, first + rows) of a column: its own buffers only, if it is of fixed width or of strings.
  void plan(const Field& field, const ArrowArray& array, int64_t first, int64_t rows) noexcept;
  // Spreads what is planned over the storing of `rows` rows.
  void spread(uint64_t rows) noexcept {
    lines_per_row_ = rows == 0 ? 0 : (lines_ << kFractionBits) / rows + 1;
    next_span(at_, end_);
  }

  // Reads ahead during one loop. Its state is local, so that it stays in registers: in memory, each row stored would wait
  // for the one before it to come back from the store buffer.
  class Pace {
   public:
    explicit Pace(Readahead& ahead) noexcept
        : ahead_(ahead), at_(ahead.at_), end_(ahead.end_), due_(ahead.due_), lines_per_row_(ahead.lines_per_row_) {}
    ~Pace() { ahead_.at_ = at_, ahead_.end_ = end_, ahead_.due_ = due_; }
    Pace(const Pace&) = delete;
    Pace& operator=(const Pace&) = delete;

    // To be called as rows are stored.
    void advance(uint64_t rows) noexcept {
      due_ += rows * lines_per_row_;
      for (; due_ >= kLine && at_ != end_; due_ -= kLine) {
        __builtin_prefetch(at_);
        at_ += kLineBytes;
        if (at_ == end_) ahead_.next_span(at_, end_);
      }
    }

   private:
    Readahead& ahead_;
    const uint8_t* at_;
    const uint8_t* end_;
    uint64_t due_;
    const uint64_t lines_per_row_;
  };

 private:
  static constexpr unsigned kFractionBits = 16;
  static constexpr uint64_t kLine = uint64_t{1} << kFractionBits;
  struct Span {
    const uint8_t* begin;
    const uint8_t* end;
  };

  void next_span(const uint8_t*& at, const uint8_t*& end) noexcept {
    if (span_ == planned_) return;
    at = spans_[span_].begin;
    end = spans_[span_++].end;
  }
  void add(const void* buffer, uint64_t begin, uint64_t end) noexcept;

  const uint8_t* at_ = nullptr;   // of the span under way
  const uint8_t* end_ = nullptr;
  std::array<Span, 12> spans_;
  size_t span_ = 0;               // the next one
  size_t planned_ = 0;
  uint64_t lines_ = 0;
  uint64_t lines_per_row_ = 0;
  uint64_t due_ = 0;
};

}  // namespace sabot
