// Tokens that are written in the text, such as `<|im_start|>`.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace quern {

/// Finds the tokens of a fixed set in text: leftmost first, of those the longest. Immutable.
class SpecialTokens {
 public:
  struct Token {
    std::string_view bytes;  // not empty; lives elsewhere
    int32_t id;
    bool control;  ///< Found only when control tokens are asked for.
  };
  struct Match {
    size_t begin;
    size_t end;
    int32_t id;  ///< -1: nothing found.
  };

  SpecialTokens() = default;
  /// Of two tokens with the same bytes the lower id counts.
  explicit SpecialTokens(std::vector<Token> tokens);

  /// The first token at or after `start`.
  Match Find(std::string_view text, size_t start, bool with_control) const;

  /// Whether a control token begins with all of `text`, or `text` with all of a control token.
  bool MayBeginControl(std::string_view text) const;

 private:
  using Range = std::pair<std::vector<Token>::const_iterator, std::vector<Token>::const_iterator>;
  /// Of a range that agrees with the first `length - 1` bytes of `text`, the part that agrees with
  /// `length` bytes. In its order tokens that are exactly that long come first.
  static Range Narrow(Range range, std::string_view text, size_t length);

  /// The longest token that `text` begins with, or null.
  const Token* LongestPrefix(std::string_view text, bool with_control) const;

  std::vector<Token> tokens_;      // by bytes, then id
  std::array<bool, 256> first_{};  // bytes that a token begins with
};

}  // namespace quern
