#include "sabot/page_allocator.hpp"

#include <algorithm>
#include <bit>

namespace sabot {

PageAllocator::PageAllocator(uint64_t pages) : pages_(pages), words_((pages + 63) / 64, 0) {
  if (pages % 64 != 0) words_.back() = ~uint64_t{0} << (pages % 64);
}

std::optional<uint64_t> PageAllocator::allocate(uint64_t count) {
  if (count == 0 || count > pages_ - used_) return std::nullopt;
  while (first_free_word_ < words_.size() && words_[first_free_word_] == ~uint64_t{0}) ++first_free_word_;
  uint64_t run = 0;
  for (uint64_t word = first_free_word_; word < words_.size(); ++word) {
    const uint64_t bits = words_[word];
    if (bits == ~uint64_t{0}) {
      run = 0;
      continue;
    }
    uint64_t at = 0;
    while (at < 64) {
      const uint64_t rest = bits >> at;
      const uint64_t free = rest == 0 ? 64 - at : static_cast<uint64_t>(std::countr_zero(rest));
      run += free;
      if (run >= count) {
        const uint64_t first = word * 64 + at + free - run;
        mark(first, count, true);
        return first;
      }
      at += free;
      if (at >= 64) break;
      run = 0;
      at += static_cast<uint64_t>(std::countr_one(bits >> at));
    }
  }
  return std::nullopt;
}

void PageAllocator::release(uint64_t first, uint64_t count) {
  if (count == 0) return;
  mark(first, count, false);
  first_free_word_ = std::min(first_free_word_, first >> 6);
}

void PageAllocator::mark(uint64_t first, uint64_t count, bool taken) {
  used_ = taken ? used_ + count : used_ - count;
  for (uint64_t page = first; page < first + count;) {
    const uint64_t bit = page & 63;
    const uint64_t span = std::min<uint64_t>(64 - bit, first + count - page);
    const uint64_t mask = (span == 64 ? ~uint64_t{0} : ((uint64_t{1} << span) - 1)) << bit;
    uint64_t& word = words_[page >> 6];
    word = taken ? word | mask : word & ~mask;
    page += span;
  }
}

}  // namespace sabot
