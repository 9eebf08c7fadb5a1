#include "runtime/llm/text_stream.h"

#include <gtest/gtest.h>

#include <random>

#include "runtime/llm/utf8.h"

namespace quern {
namespace {

TextStream Make(std::vector<std::string> stops = {}) {
  Result<TextStream> stream = TextStream::Create(std::move(stops));
  EXPECT_TRUE(stream.ok());
  return *std::move(stream);
}

TEST(TextStream, HoldsBackPartsOfCharacters) {
  TextStream stream = Make();
  EXPECT_EQ(stream.Push("a\xE6"), "a");
  EXPECT_EQ(stream.Push("\x97"), "");
  EXPECT_EQ(stream.Push("\xA5z"), "日z");
  EXPECT_EQ(stream.Push("\xF0\x9F"), "");
  EXPECT_EQ(stream.Finish(), "\uFFFD");
}

TEST(TextStream, IllFormedBytesAreReplacedAtOnce) {
  TextStream stream = Make();
  EXPECT_EQ(stream.Push("\xFF"), "\uFFFD");
  EXPECT_EQ(stream.Push("\xE6"), "");
  EXPECT_EQ(stream.Push("A"),
            "\uFFFD"
            "A");
}

TEST(TextStream, StopsBeforeTheStopString) {
  TextStream stream = Make({"STOP", "\n\n"});
  EXPECT_EQ(stream.Push("abS"), "ab");
  EXPECT_EQ(stream.Push("T"), "");
  EXPECT_EQ(stream.Push("ART"), "START");
  EXPECT_EQ(stream.Push("\n"), "");
  EXPECT_FALSE(stream.stopped());
  EXPECT_EQ(stream.Push("\nrest"), "");
  EXPECT_TRUE(stream.stopped());
  EXPECT_EQ(stream.stop_string(), "\n\n");
  EXPECT_EQ(stream.Push("more"), "");
  EXPECT_EQ(stream.Finish(), "");
}

TEST(TextStream, TheFirstStopStringWinsAndTheLongerOfTwo) {
  TextStream stream = Make({"bc", "ab", "abc"});
  EXPECT_EQ(stream.Push("xabcx"), "x");
  EXPECT_EQ(stream.stop_string(), "abc");
}

TEST(TextStream, ReleasesWhatWasHeldBackAtTheEnd) {
  TextStream stream = Make({"<end>"});
  EXPECT_EQ(stream.Push("x <en"), "x ");
  EXPECT_EQ(stream.Finish(), "<en");
}

TEST(TextStream, AStopStringMayOverlapItself) {
  TextStream stream = Make({"aab"});
  EXPECT_EQ(stream.Push("a"), "");
  EXPECT_EQ(stream.Push("a"), "");
  EXPECT_EQ(stream.Push("a"), "a");
  EXPECT_EQ(stream.Push("b!"), "");
  EXPECT_TRUE(stream.stopped());
}

TEST(TextStream, AnyCutGivesTheSameText) {
  const std::string whole = "Grüße, 世界! 👍🏽 \xFF\xE2\x82 tail ###";
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    TextStream stream = Make({"###", "tal"});
    std::string text;
    for (size_t at = 0; at < whole.size();) {
      const size_t length = random() % 5;
      const std::string piece = stream.Push(whole.substr(at, length));
      EXPECT_TRUE(utf8::IsValid(piece));
      text += piece;
      at += length;
    }
    text += stream.Finish();
    EXPECT_EQ(text, "Grüße, 世界! 👍🏽 \uFFFD\uFFFD tail ");
    EXPECT_TRUE(stream.stopped());
  }
}

TEST(TextStream, RefusesBadStopStrings) {
  EXPECT_EQ(TextStream::Create({""}).status().code(), StatusCode::kUsage);
  EXPECT_EQ(TextStream::Create({std::string(1025, 'x')}).status().code(), StatusCode::kUsage);
  EXPECT_EQ(TextStream::Create({"\xFF"}).status().code(), StatusCode::kUsage);
  EXPECT_EQ(TextStream::Create(std::vector<std::string>(65, "x")).status().code(),
            StatusCode::kUsage);
}

}  // namespace
}  // namespace quern
