// Where a parser stands in the words of a text.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/device/ptx_emulator/lexer.h"

namespace quern::ptx {

class TokenCursor {
 public:
  explicit TokenCursor(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& Now() const { return tokens_[at_]; }
  /// The token `n` behind this one, or the last.
  const Token& Ahead(size_t n) const { return tokens_[std::min(at_ + n, tokens_.size() - 1)]; }
  bool AtEnd() const { return Now().kind == Token::Kind::kEnd; }
  /// This token, going on to the next; stays at the end.
  const Token& Take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }

  bool Accept(std::string_view word) {
    if (!Now().Is(word)) return false;
    Take();
    return true;
  }
  Status Expect(std::string_view word) {
    if (Accept(word)) return {};
    return Error("expected `" + std::string(word) + "` before " + Seen());
  }
  Status Name(std::string& name) {
    if (Now().kind != Token::Kind::kName) return Error("expected a name before " + Seen());
    name = Take().text;
    return {};
  }
  Status Integer(uint64_t& value) {
    if (Now().kind != Token::Kind::kInteger) return Error("expected an integer before " + Seen());
    value = Take().value;
    return {};
  }

  /// This token in quotes, cut short, for errors.
  std::string Seen() const {
    return AtEnd() ? "the end of the text" : "`" + std::string(Now().text.substr(0, 60)) + "`";
  }
  Status Error(const std::string& what) const { return SyntaxError(Now().line, what); }

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
};

}  // namespace quern::ptx
