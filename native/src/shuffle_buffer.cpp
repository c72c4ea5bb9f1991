#include "sabot/shuffle_buffer.hpp"

#include <algorithm>


namespace sabot {
namespace {

constexpr uint64_t kGrowth = 8;
constexpr uint64_t kMinRows = 64;
// Of a batch with a reader waiting for it.
constexpr auto kMaxOpenTime = std::chrono::milliseconds(50);
// A batch of fewer rows is laid out anew when it is full; a larger one is sealed, which copies nothing.
constexpr uint64_t kFewRows = 1024;
// A smaller block cannot spare a page.
constexpr uint64_t kMinStaggeredBytes = 32 * 1024;

const Field& find_column(const Field& input, const std::string& name) {
  const auto found = std::find_if(input.children.begin(), input.children.end(), [&](const Field& f) { return f.name == name; });
  if (found == input.children.end()) throw Error(ErrorCode::kInvalidArgument, "the stream has no column '" + name + "'");
  return *found;
}

// The columns to store, in order.
std::vector<size_t> chosen_columns(const OutputSpec& spec, const Field& input) {
  std::vector<size_t> chosen;
  const auto dropped = [&](const std::string& name) { return spec.scheme.drops_key() && name == spec.scheme.columns[0]; };
  if (spec.columns) {
    for (const std::string& name : *spec.columns) {
      if (!dropped(name)) chosen.push_back(static_cast<size_t>(&find_column(input, name) - input.children.data()));
    }
    const bool keeps_key = spec.scheme.kind == Scheme::Kind::kSampled;
    if (keeps_key && std::find(spec.columns->begin(), spec.columns->end(), spec.scheme.columns[0]) == spec.columns->end()) {
      chosen.push_back(static_cast<size_t>(&find_column(input, spec.scheme.columns[0]) - input.children.data()));
    }
    return chosen;
  }
  for (size_t i = 0; i < input.children.size(); ++i) {
    if (!dropped(input.children[i].name)) chosen.push_back(i);
  }
  return chosen;
}

Field stored_schema(const OutputSpec& spec, const Field& input) {
  Field stored;  // without the name of the batches: every producer of streams has another one
  stored.format = "+s";
  stored.metadata = input.metadata;
  stored.flags = 0;
  stored.kind = Kind::kStruct;
  for (const size_t i : chosen_columns(spec, input)) stored.children.push_back(stored_field(input.children[i]));
  return stored;
}

// Rows of each node per row of the batch where only the type decides it, else 0.
void fill_factors(const BatchShape& shape, uint32_t node, uint64_t factor, std::vector<uint64_t>& factors) {
  factors[node] = factor;
  const Kind kind = shape[node].kind;
  uint64_t below = 0;
  if (kind == Kind::kStruct || kind == Kind::kSparseUnion) below = factor;
  if (kind == Kind::kFixedList) below = factor * shape[node].width;
  for (uint32_t child = node + 1; child < shape[node].end; child = shape[child].end) fill_factors(shape, child, below, factors);
}

bool has_32_bit_data(Kind kind) { return kind == Kind::kBinary32; }

}  // namespace

OutputWriter::OutputWriter(std::shared_ptr<SegmentStore> store, uint64_t output_number, const OutputSpec& spec, const Field& input,
                           BatchLimits limits)
    : store_(std::move(store)),
      output_number_(output_number),
      name_(spec.name),
      limits_(limits),
      sort_key_(spec.scheme.kind == Scheme::Kind::kSampled ? spec.scheme.columns[0] : ""),
      partitioner_(spec.scheme, input),
      stored_(stored_schema(spec, input)),
      shape_(stored_),
      gather_(shape_),
      rows_per_row_(shape_.size()),
      totals_(shape_.size()),
      deferred_(spec.scheme.partitions),
      partitions_(spec.scheme.partitions) {
  uint32_t node = 1;
  for (const size_t i : chosen_columns(spec, input)) {
    columns_.push_back({input.children[i], i, node});
    node = shape_[node].end;
  }
  fill_factors(shape_, 0, 1, rows_per_row_);
  builders_.reserve(spec.scheme.partitions);
  for (uint32_t p = 0; p < spec.scheme.partitions; ++p) builders_.emplace_back(shape_);
}

OutputWriter::~OutputWriter() {
  if (!owns_segments_) return;
  for (const auto& partition : partitions_) {
    for (const SegmentRef& segment : partition.segments) store_->drop({&segment.id, 1});
  }
}

void OutputWriter::stream_to(std::shared_ptr<LiveChannels> channels) {
  channels_ = std::move(channels);
  sealed_all_ = Clock::now();
  channels_->open(key_of(name_), partitioner_.partitions(), stored_);
}

void OutputWriter::append(const ArrowArray& batch, const Watch& watch) {
  const int64_t step = partitioner_.chunk_rows();
  for (int64_t first = 0; first < batch.length; first += step) {
    watch.check();
    append_chunk(batch, first, std::min(step, batch.length - first));
    if (!channels_) continue;
    seal_aged();
    cost_.wait_ns += channels_->await_credit(key_of(name_), watch);
  }
  // A producer that has no rows for now may still say so with an empty batch.
  if (channels_ && batch.length == 0) seal_aged();
}

void OutputWriter::seal_aged() {
  if (Clock::now() - sealed_all_ >= kMaxOpenTime) seal_all();
}

void OutputWriter::seal_all() {
  for (uint32_t p = 0; p < partitioner_.partitions(); ++p) {
    if (builders_[p].is_open() && builders_[p].rows() > 0) seal(p);
  }
  sealed_all_ = Clock::now();
}

void OutputWriter::append_chunk(const ArrowArray& batch, int64_t first, int64_t count) {
  totals_[0].rows += static_cast<uint64_t>(count);
  for (const Column& column : columns_) {
    measure(column.field, *batch.children[column.input], batch.offset + first, count, shape_, column.node, totals_);
  }
  const ChunkSplit split = partitioner_.split(batch, first, count);
  if (split.permutation != nullptr) {
    append_columns(batch, split, ChunkRows{split.permutation, batch.offset + first});
  } else {
    append_columns(batch, split, RowRange{batch.offset + first});
  }
}

namespace {


}  // namespace

// What is needed after column `at` of rows [first, first + rows): the next column, and after the last the keys and the
// first column of as many rows more.
void OutputWriter::read_ahead(const ArrowArray& batch, size_t at, int64_t first, int64_t rows) {
  Readahead& ahead = gather_.readahead();
  ahead.clear();
  if (at + 1 < columns_.size()) {
    const Column& next = columns_[at + 1];
    ahead.plan(next.field, *batch.children[next.input], first, rows);
  } else {
    const int64_t more = std::min(rows, batch.offset + batch.length - first - rows);
    partitioner_.plan_keys(batch, first + rows, more, ahead);
    ahead.plan(columns_[0].field, *batch.children[columns_[0].input], first + rows, more);
  }
  ahead.spread(static_cast<uint64_t>(rows));
}

// Column by column, so that a column's chunk stays in the cache while all partitions take their rows from it. A
// partition whose batch turns out too small is left for append_slowly(); its batch has not changed till then.
template <typename Rows>
void OutputWriter::append_columns(const ArrowArray& batch, const ChunkSplit& split, Rows rows) {
  const uint32_t partitions = partitioner_.partitions();
  for (uint32_t p = 0; p < partitions; ++p) {
    const uint64_t count = split.starts[p + 1] - split.starts[p];
    deferred_[p] = count != 0 && !make_room(p, count);
  }
  for (size_t c = 0; c < columns_.size(); ++c) {
    const Column& column = columns_[c];
    const ArrowArray& array = *batch.children[column.input];
    if constexpr (!Rows::kContiguous) read_ahead(batch, c, rows.base, split.starts[partitions]);
    for (uint32_t p = 0; p < partitions; ++p) {
      const uint32_t start = split.starts[p];
      const size_t count = split.starts[p + 1] - start;
      if (count == 0 || deferred_[p]) continue;
      deferred_[p] = !gather_.append(column.field, array, rows_from(rows, start), count, builders_[p].nodes(), column.node);
    }
  }
  for (uint32_t p = 0; p < partitions; ++p) {
    const uint32_t start = split.starts[p];
    const size_t count = split.starts[p + 1] - start;
    if (count == 0) continue;
    if (deferred_[p]) {
      builders_[p].roll_back();
      append_slowly(batch, p, rows_from(rows, start), count);
    } else {
      builders_[p].nodes()[0].rows += count;
      builders_[p].commit();
    }
  }
}

template <typename Rows>
bool OutputWriter::try_append(const ArrowArray& batch, uint32_t partition, Rows rows, size_t count) {
  NodeBuffer* nodes = builders_[partition].nodes();
  for (const Column& column : columns_) {
    if (!gather_.append(column.field, *batch.children[column.input], rows, count, nodes, column.node)) return false;
  }
  nodes[0].rows += count;
  return true;
}

template <typename Rows>
void OutputWriter::append_slowly(const ArrowArray& batch, uint32_t partition, Rows rows, size_t count) {
  BatchBuilder& builder = builders_[partition];
  if (!builder.is_open()) open(partition, count);
  for (;;) {
    const bool enough_rows = builder.free_rows() >= count;
    if (enough_rows && try_append(batch, partition, rows, count)) return builder.commit();
    const Shortage shortage = enough_rows ? gather_.shortage() : Shortage{0, {builder.rows() + count, 0}};
    builder.roll_back();
    const bool last_resort = builder.rows() == 0 && count == 1;
    if (grow(builder, shortage, last_resort)) continue;
    if (builder.rows() > 0) {
      seal(partition);
      open(partition, count);
      continue;
    }
    if (last_resort) throw Error(ErrorCode::kUnsupported, "a row is too large for 32-bit offsets");
    append_slowly(batch, partition, rows, count / 2);
    return append_slowly(batch, partition, rows_from(rows, count / 2), count - count / 2);
  }
}

// Room for `rows` more rows, as far as the number of rows alone decides it.
bool OutputWriter::make_room(uint32_t partition, uint64_t rows) {
  BatchBuilder& builder = builders_[partition];
  if (!builder.is_open()) open(partition, rows);
  if (builder.free_rows() >= rows) return true;
  if (builder.rows() < kFewRows && grow(builder, {0, {builder.rows() + rows, 0}}, false)) return true;
  if (builder.rows() == 0) return false;
  seal(partition);
  open(partition, rows);
  return builder.free_rows() >= rows;
}

void OutputWriter::open(uint32_t partition, uint64_t rows) {
  const uint64_t limit = std::min(limits_.max_rows, rows_within(limits_.max_bytes));
  // A partition starts small; one that filled batches before will fill larger ones.
  const uint64_t likely = std::max({rows, kMinRows, partitions_[partition].rows * kGrowth});
  const uint64_t wanted = likely * 2 > limit ? limit : likely;
  const auto capacity = capacity_for(wanted);
  lay_out(builders_[partition], capacity);
}

// The open batches of all partitions are alike, and blocks start at pages: unstaggered, the places where a column of each
// partition is being written would all fall into the same few sets of the first-level cache.
void OutputWriter::lay_out(BatchBuilder& builder, const std::vector<NodeExtent>& capacity) {
  constexpr uint64_t kLinesPerPage = kPageBytes / kLineBytes;
  constexpr uint64_t kOddStep = 23;
  const uint64_t bytes = block_bytes(shape_, capacity);
  const auto partition = static_cast<uint64_t>(&builder - builders_.data());
  const uint64_t stagger = bytes < kMinStaggeredBytes ? 0 : partition * kOddStep % kLinesPerPage * kLineBytes;
  builder.move_to(store_->acquire(bytes + stagger, cost_), capacity, stagger);
}

bool OutputWriter::grow(BatchBuilder& builder, const Shortage& shortage, bool beyond_limit) {
  std::vector<NodeExtent> capacity = builder.capacity();
  if (shortage.node == 0) {
    if (shortage.need.rows > limits_.max_rows) return false;
    const uint64_t limit = beyond_limit ? limits_.max_rows : std::min(limits_.max_rows, rows_within(limits_.max_bytes));
    // Few steps, and none that ends shortly before the limit: each copies what is there.
    uint64_t rows = std::max(shortage.need.rows, capacity[0].rows * kGrowth);
    if (rows * 2 > limit) rows = limit;
    if (rows < shortage.need.rows) return false;
    const auto larger = capacity_for(rows);
    for (size_t i = 0; i < capacity.size(); ++i) {
      capacity[i] = {std::max(capacity[i].rows, larger[i].rows), std::max(capacity[i].bytes, larger[i].bytes)};
    }
  } else {
    NodeExtent& node = capacity[shortage.node];
    if (has_32_bit_data(shape_[shortage.node].kind) && shortage.need.bytes > kMaxOffset32) return false;
    if (shortage.need.rows > kMaxOffset32) return false;
    node.rows = std::max(node.rows, shortage.need.rows);
    node.bytes = std::max(node.bytes, shortage.need.bytes);
  }
  const uint64_t bytes = block_bytes(shape_, capacity);
  if (bytes > limits_.max_bytes && !beyond_limit) return false;
  lay_out(builder, capacity);
  return true;
}

void OutputWriter::seal(uint32_t partition) {
  BatchBuilder& builder = builders_[partition];
  PartitionSegments& target = partitions_[partition];
  const uint64_t used = builder.used_bytes();
  auto finished = builder.finish();
  target.segments.push_back({});
  SegmentRef& segment = target.segments.back();
  try {
    segment.id = store_->publish(std::move(finished.block), finished.bytes, {output_number_, partition}, cost_);
  } catch (...) {
    target.segments.pop_back();
    throw;
  }
  segment.rows = finished.rows;
  segment.bytes = finished.bytes;
  target.rows += finished.rows;
  target.bytes += used;
  if (channels_) channels_->publish(key_of(name_), partition, segment);
}

void OutputWriter::finish() {
  seal_all();
  builders_.clear();
}

Manifest OutputWriter::release_manifest(const std::string& agent_id) {
  Manifest manifest;
  manifest.name = name_;
  manifest.agent_id = agent_id;
  manifest.nonce = store_->nonce();
  manifest.schema = stored_;
  manifest.sort_key = sort_key_;
  manifest.partitions = std::move(partitions_);
  manifest.heavy = partitioner_.heavy();
  manifest.least_hashes = partitioner_.least_hashes();
  manifest.sample = partitioner_.sample();
  manifest.spilled_bytes = cost_.spilled_bytes;
  manifest.wait_ns = cost_.wait_ns;
  owns_segments_ = false;
  return manifest;
}

// Capacities for a batch of `rows` rows like those seen so far, with some room to spare.
std::vector<NodeExtent> OutputWriter::capacity_for(uint64_t rows) const {
  constexpr uint64_t kSpare = 64;
  std::vector<NodeExtent> capacity(shape_.size());
  const auto expected = [&](uint64_t total) {
    const double mean = static_cast<double>(total) / static_cast<double>(std::max<uint64_t>(1, totals_[0].rows));
    return std::min(kMaxOffset32, static_cast<uint64_t>(mean * static_cast<double>(rows) * 1.125) + kSpare);
  };
  for (uint32_t i = 0; i < shape_.size(); ++i) {
    capacity[i].rows = rows_per_row_[i] != 0 ? rows * rows_per_row_[i] : expected(totals_[i].rows);
    const Kind kind = shape_[i].kind;
    if (kind == Kind::kBinary32 || kind == Kind::kBinary64) capacity[i].bytes = expected(totals_[i].bytes);
  }
  return capacity;
}

// The largest number of rows, at least 1, whose batch takes no more than `bytes`.
uint64_t OutputWriter::rows_within(uint64_t bytes) const {
  uint64_t low = 1;
  uint64_t high = limits_.max_rows + 1;
  while (high - low > 1) {
    const uint64_t middle = low + (high - low) / 2;
    (block_bytes(shape_, capacity_for(middle)) <= bytes ? low : high) = middle;
  }
  return low;
}

}  // namespace sabot
