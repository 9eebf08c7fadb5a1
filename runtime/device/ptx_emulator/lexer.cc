#include "runtime/device/ptx_emulator/lexer.h"

#include <bit>
#include <cctype>
#include <cstdlib>

namespace quern::ptx {
namespace {

bool IsWordStart(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%';
}
bool IsWord(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$'; }

class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) {}

  Result<std::vector<Token>> Run() {
    std::vector<Token> tokens;
    while (true) {
      QUERN_RETURN_IF_ERROR(SkipSpace());
      Token token;
      token.line = line_;
      if (at_ == text_.size()) {
        tokens.push_back(token);
        return tokens;
      }
      QUERN_RETURN_IF_ERROR(Next(token));
      tokens.push_back(token);
    }
  }

 private:
  char Peek(size_t ahead = 0) const {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0';
  }

  Status SkipSpace() {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '\n') {
        ++line_, ++at_;
      } else if (c == ' ' || c == '\t' || c == '\r' || c == '\0') {
        ++at_;  // Texts handed to a driver may end in zeros.
      } else if (c == '/' && Peek(1) == '/') {
        while (at_ < text_.size() && text_[at_] != '\n') ++at_;
      } else if (c == '/' && Peek(1) == '*') {
        const size_t end = text_.find("*/", at_ + 2);
        if (end == std::string_view::npos) return SyntaxError(line_, "comment without an end");
        for (; at_ < end + 2; ++at_) line_ += text_[at_] == '\n';
      } else {
        break;
      }
    }
    return {};
  }

  Status Next(Token& token) {
    const size_t begin = at_;
    const char c = text_[at_];
    if (std::isdigit(static_cast<unsigned char>(c))) return Number(token);
    if (IsWordStart(c)) {
      token.kind = Token::Kind::kName;
      for (++at_; IsWord(Peek()); ++at_) {
      }
    } else if (c == '.' && (IsWord(Peek(1)))) {
      token.kind = Token::Kind::kDot;
      for (++at_; IsWord(Peek()) || (Peek() == ':' && Peek(1) == ':' && IsWord(Peek(2))); ++at_) {
        if (Peek() == ':') ++at_;
      }
    } else if (c == '"') {
      token.kind = Token::Kind::kString;
      do ++at_;  // Errors quote strings: they are one plain line.
      while (Peek() != '"' && !std::iscntrl(static_cast<unsigned char>(Peek())));
      if (Peek() != '"') return SyntaxError(line_, "string without an end on its line");
      ++at_;
    } else if (std::string_view("{}[](),;:=+-!|@<>").find(c) != std::string_view::npos) {
      token.kind = Token::Kind::kPunctuation;
      ++at_;
    } else {
      return SyntaxError(line_, std::string("unexpected character `") +
                                    (std::isprint(static_cast<unsigned char>(c)) ? c : '?') + "`");
    }
    token.text = text_.substr(begin, at_ - begin);
    return {};
  }

  /// 12, 0x1F, 0b101, 017, 12U, 0f3F800000, 0d3FF0000000000000, 1.5
  Status Number(Token& token) {
    const size_t begin = at_;
    const char second = static_cast<char>(std::tolower(Peek(1)));
    const bool bits = Peek() == '0' && (second == 'f' || second == 'd');
    for (++at_; IsWord(Peek()); ++at_) {
    }
    if (!bits && Peek() == '.' && std::isdigit(static_cast<unsigned char>(Peek(1)))) {
      for (++at_; IsWord(Peek()); ++at_) {
      }
      token.kind = Token::Kind::kFloat;
      token.width = 8;
      token.text = text_.substr(begin, at_ - begin);
      token.value = std::bit_cast<uint64_t>(std::strtod(std::string(token.text).c_str(), nullptr));
      return {};
    }
    token.text = text_.substr(begin, at_ - begin);
    std::string digits(token.text);
    char* end = nullptr;
    if (bits) {
      token.kind = Token::Kind::kFloat;
      token.width = second == 'f' ? 4 : 8;
      token.value = std::strtoull(digits.c_str() + 2, &end, 16);
      if (*end != '\0' || digits.size() != 2 + 2 * token.width)
        return SyntaxError(line_, "bad floating-point constant `" + digits + "`");
      return {};
    }
    token.kind = Token::Kind::kInteger;
    if (digits.back() == 'U') digits.pop_back();
    const bool binary = digits.size() > 2 && digits[0] == '0' && second == 'b';
    token.value = binary ? std::strtoull(digits.c_str() + 2, &end, 2)
                         : std::strtoull(digits.c_str(), &end, 0);
    if (*end == '\0') return {};
    // `.1d` and the like never come here: they hang on a dot.
    return SyntaxError(line_, "bad number `" + digits + "`");
  }

  std::string_view text_;
  size_t at_ = 0;
  uint32_t line_ = 1;
};

}  // namespace

Status SyntaxError(uint32_t line, const std::string& what) {
  return Malformed("PTX line " + std::to_string(line) + ": " + what);
}

Result<std::vector<Token>> Tokenize(std::string_view text) { return Lexer(text).Run(); }

}  // namespace quern::ptx
