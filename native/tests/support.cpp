#include "support.hpp"

#include <unistd.h>

#include <cstring>

namespace support {
namespace {

struct ArrayOwner {
  std::vector<ArrowArray> children;
  std::vector<ArrowArray*> pointers;
  std::vector<std::vector<uint8_t>> memory;
  std::vector<std::vector<const void*>> buffers;
};

void release_child(ArrowArray* array) { array->release = nullptr; }

void release_parent(ArrowArray* array) {
  delete static_cast<ArrayOwner*>(array->private_data);
  array->release = nullptr;
}

std::vector<uint8_t> bitmap(size_t size) { return std::vector<uint8_t>((size + 7) / 8 + 1, 0); }

// Buffers exactly as long as the rows need, so that a sanitizer sees every read behind them.
void fill(const Column& column, size_t first, size_t count, size_t offset, ArrayOwner& owner, ArrowArray& array) {
  std::vector<uint8_t> validity = bitmap(offset + count);
  array = ArrowArray{};
  const auto set = [&](size_t at) { validity[at / 8] = static_cast<uint8_t>(validity[at / 8] | (1 << (at % 8))); };
  if (column.text) {
    std::vector<uint8_t> offsets((offset + count + 1) * 4);
    std::vector<uint8_t> data;
    for (size_t j = 0; j <= offset + count; ++j) {
      const auto at = static_cast<int32_t>(data.size());
      std::memcpy(offsets.data() + 4 * j, &at, 4);
      if (j < offset || j == offset + count) continue;
      const auto& value = column.strings[first + j - offset];
      if (!value) {
        ++array.null_count;
        continue;
      }
      set(j);
      data.insert(data.end(), value->begin(), value->end());
    }
    owner.memory.push_back(std::move(offsets));
    owner.memory.push_back(std::move(data));
  } else {
    std::vector<uint8_t> values((offset + count) * 8);
    for (size_t j = offset; j < offset + count; ++j) {
      const auto& value = column.numbers[first + j - offset];
      if (!value) {
        ++array.null_count;
        continue;
      }
      set(j);
      std::memcpy(values.data() + 8 * j, &*value, 8);
    }
    owner.memory.push_back(std::move(values));
  }
  const size_t data_buffers = column.text ? 2 : 1;
  owner.memory.push_back(std::move(validity));
  std::vector<const void*> buffers{owner.memory.back().data()};
  for (size_t i = data_buffers; i > 0; --i) buffers.push_back(owner.memory[owner.memory.size() - 1 - i].data());
  owner.buffers.push_back(std::move(buffers));
  array.length = static_cast<int64_t>(count);
  array.offset = static_cast<int64_t>(offset);
  array.n_buffers = static_cast<int64_t>(data_buffers + 1);
  array.buffers = owner.buffers.back().data();
  array.release = release_child;
}

struct StreamOwner {
  Table table;
  size_t batch_rows;
  size_t offset;
  int fail_after;
  size_t next = 0;
  int delivered = 0;
};

StreamOwner& owner_of(ArrowArrayStream* stream) { return *static_cast<StreamOwner*>(stream->private_data); }

int get_schema(ArrowArrayStream* stream, ArrowSchema* out) {
  sabot::Field root;
  root.format = "+s";
  root.kind = sabot::Kind::kStruct;
  for (const Column& column : owner_of(stream).table) {
    sabot::Field field;
    field.name = column.name;
    field.format = column.text ? "u" : "l";
    root.children.push_back(field);
  }
  sabot::export_field(root, out);
  return 0;
}

int get_next(ArrowArrayStream* stream, ArrowArray* out) {
  StreamOwner& state = owner_of(stream);
  if (state.delivered++ == state.fail_after) return EIO;
  *out = ArrowArray{};
  const Column& first = state.table.front();
  const size_t rows = first.text ? first.strings.size() : first.numbers.size();
  if (state.next == rows) return 0;
  const size_t count = std::min(state.batch_rows, rows - state.next);
  auto owner = std::make_unique<ArrayOwner>();
  owner->children.resize(state.table.size());
  for (size_t i = 0; i < state.table.size(); ++i) {
    fill(state.table[i], state.next, count, state.offset, *owner, owner->children[i]);
    owner->pointers.push_back(&owner->children[i]);
  }
  state.next += count;
  out->length = static_cast<int64_t>(count);
  out->n_children = static_cast<int64_t>(state.table.size());
  out->children = owner->pointers.data();
  out->release = release_parent;
  out->private_data = owner.release();
  return 0;
}

const char* get_last_error(ArrowArrayStream*) { return "the producer failed"; }

void release_stream(ArrowArrayStream* stream) {
  delete static_cast<StreamOwner*>(stream->private_data);
  stream->release = nullptr;
}

std::optional<std::string> value_at(const ArrowArray& array, bool text, int64_t row) {
  const int64_t at = row + array.offset;
  const auto* validity = static_cast<const uint8_t*>(array.buffers[0]);
  if (validity != nullptr && ((validity[at / 8] >> (at % 8)) & 1) == 0) return std::nullopt;
  if (!text) return std::to_string(static_cast<const int64_t*>(array.buffers[1])[at]);
  const auto* offsets = static_cast<const int32_t*>(array.buffers[1]);
  return std::string(static_cast<const char*>(array.buffers[2]) + offsets[at], static_cast<size_t>(offsets[at + 1] - offsets[at]));
}

}  // namespace

sabot::OwnedStream stream_of(const Table& table, size_t batch_rows, size_t offset, int fail_after) {
  auto owner = std::make_unique<StreamOwner>(StreamOwner{table, batch_rows, offset, fail_after});
  ArrowArrayStream stream{get_schema, get_next, get_last_error, release_stream, owner.release()};
  return sabot::OwnedStream(&stream);
}

std::vector<Row> rows_of(ArrowArrayStream* stream) {
  sabot::OwnedSchema schema;
  if (stream->get_schema(stream, schema.get()) != 0) throw harness::Failure("no schema");
  const sabot::Field root = sabot::import_field(*schema);
  std::vector<Row> rows;
  for (;;) {
    sabot::OwnedArray batch;
    if (stream->get_next(stream, batch.get()) != 0) throw harness::Failure(stream->get_last_error(stream));
    if (!batch) return rows;
    for (int64_t row = 0; row < batch->length; ++row) {
      Row values;
      for (size_t i = 0; i < root.children.size(); ++i) {
        values.push_back(value_at(*batch->children[i], root.children[i].format == "u", row));
      }
      rows.push_back(std::move(values));
    }
  }
}

std::vector<Row> rows_of(const Table& table) {
  sabot::OwnedStream stream = stream_of(table, 1 << 20);
  return rows_of(stream.get());
}

std::vector<Row> read_all(const std::shared_ptr<sabot::ReadPlan>& plan) {
  ArrowArrayStream stream{};
  sabot::open_stream(plan, &stream);
  sabot::OwnedStream owned(&stream);
  return rows_of(owned.get());
}

Table make_table(harness::Random& random, size_t rows, size_t keys, size_t text_bytes) {
  Table table(3);
  table[0].name = "n";
  table[1].name = "key";
  table[2].name = "text";
  table[2].text = true;
  for (size_t i = 0; i < rows; ++i) {
    table[0].numbers.emplace_back(static_cast<int64_t>(i));
    table[1].numbers.emplace_back(static_cast<int64_t>(i % keys));
    if (harness::below(random, 5) == 0) {
      table[2].strings.emplace_back(std::nullopt);
    } else {
      table[2].strings.emplace_back(std::string(harness::below(random, text_bytes + 1), static_cast<char>('a' + i % 26)));
    }
  }
  return table;
}

TempDirectory::TempDirectory() {
  std::string pattern = (std::filesystem::temp_directory_path() / "sabot-test-XXXXXX").string();
  path_ = ::mkdtemp(pattern.data());
}

TempDirectory::~TempDirectory() { std::filesystem::remove_all(path_); }

size_t TempDirectory::files() const {
  const std::filesystem::directory_iterator entries(path_);
  return static_cast<size_t>(std::distance(begin(entries), end(entries)));
}

sabot::StoreConfig store_config(const TempDirectory& directory, uint64_t budget_bytes, uint64_t quota_bytes) {
  sabot::StoreConfig config;
  config.budget_bytes = budget_bytes;
  config.spill_quota_bytes = quota_bytes;
  config.spill_directory = directory.path();
  return config;
}

sabot::OutputSpec output(const std::string& edge, uint32_t task, sabot::Scheme scheme) {
  return {{"query", edge, task, 0}, std::move(scheme), std::nullopt};
}

}  // namespace support
