// Token bytes to text as it is generated: whole characters only, and nothing of a stop string.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

namespace quern {

/// Joins the bytes of tokens and gives out what is certain: a character that is not whole yet, or
/// text that may turn out to begin a stop string, is held back. Ill-formed UTF-8 becomes U+FFFD
/// by the rule of Tokenizer, so what comes out is always valid UTF-8.
class TextStream {
 public:
  /// Error: kUsage for an empty or over-long stop string, or too many.
  static Result<TextStream> Create(std::vector<std::string> stop_strings = {});

  /// Takes the bytes of one token; returns text that can be shown now. After a stop string was
  /// seen it returns nothing more.
  std::string Push(std::string_view bytes);

  /// The answer is over: returns what was held back.
  std::string Finish();

  /// True once a stop string was seen. The text ends before it.
  bool stopped() const { return stopped_; }
  /// The stop string that was seen, or empty.
  const std::string& stop_string() const { return stop_string_; }

  static constexpr size_t kMaxStopStrings = 64;
  static constexpr size_t kMaxStopBytes = 1024;

 private:
  explicit TextStream(std::vector<std::string> stops) : stops_(std::move(stops)) {}
  std::string Release(bool final);
  bool CutAtStop();

  std::vector<std::string> stops_;
  std::string bytes_;  // the beginning of a character
  std::string text_;   // whole characters that are held back
  bool stopped_ = false;
  std::string stop_string_;
};

}  // namespace quern
