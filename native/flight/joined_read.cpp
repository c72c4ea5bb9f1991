#include "joined_read.hpp"

#include <arrow/c/bridge.h>
#include <arrow/type.h>

#include "flight_errors.hpp"
#include "sabot/stream_guard.hpp"

namespace sabot {
namespace {

void release(ArrowArrayStream& stream) noexcept {
  if (stream.release != nullptr) stream.release(&stream);
  stream = {};
}

class JoinedRead {
 public:
  JoinedRead(std::vector<ReadPart> parts, size_t ahead) : parts_(std::move(parts)), ahead_(ahead) {}
  JoinedRead(const JoinedRead&) = delete;
  JoinedRead& operator=(const JoinedRead&) = delete;
  ~JoinedRead() {
    for (ReadPart& part : parts_) release(part.local);
  }

  void take_schema(ArrowSchema* schema) { schema_ = require(arrow::ImportSchema(schema)); }
  void export_schema(ArrowSchema* out) const { require(arrow::ExportSchema(*schema_, out)); }

  void next(ArrowArray* out) {
    *out = ArrowArray{};
    while (current_ < parts_.size()) {
      start_ahead();
      ReadPart& part = parts_[current_];
      if (part.local.get_next(&part.local, out) != 0) throw Error(ErrorCode::kStream, message_of(part.local));
      if (out->release != nullptr) return;
      release(part.local);
      ++current_;
      checked_ = false;
    }
  }

  std::string last_error;
  ErrorSlot error;

 private:
  static std::string message_of(ArrowArrayStream& stream) {
    const char* message = stream.get_last_error(&stream);
    return message != nullptr ? message : "a part of the stream failed";
  }

  void start_ahead() {
    size_t fetches = 0;
    started_ = std::max(started_, current_);
    for (size_t i = current_; i < started_; ++i) fetches += parts_[i].remote ? 1 : 0;
    for (; started_ < parts_.size() && fetches < ahead_; ++started_) {
      ReadPart& part = parts_[started_];
      if (!part.remote) continue;
      ++fetches;
      try {
        part.remote->start(&part.local);
      } catch (const Error& error) {
        part.remote->error().set(error);
        throw;
      }
    }
    if (parts_[current_].remote && !checked_) check_schema(parts_[current_]);
  }

  void check_schema(ReadPart& part) {
    ArrowSchema exported{};
    if (part.local.get_schema(&part.local, &exported) != 0) throw Error(ErrorCode::kStream, message_of(part.local));
    const auto schema = require(arrow::ImportSchema(&exported));
    if (!schema->Equals(*schema_, false)) {
      const Error error(ErrorCode::kCorrupt, "a fetched output has other columns than its manifest says");
      part.remote->error().set(error);
      throw error;
    }
    checked_ = true;
  }

  std::vector<ReadPart> parts_;
  const size_t ahead_;
  std::shared_ptr<arrow::Schema> schema_;
  size_t current_ = 0;
  size_t started_ = 0;
  bool checked_ = false;
};

JoinedRead& joined_of(ArrowArrayStream* stream) { return *static_cast<JoinedRead*>(stream->private_data); }

int get_schema(ArrowArrayStream* stream, ArrowSchema* out) {
  JoinedRead& joined = joined_of(stream);
  return guard_stream(joined.last_error, joined.error, [&] { joined.export_schema(out); });
}

int get_next(ArrowArrayStream* stream, ArrowArray* out) {
  JoinedRead& joined = joined_of(stream);
  return guard_stream(joined.last_error, joined.error, [&] { joined.next(out); });
}

const char* get_last_error(ArrowArrayStream* stream) {
  const JoinedRead& joined = joined_of(stream);
  return joined.last_error.empty() ? nullptr : joined.last_error.c_str();
}

void release_stream(ArrowArrayStream* stream) {
  const std::unique_ptr<JoinedRead> joined(static_cast<JoinedRead*>(stream->private_data));
  stream->release = nullptr;
}

}  // namespace

void open_joined(ArrowSchema* schema, std::vector<ReadPart> parts, size_t ahead, ArrowArrayStream* out) {
  auto joined = std::make_unique<JoinedRead>(std::move(parts), std::max<size_t>(1, ahead));
  joined->take_schema(schema);
  *out = {get_schema, get_next, get_last_error, release_stream, joined.release()};
}

}  // namespace sabot
