// Streams of equal columns from several managers, one after the other, as one.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "remote_stream.hpp"
#include "sabot/arrow_abi.hpp"

namespace sabot {

// A stream that is there, or one to be fetched.
struct ReadPart {
  ArrowArrayStream local{};
  std::shared_ptr<RemoteRead> remote;
};

// Takes the stream.
inline void add_local(std::vector<ReadPart>& parts, ArrowArrayStream* stream) {
  parts.push_back({*stream, nullptr});
  stream->release = nullptr;
}

inline void add_remote(std::vector<ReadPart>& parts, std::shared_ptr<RemoteRead> remote) { parts.push_back({{}, std::move(remote)}); }

inline void release_parts(std::vector<ReadPart>& parts) noexcept {
  for (ReadPart& part : parts) {
    if (part.local.release != nullptr) part.local.release(&part.local);
  }
  parts.clear();
}

// Takes `schema` and the parts, also when it raises. Up to `ahead` fetches are under way at any time: each fills its window while the
// parts before it are read. An error of a part is in the part's own slot.
void open_joined(ArrowSchema* schema, std::vector<ReadPart> parts, size_t ahead, ArrowArrayStream* out);

}  // namespace sabot
