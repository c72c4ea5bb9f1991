// Which pages of the arena are free.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace sabot {

// First fit over a bitmap: low pages are reused first, so that they stay resident and warm. Not thread-safe.
class PageAllocator {
 public:
  explicit PageAllocator(uint64_t pages);

  // The first page of a run of `count` free pages, now taken.
  std::optional<uint64_t> allocate(uint64_t count);
  void release(uint64_t first, uint64_t count);
  // Calls visit(first, count) for every run of free pages before page `end`.
  template <typename Visit>
  void each_free_run(uint64_t end, Visit visit) const {
    uint64_t first = 0;
    for (uint64_t page = 0; page < end; ++page) {
      if ((words_[page >> 6] >> (page & 63) & 1) == 0) continue;
      if (page > first) visit(first, page - first);
      first = page + 1;
    }
    if (end > first) visit(first, end - first);
  }

  [[nodiscard]] uint64_t used_pages() const noexcept { return used_; }
  [[nodiscard]] uint64_t total_pages() const noexcept { return pages_; }

 private:
  void mark(uint64_t first, uint64_t count, bool taken);

  uint64_t pages_;
  uint64_t used_ = 0;
  uint64_t first_free_word_ = 0;      // no free page lies in a word before it
  std::vector<uint64_t> words_;       // a set bit is a page that is taken
};

}  // namespace sabot
