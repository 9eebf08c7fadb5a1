#include "runtime/tools/emulate_arguments.h"

#include <array>
#include <bit>
#include <charconv>
#include <cstring>

#include "runtime/tools/error.h"
#include "runtime/tools/flags.h"
#include "runtime/tools/npy_file.h"

namespace quern::tools {
namespace {

constexpr const char* kForms =
    "TYPE:VALUE, buf:TYPE:COUNT[:random|zero|ones|iota], file:TYPE:PATH or raw:PATH";
constexpr uint64_t kMostBytes = uint64_t{1} << 34;

struct ElementType {
  enum class Kind { kSigned, kUnsigned, kHalf, kBf16, kFloat, kDouble };
  const char* name;
  uint32_t bytes;
  const char* numpy;
  Kind kind;
};
using Kind = ElementType::Kind;

constexpr ElementType kTypes[] = {
    {"i8", 1, "|i1", Kind::kSigned},  {"u8", 1, "|u1", Kind::kUnsigned},
    {"i16", 2, "<i2", Kind::kSigned}, {"u16", 2, "<u2", Kind::kUnsigned},
    {"i32", 4, "<i4", Kind::kSigned}, {"u32", 4, "<u4", Kind::kUnsigned},
    {"i64", 8, "<i8", Kind::kSigned}, {"u64", 8, "<u8", Kind::kUnsigned},
    {"f16", 2, "<f2", Kind::kHalf},   {"bf16", 2, "<f4", Kind::kBf16},  // NumPy has no bf16.
    {"f32", 4, "<f4", Kind::kFloat},  {"f64", 8, "<f8", Kind::kDouble},
};

[[noreturn]] void Wrong(const std::string& text, const std::string& why) {
  std::string types;
  for (const ElementType& type : kTypes) types += std::string(" ") + type.name;
  throw CommandError(QUERN_USAGE, "--arg " + text + ": " + why + "; wanted " + kForms +
                                      ", with TYPE one of" + types);
}

const ElementType* FindType(std::string_view name) {
  for (const ElementType& type : kTypes) {
    if (name == type.name) return &type;
  }
  return nullptr;
}

const ElementType& TypeOf(const std::string& text, const std::string& name) {
  const ElementType* type = FindType(name);
  if (!type) Wrong(text, "unknown type '" + name + "'");
  return *type;
}

bool IsInteger(const ElementType& type) {
  return type.kind == Kind::kSigned || type.kind == Kind::kUnsigned;
}

/// Rounded to nearest even; a NaN stays one.
uint16_t ToBf16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  if (x != x) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

uint64_t Encode(const ElementType& type, double value) {
  switch (type.kind) {
    case Kind::kHalf:
      return std::bit_cast<uint16_t>(static_cast<_Float16>(value));
    case Kind::kBf16:
      return ToBf16(static_cast<float>(value));
    case Kind::kFloat:
      return std::bit_cast<uint32_t>(static_cast<float>(value));
    default:
      return std::bit_cast<uint64_t>(value);
  }
}

void Append(const ElementType& type, uint64_t bits, std::vector<uint8_t>& bytes) {
  for (uint32_t i = 0; i < type.bytes; ++i) bytes.push_back(static_cast<uint8_t>(bits >> (8 * i)));
}

template <class T>
T Number(const std::string& text, const std::string& digits) {
  T value{};
  const auto [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (problem != std::errc() || end != digits.data() + digits.size())
    Wrong(text, "'" + digits + "' is no number of that kind");
  return value;
}

KernelArgument ParseValue(const std::string& text, const ElementType& type,
                          const std::string& digits) {
  uint64_t bits = 0;
  bool fits = true;
  const uint32_t spare = 64 - 8 * type.bytes;
  if (type.kind == Kind::kSigned) {
    const auto value = Number<int64_t>(text, digits);
    bits = static_cast<uint64_t>(value);
    fits = static_cast<int64_t>(bits << spare) >> spare == value;
  } else if (type.kind == Kind::kUnsigned) {
    bits = Number<uint64_t>(text, digits);
    fits = bits << spare >> spare == bits;
  } else {
    bits = Encode(type, Number<double>(text, digits));
  }
  if (!fits) Wrong(text, digits + " does not fit in " + type.name);
  KernelArgument argument{type.name, {}, false};
  Append(type, bits, argument.bytes);
  return argument;
}

/// Random floats lie in [-1, 1), random integers anywhere.
KernelArgument FillBuffer(const std::string& text, const ElementType& type, uint64_t count,
                          const std::string& contents, uint64_t seed) {
  if (count == 0 || count > kMostBytes / type.bytes)
    Wrong(text, "a buffer of " + std::to_string(count) + " elements");
  const bool random = contents == "random", iota = contents == "iota", ones = contents == "ones";
  if (!random && !iota && !ones && contents != "zero")
    Wrong(text, "unknown contents '" + contents + "'");
  KernelArgument argument{type.name, {}, true};
  argument.bytes.reserve(count * type.bytes);
  uint64_t state = seed * 0x9E3779B97F4A7C15u + 0x632BE59BD9B4E019u;
  for (uint64_t i = 0; i < count; ++i) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;  // xorshift64
    const uint64_t integer = random ? state : iota ? i : ones;
    const double value = random ? static_cast<double>(static_cast<int64_t>(state) >> 11) * 0x1p-52
                                : static_cast<double>(integer);
    Append(type, IsInteger(type) ? integer : Encode(type, value), argument.bytes);
  }
  return argument;
}

KernelArgument ReadArgument(const std::string& text, const std::string& path, const char* type) {
  const std::string contents = ReadText(path);
  if (contents.empty()) Wrong(text, "an empty file");
  return {type, {contents.begin(), contents.end()}, type[0] != '\0'};
}

/// The words between the first colons of `text`; the last one holds the rest, which may be a path.
template <size_t kWords>
std::array<std::string, kWords> Split(const std::string& text) {
  std::array<std::string, kWords> words;
  size_t begin = 0;
  for (size_t i = 0; i < kWords; ++i) {
    const size_t colon = i + 1 < kWords ? text.find(':', begin) : std::string::npos;
    words[i] = text.substr(begin, colon - begin);
    if (colon == std::string::npos) break;
    begin = colon + 1;
  }
  return words;
}

}  // namespace

KernelArgument ParseKernelArgument(const std::string& text, uint64_t seed) {
  const auto [first, rest] = Split<2>(text);
  if (first == "buf") {
    const auto [buf, type, count, contents] = Split<4>(text);
    return FillBuffer(text, TypeOf(text, type), Number<uint64_t>(text, count),
                      contents.empty() ? "random" : contents, seed);
  }
  if (first == "file") {
    const auto [file, type, path] = Split<3>(text);
    return ReadArgument(text, path, TypeOf(text, type).name);
  }
  if (first == "raw") return ReadArgument(text, rest, "");
  return ParseValue(text, TypeOf(text, first), rest);
}

void WriteBuffer(const std::string& path, const KernelArgument& argument) {
  const ElementType& type = *FindType(argument.type);
  const size_t count = argument.bytes.size() / type.bytes;
  NpyFile file(path, type.numpy, std::array{count});
  if (type.kind == Kind::kBf16) {
    std::vector<uint8_t> floats(4 * count, 0);  // bf16 is the upper half of float32.
    for (size_t i = 0; i < count; ++i) std::memcpy(&floats[4 * i + 2], &argument.bytes[2 * i], 2);
    file.Write(floats.data(), floats.size());
  } else {
    file.Write(argument.bytes.data(), count * type.bytes);
  }
  file.Commit();
}

}  // namespace quern::tools
