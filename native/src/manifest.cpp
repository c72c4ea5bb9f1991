#include "sabot/manifest.hpp"

#include "sabot/checksum.hpp"
#include "sabot/partitioner.hpp"

namespace sabot {
namespace {

constexpr uint64_t kMagic = 0x31464e4d54424153;
constexpr uint32_t kVersion = 3;

uint64_t sum_of(std::string_view data) { return checksum(reinterpret_cast<const uint8_t*>(data.data()), data.size()); }

}  // namespace

uint64_t Manifest::rows() const noexcept {
  uint64_t total = 0;
  for (const auto& partition : partitions) total += partition.rows;
  return total;
}

uint64_t Manifest::bytes() const noexcept {
  uint64_t total = 0;
  for (const auto& partition : partitions) total += partition.bytes;
  return total;
}

uint64_t Manifest::batches() const noexcept {
  uint64_t total = 0;
  for (const auto& partition : partitions) total += partition.segments.size();
  return total;
}

std::vector<SegmentId> Manifest::segments() const {
  std::vector<SegmentId> ids;
  ids.reserve(batches());
  for (const auto& partition : partitions) {
    for (const SegmentRef& segment : partition.segments) ids.push_back(segment.id);
  }
  return ids;
}

std::string Manifest::to_bytes() const {
  ByteWriter out;
  out.number(kMagic);
  out.number(kVersion);
  out.text(name.query_id);
  out.text(name.edge_id);
  out.number(name.task);
  out.number(name.attempt);
  out.text(agent_id);
  for (const uint8_t byte : nonce) out.number(byte);
  write_field(schema, out);
  out.text(sort_key);
  out.number(spilled_bytes);
  out.number(wait_ns);
  out.number(static_cast<uint32_t>(partitions.size()));
  for (const auto& partition : partitions) {
    out.number(partition.rows);
    out.number(partition.bytes);
    out.number(static_cast<uint32_t>(partition.segments.size()));
    for (const SegmentRef& segment : partition.segments) {
      out.number(segment.id.index);
      out.number(segment.id.generation);
      out.number(segment.rows);
      out.number(segment.bytes);
    }
  }
  out.number(static_cast<uint32_t>(heavy.size()));
  for (const HeavyHitter& hitter : heavy) {
    out.number(hitter.hash);
    out.number(hitter.count);
    out.number(hitter.error);
  }
  out.number(static_cast<uint32_t>(least_hashes.size()));
  for (const uint64_t hash : least_hashes) out.number(hash);
  out.number(static_cast<uint32_t>(sample.size()));
  for (const std::string& value : sample) out.text(value);
  out.number(sum_of(out.bytes()));
  return out.take();
}

Manifest Manifest::from_bytes(std::string_view data) {
  constexpr size_t kSumBytes = sizeof(uint64_t);
  if (data.size() < kSumBytes) ByteReader::fail();
  const std::string_view body = data.substr(0, data.size() - kSumBytes);
  ByteReader tail(data.substr(body.size()));
  if (tail.number<uint64_t>() != sum_of(body)) throw Error(ErrorCode::kCorrupt, "the manifest fails its checksum");
  ByteReader in(body);
  if (in.number<uint64_t>() != kMagic || in.number<uint32_t>() != kVersion) ByteReader::fail();
  Manifest manifest;
  manifest.name.query_id = in.text();
  manifest.name.edge_id = in.text();
  manifest.name.task = in.number<uint32_t>();
  manifest.name.attempt = in.number<uint32_t>();
  manifest.agent_id = in.text();
  for (uint8_t& byte : manifest.nonce) byte = in.number<uint8_t>();
  manifest.schema = read_field(in);
  if (manifest.schema.kind != Kind::kStruct) ByteReader::fail();
  manifest.sort_key = in.text();
  manifest.spilled_bytes = in.number<uint64_t>();
  manifest.wait_ns = in.number<uint64_t>();
  const uint32_t partitions = in.count(20);
  if (partitions == 0 || partitions > kMaxPartitions) ByteReader::fail();
  manifest.partitions.resize(partitions);
  for (auto& partition : manifest.partitions) {
    partition.rows = in.number<uint64_t>();
    partition.bytes = in.number<uint64_t>();
    partition.segments.resize(in.count(24));
    uint64_t rows = 0;
    for (SegmentRef& segment : partition.segments) {
      segment.id.index = in.number<uint32_t>();
      segment.id.generation = in.number<uint32_t>();
      segment.rows = in.number<uint64_t>();
      segment.bytes = in.number<uint64_t>();
      rows += segment.rows;
    }
    if (rows != partition.rows) ByteReader::fail();
  }
  manifest.heavy.resize(in.count(24));
  for (HeavyHitter& hitter : manifest.heavy) {
    hitter.hash = in.number<uint64_t>();
    hitter.count = in.number<uint64_t>();
    hitter.error = in.number<uint64_t>();
  }
  manifest.least_hashes.resize(in.count(sizeof(uint64_t)));
  for (uint64_t& hash : manifest.least_hashes) hash = in.number<uint64_t>();
  check_least_hashes(manifest.least_hashes);
  manifest.sample.resize(in.count(4));
  for (std::string& value : manifest.sample) value = in.text();
  if (in.left() != 0) ByteReader::fail();
  return manifest;
}

}  // namespace sabot
