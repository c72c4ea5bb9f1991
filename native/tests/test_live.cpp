// Streaming channels: batches reach a reader while their output is still being written.

#include <algorithm>
#include <future>
#include <thread>

#include "support.hpp"

using harness::Random;
using namespace sabot;
using support::output;
using support::Row;

namespace {

constexpr uint64_t kMiB = 1 << 20;

std::vector<Row> sorted(std::vector<Row> rows) {
  std::sort(rows.begin(), rows.end());
  return rows;
}

std::vector<Row> follow(ShuffleManager& manager, std::vector<OutputKey> keys, uint32_t first, uint32_t last, Watch watch = Watch::after(nullptr, 30'000)) {
  ArrowArrayStream stream{};
  open_live_stream(manager.follow(std::move(keys), first, last, std::move(watch)), &stream);
  OwnedStream owned(&stream);
  return support::rows_of(owned.get());
}

OutputKey key(const std::string& edge, uint32_t task = 0) { return {"query", edge, task, 0}; }

void check_nothing_left(ShuffleManager& manager, const support::TempDirectory& directory) {
  CHECK(manager.metrics().store.pool_bytes == 0);
  CHECK(manager.metrics().store.segments == 0);
  CHECK(directory.files() == 0);
}

}  // namespace

// Both branches come from one writer. The reader wants all of the left one before it looks at the right one.
TEST(a_diamond_read_branch_by_branch_ends) {
  const support::TempDirectory directory;
  ShuffleManager manager("agent", support::store_config(directory, 2 * kMiB));
  manager.register_shuffle("query");
  Random random(31);
  const support::Table table = support::make_table(random, 60'000, 7, 60);
  auto writer = std::async(std::launch::async, [&] {
    manager.write_partition(support::stream_of(table, 2000), {output("left", 0, Scheme::single()), output("right", 0, Scheme::hash_columns({"key"}, 3))},
                  Watch::after(nullptr, 60'000), true);
  });
  CHECK(follow(manager, {key("left")}, 0, 1).size() == 60'000);
  size_t right = 0;
  for (uint32_t p = 0; p < 3; ++p) right += follow(manager, {key("right")}, p, p + 1).size();
  writer.get();
  CHECK(right == 60'000);
  CHECK(manager.metrics().store.spilled_bytes > 0);
  CHECK(manager.metrics().store.peak_pool_bytes <= 2 * kMiB);
  manager.release("query", "");
  check_nothing_left(manager, directory);
}

TEST(several_writers_meet_several_readers) {
  const support::TempDirectory directory;
  ShuffleManager manager("agent", support::store_config(directory, kMiB));
  manager.register_shuffle("query");
  Random random(32);
  const support::Table table = support::make_table(random, 5000, 11, 30);
  std::vector<Row> expected;
  std::vector<Row> parts[2];
  std::vector<std::future<void>> tasks;
  for (uint32_t task = 0; task < 3; ++task) {
    for (const Row& row : support::rows_of(table)) expected.push_back(row);
    tasks.push_back(std::async(std::launch::async, [&, task] {
      manager.write_partition(support::stream_of(table, 500), {output("e", task, Scheme::hash_columns({"key"}, 2))}, Watch::after(nullptr, 30'000), true);
    }));
  }
  for (uint32_t p = 0; p < 2; ++p) {
    tasks.push_back(std::async(std::launch::async, [&, p] { parts[p] = follow(manager, {key("e", 0), key("e", 1), key("e", 2)}, p, p + 1); }));
  }
  for (auto& task : tasks) task.get();
  parts[0].insert(parts[0].end(), parts[1].begin(), parts[1].end());
  CHECK(sorted(parts[0]) == sorted(expected));
  manager.release("query", "e");
  check_nothing_left(manager, directory);
}

TEST(a_reader_learns_why_its_writer_failed) {
  const support::TempDirectory directory;
  ShuffleManager manager("agent", support::store_config(directory, kMiB));
  manager.register_shuffle("query");
  Random random(33);
  const support::Table table = support::make_table(random, 5000, 11, 30);
  auto writer = std::async(std::launch::async, [&] {
    CHECK_THROWS(kStream, manager.write_partition(support::stream_of(table, 500, 0, 5), {output("e", 0, Scheme::single())}, {}, true));
  });
  std::string reason;
  try {
    follow(manager, {key("e")}, 0, 1);
  } catch (const harness::Failure& failure) {
    reason = failure.text;
  }
  writer.get();
  CHECK(reason == "the producer failed");
  manager.release("query", "");
  check_nothing_left(manager, directory);
}

TEST(a_reader_does_not_wait_for_ever) {
  const support::TempDirectory directory;
  ShuffleManager manager("agent", support::store_config(directory, kMiB));
  manager.register_shuffle("query");
  const auto ends_with = [&](const Watch& watch) {
    const auto read = manager.follow({key("nobody")}, 0, 1, watch);
    ArrowArrayStream stream{};
    open_live_stream(read, &stream);
    OwnedStream owned(&stream);
    OwnedSchema schema;
    const int failed = owned->get_schema(owned.get(), schema.get());
    return failed == 0 ? ErrorCode::kInternal : read->error.get()->code();
  };
  CHECK(ends_with(Watch::after(nullptr, 30)) == ErrorCode::kDeadline);
  const auto token = std::make_shared<CancelToken>();
  auto other = std::async(std::launch::async, [&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    token->cancel();
  });
  CHECK(ends_with(Watch(token, std::nullopt)) == ErrorCode::kCancelled);
  other.get();
  auto releaser = std::async(std::launch::async, [&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    manager.release("other", "");
    manager.release("query", "nobody");
  });
  CHECK(ends_with(Watch::after(nullptr, 30'000)) == ErrorCode::kCancelled);
  releaser.get();
}

TEST(release_ends_a_live_write_and_its_reader) {
  const support::TempDirectory directory;
  ShuffleManager manager("agent", support::store_config(directory, kMiB));
  manager.register_shuffle("query");
  Random random(34);
  const support::Table table = support::make_table(random, 20'000, 11, 30);
  auto writer = std::async(std::launch::async, [&] {
    CHECK_THROWS(kCancelled, for (uint32_t task = 0; task < 1000; ++task) {
      manager.write_partition(support::stream_of(table, 100), {output("e", task, Scheme::single())}, {}, true);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      manager.write_partition(support::stream_of(table, 100), {output("wait", task, Scheme::single())}, {}, true);
    });
  });
  auto releaser = std::async(std::launch::async, [&] {
    for (int i = 0; i < 200; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      manager.release("query", i % 2 == 0 ? "e" : "wait");  // the query itself would be forgotten
    }
  });
  writer.get();
  releaser.get();
  manager.release("query", "");
  check_nothing_left(manager, directory);
}
