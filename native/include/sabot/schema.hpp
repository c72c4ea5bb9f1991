// Arrow types as the shuffle sees them: how many buffers, how wide, which children.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "sabot/arrow_abi.hpp"
#include "sabot/byte_io.hpp"

namespace sabot {

// Physical layouts. Views, list views and dictionaries occur in input only: stored_field() says what they become.
enum class Kind : uint8_t {
  kNull,
  kBool,
  kFixed,
  kBinary32,
  kBinary64,
  kBinaryView,
  kList32,
  kList64,
  kListView32,
  kListView64,
  kFixedList,
  kStruct,
  kSparseUnion,
  kDenseUnion,
};

struct Field {
  std::string name;
  std::string format;
  std::string metadata;  // encoded as in the C data interface; empty if there is none
  int64_t flags = ARROW_FLAG_NULLABLE;
  Kind kind = Kind::kNull;
  uint32_t width = 0;                       // bytes of a value (kFixed) or values of a list (kFixedList)
  std::vector<int8_t> type_ids;             // of a union, one per child
  std::vector<Field> children;
  std::shared_ptr<const Field> dictionary;  // value type; `kind` and `width` are then those of the index
};

// Raises Error(kUnsupported) for a type that cannot be shuffled.
Field import_field(const ArrowSchema& schema);
void export_field(const Field& field, ArrowSchema* out);

// The type in which the shuffle keeps a column: dictionaries decoded, views laid out contiguously.
Field stored_field(const Field& field);

// Same names, types and children; metadata and nullability may differ.
bool same_layout(const Field& a, const Field& b);

void write_field(const Field& field, ByteWriter& out);
Field read_field(ByteReader& in);

}  // namespace sabot
