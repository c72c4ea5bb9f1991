#include "sabot/schema.hpp"

#include <charconv>
#include <string_view>

namespace sabot {
namespace {

constexpr int kMaxDepth = 64;

[[noreturn]] void unsupported(std::string_view format) {
  throw Error(ErrorCode::kUnsupported, "Arrow type '" + std::string(format) + "' cannot be shuffled");
}

uint32_t parse_count(std::string_view text, std::string_view format) {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) unsupported(format);
  return value;
}

void set_fixed(Field& field, uint32_t width) {
  field.kind = Kind::kFixed;
  field.width = width;
}

void parse_decimal(Field& field, std::string_view body) {
  const auto first = body.find(',');
  if (first == std::string_view::npos) unsupported(field.format);
  const auto second = body.find(',', first + 1);
  const uint32_t bits = second == std::string_view::npos ? 128 : parse_count(body.substr(second + 1), field.format);
  if (bits != 32 && bits != 64 && bits != 128 && bits != 256) unsupported(field.format);
  set_fixed(field, bits / 8);
}

void parse_temporal(Field& field) {
  const std::string_view format = field.format;
  if (format.size() < 3) unsupported(format);
  const char type = format[1];
  const char unit = format[2];
  if (type == 'd') {
    if (unit == 'D') return set_fixed(field, 4);
    if (unit == 'm') return set_fixed(field, 8);
  } else if (type == 't') {
    if (unit == 's' || unit == 'm') return set_fixed(field, 4);
    if (unit == 'u' || unit == 'n') return set_fixed(field, 8);
  } else if (type == 's' || type == 'D') {
    if (std::string_view("smun").find(unit) != std::string_view::npos) return set_fixed(field, 8);
  } else if (type == 'i') {
    if (unit == 'M') return set_fixed(field, 4);
    if (unit == 'D') return set_fixed(field, 8);
    if (unit == 'n') return set_fixed(field, 16);
  }
  unsupported(format);
}

void parse_union(Field& field) {
  const std::string_view format = field.format;
  if (format.size() < 4 || format[3] != ':') unsupported(format);
  if (format[2] != 's' && format[2] != 'd') unsupported(format);
  field.kind = format[2] == 's' ? Kind::kSparseUnion : Kind::kDenseUnion;
  std::string_view ids = format.substr(4);
  while (!ids.empty()) {
    const auto comma = ids.find(',');
    const uint32_t id = parse_count(ids.substr(0, comma), format);
    if (id > 127) unsupported(format);
    field.type_ids.push_back(static_cast<int8_t>(id));
    ids = comma == std::string_view::npos ? std::string_view{} : ids.substr(comma + 1);
  }
}

void parse_nested(Field& field) {
  const std::string_view format = field.format;
  if (format.size() < 2) unsupported(format);
  switch (format[1]) {
    case 'l': case 'm': field.kind = Kind::kList32; return;
    case 'L': field.kind = Kind::kList64; return;
    case 's': field.kind = Kind::kStruct; return;
    case 'u': return parse_union(field);
    case 'v':
      if (format == "+vl") { field.kind = Kind::kListView32; return; }
      if (format == "+vL") { field.kind = Kind::kListView64; return; }
      break;
    case 'w':
      if (format.size() < 4 || format[2] != ':') break;
      field.kind = Kind::kFixedList;
      field.width = parse_count(format.substr(3), format);
      return;
    default: break;
  }
  unsupported(format);
}

// Sets kind, width and type_ids from the format string.
void parse_format(Field& field) {
  const std::string_view format = field.format;
  if (format.empty()) unsupported(format);
  if (format.size() == 1) {
    switch (format[0]) {
      case 'n': field.kind = Kind::kNull; return;
      case 'b': field.kind = Kind::kBool; return;
      case 'c': case 'C': return set_fixed(field, 1);
      case 's': case 'S': case 'e': return set_fixed(field, 2);
      case 'i': case 'I': case 'f': return set_fixed(field, 4);
      case 'l': case 'L': case 'g': return set_fixed(field, 8);
      case 'u': case 'z': field.kind = Kind::kBinary32; return;
      case 'U': case 'Z': field.kind = Kind::kBinary64; return;
      default: unsupported(format);
    }
  }
  if (format == "vu" || format == "vz") { field.kind = Kind::kBinaryView; return; }
  switch (format[0]) {
    case 'w':
      if (format[1] != ':') unsupported(format);
      return set_fixed(field, parse_count(format.substr(2), format));
    case 'd':
      if (format[1] != ':') unsupported(format);
      return parse_decimal(field, format.substr(2));
    case 't': return parse_temporal(field);
    case '+': return parse_nested(field);
    default: unsupported(format);
  }
}

void check_children(const Field& field) {
  const size_t count = field.children.size();
  switch (field.kind) {
    case Kind::kStruct: return;
    case Kind::kSparseUnion: case Kind::kDenseUnion:
      if (count != field.type_ids.size()) unsupported(field.format);
      return;
    case Kind::kList32: case Kind::kList64: case Kind::kListView32: case Kind::kListView64: case Kind::kFixedList:
      if (count != 1) unsupported(field.format);
      return;
    default:
      if (count != 0) unsupported(field.format);
  }
}

void check_dictionary(const Field& field) {
  const bool integer = field.format.size() == 1 && std::string_view("cCsSiIlL").find(field.format[0]) != std::string_view::npos;
  if (!integer) unsupported(field.format);
  const Kind values = field.dictionary->kind;
  if (values == Kind::kSparseUnion || values == Kind::kDenseUnion) unsupported("dictionary of unions");
}

size_t metadata_bytes(const char* metadata) {
  if (metadata == nullptr) return 0;
  const auto read = [&](size_t at) {
    int32_t value;
    std::memcpy(&value, metadata + at, sizeof value);
    return value;
  };
  size_t at = sizeof(int32_t);
  for (int32_t left = read(0) * 2; left > 0; --left) at += sizeof(int32_t) + static_cast<size_t>(read(at));
  return at;
}

Field import_at_depth(const ArrowSchema& schema, int depth) {
  if (depth > kMaxDepth) unsupported("nested too deeply");
  Field field;
  field.name = schema.name != nullptr ? schema.name : "";
  field.format = schema.format;
  field.flags = schema.flags;
  field.metadata.assign(schema.metadata != nullptr ? schema.metadata : "", metadata_bytes(schema.metadata));
  parse_format(field);
  for (int64_t i = 0; i < schema.n_children; ++i) field.children.push_back(import_at_depth(*schema.children[i], depth + 1));
  check_children(field);
  if (schema.dictionary != nullptr) {
    field.dictionary = std::make_shared<const Field>(import_at_depth(*schema.dictionary, depth + 1));
    check_dictionary(field);
  }
  return field;
}

// Keeps everything an exported schema points at alive.
struct ExportedSchema {
  std::string format, name, metadata;
  std::vector<ArrowSchema> children;
  std::vector<ArrowSchema*> pointers;
};

void release_schema(ArrowSchema* schema) {
  const std::unique_ptr<ExportedSchema> owner(static_cast<ExportedSchema*>(schema->private_data));
  for (auto& child : owner->children) {
    if (child.release != nullptr) child.release(&child);
  }
  schema->release = nullptr;
}

}  // namespace

Field import_field(const ArrowSchema& schema) { return import_at_depth(schema, 0); }

void export_field(const Field& field, ArrowSchema* out) {
  auto owner = std::make_unique<ExportedSchema>();
  owner->format = field.format;
  owner->name = field.name;
  owner->metadata = field.metadata;
  owner->children.resize(field.children.size());
  for (size_t i = 0; i < field.children.size(); ++i) {
    export_field(field.children[i], &owner->children[i]);
    owner->pointers.push_back(&owner->children[i]);
  }
  *out = ArrowSchema{};
  out->format = owner->format.c_str();
  out->name = owner->name.c_str();
  out->metadata = owner->metadata.empty() ? nullptr : owner->metadata.data();
  out->flags = field.flags;
  out->n_children = static_cast<int64_t>(owner->pointers.size());
  out->children = owner->pointers.empty() ? nullptr : owner->pointers.data();
  out->release = release_schema;
  out->private_data = owner.release();
}

Field stored_field(const Field& field) {
  if (field.dictionary) {
    Field values = stored_field(*field.dictionary);
    values.name = field.name;
    values.flags = field.flags & ~ARROW_FLAG_DICTIONARY_ORDERED;
    if (!field.metadata.empty()) values.metadata = field.metadata;
    return values;
  }
  Field stored = field;
  stored.children.clear();
  for (const Field& child : field.children) stored.children.push_back(stored_field(child));
  if (field.kind == Kind::kBinaryView) stored.format = field.format.substr(1);
  if (field.kind == Kind::kListView32) stored.format = "+l";
  if (field.kind == Kind::kListView64) stored.format = "+L";
  parse_format(stored = Field{stored.name, stored.format, stored.metadata, stored.flags, Kind::kNull, 0, {},
                              std::move(stored.children), nullptr});
  return stored;
}

bool same_layout(const Field& a, const Field& b) {
  if (a.name != b.name || a.format != b.format || a.children.size() != b.children.size()) return false;
  for (size_t i = 0; i < a.children.size(); ++i) {
    if (!same_layout(a.children[i], b.children[i])) return false;
  }
  return true;
}

void write_field(const Field& field, ByteWriter& out) {
  out.text(field.name);
  out.text(field.format);
  out.text(field.metadata);
  out.number(field.flags);
  out.number(static_cast<uint32_t>(field.children.size()));
  for (const Field& child : field.children) write_field(child, out);
}

namespace {

// The consumer walks metadata by the lengths in it, so they must add up.
void check_metadata(const std::string& metadata) {
  if (metadata.empty()) return;
  ByteReader in(metadata);
  const auto pairs = in.number<int32_t>();
  if (pairs < 0) ByteReader::fail();
  for (int64_t i = 0; i < 2 * int64_t{pairs}; ++i) in.text();
  if (in.left() != 0) ByteReader::fail();
}

Field read_at_depth(ByteReader& in, int depth) {
  if (depth > kMaxDepth) ByteReader::fail();
  Field field;
  field.name = in.text();
  field.format = in.text();
  field.metadata = in.text();
  field.flags = in.number<int64_t>();
  check_metadata(field.metadata);
  parse_format(field);
  const uint32_t children = in.count(24);
  for (uint32_t i = 0; i < children; ++i) field.children.push_back(read_at_depth(in, depth + 1));
  check_children(field);
  if (field.kind == Kind::kBinaryView || field.kind == Kind::kListView32 || field.kind == Kind::kListView64) ByteReader::fail();
  return field;
}

}  // namespace

Field read_field(ByteReader& in) { return read_at_depth(in, 0); }

}  // namespace sabot
