#include "runtime/llm/utf8.h"

namespace quern::utf8 {
namespace {

/// The range of the second byte and the number of bytes after a lead byte (Unicode 15, table 3-7).
struct Lead {
  uint8_t trailing;  // 0: no lead byte
  uint8_t low, high;
};

Lead LeadOf(uint8_t byte) {
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {1, 0x80, 0xBF};
  if (byte == 0xE0) return {2, 0xA0, 0xBF};
  if (byte == 0xED) return {2, 0x80, 0x9F};
  if (byte < 0xF0) return {2, 0x80, 0xBF};
  if (byte == 0xF0) return {3, 0x90, 0xBF};
  if (byte < 0xF4) return {3, 0x80, 0xBF};
  if (byte == 0xF4) return {3, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Scan ScanOne(std::string_view bytes) {
  const auto first = static_cast<uint8_t>(bytes[0]);
  if (first < 0x80) return {Scan::Kind::kCharacter, 1, first};
  const Lead lead = LeadOf(first);
  if (lead.trailing == 0) return {Scan::Kind::kIllFormed, 1, kReplacement};
  char32_t code_point = first & (0x3F >> lead.trailing);
  for (size_t i = 1; i <= lead.trailing; ++i) {
    if (i == bytes.size()) return {Scan::Kind::kIncomplete, i, kReplacement};
    const auto byte = static_cast<uint8_t>(bytes[i]);
    const uint8_t low = i == 1 ? lead.low : 0x80;
    const uint8_t high = i == 1 ? lead.high : 0xBF;
    if (byte < low || byte > high) return {Scan::Kind::kIllFormed, i, kReplacement};
    code_point = code_point << 6 | (byte & 0x3F);
  }
  return {Scan::Kind::kCharacter, size_t{lead.trailing} + 1, code_point};
}

void Append(std::string& text, char32_t code_point) {
  auto put = [&text](char32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | code_point >> 18);
    put(0x80 | (code_point >> 12 & 0x3F));
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

bool IsValid(std::string_view bytes) {
  while (!bytes.empty()) {
    const Scan scan = ScanOne(bytes);
    if (scan.kind != Scan::Kind::kCharacter) return false;
    bytes.remove_prefix(scan.length);
  }
  return true;
}

std::string Sanitize(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  while (!bytes.empty()) {
    const Scan scan = ScanOne(bytes);
    Append(text, scan.code_point);
    bytes.remove_prefix(scan.length);
  }
  return text;
}

std::u32string Decode(std::string_view text) {
  std::u32string code_points;
  code_points.reserve(text.size());
  while (!text.empty()) {
    const Scan scan = ScanOne(text);
    code_points.push_back(scan.code_point);
    text.remove_prefix(scan.length);
  }
  return code_points;
}

std::string Encode(std::u32string_view code_points) {
  std::string text;
  text.reserve(code_points.size());
  for (const char32_t code_point : code_points) Append(text, code_point);
  return text;
}

size_t Length(std::string_view text) {
  size_t length = 0;
  for (const char byte : text) length += (static_cast<uint8_t>(byte) & 0xC0) != 0x80;
  return length;
}

}  // namespace quern::utf8
