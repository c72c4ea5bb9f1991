// Arrow arrays and managers for tests.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "harness.hpp"
#include "sabot/shuffle_manager.hpp"

namespace support {

// A column of 64-bit integers or of strings; a missing value is NULL.
struct Column {
  std::string name;
  bool text = false;
  std::vector<std::optional<int64_t>> numbers;
  std::vector<std::optional<std::string>> strings;
};

using Table = std::vector<Column>;
using Row = std::vector<std::optional<std::string>>;

// A stream that delivers the table in batches of `batch_rows`, each array with offset `offset` into its buffers. After
// `fail_after` batches it fails, if that is not negative.
sabot::OwnedStream stream_of(const Table& table, size_t batch_rows, size_t offset = 0, int fail_after = -1);

// The rows of a stream of such columns, as text.
std::vector<Row> rows_of(ArrowArrayStream* stream);
std::vector<Row> rows_of(const Table& table);
std::vector<Row> read_all(const std::shared_ptr<sabot::ReadPlan>& plan);

// n, key (n % keys), and a nullable string of up to `text_bytes` bytes.
Table make_table(harness::Random& random, size_t rows, size_t keys, size_t text_bytes);

// A directory of its own, removed at the end.
class TempDirectory {
 public:
  TempDirectory();
  ~TempDirectory();
  [[nodiscard]] std::string path() const { return path_; }
  [[nodiscard]] size_t files() const;

 private:
  std::string path_;
};

sabot::StoreConfig store_config(const TempDirectory& directory, uint64_t budget_bytes, uint64_t quota_bytes = uint64_t{1} << 30);
sabot::OutputSpec output(const std::string& edge, uint32_t task, sabot::Scheme scheme);

}  // namespace support
