#include "sabot/array_check.hpp"

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace sabot {
namespace {

constexpr int32_t kInlineBytes = 12;

[[noreturn]] void refuse(const Field& field, const char* why) {
  throw Error(ErrorCode::kStream, "column '" + field.name + "': " + why);
}

// An array and the slots of it that are meant.
struct Slots {
  const Field& field;
  const ArrowArray& array;

  [[nodiscard]] int64_t begin() const { return array.offset; }
  [[nodiscard]] int64_t end() const { return array.offset + array.length; }
  [[nodiscard]] bool valid(int64_t slot) const {
    const auto* bits = static_cast<const uint8_t*>(array.buffers[0]);
    return bits == nullptr || (bits[slot >> 3] >> (slot & 7) & 1) != 0;
  }
  template <typename T>
  [[nodiscard]] const T* buffer(int64_t index) const {
    if (index >= array.n_buffers) refuse(field, "a buffer is missing");
    if (array.buffers[index] == nullptr && array.length > 0) refuse(field, "a buffer is missing");
    return static_cast<const T*>(array.buffers[index]);
  }
  [[nodiscard]] const ArrowArray& child(int64_t index) const {
    if (index >= array.n_children || array.children[index] == nullptr) refuse(field, "a child is missing");
    return *array.children[index];
  }
};

// Whether offsets never decrease and none is negative; without a branch, so that the compiler makes vectors of it.
template <typename Offset>
void check_offsets(const Slots& slots, int64_t last) {
  const ArrowArray& array = slots.array;
  if (array.length == 0) return;
  const auto* offsets = slots.buffer<Offset>(1) + array.offset;
  using Bits = std::make_unsigned_t<Offset>;
  Bits signs = static_cast<Bits>(offsets[0]);
  for (int64_t i = 0; i < array.length; ++i) {
    const auto next = static_cast<Bits>(offsets[i + 1]);
    signs |= next | (next - static_cast<Bits>(offsets[i]));
  }
  if (static_cast<Offset>(signs) < 0) refuse(slots.field, "offsets decrease or are negative");
  if (last >= 0 && offsets[array.length] > last) refuse(slots.field, "an offset is past the end of the values");
}

void check_views(const Slots& slots) {
  const ArrowArray& array = slots.array;
  if (array.length == 0) return;
  const int64_t data_buffers = array.n_buffers - 3;  // beside validity, views and the sizes of the others
  if (data_buffers < 0) refuse(slots.field, "a buffer is missing");
  const auto* views = slots.buffer<uint8_t>(1);
  const auto* sizes = static_cast<const int64_t*>(array.buffers[array.n_buffers - 1]);
  if (data_buffers > 0 && sizes == nullptr) refuse(slots.field, "a buffer is missing");
  for (int64_t i = slots.begin(); i < slots.end(); ++i) {
    int32_t view[4];
    std::memcpy(view, views + i * 16, sizeof view);
    if (view[0] >= 0 && view[0] <= kInlineBytes) continue;
    if (!slots.valid(i)) continue;
    const bool inside = view[0] >= 0 && view[2] >= 0 && view[2] < data_buffers && view[3] >= 0 &&
                        int64_t{view[3]} + view[0] <= sizes[view[2]];
    if (!inside) refuse(slots.field, "a view is past the end of its buffer");
  }
}

template <typename Offset>
void check_list_views(const Slots& slots, int64_t last) {
  if (slots.array.length == 0) return;
  const auto* offsets = slots.buffer<Offset>(1);
  const auto* sizes = slots.buffer<Offset>(2);
  for (int64_t i = slots.begin(); i < slots.end(); ++i) {
    if (!slots.valid(i)) continue;
    if (offsets[i] < 0 || sizes[i] < 0 || int64_t{sizes[i]} > last || int64_t{offsets[i]} > last - int64_t{sizes[i]}) {
      refuse(slots.field, "a list is past the end of the values");
    }
  }
}

template <typename Index>
void check_indexes(const Slots& slots, int64_t values) {
  if (slots.array.length == 0) return;
  const auto* indexes = slots.buffer<Index>(1);
  for (int64_t i = slots.begin(); i < slots.end(); ++i) {
    bool inside = static_cast<uint64_t>(indexes[i]) < static_cast<uint64_t>(values);
    if constexpr (std::is_signed_v<Index>) inside &= indexes[i] >= 0;
    if (!inside && slots.valid(i)) refuse(slots.field, "an index is past the end of its dictionary");
  }
}

void check_dictionary(const Slots& slots) {
  if (slots.array.dictionary == nullptr) refuse(slots.field, "its dictionary is missing");
  const ArrowArray& values = *slots.array.dictionary;
  check_array(*slots.field.dictionary, values);
  switch (slots.field.format.empty() ? '\0' : slots.field.format[0]) {
    case 'c': return check_indexes<int8_t>(slots, values.length);
    case 'C': return check_indexes<uint8_t>(slots, values.length);
    case 's': return check_indexes<int16_t>(slots, values.length);
    case 'S': return check_indexes<uint16_t>(slots, values.length);
    case 'i': return check_indexes<int32_t>(slots, values.length);
    case 'I': return check_indexes<uint32_t>(slots, values.length);
    case 'l': return check_indexes<int64_t>(slots, values.length);
    case 'L': return check_indexes<uint64_t>(slots, values.length);
    default: refuse(slots.field, "its dictionary has no indexes");
  }
}

void check_union(const Slots& slots, bool dense) {
  if (slots.array.length == 0) return;
  int child_of[128];
  std::fill(std::begin(child_of), std::end(child_of), -1);
  for (size_t c = 0; c < slots.field.type_ids.size(); ++c) {
    if (slots.field.type_ids[c] >= 0) child_of[slots.field.type_ids[c]] = static_cast<int>(c);
  }
  const auto* types = slots.buffer<int8_t>(0);
  const auto* offsets = dense ? slots.buffer<int32_t>(1) : nullptr;
  for (int64_t i = slots.begin(); i < slots.end(); ++i) {
    if (types[i] < 0 || child_of[types[i]] < 0) refuse(slots.field, "a value is of a type that the union has not");
    const int64_t at = dense ? offsets[i] : i;
    if (at < 0 || at >= slots.child(child_of[types[i]]).length) refuse(slots.field, "a value is past the end of its child");
  }
}

void check_children(const Slots& slots, int64_t least) {
  for (size_t i = 0; i < slots.field.children.size(); ++i) {
    const ArrowArray& child = slots.child(static_cast<int64_t>(i));
    if (child.length < least) refuse(slots.field, "a child is too short");
    check_array(slots.field.children[i], child);
  }
}

}  // namespace

void check_array(const Field& field, const ArrowArray& array) {
  const Slots slots{field, array};
  if (array.length < 0 || array.offset < 0 || array.null_count < -1 || array.null_count > array.length) {
    refuse(field, "its length, offset or count of NULLs is impossible");
  }
  if (array.length > INT64_MAX - array.offset) refuse(field, "its length, offset or count of NULLs is impossible");
  if (field.dictionary) return check_dictionary(slots);
  const auto values = [&] { return slots.child(0).length; };
  int64_t least = 0;
  switch (field.kind) {
    case Kind::kNull: break;
    case Kind::kBool:
    case Kind::kFixed:
      if (array.length > 0) static_cast<void>(slots.buffer<uint8_t>(1));
      break;
    case Kind::kBinary32: check_offsets<int32_t>(slots, -1); break;
    case Kind::kBinary64: check_offsets<int64_t>(slots, -1); break;
    case Kind::kBinaryView: check_views(slots); break;
    case Kind::kList32: check_offsets<int32_t>(slots, values()); break;
    case Kind::kList64: check_offsets<int64_t>(slots, values()); break;
    case Kind::kListView32: check_list_views<int32_t>(slots, values()); break;
    case Kind::kListView64: check_list_views<int64_t>(slots, values()); break;
    case Kind::kFixedList:
      if (field.width > 0 && slots.end() > values() / field.width) refuse(field, "a list is past the end of the values");
      break;
    case Kind::kStruct: least = slots.end(); break;
    case Kind::kSparseUnion: check_union(slots, false); break;
    case Kind::kDenseUnion: check_union(slots, true); break;
  }
  check_children(slots, least);
}

void check_stream(ArrowArrayStream& stream) {
  const auto failed = [&]() {
    const char* message = stream.get_last_error(&stream);
    throw Error(ErrorCode::kStream, message != nullptr ? message : "the stream failed");
  };
  OwnedSchema schema;
  if (stream.get_schema(&stream, schema.get()) != 0) failed();
  const Field field = import_field(*schema);
  while (true) {
    OwnedArray batch;
    if (stream.get_next(&stream, batch.get()) != 0) failed();
    if (!batch) return;
    check_array(field, *batch);
  }
}

}  // namespace sabot
