#include "runtime/llm/special_tokens.h"

#include <algorithm>

namespace quern {

SpecialTokens::SpecialTokens(std::vector<Token> tokens) : tokens_(std::move(tokens)) {
  std::sort(tokens_.begin(), tokens_.end(), [](const Token& a, const Token& b) {
    return a.bytes != b.bytes ? a.bytes < b.bytes : a.id < b.id;
  });
  auto same = [](const Token& a, const Token& b) {
    return a.bytes == b.bytes && a.control == b.control;
  };
  tokens_.erase(std::unique(tokens_.begin(), tokens_.end(), same), tokens_.end());
  for (const Token& token : tokens_) first_[static_cast<uint8_t>(token.bytes[0])] = true;
}

SpecialTokens::Match SpecialTokens::Find(std::string_view text, size_t start,
                                         bool with_control) const {
  for (size_t i = start; i < text.size(); ++i) {
    if (!first_[static_cast<uint8_t>(text[i])]) continue;
    if (const Token* token = LongestPrefix(text.substr(i), with_control))
      return {i, i + token->bytes.size(), token->id};
  }
  return {text.size(), text.size(), -1};
}

const SpecialTokens::Token* SpecialTokens::LongestPrefix(std::string_view text,
                                                         bool with_control) const {
  const Token* best = nullptr;
  // [first, last) are the tokens that agree with the first `length` bytes of `text`; in their
  // order, the one that is exactly that long comes first.
  auto first = tokens_.begin(), last = tokens_.end();
  for (size_t length = 1; length <= text.size() && first != last; ++length) {
    const char next = text[length - 1];
    auto byte_at = [length](const Token& token) {
      return static_cast<uint8_t>(token.bytes[length - 1]);
    };
    while (first != last && first->bytes.size() < length) ++first;
    first = std::partition_point(first, last, [&](const Token& token) {
      return byte_at(token) < static_cast<uint8_t>(next);
    });
    last = std::partition_point(first, last, [&](const Token& token) {
      return byte_at(token) == static_cast<uint8_t>(next);
    });
    for (auto it = first; it != last && it->bytes.size() == length; ++it)
      if (with_control || !it->control) {
        best = &*it;
        break;
      }
  }
  return best;
}

int32_t SpecialTokens::FindExact(std::string_view bytes) const {
  auto it = std::lower_bound(
      tokens_.begin(), tokens_.end(), bytes,
      [](const Token& token, std::string_view value) { return token.bytes < value; });
  return it != tokens_.end() && it->bytes == bytes ? it->id : -1;
}

}  // namespace quern
