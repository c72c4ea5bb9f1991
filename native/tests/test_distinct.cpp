// Sketches of distinct keys: exact for few, close for many, and the same whichever way the rows came.

#include <algorithm>
#include <cmath>
#include <set>

#include "kernels.hpp"
#include "sabot/distinct_sketch.hpp"
#include "support.hpp"

using harness::below;
using harness::Random;
using namespace sabot;

namespace {

LeastHashes least_of(const std::vector<uint64_t>& hashes, size_t step = 4096) {
  DistinctSketch sketch;
  for (size_t at = 0; at < hashes.size(); at += step) sketch.add(hashes.data() + at, std::min(step, hashes.size() - at));
  return sketch.least();
}

LeastHashes least_of(const std::set<uint64_t>& hashes) {
  LeastHashes least(hashes.begin(), hashes.end());
  least.resize(std::min(least.size(), kKeptHashes));
  return least;
}

std::vector<uint64_t> draw(Random& random, size_t rows, uint64_t keys, uint64_t first = 0) {
  std::vector<uint64_t> hashes(rows);
  for (auto& hash : hashes) hash = mix(first + below(random, keys));
  return hashes;
}

uint64_t count_of(const std::vector<uint64_t>& hashes) { return distinct_count({sketch_bytes(least_of(hashes))}); }

}  // namespace

TEST(a_sketch_holds_the_least_hashes) {
  Random random(41);
  for (int round = 0; round < 60; ++round) {
    const size_t step = 1 + below(random, 5'000);
    const auto hashes = draw(random, below(random, 16'000), 1 + below(random, uint64_t{1} << below(random, 30)));
    CHECK(least_of(hashes, step) == least_of(std::set<uint64_t>(hashes.begin(), hashes.end())));
  }
}

TEST(no_row_of_many_keys_is_passed_over) {
  Random random(42);
  const auto hashes = draw(random, 600'000, 200'000);
  CHECK(least_of(hashes) == least_of(std::set<uint64_t>(hashes.begin(), hashes.end())));
}

TEST(few_keys_are_counted_exactly) {
  Random random(43);
  CHECK(distinct_count({}) == 0 && count_of({}) == 0);
  for (const uint64_t keys : {1, 2, 150, 255}) {
    CHECK(count_of(draw(random, 200'000, keys)) == keys);
  }
}

TEST(hashes_of_any_shape_are_counted) {
  std::vector<uint64_t> hashes{0, 0, ~uint64_t{0} - 1, 1};
  CHECK(count_of(hashes) == 3);
  hashes.clear();
  for (uint64_t i = 0; i < 10'000; ++i) hashes.push_back(i);  // no hash at all, all within one part of the range
  CHECK(least_of(hashes) == least_of(std::set<uint64_t>(hashes.begin(), hashes.end())));
  for (uint64_t& hash : hashes) hash = ~uint64_t{0} - 1 - hash;
  CHECK(least_of(hashes) == least_of(std::set<uint64_t>(hashes.begin(), hashes.end())));
}

TEST(a_key_that_comes_late_is_found_and_what_follows_looked_at) {
  Random random(44);
  std::vector<uint64_t> hashes(300'000, mix(1));
  for (size_t i = 200'000; i < hashes.size(); ++i) hashes[i] = mix(i);  // every row a new key
  const auto count = static_cast<double>(count_of(hashes));
  CHECK(std::abs(count - 100'000) < 6 * 0.0443 * 100'000);
  hashes.assign(300'000, mix(1));
  for (size_t i = 250'000; i < 250'200; ++i) hashes[i] = mix(2);
  CHECK(count_of(hashes) == 2);
}

TEST(many_keys_are_counted_within_the_error) {
  Random random(45);
  double squares = 0;
  int rounds = 0;
  for (const uint64_t keys : {600, 2'000, 10'000, 50'000, 200'000}) {
    for (uint64_t round = 0; round < 8; ++round, ++rounds) {
      std::vector<uint64_t> hashes(keys);
      for (uint64_t i = 0; i < keys; ++i) hashes[i] = mix((round << 40) + i);
      const double error = static_cast<double>(count_of(hashes)) / static_cast<double>(keys) - 1;
      CHECK(std::abs(error) < 4 / std::sqrt(kKeptHashes - 2));
      squares += error * error;
    }
  }
  CHECK(std::sqrt(squares / rounds) < 1.3 / std::sqrt(kKeptHashes - 2));
}

TEST(merged_sketches_are_that_of_all_rows) {
  Random random(46);
  for (const uint64_t keys : {5, 200, 700, 100'000}) {
    std::vector<uint64_t> all;
    std::vector<std::string> sketches;
    for (uint64_t task = 0; task < 5; ++task) {
      const auto hashes = task == 2 ? std::vector<uint64_t>{} : draw(random, 10'000, keys, task * keys / 2);
      all.insert(all.end(), hashes.begin(), hashes.end());
      sketches.push_back(sketch_bytes(least_of(hashes)));
    }
    CHECK(distinct_count(sketches) == distinct_count({sketch_bytes(least_of(std::set<uint64_t>(all.begin(), all.end())))}));
    std::reverse(sketches.begin(), sketches.end());
    CHECK(distinct_count(sketches) == distinct_count({sketch_bytes(least_of(std::set<uint64_t>(all.begin(), all.end())))}));
  }
}

TEST(what_is_no_sketch_is_refused) {
  const std::string good = sketch_bytes({1, 2, 3});
  CHECK(distinct_count({good}) == 3);
  CHECK_THROWS(kCorrupt, distinct_count({good.substr(1)}));
  CHECK_THROWS(kCorrupt, distinct_count({good, sketch_bytes({2, 1})}));
  CHECK_THROWS(kCorrupt, distinct_count({sketch_bytes({2, 2})}));
  LeastHashes too_many(kKeptHashes + 1);
  for (size_t i = 0; i < too_many.size(); ++i) too_many[i] = i;
  CHECK_THROWS(kCorrupt, distinct_count({sketch_bytes(too_many)}));
}
