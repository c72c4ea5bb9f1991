#include "compression.hpp"

#include <arrow/ipc/writer.h>

#include <algorithm>
#include <ctime>

#include "sabot/errors.hpp"

namespace sabot {
namespace {

using arrow::Compression;

// Below it a stream has crossed the wire before a sample has paid.
constexpr uint64_t kWorthSamplingBytes = 8 << 20;
constexpr int64_t kSampleBytes = 128 << 10;
// The reader takes about half as long to decompress.
constexpr double kBothEnds = 1.5;
// What a column must shrink by to be sent compressed.
constexpr double kLeastSaving = 0.1;

bool is_this_host(const std::string& peer) {
  return peer.starts_with("ipv4:127.") || peer.starts_with("ipv6:[::1]") || peer.starts_with("ipv6:%5B::1%5D") || peer.starts_with("unix:");
}

double thread_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Seconds from the batch to its values at the other end, without what is the same for all codecs.
arrow::Result<double> cost(Compression::type codec, const arrow::RecordBatch& batch, double wire_bytes_per_second) {
  auto options = arrow::ipc::IpcWriteOptions::Defaults();
  ARROW_RETURN_NOT_OK(use_codec(codec, options));
  arrow::ipc::IpcPayload payload;
  const double began = thread_seconds();
  ARROW_RETURN_NOT_OK(arrow::ipc::GetRecordBatchPayload(batch, options, &payload));
  const double spent = codec == Compression::UNCOMPRESSED ? 0 : (thread_seconds() - began) * kBothEnds;
  return spent + static_cast<double>(payload.body_length) / wire_bytes_per_second;
}

}  // namespace

void check_compression(const CompressionConfig& config) {
  constexpr std::string_view kModes[] = {"none", "lz4", "zstd", "sample", "auto"};
  if (std::find(std::begin(kModes), std::end(kModes), config.mode) == std::end(kModes)) {
    throw Error(ErrorCode::kInvalidArgument, "no compression \"" + config.mode + "\": give none, lz4, zstd, sample or auto");
  }
  if (config.wire_bytes_per_second == 0) throw Error(ErrorCode::kInvalidArgument, "wire_bytes_per_second must be positive");
}

arrow::Status use_codec(Compression::type codec, arrow::ipc::IpcWriteOptions& options) {
  options.use_threads = false;
  if (codec == Compression::UNCOMPRESSED) return arrow::Status::OK();
  ARROW_ASSIGN_OR_RAISE(options.codec, arrow::util::Codec::Create(codec));
  options.min_space_savings = kLeastSaving;
  return arrow::Status::OK();
}

arrow::Result<Compression::type> choose_codec(const CompressionConfig& config, const std::string& peer, const arrow::RecordBatch& batch,
                                              uint64_t batch_bytes, uint64_t stream_bytes) {
  if (config.mode == "lz4") return Compression::LZ4_FRAME;
  if (config.mode == "zstd") return Compression::ZSTD;
  const bool samples = config.mode == "sample" || (config.mode == "auto" && !is_this_host(peer));
  if (!samples || stream_bytes < kWorthSamplingBytes || batch.num_rows() == 0) return Compression::UNCOMPRESSED;
  const int64_t rows_in_sample = batch.num_rows() * kSampleBytes / static_cast<int64_t>(std::max<uint64_t>(1, batch_bytes));
  const auto sample = batch.Slice(0, std::max<int64_t>(1, rows_in_sample));
  const auto wire = static_cast<double>(config.wire_bytes_per_second);
  Compression::type best = Compression::UNCOMPRESSED;
  ARROW_ASSIGN_OR_RAISE(double least, cost(best, *sample, wire));
  for (const Compression::type codec : {Compression::LZ4_FRAME, Compression::ZSTD}) {
    ARROW_ASSIGN_OR_RAISE(const double seconds, cost(codec, *sample, wire));
    if (seconds < least) {
      least = seconds;
      best = codec;
    }
  }
  return best;
}

}  // namespace sabot
