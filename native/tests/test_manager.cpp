// The shuffle manager: conservation of rows, concurrency, cancellation at any moment.

#include <algorithm>
#include <atomic>
#include <future>
#include <thread>

#include "support.hpp"

using harness::below;
using harness::Random;
using namespace sabot;
using support::output;
using support::Row;
using support::Table;

namespace {

std::vector<Row> sorted(std::vector<Row> rows) {
  std::sort(rows.begin(), rows.end());
  return rows;
}

Scheme any_scheme(Random& random) {
  const auto partitions = static_cast<uint32_t>(1 + below(random, below(random, 4) == 0 ? 300 : 12));
  switch (below(random, 3)) {
    case 0: return Scheme::hash_columns({"key"}, partitions);
    case 1: return Scheme::hash_columns({"text", "n"}, partitions);
    default: return Scheme::round_robin(partitions);
  }
}

void check_nothing_left(ShuffleManager& manager, const support::TempDirectory& directory) {
  const ManagerMetrics metrics = manager.metrics();
  CHECK(metrics.store.pool_bytes == 0);
  CHECK(metrics.store.segments == 0);
  CHECK(metrics.store.disk_bytes == 0);
  CHECK(directory.files() == 0);
}

}  // namespace

TEST(rows_are_conserved_under_any_scheme_size_and_budget) {
  Random random(21);
  for (int round = 0; round < 25; ++round) {
    const support::TempDirectory directory;
    const uint64_t budget = uint64_t{64 << 10} << below(random, 8);
    ShuffleManager manager("agent", support::store_config(directory, budget));
    manager.register_shuffle("query");
    const Table table = support::make_table(random, below(random, 6000), 1 + below(random, 100), below(random, 40));
    const Scheme scheme = any_scheme(random);
    const auto manifests = manager.write_partition(support::stream_of(table, 1 + below(random, 5000), below(random, 70)), {output("e", 0, scheme)}, {});
    const auto plan = manager.read(manifests, 0, scheme.partitions, {});
    CHECK(sorted(support::read_all(plan)) == sorted(support::rows_of(table)));
    CHECK(manager.metrics().store.peak_pool_bytes <= budget);
    manager.release("query", "");
    check_nothing_left(manager, directory);
  }
}

TEST(a_row_larger_than_the_pool_arrives) {
  const support::TempDirectory directory;
  ShuffleManager manager("agent", support::store_config(directory, 64 << 10));
  manager.register_shuffle("query");
  Random random(22);
  Table table = support::make_table(random, 100, 3, 10);
  table[2].strings[50] = std::string(1 << 20, 'x');
  table[2].strings[51] = std::string(40'000, 'y');
  const auto manifests = manager.write_partition(support::stream_of(table, 100), {output("e", 0, Scheme::hash_columns({"key"}, 2))}, {});
  CHECK(sorted(support::read_all(manager.read(manifests, 0, 2, {}))) == sorted(support::rows_of(table)));
  CHECK(manager.metrics().store.peak_pool_bytes <= 64 << 10);
}

TEST(partitions_keep_the_order_of_rows) {
  const support::TempDirectory directory;
  ShuffleManager manager("agent", support::store_config(directory, 256 << 10));
  manager.register_shuffle("query");
  Random random(23);
  const Table table = support::make_table(random, 20'000, 5, 60);
  const auto manifests = manager.write_partition(support::stream_of(table, 7000, 3), {output("e", 0, Scheme::hash_columns({"key"}, 4))}, {});
  for (uint32_t p = 0; p < 4; ++p) {
    int64_t last = -1;
    for (const Row& row : support::read_all(manager.read(manifests, p, p + 1, {}))) {
      CHECK(std::stoll(*row[0]) > last);
      last = std::stoll(*row[0]);
    }
  }
}

TEST(a_failing_stream_leaves_nothing) {
  const support::TempDirectory directory;
  ShuffleManager manager("agent", support::store_config(directory, 128 << 10));
  manager.register_shuffle("query");
  Random random(24);
  const Table table = support::make_table(random, 9000, 5, 60);
  for (int batches = 0; batches < 9; ++batches) {
    CHECK_THROWS(kStream, manager.write_partition(support::stream_of(table, 1000, 0, batches), {output("e", 0, Scheme::round_robin(3))}, {}));
    check_nothing_left(manager, directory);
  }
}

TEST(writers_and_readers_share_a_small_pool) {
  const support::TempDirectory directory;
  ShuffleManager manager("agent", support::store_config(directory, 256 << 10));
  manager.register_shuffle("query");
  std::atomic<int> wrong{0};
  const auto task = [&](uint32_t number) {
    Random random(100 + number);
    for (uint32_t round = 0; round < 3; ++round) {
      const Table table = support::make_table(random, 3000, 7, 40);
      const Scheme scheme = Scheme::hash_columns({"key"}, 5);
      const auto edge = "e" + std::to_string(number);
      const auto manifests = manager.write_partition(support::stream_of(table, 900), {output(edge, round, scheme)}, {});
      if (sorted(support::read_all(manager.read(manifests, 0, 5, {}))) != sorted(support::rows_of(table))) ++wrong;
      if (manager.metrics().store.pool_bytes > 256 << 10) ++wrong;
      manager.release("query", edge);
    }
  };
  std::vector<std::future<void>> tasks;
  for (uint32_t number = 0; number < 4; ++number) tasks.push_back(std::async(std::launch::async, task, number));
  for (auto& task : tasks) task.get();
  CHECK(wrong == 0);
  CHECK(manager.metrics().store.peak_pool_bytes <= 256 << 10);
  check_nothing_left(manager, directory);
}

TEST(readers_of_one_output_meet_its_eviction) {
  const support::TempDirectory directory;
  ShuffleManager manager("agent", support::store_config(directory, 256 << 10));
  manager.register_shuffle("query");
  Random random(25);
  const Table table = support::make_table(random, 4000, 7, 20);
  const auto expected = sorted(support::rows_of(table));
  const auto manifests = manager.write_partition(support::stream_of(table, 900), {output("kept", 0, Scheme::hash_columns({"key"}, 5))}, {});
  std::atomic<int> wrong{0};
  std::vector<std::future<void>> tasks;
  for (int reader = 0; reader < 2; ++reader) {
    tasks.push_back(std::async(std::launch::async, [&] {
      for (int round = 0; round < 4; ++round) {
        if (sorted(support::read_all(manager.read(manifests, 0, 5, {}))) != expected) ++wrong;
      }
    }));
  }
  tasks.push_back(std::async(std::launch::async, [&] {
    for (uint32_t round = 0; round < 4; ++round) {
      manager.write_partition(support::stream_of(table, 900), {output("other", round, Scheme::round_robin(3))}, {});
    }
  }));
  for (auto& task : tasks) task.get();
  CHECK(wrong == 0);
  CHECK(manager.metrics().store.spilled_bytes > 0);
  manager.release("query", "");
  check_nothing_left(manager, directory);
}

// Why a write and the read after it ended early; nothing if they did not.
std::optional<ErrorCode> round_trip(ShuffleManager& manager, const Table& table, uint32_t task, const Watch& watch) {
  std::shared_ptr<ReadPlan> plan;
  try {
    const auto manifests = manager.write_partition(support::stream_of(table, 100), {output("e", task, Scheme::hash_columns({"key"}, 9))}, watch);
    plan = manager.read(manifests, 0, 9, watch);
    CHECK(support::read_all(plan).size() == table[0].numbers.size());
    return std::nullopt;
  } catch (const Error& error) {
    return error.code();
  } catch (const harness::Failure&) {
    // The stream's consumer has the text of the reason alone, the plan has its code.
    if (!plan || !plan->error().get()) throw;
    return plan->error().get()->code();
  }
}

// The moments are drawn over a whole round trip, however long that takes here.
TEST(cancel_at_any_moment_leaves_nothing) {
  const support::TempDirectory directory;
  ShuffleManager manager("agent", support::store_config(directory, 128 << 10));
  Random random(26);
  const Table table = support::make_table(random, 6000, 7, 40);
  manager.register_shuffle("query");
  const auto start = std::chrono::steady_clock::now();
  CHECK(!round_trip(manager, table, 0, {}));
  const auto whole = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start);
  manager.release("query", "");
  int ended_early = 0;
  for (uint32_t round = 0; round < 30; ++round) {
    manager.register_shuffle("query");
    const auto token = std::make_shared<CancelToken>();
    const auto delay = std::chrono::microseconds(below(random, static_cast<uint64_t>(whole.count())));
    auto canceller = std::async(std::launch::async, [&] {
      std::this_thread::sleep_for(delay);
      if (round % 2 == 0) token->cancel();
      else manager.release("query", "");
    });
    const auto code = round_trip(manager, table, round, Watch(token, std::nullopt));
    canceller.get();
    // kInvalidArgument: released before the write began. kLost: released while its rows were read.
    CHECK(!code || *code == ErrorCode::kCancelled || (round % 2 == 1 && (*code == ErrorCode::kLost || *code == ErrorCode::kInvalidArgument)));
    ended_early += code.has_value();
    manager.release("query", "");
    check_nothing_left(manager, directory);
  }
  CHECK(ended_early > 0);
}

TEST(a_deadline_ends_a_write) {
  const support::TempDirectory directory;
  ShuffleManager manager("agent", support::store_config(directory, 128 << 10));
  manager.register_shuffle("query");
  Random random(27);
  const Table table = support::make_table(random, 3000, 7, 40);
  CHECK_THROWS(kDeadline, manager.write_partition(support::stream_of(table, 100), {output("e", 0, Scheme::single())}, Watch::after(nullptr, 0)));
  check_nothing_left(manager, directory);
}

TEST(arrays_outlive_their_manager) {
  const support::TempDirectory directory;
  Random random(28);
  const Table table = support::make_table(random, 3000, 7, 40);
  ArrowArrayStream stream{};
  std::vector<OwnedArray> held;
  {
    ShuffleManager manager("agent", support::store_config(directory, 64 << 10));
    manager.register_shuffle("query");
    const auto manifests = manager.write_partition(support::stream_of(table, 1000), {output("e", 0, Scheme::round_robin(3))}, {});
    open_stream(manager.read(manifests, 0, 3, {}), &stream);
    for (;;) {
      OwnedArray batch;
      CHECK(stream.get_next(&stream, batch.get()) == 0);
      if (!batch) break;
      held.push_back(std::move(batch));
    }
    stream.release(&stream);
  }
  CHECK(directory.files() == 0);
  int64_t rows = 0;
  for (auto& batch : held) {
    rows += batch->length;
    // A consumer may take a child and let the rest go.
    OwnedArray child(batch->children[0]);
    batch.reset();
    CHECK(static_cast<const int64_t*>(child->buffers[1])[child->length - 1] < 3000);
  }
  CHECK(rows == 3000);
}

TEST(managers_of_one_process_read_each_other) {
  const support::TempDirectory first_directory;
  const support::TempDirectory second_directory;
  ShuffleManager first("first", support::store_config(first_directory, 64 << 10));
  first.register_shuffle("query");
  ShuffleManager second("second", support::store_config(second_directory, 64 << 10));
  second.register_shuffle("query");
  Random random(29);
  const Table table = support::make_table(random, 3000, 7, 40);
  auto manifests = first.write_partition(support::stream_of(table, 1000), {output("e", 0, Scheme::round_robin(3))}, {});
  manifests.push_back(second.write_partition(support::stream_of(table, 1000), {output("e", 1, Scheme::round_robin(3))}, {}).front());
  CHECK(support::read_all(second.read(manifests, 0, 3, {})).size() == 6000);
  CHECK_THROWS(kInvalidArgument, first.read(manifests, 0, 4, {}));
  CHECK_THROWS(kInvalidArgument, first.read({}, 0, 1, {}));
}
