#include "batch_validation.hpp"

#include <arrow/array.h>
#include <arrow/type.h>
#include <arrow/util/utf8.h>

#include <cstring>
#include <type_traits>

namespace sabot {
namespace {

// Arrow's check of UTF8 wants its tables made first.
[[maybe_unused]] const bool utf8_ready = (arrow::util::InitializeUTF8(), true);

arrow::Status validate_fully(const std::shared_ptr<arrow::ArrayData>& data) { return arrow::MakeArray(data)->ValidateFull(); }

// Whether offsets never decrease and none is negative; without a branch, so that the compiler makes vectors of it.
template <typename Offset>
bool ascending(const Offset* offsets, int64_t length) {
  using Bits = std::make_unsigned_t<Offset>;
  Bits signs = static_cast<Bits>(offsets[0]);
  for (int64_t i = 0; i < length; ++i) {
    const auto next = static_cast<Bits>(offsets[i + 1]);
    signs |= next | (next - static_cast<Bits>(offsets[i]));
  }
  return static_cast<Offset>(signs) >= 0;
}

bool is_ascii(const uint8_t* data, int64_t bytes) {
  uint64_t high = 0;
  int64_t at = 0;
  for (; at + 8 <= bytes; at += 8) {
    uint64_t word;
    std::memcpy(&word, data + at, 8);
    high |= word;
  }
  for (; at < bytes; ++at) high |= uint64_t{data[at]} << 56;
  return (high & 0x8080808080808080ULL) == 0;
}

// Text that is valid as a whole and cut between characters only is valid in every piece.
template <typename Offset>
bool is_text(const uint8_t* data, const Offset* offsets, int64_t length) {
  const uint8_t* begin = data + offsets[0];
  const auto bytes = static_cast<int64_t>(offsets[length] - offsets[0]);
  if (is_ascii(begin, bytes)) return true;
  if (!arrow::util::ValidateUTF8(begin, bytes)) return false;
  for (int64_t i = 0; i < length; ++i) {
    if (offsets[i] < offsets[length] && (data[offsets[i]] & 0xC0) == 0x80) return false;
  }
  return true;
}

arrow::Status validate_values(const std::shared_ptr<arrow::ArrayData>& data);

// Of strings, binaries and lists. What these checks cannot vouch for, Arrow's own decide, which also word the error.
template <typename Offset>
arrow::Status validate_offsets(const std::shared_ptr<arrow::ArrayData>& data, bool text) {
  if (data->length == 0) return arrow::Status::OK();
  const auto* offsets = data->GetValues<Offset>(1);
  if (!ascending(offsets, data->length)) return validate_fully(data);
  if (text && offsets[data->length] > offsets[0] && !is_text(data->buffers[2]->data(), offsets, data->length)) return validate_fully(data);
  for (const auto& child : data->child_data) ARROW_RETURN_NOT_OK(validate_values(child));
  return arrow::Status::OK();
}

// After Array::Validate(): buffers are there and large enough, first and last offsets lie inside.
arrow::Status validate_values(const std::shared_ptr<arrow::ArrayData>& data) {
  if (data->offset != 0) return validate_fully(data);
  switch (data->type->id()) {
    case arrow::Type::BOOL:
    case arrow::Type::INT8: case arrow::Type::INT16: case arrow::Type::INT32: case arrow::Type::INT64:
    case arrow::Type::UINT8: case arrow::Type::UINT16: case arrow::Type::UINT32: case arrow::Type::UINT64:
    case arrow::Type::FLOAT: case arrow::Type::DOUBLE:
    case arrow::Type::DATE32: case arrow::Type::TIMESTAMP: case arrow::Type::FIXED_SIZE_BINARY: break;
    case arrow::Type::STRING: ARROW_RETURN_NOT_OK(validate_offsets<int32_t>(data, true)); break;
    case arrow::Type::LARGE_STRING: ARROW_RETURN_NOT_OK(validate_offsets<int64_t>(data, true)); break;
    case arrow::Type::BINARY: case arrow::Type::LIST: ARROW_RETURN_NOT_OK(validate_offsets<int32_t>(data, false)); break;
    case arrow::Type::LARGE_BINARY: case arrow::Type::LARGE_LIST: ARROW_RETURN_NOT_OK(validate_offsets<int64_t>(data, false)); break;
    case arrow::Type::STRUCT:
      for (const auto& child : data->child_data) ARROW_RETURN_NOT_OK(validate_values(child));
      break;
    default: return validate_fully(data);
  }
  // A count of NULLs that is wrong would be believed; it is counted again where it is needed.
  if (data->buffers[0]) data->SetNullCount(arrow::kUnknownNullCount);
  return arrow::Status::OK();
}

arrow::Status validate_field(const arrow::Field& field) {
  if (!arrow::util::ValidateUTF8(field.name())) return arrow::Status::Invalid("a name is no UTF8");
  if (field.type()->id() == arrow::Type::TIMESTAMP) {
    const auto& zone = static_cast<const arrow::TimestampType&>(*field.type()).timezone();
    if (!arrow::util::ValidateUTF8(zone)) return arrow::Status::Invalid("the name of a time zone is no UTF8");
  }
  for (const auto& child : field.type()->fields()) ARROW_RETURN_NOT_OK(validate_field(*child));
  return arrow::Status::OK();
}

}  // namespace

arrow::Status validate_schema(const arrow::Schema& schema) {
  for (const auto& field : schema.fields()) ARROW_RETURN_NOT_OK(validate_field(*field));
  return arrow::Status::OK();
}

arrow::Status validate_batch(const arrow::RecordBatch& batch) {
  ARROW_RETURN_NOT_OK(batch.Validate());
  for (int i = 0; i < batch.num_columns(); ++i) ARROW_RETURN_NOT_OK(validate_values(batch.column_data(i)));
  return arrow::Status::OK();
}

}  // namespace sabot
