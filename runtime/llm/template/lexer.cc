#include "runtime/llm/template/lexer.h"

#include <charconv>
#include <cstdlib>
#include <optional>

#include "runtime/llm/template/error.h"
#include "runtime/llm/utf8.h"

namespace quern::jinja {
namespace {

constexpr std::string_view kBlanks = " \t\n\v\f\r";

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameStart(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c & 0x80);
}
bool IsNamePart(char c) { return IsNameStart(c) || IsDigit(c); }

/// Line ends as \n, and the last one dropped.
std::string NormalizeLines(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      text += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      text += source[i];
    }
  }
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(NormalizeLines(source)) {}

  std::vector<Token> Run() {
    while (position_ < source_.size()) LexOutside();
    Add(Token::Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  void Add(Token::Kind kind, std::string text) {
    tokens_.push_back({kind, std::move(text), line_});
  }

  bool At(std::string_view text) const {
    return std::string_view(source_).substr(position_).starts_with(text);
  }

  /// Goes on to `position`, counting lines.
  void MoveTo(size_t position) {
    for (; position_ < position; ++position_) line_ += source_[position_] == '\n';
    line_starting_ = position_ > 0 && source_[position_ - 1] == '\n';
  }

  void SkipBlanks() {
    const size_t next = source_.find_first_not_of(kBlanks, position_);
    MoveTo(next == std::string::npos ? source_.size() : next);
  }

  /// Text up to the next tag, and the tag.
  void LexOutside() {
    size_t open = position_;
    do {
      open = source_.find('{', open);
      if (open == std::string::npos || open + 1 >= source_.size()) {
        EmitText(std::string_view(source_).substr(position_));
        MoveTo(source_.size());
        return;
      }
    } while (std::string_view("{%#").find(source_[open + 1]) == std::string_view::npos && ++open);
    const char type = source_[open + 1];
    const char sign = open + 2 < source_.size() ? source_[open + 2] : ' ';
    const bool has_sign = sign == '-' || sign == '+';
    EmitTextBefore(open, type, has_sign ? sign : ' ');
    MoveTo(open + 2 + has_sign);
    if (type == '#') return SkipComment();
    if (type == '%' && LexRaw()) return;
    LexTag(type == '{');
  }

  /// Text before a tag of `type`, whose sign may strip it: lstrip_blocks drops blanks between the
  /// beginning of a line and a block or comment.
  void EmitTextBefore(size_t open, char type, char sign) {
    std::string_view text = std::string_view(source_).substr(position_, open - position_);
    if (sign == '-') {
      text = text.substr(0, text.find_last_not_of(kBlanks) + 1);
    } else if (sign != '+' && type != '{') {
      const size_t line_begin = text.rfind('\n') + 1;  // 0 when there is none
      if ((line_begin > 0 || line_starting_) &&
          text.find_first_not_of(" \t", line_begin) == std::string_view::npos)
        text = text.substr(0, line_begin);
    }
    EmitText(text);
  }

  void EmitText(std::string_view text) {
    if (!text.empty()) Add(Token::Kind::kText, std::string(text));
  }

  /// After the end of a block or comment: `-` strips blanks, otherwise trim_blocks drops one line
  /// end, unless the sign is `+`.
  void TrimAfter(char sign) {
    if (sign == '-') return SkipBlanks();
    if (sign != '+' && position_ < source_.size() && source_[position_] == '\n')
      MoveTo(position_ + 1);
  }

  void SkipComment() {
    const size_t end = source_.find("#}", position_);
    if (end == std::string::npos) Fail("a comment is never closed; expected '#}'", line_);
    const char sign = end > position_ ? source_[end - 1] : ' ';
    MoveTo(end + 2);
    TrimAfter(sign);
  }

  /// The end of a block tag at or after `at`, past blanks: the position behind it, and its sign.
  struct End {
    size_t position;
    char sign;
  };
  std::optional<End> BlockEndAt(size_t at) const {
    at = source_.find_first_not_of(kBlanks, at);
    if (at == std::string::npos) return std::nullopt;
    const char sign = source_[at] == '-' || source_[at] == '+' ? source_[at] : ' ';
    if (sign != ' ') ++at;
    if (source_.compare(at, 2, "%}") != 0) return std::nullopt;
    return End{at + 2, sign};
  }

  std::optional<size_t> WordAt(size_t at, std::string_view word) const {
    at = source_.find_first_not_of(kBlanks, at);
    if (at == std::string::npos || source_.compare(at, word.size(), word) != 0) return std::nullopt;
    return at + word.size();
  }

  /// `{% raw %} ... {% endraw %}`. False, and nothing done, at another tag.
  bool LexRaw() {
    const std::optional<size_t> word = WordAt(position_, "raw");
    const std::optional<End> begin = word ? BlockEndAt(*word) : std::nullopt;
    if (!begin || begin->sign == '+') return false;
    MoveTo(begin->position);
    if (begin->sign == '-') SkipBlanks();  // trim_blocks leaves the beginning of raw text alone
    for (size_t open = source_.find("{%", position_); open != std::string::npos;
         open = source_.find("{%", open + 2)) {
      const char sign = open + 2 < source_.size() ? source_[open + 2] : ' ';
      const bool has_sign = sign == '-' || sign == '+';
      const std::optional<size_t> end_word = WordAt(open + 2 + has_sign, "endraw");
      const std::optional<End> end = end_word ? BlockEndAt(*end_word) : std::nullopt;
      if (!end) continue;
      EmitTextBefore(open, '%', has_sign ? sign : ' ');
      MoveTo(end->position);
      TrimAfter(end->sign);
      return true;
    }
    Fail("a raw block is never closed; expected '{% endraw %}'", line_);
  }

  void LexTag(bool variable) {
    Add(variable ? Token::Kind::kVariableBegin : Token::Kind::kBlockBegin, "");
    std::string brackets;  // open ones
    for (;;) {
      SkipBlanks();
      if (position_ == source_.size())
        Fail(variable ? "a tag is never closed; expected '}}'"
                      : "a tag is never closed; expected '%}'",
             line_);
      if (brackets.empty() && (variable ? LexVariableEnd() : LexBlockEnd())) return;
      LexToken(brackets);
    }
  }

  bool LexVariableEnd() {
    const bool strip = At("-}}");
    if (!strip && !At("}}")) return false;
    Add(Token::Kind::kVariableEnd, "");
    MoveTo(position_ + 2 + strip);
    if (strip) SkipBlanks();
    return true;
  }

  bool LexBlockEnd() {
    const std::optional<End> end = BlockEndAt(position_);
    if (!end) return false;
    Add(Token::Kind::kBlockEnd, "");
    MoveTo(end->position);
    TrimAfter(end->sign);
    return true;
  }

  void LexToken(std::string& brackets) {
    const char c = source_[position_];
    if (IsDigit(c)) return LexNumber();
    if (IsNameStart(c)) {
      size_t end = position_;
      while (end < source_.size() && IsNamePart(source_[end])) ++end;
      Add(Token::Kind::kName, source_.substr(position_, end - position_));
      return MoveTo(end);
    }
    if (c == '"' || c == '\'') return LexString(c);
    LexOperator(brackets);
  }

  void LexOperator(std::string& brackets) {
    static constexpr std::string_view kOperators[] = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "(",
        ")",  "[",  "]",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (const std::string_view op : kOperators) {
      if (!At(op)) continue;
      CheckBrackets(op[0], brackets);
      Add(Token::Kind::kOperator, std::string(op));
      return MoveTo(position_ + op.size());
    }
    Fail("unexpected character " + source_.substr(position_, 1), line_);
  }

  void CheckBrackets(char c, std::string& brackets) {
    if (c == '(') brackets += ')';
    if (c == '[') brackets += ']';
    if (c == '{') brackets += '}';
    if (c != ')' && c != ']' && c != '}') return;
    if (brackets.empty() || brackets.back() != c)
      Fail(std::string("unexpected '") + c + "'" +
               (brackets.empty() ? "" : std::string(", expected '") + brackets.back() + "'"),
           line_);
    brackets.pop_back();
  }

  /// Digits of `digits`, with single underscores between them.
  size_t DigitsEnd(size_t at, std::string_view digits) const {
    auto is_digit = [&](size_t i) {
      return i < source_.size() && digits.find(source_[i]) != std::string_view::npos;
    };
    while (is_digit(at) || (at < source_.size() && source_[at] == '_' && is_digit(at + 1))) ++at;
    return at;
  }

  void LexNumber() {
    static constexpr struct {
      std::string_view prefix, upper, digits;
      int base;
    } kBases[] = {{"0x", "0X", "0123456789abcdefABCDEF", 16},
                  {"0o", "0O", "01234567", 8},
                  {"0b", "0B", "01", 2}};
    for (const auto& base : kBases)
      if (At(base.prefix) || At(base.upper))
        return AddInteger(position_ + 2, DigitsEnd(position_ + 2, base.digits), base.base);

    constexpr std::string_view kDecimal = "0123456789";
    const size_t whole = DigitsEnd(position_, kDecimal);
    size_t end = whole;
    if (end + 1 < source_.size() && source_[end] == '.' && IsDigit(source_[end + 1]))
      end = DigitsEnd(end + 1, kDecimal);
    if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      size_t digits = end + 1;
      if (digits < source_.size() && (source_[digits] == '+' || source_[digits] == '-')) ++digits;
      if (digits < source_.size() && IsDigit(source_[digits])) end = DigitsEnd(digits, kDecimal);
    }
    if (end == whole) return AddInteger(position_, end, 10);
    Add(Token::Kind::kFloat, "");
    const std::string text = WithoutUnderscores(position_, end);
    std::from_chars(text.data(), text.data() + text.size(), tokens_.back().number);
    MoveTo(end);
  }

  std::string WithoutUnderscores(size_t begin, size_t end) const {
    std::string text = source_.substr(begin, end - begin);
    std::erase(text, '_');
    return text;
  }

  void AddInteger(size_t begin, size_t end, int base) {
    const std::string text = WithoutUnderscores(begin, end);
    Add(Token::Kind::kInteger, text);
    const auto [rest, error] =
        std::from_chars(text.data(), text.data() + text.size(), tokens_.back().integer, base);
    if (error != std::errc() || rest != text.data() + text.size())
      FailUnsupported("the integer " + text + " needs over 64 bits", line_);
    MoveTo(end);
  }

  void LexString(char quote) {
    std::string text;
    size_t at = position_ + 1;
    while (at < source_.size() && source_[at] != quote) {
      if (source_[at] == '\\' && at + 1 < source_.size())
        at = AppendEscape(at + 1, text);
      else
        text += source_[at++];
    }
    if (at == source_.size()) Fail("a string is never closed", line_);
    Add(Token::Kind::kString, std::move(text));
    MoveTo(at + 1);
  }

  /// The escape whose letter is at `at`, as in Python's strings. Returns the position behind it.
  size_t AppendEscape(size_t at, std::string& text) {
    static constexpr std::string_view kLetters = "\n\\'\"abfnrtv";
    static constexpr std::string_view kMeanings = "?\\'\"\a\b\f\n\r\t\v";
    const char letter = source_[at];
    if (letter == '\n') return at + 1;
    if (const size_t known = kLetters.find(letter); known != std::string_view::npos) {
      text += kMeanings[known];
      return at + 1;
    }
    if (letter >= '0' && letter <= '7') {
      size_t end = at;
      char32_t value = 0;
      for (; end < at + 3 && end < source_.size() && source_[end] >= '0' && source_[end] <= '7';
           ++end)
        value = value * 8 + static_cast<char32_t>(source_[end] - '0');
      utf8::Append(text, value);
      return end;
    }
    const size_t digits = letter == 'x' ? 2 : letter == 'u' ? 4 : letter == 'U' ? 8 : 0;
    if (letter == 'N') FailUnsupported("\\N{...} in strings is not supported", line_);
    if (digits == 0) {
      text += '\\';
      text += letter;
      return at + 1;
    }
    uint32_t value = 0;
    const size_t end = std::min(at + 1 + digits, source_.size());
    const auto [rest, error] =
        std::from_chars(source_.data() + at + 1, source_.data() + end, value, 16);
    if (error != std::errc() || rest != source_.data() + at + 1 + digits || value > 0x10FFFF ||
        (value >= 0xD800 && value < 0xE000))
      Fail(std::string("\\") + letter + " in a string is not followed by a character's " +
               std::to_string(digits) + " hexadecimal digits",
           line_);
    utf8::Append(text, value);
    return at + 1 + digits;
  }

  std::string source_;
  size_t position_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> Lex(std::string_view source) { return Lexer(source).Run(); }

}  // namespace quern::jinja
