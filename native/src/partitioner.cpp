#include "sabot/partitioner.hpp"

#include <algorithm>
#include <cstring>

#include "gather_kernels.hpp"
#include "kernels.hpp"
#include "sabot/row_hash.hpp"

namespace sabot {
namespace {

// Rows per chunk: few enough that a column's rows, and what is read ahead, stay in the cache; enough that each partition
// gets a run of rows.
constexpr int64_t kMinChunkRows = 1 << 12;
constexpr int64_t kMaxChunkRows = 1 << 16;
constexpr int64_t kRunRows = 128;
// Rows hashed at a time: their hashes are used up while they are in the first-level cache.
constexpr int64_t kHashedRows = 1024;

void check_partitions(uint64_t partitions) {
  if (partitions == 0 || partitions > kMaxPartitions) {
    throw Error(ErrorCode::kInvalidArgument, "the number of partitions must be from 1 to " + std::to_string(kMaxPartitions));
  }
}

// The first 8 bytes as a number that orders as memcmp does.
uint64_t prefix_of(const uint8_t* data, uint64_t bytes) noexcept {
  uint64_t word = 0;
  std::memcpy(&word, data, std::min<uint64_t>(bytes, 8));
  return __builtin_bswap64(word);
}

int compare(std::string_view a, const uint8_t* data, uint64_t bytes) noexcept {
  const int order = std::memcmp(a.data(), data, std::min<uint64_t>(a.size(), bytes));
  if (order != 0) return order;
  return a.size() < bytes ? -1 : a.size() > bytes ? 1 : 0;
}

bool is_bytes(const Field& field) {
  return !field.dictionary && (field.kind == Kind::kBinary32 || field.kind == Kind::kBinary64 || field.kind == Kind::kBinaryView);
}

BytesView bytes_at(const Field& field, const ArrowArray& array, int64_t row) noexcept {
  if (field.kind == Kind::kBinaryView) return view_at(array, row);
  const auto* data = static_cast<const uint8_t*>(array.buffers[2]);
  if (field.kind == Kind::kBinary32) {
    const auto* offsets = static_cast<const uint32_t*>(array.buffers[1]);
    return {data + offsets[row], offsets[row + 1] - offsets[row]};
  }
  const auto* offsets = static_cast<const uint64_t*>(array.buffers[1]);
  return {data + offsets[row], offsets[row + 1] - offsets[row]};
}

}  // namespace

Scheme Scheme::hash_column(std::string column, uint32_t partitions) {
  check_partitions(partitions);
  return {Kind::kHashColumn, partitions, {std::move(column)}, {}, 0};
}

Scheme Scheme::hash_columns(std::vector<std::string> columns, uint32_t partitions) {
  check_partitions(partitions);
  if (columns.empty()) throw Error(ErrorCode::kInvalidArgument, "hash_columns needs at least one column");
  return {Kind::kHashColumns, partitions, std::move(columns), {}, 0};
}

Scheme Scheme::range(std::string column, std::vector<std::string> bounds) {
  check_partitions(bounds.size() + 1);
  if (!std::is_sorted(bounds.begin(), bounds.end(), [](const std::string& a, const std::string& b) {
        return compare(a, reinterpret_cast<const uint8_t*>(b.data()), b.size()) < 0;
      })) {
    throw Error(ErrorCode::kInvalidArgument, "range bounds must ascend");
  }
  const auto partitions = static_cast<uint32_t>(bounds.size() + 1);
  return {Kind::kRange, partitions, {std::move(column)}, std::move(bounds), 0};
}

Scheme Scheme::sampled(std::string column, uint32_t sample_rows) {
  return {Kind::kSampled, 1, {std::move(column)}, {}, sample_rows};
}

Scheme Scheme::round_robin(uint32_t partitions) {
  check_partitions(partitions);
  return {Kind::kRoundRobin, partitions, {}, {}, 0};
}

Partitioner::Partitioner(Scheme scheme, const Field& input) : scheme_(std::move(scheme)), sample_(scheme_.sample_rows) {
  for (const std::string& name : scheme_.columns) {
    const auto found = std::find_if(input.children.begin(), input.children.end(), [&](const Field& f) { return f.name == name; });
    if (found == input.children.end()) throw Error(ErrorCode::kInvalidArgument, "the stream has no column '" + name + "'");
    keys_.push_back(*found);
    key_columns_.push_back(static_cast<size_t>(found - input.children.begin()));
  }
  const auto require = [&](bool right, const char* type) {
    if (right) return;
    throw Error(ErrorCode::kInvalidArgument, "column '" + keys_[0].name + "' must be " + type + ", not '" + keys_[0].format + "'");
  };
  if (scheme_.kind == Scheme::Kind::kHashColumn) {
    require(!keys_[0].dictionary && (keys_[0].format == "L" || keys_[0].format == "l"), "a 64-bit integer");
  }
  if (scheme_.kind == Scheme::Kind::kRange || scheme_.kind == Scheme::Kind::kSampled) require(is_bytes(keys_[0]), "a BLOB");
  for (const std::string& bound : scheme_.bounds) {
    bound_prefixes_.push_back(prefix_of(reinterpret_cast<const uint8_t*>(bound.data()), bound.size()));
  }
  starts_.assign(scheme_.partitions + 1, 0);
}

int64_t Partitioner::chunk_rows() const noexcept {
  return std::clamp(scheme_.partitions * kRunRows, kMinChunkRows, kMaxChunkRows);
}

const uint64_t* Partitioner::hashes(const ArrowArray& batch, int64_t first, int64_t count) {
  const ArrowArray& column = *batch.children[key_columns_[0]];
  const int64_t at = first + batch.offset;
  if (scheme_.kind == Scheme::Kind::kHashColumn) {
    const auto* values = static_cast<const uint64_t*>(column.buffers[1]) + column.offset + at;
    const uint8_t* validity = validity_of(column);
    if (validity == nullptr) return values;
    hashes_.resize(static_cast<size_t>(count));
    for (int64_t j = 0; j < count; ++j) hashes_[j] = get_bit(validity, column.offset + at + j) ? values[j] : 0;
    return hashes_.data();
  }
  hashes_.resize(static_cast<size_t>(count));
  hash_column(keys_[0], column, at, count, hashes_.data());
  for (size_t k = 1; k < keys_.size(); ++k) combine_hashes(keys_[k], *batch.children[key_columns_[k]], at, count, hashes_.data());
  return hashes_.data();
}

ChunkSplit Partitioner::split(const ArrowArray& batch, int64_t first, int64_t count) {
  switch (scheme_.kind) {
    case Scheme::Kind::kSampled:
      take_sample(batch, first, count);
      [[fallthrough]];
    case Scheme::Kind::kSingle:
      starts_[1] = static_cast<uint32_t>(count);
      return {nullptr, starts_.data()};
    case Scheme::Kind::kRoundRobin:
      deal_out(count);
      return {nullptr, starts_.data()};
    case Scheme::Kind::kHashColumn: case Scheme::Kind::kHashColumns: {
      ids_.resize(static_cast<size_t>(count));
      for (int64_t at = 0; at < count; at += kHashedRows) {
        const int64_t rows = std::min(kHashedRows, count - at);
        const uint64_t* values = hashes(batch, first + at, rows);
        heavy_.add(values, static_cast<size_t>(rows));
        distinct_.add(values, static_cast<size_t>(rows));
        kernels().partition_ids(values, static_cast<size_t>(rows), scheme_.partitions, ids_.data() + at);
      }
      if (scheme_.partitions == 1) break;
      permute(count);
      return {permutation_.data(), starts_.data()};
    }
    case Scheme::Kind::kRange:
      if (scheme_.partitions == 1) break;
      range_partitions(batch, first, count);
      permute(count);
      return {permutation_.data(), starts_.data()};
  }
  starts_[1] = static_cast<uint32_t>(count);
  return {nullptr, starts_.data()};
}

void Partitioner::range_partitions(const ArrowArray& batch, int64_t first, int64_t count) {
  ids_.resize(static_cast<size_t>(count));
  const ArrowArray& column = *batch.children[key_columns_[0]];
  const int64_t at = first + batch.offset + column.offset;
  const uint8_t* validity = validity_of(column);
  for (int64_t j = 0; j < count; ++j) {
    if (validity != nullptr && !get_bit(validity, at + j)) {
      ids_[j] = 0;
      continue;
    }
    const BytesView key = bytes_at(keys_[0], column, at + j);
    const uint64_t prefix = prefix_of(key.data, key.bytes);
    // Bounds of a smaller prefix are smaller, of a larger one larger; only those with the same need their bytes.
    auto low = std::lower_bound(bound_prefixes_.begin(), bound_prefixes_.end(), prefix) - bound_prefixes_.begin();
    const auto bounds = static_cast<ptrdiff_t>(bound_prefixes_.size());
    while (low < bounds && bound_prefixes_[low] == prefix && compare(scheme_.bounds[low], key.data, key.bytes) <= 0) ++low;
    ids_[j] = static_cast<uint16_t>(low);
  }
}

void Partitioner::take_sample(const ArrowArray& batch, int64_t first, int64_t count) {
  const ArrowArray& column = *batch.children[key_columns_[0]];
  const int64_t at = first + batch.offset + column.offset;
  const uint8_t* validity = validity_of(column);
  for (int64_t j = 0; j < count; ++j) {
    if (!sample_.wants_next()) {
      const auto step = std::min<uint64_t>(sample_.skip(), static_cast<uint64_t>(count - j));
      sample_.skipped(step);
      j += static_cast<int64_t>(step);
      if (j == count) return;
    }
    if (validity != nullptr && !get_bit(validity, at + j)) continue;
    const BytesView key = bytes_at(keys_[0], column, at + j);
    sample_.add({reinterpret_cast<const char*>(key.data), std::min<size_t>(key.bytes, kSampledKeyBytes)});
  }
}

void Partitioner::deal_out(int64_t count) {
  const uint32_t partitions = scheme_.partitions;
  const auto rows = static_cast<uint32_t>(count);
  const uint32_t share = rows / partitions;
  const uint32_t left_over = rows % partitions;
  for (uint32_t p = 0; p < partitions; ++p) {
    const uint32_t place = (p + partitions - turn_) % partitions;
    starts_[p + 1] = starts_[p] + share + (place < left_over ? 1 : 0);
  }
  turn_ = (turn_ + left_over) % partitions;
}

void Partitioner::plan_keys(const ArrowArray& batch, int64_t first, int64_t count, Readahead& ahead) const {
  for (size_t k = 0; k < keys_.size(); ++k) ahead.plan(keys_[k], *batch.children[key_columns_[k]], first, count);
}

void Partitioner::permute(int64_t count) {
  const auto rows = static_cast<size_t>(count);
  permutation_.resize(rows + kPermutationSlack);
  kernels().permute(ids_.data(), rows, scheme_.partitions, permutation_.data(), starts_.data(), scratch_);
}

std::vector<HeavyHitter> Partitioner::heavy() const { return is_hash() ? heavy_.heaviest() : std::vector<HeavyHitter>{}; }

}  // namespace sabot
