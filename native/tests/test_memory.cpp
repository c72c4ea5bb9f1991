// Pages, bits, the segment store and spill files.

#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <set>

#include "sabot/bits.hpp"
#include "sabot/checksum.hpp"
#include "sabot/page_allocator.hpp"
#include "support.hpp"

using harness::below;
using harness::Random;
using namespace sabot;

TEST(pages_are_never_given_twice) {
  Random random(1);
  PageAllocator pages(1000);
  std::vector<std::pair<uint64_t, uint64_t>> held;
  std::vector<bool> taken(1000);
  for (int step = 0; step < 20000; ++step) {
    if (below(random, 2) == 0) {
      const uint64_t count = 1 + below(random, 200);
      if (const auto first = pages.allocate(count)) {
        for (uint64_t page = *first; page < *first + count; ++page) {
          CHECK(!taken[page]);
          taken[page] = true;
        }
        held.emplace_back(*first, count);
      } else {
        uint64_t run = 0;
        for (const bool page : taken) {
          run = page ? 0 : run + 1;
          CHECK(run < count);
        }
      }
    } else if (!held.empty()) {
      std::swap(held[below(random, held.size())], held.back());
      const auto [first, count] = held.back();
      held.pop_back();
      pages.release(first, count);
      std::fill_n(taken.begin() + static_cast<ptrdiff_t>(first), count, false);
    }
    CHECK(pages.used_pages() == static_cast<uint64_t>(std::count(taken.begin(), taken.end(), true)));
  }
}

TEST(bits_are_read_back_at_any_position) {
  Random random(2);
  for (int round = 0; round < 2000; ++round) {
    std::vector<bool> expected;
    std::vector<uint8_t> bits(64, 0xff);
    while (expected.size() < 400) {
      const auto count = static_cast<unsigned>(1 + below(random, 64));
      if (below(random, 4) == 0) {
        write_ones(bits.data(), expected.size(), count);
        expected.insert(expected.end(), count, true);
        continue;
      }
      const uint64_t word = random() & low_mask(count);
      write_bits(bits.data(), expected.size(), word, count);
      for (unsigned b = 0; b < count; ++b) expected.push_back((word >> b) & 1);
    }
    // A copy that ends with the last bit, so that a sanitizer sees a read behind it.
    const std::vector<uint8_t> exact(bits.begin(), bits.begin() + static_cast<ptrdiff_t>((expected.size() + 7) / 8));
    for (int probe = 0; probe < 20; ++probe) {
      const uint64_t at = below(random, expected.size());
      const auto count = static_cast<unsigned>(1 + below(random, std::min<uint64_t>(64, expected.size() - at)));
      const uint64_t word = read_bits(exact.data(), at, count);
      for (unsigned b = 0; b < count; ++b) CHECK(((word >> b) & 1) == expected[at + b]);
    }
  }
}

TEST(checksum_sees_every_flipped_bit) {
  Random random(3);
  for (const size_t size : {0, 1, 7, 8, 31, 32, 33, 63, 64, 200}) {
    std::vector<uint8_t> data(size);
    for (auto& byte : data) byte = static_cast<uint8_t>(random());
    std::set<uint64_t> sums{checksum(data.data(), size)};
    for (size_t bit = 0; bit < size * 8; ++bit) {
      data[bit / 8] = static_cast<uint8_t>(data[bit / 8] ^ (1 << (bit % 8)));
      sums.insert(checksum(data.data(), size));
      data[bit / 8] = static_cast<uint8_t>(data[bit / 8] ^ (1 << (bit % 8)));
    }
    CHECK(sums.size() == size * 8 + 1);
  }
}

namespace {

struct Written {
  SegmentId id;
  std::vector<uint8_t> data;
};

Written write_segment(SegmentStore& store, Random& random, uint64_t bytes, PartitionKey key, WriterCost& cost) {
  Block block = store.acquire(bytes, cost);
  std::vector<uint8_t> data(bytes);
  for (auto& byte : data) byte = static_cast<uint8_t>(random());
  std::memcpy(block.data(), data.data(), bytes);
  return {store.publish(std::move(block), bytes, key, cost), std::move(data)};
}

bool same(const PinnedSegment& pinned, const Written& written) {
  return pinned.bytes() == written.data.size() && std::memcmp(pinned.data(), written.data.data(), written.data.size()) == 0;
}

}  // namespace

TEST(segments_read_back_from_memory_and_disk) {
  Random random(4);
  const support::TempDirectory directory;
  auto store = std::make_shared<SegmentStore>(support::store_config(directory, 256 << 10));
  WriterCost cost;
  std::vector<Written> written;
  for (uint32_t i = 0; i < 100; ++i) {
    written.push_back(write_segment(*store, random, 1 + below(random, 60'000), {1, i % 7}, cost));
    CHECK(store->metrics().pool_bytes <= store->budget_bytes());
  }
  CHECK(store->metrics().spilled_bytes > 0);
  CHECK(store->metrics().spilled_bytes == cost.spilled_bytes);
  CHECK(cost.wait_ns > 0);
  for (const Written& segment : written) CHECK(same(store->pin(segment.id), segment));
  for (const Written& segment : written) store->drop({&segment.id, 1});
  cost.overflow.reset();
  CHECK(store->metrics().pool_bytes == 0);
  CHECK(store->metrics().disk_bytes == 0);
  CHECK(directory.files() == 0);
  for (const Written& segment : written) CHECK_THROWS(kLost, store->pin(segment.id));
}

TEST(a_pinned_segment_is_neither_spilled_nor_freed) {
  Random random(5);
  const support::TempDirectory directory;
  auto store = std::make_shared<SegmentStore>(support::store_config(directory, 256 << 10));
  WriterCost cost;
  const Written first = write_segment(*store, random, 50'000, {1, 0}, cost);
  PinnedSegment pinned = store->pin(first.id);
  store->drop({&first.id, 1});
  for (uint32_t i = 0; i < 20; ++i) write_segment(*store, random, 50'000, {2, i}, cost);
  CHECK(same(pinned, first));
  const uint64_t before = store->metrics().pool_bytes;
  pinned.reset();
  CHECK(store->metrics().pool_bytes < before);
}

TEST(trimmed_memory_goes_back_to_the_system_and_can_be_used_again) {
  Random random(8);
  const support::TempDirectory directory;
  auto store = std::make_shared<SegmentStore>(support::store_config(directory, 4 << 20));
  const auto resident = [&] {
    struct stat status {};
    CHECK(::fstat(store->arena_fd(), &status) == 0);
    return static_cast<uint64_t>(status.st_blocks) * 512;
  };
  WriterCost cost;
  std::vector<Written> written;
  for (uint32_t i = 0; i < 16; ++i) written.push_back(write_segment(*store, random, 200'000, {1, i}, cost));
  PinnedSegment pinned = store->pin(written[1].id);
  for (uint32_t i = 0; i < 16; ++i) {
    if (i % 4 != 0) store->drop({&written[i].id, 1});
  }
  const uint64_t before = resident();
  store->trim();
  CHECK(before - resident() >= uint64_t{10} * 200'000);
  CHECK(same(pinned, written[1]));  // dropped, and still read
  for (uint32_t i = 0; i < 16; i += 4) CHECK(same(store->pin(written[i].id), written[i]));
  std::vector<Written> again;
  for (uint32_t i = 0; i < 10; ++i) again.push_back(write_segment(*store, random, 200'000, {2, i}, cost));
  for (const Written& segment : again) CHECK(same(store->pin(segment.id), segment));
  for (uint32_t i = 0; i < 16; i += 4) CHECK(same(store->pin(written[i].id), written[i]));
  CHECK(store->metrics().spilled_bytes == 0);
}

TEST(a_segment_outlives_its_store_while_pinned) {
  Random random(6);
  const support::TempDirectory directory;
  auto store = std::make_shared<SegmentStore>(support::store_config(directory, 64 << 10));
  WriterCost cost;
  std::vector<Written> written;
  for (uint32_t i = 0; i < 8; ++i) written.push_back(write_segment(*store, random, 20'000, {1, i}, cost));
  std::vector<PinnedSegment> pinned;
  for (const Written& segment : written) pinned.push_back(store->pin(segment.id));
  for (const Written& segment : written) store->drop({&segment.id, 1});
  cost.overflow.reset();
  CHECK(directory.files() == 0);
  store.reset();
  for (size_t i = 0; i < written.size(); ++i) CHECK(same(pinned[i], written[i]));
}

TEST(a_damaged_or_cut_spill_file_is_corrupt) {
  Random random(7);
  const support::TempDirectory directory;
  auto store = std::make_shared<SegmentStore>(support::store_config(directory, 64 << 10));
  WriterCost cost;
  std::vector<Written> written;
  for (uint32_t i = 0; i < 8; ++i) written.push_back(write_segment(*store, random, 20'000, {1, i}, cost));
  CHECK(directory.files() > 0);
  for (const auto& file : std::filesystem::directory_iterator(directory.path())) {
    std::fstream stream(file.path(), std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(500);
    const auto byte = static_cast<char>(stream.get() ^ 1);
    stream.seekp(500);
    stream.put(byte);
  }
  size_t damaged = 0;
  for (const Written& segment : written) {
    try {
      CHECK(same(store->pin(segment.id), segment));
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kCorrupt);
      ++damaged;
    }
  }
  CHECK(damaged > 0);
  for (const auto& file : std::filesystem::directory_iterator(directory.path())) std::filesystem::resize_file(file.path(), 100);
  size_t cut = 0;
  for (const Written& segment : written) {
    try {
      store->pin(segment.id);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kCorrupt);
      ++cut;
    }
  }
  CHECK(cut >= damaged);
}

TEST(the_quota_is_an_error_that_leaves_segments_readable) {
  Random random(8);
  const support::TempDirectory directory;
  auto store = std::make_shared<SegmentStore>(support::store_config(directory, 64 << 10, 64 << 10));
  WriterCost cost;
  std::vector<Written> written;
  CHECK_THROWS(kQuota, for (uint32_t i = 0; i < 50; ++i) written.push_back(write_segment(*store, random, 20'000, {1, i}, cost)));
  CHECK(written.size() >= 3);
  for (const Written& segment : written) CHECK(same(store->pin(segment.id), segment));
  for (const Written& segment : written) store->drop({&segment.id, 1});
  cost.overflow.reset();
  CHECK(store->metrics().pool_bytes == 0);
  CHECK(directory.files() == 0);
}

TEST(a_foreign_descriptor_is_not_an_arena) {
  const support::TempDirectory directory;
  const int fd = ::memfd_create("not an arena", 0);
  CHECK_THROWS(kInvalidArgument, Arena::attach(fd));
  ::close(fd);
  CHECK_THROWS(kInvalidArgument, Arena::attach(-1));
}

TEST(a_peer_mapping_pins_and_unpins) {
  Random random(9);
  const support::TempDirectory directory;
  auto store = std::make_shared<SegmentStore>(support::store_config(directory, 64 << 10));
  WriterCost cost;
  std::vector<Written> written;
  for (uint32_t i = 0; i < 8; ++i) written.push_back(write_segment(*store, random, 20'000, {1, i}, cost));
  auto peer = std::make_shared<PeerSource>(store->arena_fd(), directory.path());
  CHECK(peer->nonce() == store->nonce());
  {
    std::vector<PinnedSegment> pinned;
    for (const Written& segment : written) {
      pinned.push_back(peer->pin(segment.id));
      CHECK(same(pinned.back(), segment));
    }
    for (const Written& segment : written) store->drop({&segment.id, 1});
    for (size_t i = 0; i < written.size(); ++i) CHECK(same(pinned[i], written[i]));
    CHECK(store->metrics().pool_bytes > 0);
  }
  // The owner notices when it needs memory.
  std::vector<Block> blocks;
  for (int i = 0; i < 16; ++i) blocks.push_back(store->acquire(4096, cost));
  blocks.clear();
  CHECK(store->metrics().pool_bytes == 0);
  CHECK_THROWS(kLost, peer->pin(written[0].id));
}
