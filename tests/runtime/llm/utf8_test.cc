#include "runtime/llm/utf8.h"

#include <gtest/gtest.h>

namespace quern::utf8 {
namespace {

TEST(Utf8, MaximalSubpartsBecomeOneReplacement) {
  // Unicode 15, table 3-8, and Python's bytes.decode(errors="replace").
  const std::pair<std::string_view, std::string_view> cases[] = {
      {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA"},
      {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA"},
      {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42",
       "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA\uFFFD\uFFFD"
       "B"},
      {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", "\uFFFD\uFFFD\uFFFD\uFFFDA"},
      {"ok é 日 😀", "ok é 日 😀"},
      {"\xE2\x82", "\uFFFD"},
      {"", ""},
  };
  for (const auto& [bytes, text] : cases) {
    EXPECT_EQ(Sanitize(bytes), text);
    EXPECT_EQ(IsValid(bytes), bytes == text);
  }
}

TEST(Utf8, EveryCodePointSurvives) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    Append(text, c);
    const Scan scan = ScanOne(text);
    ASSERT_EQ(scan.kind, Scan::Kind::kCharacter);
    ASSERT_EQ(scan.code_point, c);
    ASSERT_EQ(scan.length, text.size());
    for (size_t cut = 1; cut < text.size(); ++cut)
      ASSERT_EQ(ScanOne(std::string_view(text).substr(0, cut)).kind, Scan::Kind::kIncomplete);
  }
  EXPECT_EQ(Encode(Decode("aé日😀")), "aé日😀");
  EXPECT_EQ(Length("aé日😀"), 4u);
}

}  // namespace
}  // namespace quern::utf8
