// The loops of the partitioner in every version this CPU can run, and columns that grow line by line.

#include <algorithm>
#include <cstring>

#include "kernels.hpp"
#include "sabot/column_gather.hpp"
#include "sabot/row_hash.hpp"
#include "support.hpp"

using harness::below;
using harness::Random;
using namespace sabot;

namespace {

Field leaf(const char* format) {
  ArrowSchema schema{};
  schema.name = "x";
  schema.format = format;
  return import_field(schema);
}

// Partition numbers: even, or nearly all the same.
std::vector<uint16_t> random_ids(Random& random, size_t rows, uint32_t partitions, bool skewed) {
  const auto usual = static_cast<uint16_t>(below(random, partitions));
  std::vector<uint16_t> ids(rows);
  for (auto& id : ids) id = skewed && below(random, 50) != 0 ? usual : static_cast<uint16_t>(below(random, partitions));
  return ids;
}

std::vector<uint16_t> some_rows(Random& random, size_t most, size_t limit) {
  std::vector<uint16_t> rows(1 + below(random, most));
  for (auto& row : rows) row = static_cast<uint16_t>(below(random, limit));
  std::sort(rows.begin(), rows.end());
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  return rows;
}

// An array of random values, of fixed or variable size, some of them NULL, with an offset, in buffers without any slack.
struct RandomArray {
  std::vector<uint8_t> validity, values, data;
  const void* buffers[3];
  ArrowArray array{};

  RandomArray(Random& random, const Field& field, size_t rows, bool nulls) {
    const size_t offset = below(random, 70);
    const size_t all = offset + rows;
    validity.resize((all + 7) / 8);
    for (auto& byte : validity) byte = nulls ? static_cast<uint8_t>(random()) : 0xff;
    if (field.kind == Kind::kFixed) {
      values.resize(all * field.width);
      for (auto& byte : values) byte = static_cast<uint8_t>(random());
    } else {
      fill_texts(random, all, field.kind == Kind::kBinary64 ? 8 : 4);
    }
    buffers[0] = nulls ? validity.data() : nullptr;
    buffers[1] = values.data();
    buffers[2] = data.data();
    array.length = static_cast<int64_t>(rows);
    array.offset = static_cast<int64_t>(offset);
    array.null_count = nulls ? -1 : 0;
    array.n_buffers = 3;
    array.buffers = buffers;
  }

  void fill_texts(Random& random, size_t all, size_t width) {
    values.resize((all + 1) * width);
    for (size_t i = 0; i <= all; ++i) {
      const uint64_t at = data.size();
      std::memcpy(values.data() + i * width, &at, width);
      const uint64_t most = below(random, 40) == 0 ? 20'000 : 24;
      for (uint64_t bytes = i < all ? below(random, most) : 0; bytes > 0; --bytes) data.push_back(static_cast<uint8_t>(random()));
    }
  }

  // A row's value as bytes; nothing for NULL.
  [[nodiscard]] std::optional<std::string> at(const Field& field, int64_t row) const {
    const auto i = static_cast<size_t>(row + array.offset);
    if (array.buffers[0] != nullptr && ((validity[i / 8] >> (i % 8)) & 1) == 0) return std::nullopt;
    if (field.kind == Kind::kFixed) return text(values, i * field.width, (i + 1) * field.width);
    const size_t width = field.kind == Kind::kBinary64 ? 8 : 4;
    uint64_t begin = 0;
    uint64_t end = 0;
    std::memcpy(&begin, values.data() + i * width, width);
    std::memcpy(&end, values.data() + (i + 1) * width, width);
    return text(data, begin, end);
  }

  static std::string text(const std::vector<uint8_t>& bytes, size_t begin, size_t end) {
    return {reinterpret_cast<const char*>(bytes.data()) + begin, end - begin};
  }
};

std::vector<std::optional<std::string>> values_of(const BatchShape& shape, const BatchBuilder::Finished& batch) {
  const BatchView view = open_batch(shape, batch.block.data(), batch.bytes);
  const NodeHeader& node = view.nodes[1];
  std::vector<std::optional<std::string>> result;
  uint64_t nulls = 0;
  for (uint64_t row = 0; row < node.rows; ++row) {
    const uint8_t* validity = view.data + node.validity;
    const auto bytes = reinterpret_cast<const char*>(view.data);
    if (node.validity != 0 && ((validity[row / 8] >> (row % 8)) & 1) == 0) {
      result.emplace_back(std::nullopt);
      ++nulls;
      continue;
    }
    if (shape[1].kind == Kind::kFixed) {
      result.emplace_back(std::string(bytes + node.first + row * shape[1].width, shape[1].width));
      continue;
    }
    const size_t width = shape[1].kind == Kind::kBinary64 ? 8 : 4;
    uint64_t begin = 0;
    uint64_t end = 0;
    std::memcpy(&begin, view.data + node.first + row * width, width);
    std::memcpy(&end, view.data + node.first + (row + 1) * width, width);
    CHECK(begin <= end && end <= node.bytes);
    result.emplace_back(std::string(bytes + node.second + begin, end - begin));
  }
  CHECK(nulls == node.nulls);
  return result;
}

}  // namespace

TEST(every_version_lists_the_same_hashes) {
  Random random(30);
  for (const Kernels* version : available_kernels()) {
    for (size_t rows = 0; rows < 200; ++rows) {
      std::vector<uint64_t> hashes(rows);
      for (auto& hash : hashes) hash = random();
      const std::vector<uint64_t> bounds{0, uint64_t{1} << 57, uint64_t{1} << 63, rows == 0 ? 1 : hashes[rows / 2], ~uint64_t{0}};
      for (const uint64_t bound : bounds) {
        std::vector<uint64_t> expected;
        std::copy_if(hashes.begin(), hashes.end(), std::back_inserter(expected), [&](uint64_t h) { return h < bound; });
        std::vector<uint64_t> listed(rows + kListSlack);
        listed.resize(version->list_below(hashes.data(), rows, bound, listed.data()));
        CHECK(listed == expected);
      }
    }
  }
}

TEST(every_version_hashes_alike) {
  Random random(31);
  for (const Kernels* version : available_kernels()) {
    for (size_t rows = 0; rows < 70; ++rows) {
      std::vector<uint64_t> values(rows);
      for (auto& value : values) value = below(random, 3) == 0 ? below(random, 3) : random();
      std::vector<uint64_t> hashes(rows);
      version->hash_words(values.data(), rows, hashes.data());
      std::vector<uint16_t> ids(rows);
      const auto partitions = static_cast<uint32_t>(1 + below(random, 1 << 14));
      version->partition_ids(hashes.data(), rows, partitions, ids.data());
      for (size_t j = 0; j < rows; ++j) CHECK(hashes[j] == mix(values[j]) && ids[j] == partition_of(hashes[j], partitions));
      version->hash_words(values.data(), rows, values.data());
      CHECK(values == hashes);
    }
  }
}

TEST(every_version_permutes_alike) {
  Random random(32);
  PermuteScratch scratch;
  for (const Kernels* version : available_kernels()) {
    for (int round = 0; round < 200; ++round) {
      const auto partitions = static_cast<uint32_t>(1 + below(random, round % 4 == 0 ? 1024 : 40));
      const size_t rows = below(random, 8) == 0 ? 65'536 : below(random, 500);
      const auto ids = random_ids(random, rows, partitions, round % 2 == 0);
      std::vector<uint16_t> permutation(rows + kPermutationSlack);
      std::vector<uint32_t> starts(partitions + 1);
      version->permute(ids.data(), rows, partitions, permutation.data(), starts.data(), scratch);
      std::vector<uint16_t> expected(rows);
      for (size_t j = 0; j < rows; ++j) expected[j] = static_cast<uint16_t>(j);
      std::stable_sort(expected.begin(), expected.end(), [&](uint16_t a, uint16_t b) { return ids[a] < ids[b]; });
      permutation.resize(rows);
      CHECK(permutation == expected);
      for (uint32_t p = 0; p <= partitions; ++p) {
        CHECK(starts[p] == static_cast<size_t>(std::count_if(ids.begin(), ids.end(), [&](uint16_t id) { return id < p; })));
      }
    }
  }
}

TEST(every_version_gathers_bits_alike) {
  Random random(33);
  for (const Kernels* version : available_kernels()) {
    for (int round = 0; round < 3000; ++round) {
      const uint64_t first = below(random, 200);
      const auto rows = some_rows(random, 64, 1 + below(random, below(random, 2) == 0 ? 65'536 : 2000));
      // The bitmap ends with the last row's byte.
      std::vector<uint8_t> bits((first + rows.back()) / 8 + 1);
      for (auto& byte : bits) byte = static_cast<uint8_t>(random());
      const uint64_t word = version->gather_bits(bits.data(), first, rows.data(), static_cast<unsigned>(rows.size()));
      for (size_t j = 0; j < 64; ++j) {
        const uint64_t at = j < rows.size() ? first + rows[j] : 0;
        const bool expected = j < rows.size() && ((bits[at / 8] >> (at % 8)) & 1) != 0;
        CHECK(((word >> j) & 1) == (expected ? 1U : 0U));
      }
    }
  }
}

// Chosen rows and ranges in turns, growth and roll-backs: whatever the order, a batch holds what was committed.
TEST(columns_that_grow_line_by_line_hold_what_was_committed) {
  Random random(34);
  const support::TempDirectory directory;
  auto store = std::make_shared<SegmentStore>(support::store_config(directory, 64 << 20));
  WriterCost cost;
  for (const char* format : {"c", "s", "i", "l", "d:38,0", "w:5", "u", "U", "z"}) {
    for (int round = 0; round < 20; ++round) {
      const Field field = leaf(format);
      Field root;
      root.kind = Kind::kStruct;
      root.children = {field};
      const BatchShape shape(root);
      BatchBuilder builder(shape);
      ColumnGather gather(shape);
      std::vector<NodeExtent> capacity{{64, 0}, {64, 100}};
      const auto lay_out = [&] { builder.move_to(store->acquire(block_bytes(shape, capacity) + 128, cost), capacity, 128); };
      lay_out();
      std::vector<std::optional<std::string>> expected;
      for (int step = 0; step < 30; ++step) {
        const RandomArray source(random, field, 1 + below(random, 400), below(random, 2) == 0);
        auto rows = some_rows(random, 400, static_cast<size_t>(source.array.length));
        const bool is_range = below(random, 4) == 0;
        const auto first = static_cast<int64_t>(rows[0]);
        if (is_range) {
          for (size_t j = 0; j < rows.size(); ++j) rows[j] = static_cast<uint16_t>(first + static_cast<int64_t>(j));
          while (rows.back() >= source.array.length) rows.pop_back();
        }
        const auto append = [&] {
          return is_range ? gather.append(field, source.array, RowRange{first}, rows.size(), builder.nodes(), 1)
                          : gather.append(field, source.array, ChunkRows{rows.data(), 0}, rows.size(), builder.nodes(), 1);
        };
        while (!append()) {
          builder.roll_back();
          capacity[0].rows = capacity[1].rows = std::max(capacity[1].rows, gather.shortage().need.rows + below(random, 300));
          capacity[1].bytes = std::max(capacity[1].bytes, gather.shortage().need.bytes);
          lay_out();
        }
        if (below(random, 4) == 0) {
          builder.roll_back();
          continue;
        }
        builder.nodes()[0].rows += rows.size();
        builder.commit();
        for (const uint16_t row : rows) expected.push_back(source.at(field, row));
      }
      // Where more room is left than rows, finish() closes the gaps.
      const uint64_t times = 1 + below(random, 8);
      for (NodeExtent& extent : capacity) extent = {extent.rows * times, extent.bytes * times};
      lay_out();
      const auto finished = builder.finish();
      const uint64_t laid_out = block_bytes(shape, capacity);
      if (times >= 4 && laid_out >= 4 * kPageBytes) CHECK(finished.bytes < laid_out / 2);
      CHECK(values_of(shape, finished) == expected);
    }
  }
}
