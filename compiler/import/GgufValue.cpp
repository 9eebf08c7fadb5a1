// Accessors of parsed GGUF files. The parser checked every payload.
#include "compiler/import/Gguf.h"
#include "compiler/import/GgufText.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace quern::importer {
namespace {

template <typename T> T load(const uint8_t *src) {
  T value;
  std::memcpy(&value, src, sizeof(T));
  return value;
}

/// An integer of the file: a sign and a magnitude cover u64 and i64.
struct Integer {
  bool isNegative;
  uint64_t bits; ///< Two's complement.
};

template <typename T> Integer loadInteger(const uint8_t *src) {
  T value = load<T>(src);
  if constexpr (std::is_signed_v<T>)
    return {value < 0, static_cast<uint64_t>(static_cast<int64_t>(value))};
  else
    return {false, value};
}

std::optional<Integer> readInteger(GgufType type, const uint8_t *src) {
  switch (type) {
  case GgufType::U8:
    return loadInteger<uint8_t>(src);
  case GgufType::I8:
    return loadInteger<int8_t>(src);
  case GgufType::U16:
    return loadInteger<uint16_t>(src);
  case GgufType::I16:
    return loadInteger<int16_t>(src);
  case GgufType::U32:
    return loadInteger<uint32_t>(src);
  case GgufType::I32:
    return loadInteger<int32_t>(src);
  case GgufType::U64:
    return loadInteger<uint64_t>(src);
  case GgufType::I64:
    return loadInteger<int64_t>(src);
  default:
    return std::nullopt;
  }
}

std::optional<int64_t> readSigned(GgufType type, const uint8_t *src) {
  std::optional<Integer> value = readInteger(type, src);
  if (!value || (!value->isNegative &&
                 value->bits > uint64_t(std::numeric_limits<int64_t>::max())))
    return std::nullopt;
  return static_cast<int64_t>(value->bits);
}

std::string_view readText(const uint8_t *&src) {
  uint64_t size = load<uint64_t>(src);
  std::string_view text(reinterpret_cast<const char *>(src) + 8, size);
  src += 8 + size;
  return text;
}

/// The item called `name` in `items`, given their indices sorted by name.
template <typename Item>
const Item *findByName(const std::vector<Item> &items,
                       const std::vector<uint32_t> &sorted,
                       std::string_view Item::*member, std::string_view name) {
  auto it = std::lower_bound(sorted.begin(), sorted.end(), name,
                             [&](uint32_t index, std::string_view wanted) {
                               return items[index].*member < wanted;
                             });
  if (it == sorted.end() || items[*it].*member != name)
    return nullptr;
  return &items[*it];
}

} // namespace

std::optional<uint64_t> GgufValue::asUnsigned() const {
  std::optional<Integer> value = readInteger(valueType, payload);
  if (!value || value->isNegative)
    return std::nullopt;
  return value->bits;
}

std::optional<int64_t> GgufValue::asSigned() const {
  return readSigned(valueType, payload);
}

std::optional<double> GgufValue::asFloat() const {
  if (valueType == GgufType::F32)
    return load<float>(payload);
  if (valueType == GgufType::F64)
    return load<double>(payload);
  std::optional<Integer> value = readInteger(valueType, payload);
  if (!value)
    return std::nullopt;
  return value->isNegative ? static_cast<double>(int64_t(value->bits))
                           : static_cast<double>(value->bits);
}

std::optional<bool> GgufValue::asBool() const {
  if (valueType != GgufType::Bool)
    return std::nullopt;
  return *payload != 0;
}

std::optional<std::string_view> GgufValue::asString() const {
  if (valueType != GgufType::String)
    return std::nullopt;
  const uint8_t *src = payload;
  return readText(src);
}

std::optional<std::vector<std::string_view>> GgufValue::asStrings() const {
  if (valueType != GgufType::Array || itemType != GgufType::String)
    return std::nullopt;
  std::vector<std::string_view> strings(itemCount);
  const uint8_t *src = payload;
  for (std::string_view &text : strings)
    text = readText(src);
  return strings;
}

std::optional<std::vector<int64_t>> GgufValue::asIntegers() const {
  if (valueType != GgufType::Array)
    return std::nullopt;
  std::vector<int64_t> values(itemCount);
  const uint8_t *src = payload;
  for (int64_t &value : values) {
    std::optional<int64_t> element = readSigned(itemType, src);
    if (!element)
      return std::nullopt;
    value = *element;
    src += ggufTypeBytes(itemType);
  }
  return values;
}

const GgufValue *GgufFile::find(std::string_view key) const {
  const GgufEntry *entry =
      findByName(entries, entriesByKey, &GgufEntry::key, key);
  return entry ? &entry->value : nullptr;
}

const GgufTensor *GgufFile::findTensor(std::string_view name) const {
  return findByName(tensorInfos, tensorsByName, &GgufTensor::name, name);
}

} // namespace quern::importer
