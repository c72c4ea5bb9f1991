// Whether the batches of a stream are compressed on the wire, and how.
#pragma once

#include <arrow/ipc/options.h>
#include <arrow/record_batch.h>
#include <arrow/util/compression.h>

#include <cstdint>
#include <string>

namespace sabot {

struct CompressionConfig {
  std::string mode;                     // "none", "lz4", "zstd", "sample", or "auto": a sample, but nothing for this host
  uint64_t wire_bytes_per_second = 0;
};

// The codec for a stream of `stream_bytes` to `peer`, as gRPC names it, that begins with `batch`, of `batch_bytes`.
arrow::Result<arrow::Compression::type> choose_codec(const CompressionConfig& config, const std::string& peer,
                                                     const arrow::RecordBatch& batch, uint64_t batch_bytes, uint64_t stream_bytes);

// Raises Error(kInvalidArgument) for a mode that there is none of.
void check_compression(const CompressionConfig& config);

arrow::Status use_codec(arrow::Compression::type codec, arrow::ipc::IpcWriteOptions& options);

}  // namespace sabot
