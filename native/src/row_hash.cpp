#include "sabot/row_hash.hpp"

#include <charconv>
#include <cmath>
#include <cstring>
#include <string_view>

#include "gather_kernels.hpp"
#include "kernels.hpp"

namespace sabot {
namespace {

using Wide = unsigned __int128;
using SignedWide = __int128;

constexpr uint64_t kA = 0x9fb21c651e98df25;
constexpr uint64_t kB = 0xd6e8feb86659fd93;
constexpr uint64_t kSeed = 0x5ab07a11c0ffee11;
constexpr uint64_t kNull = 0x6a09e667f3bcc909;
constexpr uint64_t kNan = 0xbb67ae8584caa73b;

uint64_t fold(uint64_t a, uint64_t b) noexcept {
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

uint64_t combine(uint64_t hash, uint64_t value) noexcept { return fold(hash ^ value, kA) + value; }

template <typename T>
T load(const void* values, int64_t row) noexcept {
  T value;
  std::memcpy(&value, static_cast<const uint8_t*>(values) + row * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

uint64_t hash_wide(SignedWide value) noexcept {
  const auto low = static_cast<int64_t>(value);
  if (value == low) return mix(static_cast<uint64_t>(low));
  return combine(mix(static_cast<uint64_t>(low)), mix(static_cast<uint64_t>(value >> 64)));
}

uint64_t hash_double(double value) noexcept {
  if (std::isnan(value)) return kNan;
  constexpr double kLimit = 9223372036854775808.0;
  if (value >= -kLimit && value < kLimit) {
    const auto whole = static_cast<int64_t>(value);
    if (static_cast<double>(whole) == value) return mix(static_cast<uint64_t>(whole));  // -0.0 too
  }
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return mix(bits ^ kB);
}

float half_to_float(uint16_t half) noexcept {
  const int exponent = (half >> 10) & 31;
  const int fraction = half & 1023;
  const float sign = (half & 0x8000) != 0 ? -1.0F : 1.0F;
  if (exponent == 31) return fraction != 0 ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
  return sign * std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
}

// By its value without trailing zeros, so that the scale does not matter.
uint64_t hash_decimal(SignedWide value, int scale) noexcept {
  while (scale > 0 && value % 10 == 0 && value != 0) {
    value /= 10;
    --scale;
  }
  if (value == 0 || scale == 0) return hash_wide(value);
  return combine(hash_wide(value), mix(static_cast<uint64_t>(scale)));
}

// SQL compares intervals by their length, a month being 30 days.
uint64_t hash_interval(int64_t months, int64_t days, SignedWide nanoseconds) noexcept {
  constexpr SignedWide kDay = SignedWide{86'400} * 1'000'000'000;
  return hash_wide((SignedWide{months} * 30 + days) * kDay + nanoseconds);
}

int decimal_scale(std::string_view format) {
  const auto comma = format.find(',');
  const auto end = format.find(',', comma + 1);
  int scale = 0;
  const std::string_view digits = format.substr(comma + 1, end == std::string_view::npos ? end : end - comma - 1);
  std::from_chars(digits.data(), digits.data() + digits.size(), scale);
  return scale;
}

// What the bits of a fixed-width value mean.
enum class Meaning { kSigned, kUnsigned, kFloat, kDecimal, kBytes, kMonths, kDayTime, kMonthDayNano };

Meaning meaning_of(const Field& field) {
  switch (field.format[0]) {
    case 'C': case 'S': case 'I': case 'L': return Meaning::kUnsigned;
    case 'e': case 'f': case 'g': return Meaning::kFloat;
    case 'd': return field.width > 16 ? Meaning::kBytes : Meaning::kDecimal;
    case 'w': return Meaning::kBytes;
    case 't':
      if (field.format == "tiM") return Meaning::kMonths;
      if (field.format == "tiD") return Meaning::kDayTime;
      if (field.format == "tin") return Meaning::kMonthDayNano;
      return Meaning::kSigned;
    default: return Meaning::kSigned;
  }
}

// Calls `use(j, hash)` for each row; `hash_at` is asked only for rows that are not NULL.
template <typename HashAt, typename Use>
void each(const ArrowArray& array, int64_t first, int64_t count, HashAt hash_at, Use use) {
  const uint8_t* validity = validity_of(array);
  if (validity == nullptr) {
    for (int64_t j = 0; j < count; ++j) use(j, hash_at(first + j));
    return;
  }
  for (int64_t j = 0; j < count; ++j) use(j, get_bit(validity, first + j) ? hash_at(first + j) : kNull);
}

uint64_t hash_value(const Field& field, const ArrowArray& array, int64_t row);

template <typename Use>
void each_fixed(const Field& field, const ArrowArray& array, int64_t first, int64_t count, Use use) {
  const void* values = array.buffers[1];
  const uint32_t width = field.width;
  const auto run = [&](auto hash_at) { each(array, first, count, hash_at, use); };
  switch (meaning_of(field)) {
    case Meaning::kSigned:
      if (width == 1) return run([=](int64_t i) { return mix(static_cast<uint64_t>(int64_t{load<int8_t>(values, i)})); });
      if (width == 2) return run([=](int64_t i) { return mix(static_cast<uint64_t>(int64_t{load<int16_t>(values, i)})); });
      if (width == 4) return run([=](int64_t i) { return mix(static_cast<uint64_t>(int64_t{load<int32_t>(values, i)})); });
      return run([=](int64_t i) { return mix(load<uint64_t>(values, i)); });
    case Meaning::kUnsigned:
      if (width == 1) return run([=](int64_t i) { return mix(load<uint8_t>(values, i)); });
      if (width == 2) return run([=](int64_t i) { return mix(load<uint16_t>(values, i)); });
      if (width == 4) return run([=](int64_t i) { return mix(load<uint32_t>(values, i)); });
      return run([=](int64_t i) { return hash_wide(static_cast<SignedWide>(load<uint64_t>(values, i))); });
    case Meaning::kFloat:
      if (width == 2) return run([=](int64_t i) { return hash_double(half_to_float(load<uint16_t>(values, i))); });
      if (width == 4) return run([=](int64_t i) { return hash_double(load<float>(values, i)); });
      return run([=](int64_t i) { return hash_double(load<double>(values, i)); });
    case Meaning::kDecimal: {
      const int scale = decimal_scale(field.format);
      if (width == 4) return run([=](int64_t i) { return hash_decimal(load<int32_t>(values, i), scale); });
      if (width == 8) return run([=](int64_t i) { return hash_decimal(load<int64_t>(values, i), scale); });
      return run([=](int64_t i) { return hash_decimal(load<SignedWide>(values, i), scale); });
    }
    case Meaning::kMonths: return run([=](int64_t i) { return hash_interval(load<int32_t>(values, i), 0, 0); });
    case Meaning::kDayTime:
      return run([=](int64_t i) {
        return hash_interval(0, load<int32_t>(values, 2 * i), SignedWide{load<int32_t>(values, 2 * i + 1)} * 1'000'000);
      });
    case Meaning::kMonthDayNano:
      return run([=](int64_t i) {
        return hash_interval(load<int32_t>(values, 4 * i), load<int32_t>(values, 4 * i + 1), load<int64_t>(values, 2 * i + 1));
      });
    case Meaning::kBytes:
      return run([=](int64_t i) { return hash_bytes(static_cast<const uint8_t*>(values) + i * width, width); });
  }
}

template <typename Offset>
uint64_t hash_binary(const ArrowArray& array, int64_t row) noexcept {
  const auto* offsets = static_cast<const Offset*>(array.buffers[1]);
  return hash_bytes(static_cast<const uint8_t*>(array.buffers[2]) + offsets[row], offsets[row + 1] - offsets[row]);
}

uint64_t hash_items(const Field& field, const ArrowArray& array, int64_t first, int64_t count) {
  uint64_t hash = mix(static_cast<uint64_t>(count));
  for (int64_t i = first; i < first + count; ++i) hash = combine(hash, hash_value(field.children[0], *array.children[0], i));
  return hash;
}

template <typename Offset>
uint64_t hash_list(const Field& field, const ArrowArray& array, int64_t row, bool view) {
  const auto* offsets = static_cast<const Offset*>(array.buffers[1]);
  const Offset size = view ? static_cast<const Offset*>(array.buffers[2])[row] : offsets[row + 1] - offsets[row];
  return hash_items(field, array, static_cast<int64_t>(offsets[row]), static_cast<int64_t>(size));
}

uint64_t hash_union(const Field& field, const ArrowArray& array, int64_t row) {
  const int8_t id = static_cast<const int8_t*>(array.buffers[0])[row];
  for (size_t i = 0; i < field.children.size(); ++i) {
    if (field.type_ids[i] != id) continue;
    const int64_t at = field.kind == Kind::kDenseUnion ? static_cast<const int32_t*>(array.buffers[1])[row] : row;
    return combine(mix(static_cast<uint64_t>(id)), hash_value(field.children[i], *array.children[i], at));
  }
  return kNull;
}

// Hash of a row that is not NULL; `row` includes the array's offset.
uint64_t hash_present(const Field& field, const ArrowArray& array, int64_t row) {
  switch (field.kind) {
    case Kind::kNull: return kNull;
    case Kind::kBool: return mix(get_bit(static_cast<const uint8_t*>(array.buffers[1]), row));
    case Kind::kFixed: {
      uint64_t hash = 0;
      each_fixed(field, array, row, 1, [&](int64_t, uint64_t value) { hash = value; });
      return hash;
    }
    case Kind::kBinary32: return hash_binary<uint32_t>(array, row);
    case Kind::kBinary64: return hash_binary<uint64_t>(array, row);
    case Kind::kBinaryView: {
      const BytesView view = view_at(array, row);
      return hash_bytes(view.data, view.bytes);
    }
    case Kind::kList32: case Kind::kListView32: return hash_list<uint32_t>(field, array, row, field.kind == Kind::kListView32);
    case Kind::kList64: case Kind::kListView64: return hash_list<uint64_t>(field, array, row, field.kind == Kind::kListView64);
    case Kind::kFixedList: return hash_items(field, array, row * field.width, field.width);
    case Kind::kStruct: {
      uint64_t hash = kSeed;
      for (size_t i = 0; i < field.children.size(); ++i) hash = combine(hash, hash_value(field.children[i], *array.children[i], row));
      return hash;
    }
    case Kind::kSparseUnion: case Kind::kDenseUnion: return hash_union(field, array, row);
  }
  return kNull;
}

// Hash of a logical row, which does not include the array's offset.
uint64_t hash_value(const Field& field, const ArrowArray& array, int64_t row) {
  const int64_t at = row + array.offset;
  const bool has_validity = field.kind != Kind::kNull && field.kind != Kind::kSparseUnion && field.kind != Kind::kDenseUnion;
  const uint8_t* validity = has_validity ? validity_of(array) : nullptr;
  if (validity != nullptr && !get_bit(validity, at)) return kNull;
  if (field.dictionary) return hash_value(*field.dictionary, *array.dictionary, dictionary_index(array.buffers[1], field.width, at));
  return hash_present(field, array, at);
}

}  // namespace

uint64_t hash_bytes(const uint8_t* data, uint64_t bytes) noexcept {
  uint64_t hash = kA ^ bytes;
  uint64_t word = 0;
  for (; bytes > 8; data += 8, bytes -= 8) {
    std::memcpy(&word, data, 8);
    hash = fold(hash ^ word, kB);
  }
  word = 0;
  if (bytes != 0) std::memcpy(&word, data, bytes);
  return mix(fold(hash ^ word, kB));
}

namespace {

template <typename Use>
void each_hash(const Field& field, const ArrowArray& array, int64_t first, int64_t count, Use use) {
  const int64_t at = first + array.offset;
  if (!field.dictionary) {
    if (field.kind == Kind::kFixed) return each_fixed(field, array, at, count, use);
    if (field.kind == Kind::kBinary32) return each(array, at, count, [&](int64_t i) { return hash_binary<uint32_t>(array, i); }, use);
  }
  for (int64_t j = 0; j < count; ++j) use(j, hash_value(field, array, first + j));
}

bool is_word(const Field& field) {
  return field.kind == Kind::kFixed && !field.dictionary && field.width == 8 && meaning_of(field) == Meaning::kSigned;
}

}  // namespace

void hash_column(const Field& field, const ArrowArray& array, int64_t first, int64_t count, uint64_t* hashes) {
  if (!is_word(field)) return each_hash(field, array, first, count, [hashes](int64_t j, uint64_t value) { hashes[j] = value; });
  const int64_t at = first + array.offset;
  kernels().hash_words(static_cast<const uint64_t*>(array.buffers[1]) + at, static_cast<size_t>(count), hashes);
  const uint8_t* validity = validity_of(array);
  if (validity == nullptr) return;
  for (int64_t j = 0; j < count; ++j) {
    if (!get_bit(validity, at + j)) hashes[j] = kNull;
  }
}

void combine_hashes(const Field& field, const ArrowArray& array, int64_t first, int64_t count, uint64_t* hashes) {
  each_hash(field, array, first, count, [hashes](int64_t j, uint64_t value) { hashes[j] = combine(hashes[j], value); });
}

}  // namespace sabot
