#include "compiler/import/GgufText.h"

#include <array>

namespace quern::importer {
namespace {

struct TypeFacts {
  std::string_view name;
  uint64_t bytes;
};

/// By type number.
constexpr std::array<TypeFacts, 13> kTypes = {{
    {"uint8", 1},
    {"int8", 1},
    {"uint16", 2},
    {"int16", 2},
    {"uint32", 4},
    {"int32", 4},
    {"float32", 4},
    {"bool", 1},
    {"string", 0},
    {"array", 0},
    {"uint64", 8},
    {"int64", 8},
    {"float64", 8},
}};

/// Tensor types that Quern does not read; empty: no name known.
constexpr std::array<std::string_view, 40> kOtherTensorTypes = {
    "",           "",           "",           "",         "q4_2",    "q4_3",
    "",           "",           "",           "q8_1",     "",        "",
    "",           "",           "",           "q8_k",     "iq2_xxs", "iq2_xs",
    "iq3_xxs",    "iq1_s",      "iq4_nl",     "iq3_s",    "iq2_s",   "iq4_xs",
    "i8",         "i16",        "i32",        "i64",      "f64",     "iq1_m",
    "",           "q4_0_4_4",   "q4_0_4_8",   "q4_0_8_8", "tq1_0",   "tq2_0",
    "iq4_nl_4_4", "iq4_nl_4_8", "iq4_nl_8_8", "mxfp4"};

/// Bytes of the sequence that `lead` begins and the smallest code point that
/// needs that many; 0 for a byte that begins none.
struct SequenceFacts {
  int bytes;
  uint32_t smallest;
};

SequenceFacts sequenceOf(uint8_t lead) {
  if (lead < 0x80)
    return {1, 0};
  if (lead >= 0xc2 && lead < 0xe0)
    return {2, 0x80};
  if (lead >= 0xe0 && lead < 0xf0)
    return {3, 0x800};
  if (lead >= 0xf0 && lead < 0xf5)
    return {4, 0x10000};
  return {0, 0};
}

} // namespace

std::string_view ggufTypeName(GgufType type) {
  return kTypes[static_cast<uint32_t>(type)].name;
}

uint64_t ggufTypeBytes(GgufType type) {
  return kTypes[static_cast<uint32_t>(type)].bytes;
}

std::string quoted(std::string_view text) {
  constexpr size_t kMost = 64;
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  for (char c : text.substr(0, kMost)) {
    uint8_t byte = static_cast<uint8_t>(c);
    if (byte >= 0x20 && byte < 0x7f && c != '"' && c != '\\')
      out += c;
    else
      out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
  }
  return out + (text.size() > kMost ? "...\"" : "\"");
}

bool isValidUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    uint8_t lead = static_cast<uint8_t>(text[i]);
    auto [bytes, smallest] = sequenceOf(lead);
    if (bytes == 0 || text.size() - i < static_cast<size_t>(bytes))
      return false;
    uint32_t point = bytes == 1 ? lead : lead & (0x7f >> bytes);
    for (int k = 1; k < bytes; ++k) {
      uint8_t next = static_cast<uint8_t>(text[i + k]);
      if ((next & 0xc0) != 0x80)
        return false;
      point = point << 6 | (next & 0x3f);
    }
    if (point < smallest || point > 0x10ffff ||
        (point >= 0xd800 && point < 0xe000))
      return false;
    i += bytes;
  }
  return true;
}

std::string ggmlTypeText(uint32_t type) {
  std::string text = std::to_string(type);
  if (type >= kOtherTensorTypes.size() || kOtherTensorTypes[type].empty())
    return text + " (unknown)";
  return text + " (" + std::string(kOtherTensorTypes[type]) + ")";
}

std::string supportedFormatsText() {
  std::string text;
  for (const BlockFormatInfo &info : blockFormats())
    if (info.ggufType >= 0)
      text += (text.empty() ? "" : ", ") + std::string(info.name);
  return text;
}

} // namespace quern::importer
