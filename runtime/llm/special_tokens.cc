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

SpecialTokens::Range SpecialTokens::Narrow(Range range, std::string_view text, size_t length) {
  auto [first, last] = range;
  const auto next = static_cast<uint8_t>(text[length - 1]);
  auto byte_at = [length](const Token& token) {
    return static_cast<uint8_t>(token.bytes[length - 1]);
  };
  while (first != last && first->bytes.size() < length) ++first;
  first =
      std::partition_point(first, last, [&](const Token& token) { return byte_at(token) < next; });
  last =
      std::partition_point(first, last, [&](const Token& token) { return byte_at(token) == next; });
  return {first, last};
}

const SpecialTokens::Token* SpecialTokens::LongestPrefix(std::string_view text,
                                                         bool with_control) const {
  const Token* best = nullptr;
  Range range = {tokens_.begin(), tokens_.end()};
  for (size_t length = 1; length <= text.size() && range.first != range.second; ++length) {
    range = Narrow(range, text, length);
    for (auto it = range.first; it != range.second && it->bytes.size() == length; ++it)
      if (with_control || !it->control) {
        best = &*it;
        break;
      }
  }
  return best;
}

bool SpecialTokens::MayBeginControl(std::string_view text) const {
  auto is_control = [](const Token& token) { return token.control; };
  if (text.empty() || !first_[static_cast<uint8_t>(text[0])]) return false;
  Range range = {tokens_.begin(), tokens_.end()};
  for (size_t length = 1; length <= text.size() && range.first != range.second; ++length) {
    range = Narrow(range, text, length);
    for (auto it = range.first; it != range.second && it->bytes.size() == length; ++it)
      if (it->control) return true;
  }
  return std::any_of(range.first, range.second, is_control);
}

}  // namespace quern
