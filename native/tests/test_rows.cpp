// Schemas, hashes, partitions, sketches and manifests.

#include <cmath>
#include <cstring>
#include <map>

#include "sabot/checksum.hpp"
#include "sabot/partitioner.hpp"
#include "sabot/row_hash.hpp"
#include "support.hpp"

using harness::below;
using harness::Random;
using namespace sabot;

namespace {

Field leaf(const std::string& name, const std::string& format) {
  ArrowSchema schema{};
  schema.name = name.c_str();
  schema.format = format.c_str();
  return import_field(schema);
}

template <typename T>
uint64_t hash_of(const std::string& format, T value) {
  const void* buffers[2] = {nullptr, &value};
  ArrowArray array{};
  array.length = 1;
  array.n_buffers = 2;
  array.buffers = buffers;
  uint64_t hash = 0;
  hash_column(leaf("x", format), array, 0, 1, &hash);
  return hash;
}

std::string sample_manifest() {
  Manifest manifest;
  manifest.name = {"query", "edge", 3, 1};
  manifest.agent_id = "agent";
  manifest.schema.format = "+s";
  manifest.schema.kind = Kind::kStruct;
  manifest.schema.children = {leaf("a", "l"), leaf("b", "u"), leaf("c", "d:9,2")};
  manifest.partitions.resize(3);
  manifest.partitions[1] = {10, 400, {{{1, 2}, 4, 100}, {{3, 4}, 6, 300}}};
  manifest.heavy = {{7, 8, 9}};
  manifest.least_hashes = {1, 5, 1'000};
  manifest.sample = {"x", std::string("\0y", 2)};
  return manifest.to_bytes();
}

}  // namespace

TEST(equal_numbers_hash_equal_across_types) {
  for (const int64_t value : {-128, -1, 0, 1, 5, 127}) {
    const uint64_t expected = hash_of<int64_t>("l", value);
    CHECK(hash_of<int8_t>("c", static_cast<int8_t>(value)) == expected);
    CHECK(hash_of<int16_t>("s", static_cast<int16_t>(value)) == expected);
    CHECK(hash_of<int32_t>("i", static_cast<int32_t>(value)) == expected);
    CHECK(hash_of<double>("g", static_cast<double>(value)) == expected);
    CHECK(hash_of<float>("f", static_cast<float>(value)) == expected);
    CHECK(hash_of<__int128>("d:38,3", static_cast<__int128>(value) * 1000) == expected);
    CHECK(hash_of<int32_t>("d:9,1,32", static_cast<int32_t>(value * 10)) == expected);
    if (value >= 0) CHECK(hash_of<uint64_t>("L", static_cast<uint64_t>(value)) == expected);
  }
  CHECK(hash_of<uint64_t>("L", ~uint64_t{0}) != hash_of<int64_t>("l", -1));
  CHECK(hash_of<double>("g", -0.0) == hash_of<double>("g", 0.0));
  CHECK(hash_of<double>("g", std::nan("1")) == hash_of<double>("g", -std::nan("2")));
  CHECK(hash_of<double>("g", 0.5) == hash_of<float>("f", 0.5F));
  CHECK(hash_of<double>("g", 0.5) == hash_of<uint16_t>("e", 0x3800));
  struct Interval {
    int32_t months, days;
    int64_t nanoseconds;
  };
  CHECK(hash_of<Interval>("tin", {1, 0, 0}) == hash_of<Interval>("tin", {0, 30, 0}));
  CHECK(hash_of<Interval>("tin", {0, 1, 0}) == hash_of<Interval>("tin", {0, 0, 86'400'000'000'000}));
}

TEST(hashes_spread_over_partitions) {
  std::map<uint16_t, int> rows;
  for (int64_t i = 0; i < 64'000; ++i) ++rows[partition_of(hash_of<int64_t>("l", i), 64)];
  for (const auto& [partition, count] : rows) CHECK(count > 800 && count < 1200);
  CHECK(rows.size() == 64);
}

TEST(a_split_is_a_stable_permutation) {
  Random random(11);
  for (int round = 0; round < 60; ++round) {
    const auto partitions = static_cast<uint32_t>(1 + below(random, round % 3 == 0 ? 1024 : 20));
    const auto rows = static_cast<int64_t>(below(random, 3000));
    std::vector<uint64_t> hashes(static_cast<size_t>(rows) + 7);
    for (auto& hash : hashes) hash = below(random, 4) == 0 ? 42 : random();
    const void* buffers[2] = {nullptr, hashes.data()};
    ArrowArray column{};
    column.length = rows;
    column.offset = 7;
    column.n_buffers = 2;
    column.buffers = buffers;
    ArrowArray* columns[1] = {&column};
    ArrowArray batch{};
    batch.length = rows;
    batch.n_children = 1;
    batch.children = columns;
    Field root;
    root.children = {leaf("h", "L")};
    Partitioner partitioner(Scheme::hash_column("h", partitions), root);
    const ChunkSplit split = partitioner.split(batch, 0, rows);
    CHECK(split.starts[0] == 0 && split.starts[partitions] == static_cast<uint32_t>(rows));
    if (partitions == 1) continue;
    for (uint32_t p = 0; p < partitions; ++p) {
      for (uint32_t j = split.starts[p]; j < split.starts[p + 1]; ++j) {
        CHECK(partition_of(hashes[7 + split.permutation[j]], partitions) == p);
        if (j > split.starts[p]) CHECK(split.permutation[j] > split.permutation[j - 1]);
      }
    }
  }
}

TEST(a_missing_or_wrong_key_is_named) {
  Field root;
  root.children = {leaf("h", "u")};
  CHECK_THROWS(kInvalidArgument, Partitioner(Scheme::hash_column("h", 2), root));
  CHECK_THROWS(kInvalidArgument, Partitioner(Scheme::hash_columns({"x"}, 2), root));
  CHECK_THROWS(kInvalidArgument, Scheme::hash_column("h", 0));
  CHECK_THROWS(kInvalidArgument, Scheme::range("h", {"b", "a"}));
  CHECK_THROWS(kUnsupported, leaf("r", "+r"));
  CHECK_THROWS(kUnsupported, leaf("r", ""));
  CHECK_THROWS(kUnsupported, leaf("r", "w:x"));
}

TEST(heavy_hitters_are_found_within_their_bound) {
  Random random(12);
  for (const size_t rows : {1'000UL, 400'000UL}) {
    std::vector<uint64_t> hashes(rows);
    std::map<uint64_t, uint64_t> truth;
    for (auto& hash : hashes) {
      const uint64_t draw = below(random, 100);
      hash = draw < 10 ? 0xaaaa000000000001 : draw < 15 ? 0xbbbb000000000002 : random();
      ++truth[hash];
    }
    HeavyHitterSketch sketch;
    for (size_t at = 0; at < rows; at += 16384) sketch.add(hashes.data() + at, std::min<size_t>(16384, rows - at));
    const auto heavy = sketch.heaviest();
    CHECK(heavy.size() >= 2 && heavy[0].hash == 0xaaaa000000000001 && heavy[1].hash == 0xbbbb000000000002);
    for (const HeavyHitter& hitter : heavy) {
      const uint64_t exact = truth[hitter.hash];
      CHECK(std::max(exact, hitter.count) - std::min(exact, hitter.count) <= hitter.error);
    }
  }
}

TEST(a_sample_is_uniform) {
  std::vector<int> taken(100);
  for (int round = 0; round < 40; ++round) {
    ReservoirSample sample(50);
    for (int i = 0; i < 10'000; ++i) {
      if (!sample.wants_next()) {
        sample.skipped(1);
        continue;
      }
      sample.add(std::to_string((i * 7919 + round * 31) % 10'000));
    }
    CHECK(sample.values().size() == 50);
    for (const auto& value : sample.values()) ++taken[static_cast<size_t>(std::stoi(value) / 100)];
  }
  for (const int count : taken) CHECK(count > 2 && count < 60);
}

TEST(manifests_survive_the_trip) {
  const std::string bytes = sample_manifest();
  CHECK(Manifest::from_bytes(bytes).to_bytes() == bytes);
}

TEST(damaged_manifests_are_refused) {
  Random random(13);
  const std::string bytes = sample_manifest();
  for (size_t size = 0; size < bytes.size(); ++size) CHECK_THROWS(kCorrupt, Manifest::from_bytes(bytes.substr(0, size)));
  for (int round = 0; round < 3000; ++round) {
    std::string damaged = bytes;
    damaged[below(random, damaged.size())] ^= static_cast<char>(1 + below(random, 255));
    CHECK_THROWS(kCorrupt, Manifest::from_bytes(damaged));
  }
}

TEST(a_manifest_keeps_its_sketch) {
  const Manifest manifest = Manifest::from_bytes(sample_manifest());
  CHECK(manifest.least_hashes == LeastHashes({1, 5, 1'000}));
  Manifest disordered = manifest;
  disordered.least_hashes = {5, 1};
  CHECK_THROWS(kCorrupt, Manifest::from_bytes(disordered.to_bytes()));
}

TEST(forged_manifests_do_no_harm) {
  Random random(14);
  const std::string bytes = sample_manifest();
  int accepted = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string forged = bytes.substr(0, bytes.size() - 8);
    for (uint64_t flips = 1 + below(random, 4); flips > 0; --flips) forged[below(random, forged.size())] = static_cast<char>(random());
    const uint64_t sum = checksum(reinterpret_cast<const uint8_t*>(forged.data()), forged.size());
    forged.append(reinterpret_cast<const char*>(&sum), 8);
    try {
      const Manifest manifest = Manifest::from_bytes(forged);
      ++accepted;
      CHECK(!manifest.to_bytes().empty());
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kCorrupt || error.code() == ErrorCode::kUnsupported);
    }
  }
  CHECK(accepted > 0);
}
