#include "runtime/llm/template/format.h"

#include <charconv>
#include <cmath>
#include <cstdio>

#include "runtime/llm/template/error.h"
#include "runtime/llm/template/operators.h"
#include "runtime/llm/template/text.h"
#include "runtime/llm/utf8.h"

namespace quern::jinja {
namespace {

constexpr int64_t kMaxWidth = 10000;

struct Spec {
  std::string fill = " ";
  char align = 0;  // < > ^ =, or 0: by type
  char sign = '-';
  bool alternate = false;
  bool grouping = false;
  int64_t width = 0;
  int64_t precision = -1;
  char type = 0;
};

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

/// The number at the beginning of `text`, taken off it; `otherwise` when there is none.
int64_t TakeNumber(std::string_view& text, int64_t otherwise) {
  if (text.empty() || !IsDigit(text[0])) return otherwise;
  int64_t number = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || number > kMaxWidth)
    Fail("a width or precision in a format is above " + std::to_string(kMaxWidth));
  text.remove_prefix(static_cast<size_t>(rest - text.data()));
  return number;
}

std::string Pad(std::string text, const Spec& spec, char default_align) {
  const auto length = static_cast<int64_t>(utf8::Length(text));
  if (length >= spec.width) return text;
  auto blanks = [&](int64_t count) {
    std::string result;
    for (int64_t i = 0; i < count; ++i) result += spec.fill;
    return result;
  };
  const int64_t missing = spec.width - length;
  switch (spec.align ? spec.align : default_align) {
    case '<':
      return text + blanks(missing);
    case '^':
      return blanks(missing / 2) + text + blanks(missing - missing / 2);
    case '=': {
      const bool has_sign = !text.empty() && (text[0] == '-' || text[0] == '+' || text[0] == ' ');
      return text.substr(0, has_sign) + blanks(missing) + text.substr(has_sign);
    }
    default:
      return blanks(missing) + text;
  }
}

std::string WithSign(std::string digits, bool negative, const Spec& spec) {
  if (negative) return "-" + digits;
  return spec.sign == '-' ? digits : spec.sign + digits;
}

std::string Grouped(std::string digits) {
  size_t end = digits.find_first_not_of("0123456789");
  if (end == std::string::npos) end = digits.size();
  for (size_t at = end; at > 3; at -= 3) digits.insert(at - 3, ",");
  return digits;
}

std::string FormatInteger(int64_t value, const Spec& spec) {
  const bool negative = value < 0;
  const uint64_t magnitude = negative ? 0 - static_cast<uint64_t>(value) : value;
  const int base = spec.type == 'x' || spec.type == 'X' ? 16
                   : spec.type == 'o'                   ? 8
                   : spec.type == 'b'                   ? 2
                                                        : 10;
  char buffer[72];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), magnitude, base).ptr;
  std::string digits(buffer, end);
  if (spec.type == 'X')
    for (char& c : digits)
      if (c >= 'a') c = static_cast<char>(c - 'a' + 'A');
  if (spec.alternate && base != 10) digits = std::string("0") + spec.type + digits;
  if (spec.grouping) digits = Grouped(std::move(digits));
  return WithSign(std::move(digits), negative, spec);
}

std::string FormatFloat(double value, const Spec& spec) {
  const char type = spec.type == '%' ? 'f' : spec.type;
  const double magnitude = std::abs(spec.type == '%' ? value * 100 : value);
  const int precision = static_cast<int>(spec.precision < 0 ? 6 : spec.precision);
  std::string digits;
  if (!std::isfinite(magnitude)) {
    digits = std::isnan(magnitude) ? "nan" : "inf";
  } else {
    std::string buffer(size_t(precision) + 330, '\0');
    const char pattern[] = {'%', '.', '*', type ? type : 'g', '\0'};
    const int length = std::snprintf(buffer.data(), buffer.size(), pattern, precision, magnitude);
    digits = buffer.substr(0, static_cast<size_t>(length));
  }
  if (spec.grouping) digits = Grouped(std::move(digits));
  if (spec.type == '%') digits += '%';
  return WithSign(std::move(digits), std::signbit(value) && !std::isnan(value), spec);
}

std::string Truncated(std::string text, int64_t precision) {
  if (precision < 0) return text;
  return utf8::Encode(utf8::Decode(text).substr(0, static_cast<size_t>(precision)));
}

int64_t ToInteger(const Value& value, char type) {
  if (value.is_integral()) return value.integer();
  if (value.is_double() && std::abs(value.number()) < 0x1p63)
    return static_cast<int64_t>(value.number());
  Fail(std::string("%") + type + " needs a number, not " + std::string(value.TypeName()));
}

std::string Character(int64_t code_point) {
  if (code_point < 0 || code_point > 0x10FFFF || (code_point >= 0xD800 && code_point < 0xE000))
    Fail("%c needs a character's number, not " + std::to_string(code_point));
  std::string text;
  utf8::Append(text, static_cast<char32_t>(code_point));
  return text;
}

std::string PercentItem(Evaluator& evaluator, const Value& value, Spec spec) {
  evaluator.ChargeBytes(static_cast<uint64_t>(spec.width + std::max<int64_t>(spec.precision, 0)));
  switch (spec.type) {
    case 's':
      return Pad(Truncated(evaluator.Text(value), spec.precision), spec, '>');
    case 'r':
      return Pad(Truncated(Repr(value), spec.precision), spec, '>');
    case 'c':
      return Pad(value.is_string() ? value.string() : Character(ToInteger(value, 'c')), spec, '>');
    case 'd':
    case 'i':
    case 'u':
      spec.type = 'd';
      return Pad(FormatInteger(ToInteger(value, 'd'), spec), spec, '>');
    case 'x':
    case 'X':
    case 'o': {
      if (!value.is_integral()) Fail("%x and %o need an integer");
      return Pad(FormatInteger(value.integer(), spec), spec, '>');
    }
    case 'f':
    case 'F':
    case 'e':
    case 'E':
    case 'g':
    case 'G':
      if (!value.is_number()) Fail("must be a number, not " + std::string(value.TypeName()));
      return Pad(FormatFloat(value.number(), spec), spec, '>');
    default:
      Fail(std::string("unsupported format character '") + spec.type + "'");
  }
}

Spec ParsePercentSpec(std::string_view& format) {
  Spec spec;
  bool zero = false;
  for (; !format.empty(); format.remove_prefix(1)) {
    if (format[0] == '-')
      spec.align = '<';
    else if (format[0] == '0')
      zero = true;
    else if (format[0] == '+' || (format[0] == ' ' && spec.sign != '+'))
      spec.sign = format[0];
    else if (format[0] == '#')
      spec.alternate = true;
    else
      break;
  }
  if (zero && !spec.align) {
    spec.fill = "0";
    spec.align = '=';
  }
  spec.width = TakeNumber(format, 0);
  if (format.starts_with('.')) {
    format.remove_prefix(1);
    spec.precision = TakeNumber(format, 0);
  }
  if (format.empty()) Fail("incomplete format");
  spec.type = format[0];
  format.remove_prefix(1);
  return spec;
}

/// The part of a format spec after the colon of `{name:spec}`.
Spec ParseBraceSpec(std::string_view text) {
  Spec spec;
  constexpr std::string_view kAligns = "<>^=";
  if (!text.empty()) {
    const size_t first = utf8::ScanOne(text).length;
    if (text.size() > first && kAligns.find(text[first]) != std::string_view::npos) {
      spec.fill = text.substr(0, first);
      spec.align = text[first];
      text.remove_prefix(first + 1);
    } else if (kAligns.find(text[0]) != std::string_view::npos) {
      spec.align = text[0];
      text.remove_prefix(1);
    }
  }
  auto take = [&text](std::string_view choices) {
    if (text.empty() || choices.find(text[0]) == std::string_view::npos) return '\0';
    const char c = text[0];
    text.remove_prefix(1);
    return c;
  };
  if (const char sign = take("+- ")) spec.sign = sign;
  spec.alternate = take("#");
  if (text.starts_with('0') && !spec.align) {
    spec.fill = "0";
    spec.align = '=';
  }
  spec.width = TakeNumber(text, 0);
  spec.grouping = take(",");
  if (take(".")) {
    spec.precision = TakeNumber(text, -1);
    if (spec.precision < 0) Fail("format specifier is missing its precision");
  }
  spec.type = take("sdfeEgGxXobc%");
  if (!text.empty()) Fail("invalid format specifier");
  return spec;
}

std::string BraceItem(Evaluator& evaluator, const Value& value, std::string_view spec_text) {
  if (spec_text.empty()) return evaluator.Text(value);
  RequireDefined(value);
  const Spec spec = ParseBraceSpec(spec_text);
  evaluator.ChargeBytes(static_cast<uint64_t>(spec.width + std::max<int64_t>(spec.precision, 0)));
  if (value.is_string()) {
    if (spec.type != 0 && spec.type != 's') Fail("this format needs a number, not a string");
    return Pad(Truncated(value.string(), spec.precision), spec, '<');
  }
  if (!value.is_number())
    Fail("unsupported format for a value of type '" + std::string(value.TypeName()) + "'");
  const bool float_type =
      spec.type != 0 && std::string_view("feEgG%").find(spec.type) != std::string_view::npos;
  if (spec.type == 's') Fail("the format 's' needs a string");
  if (value.is_double() || float_type) {
    if (spec.type == 0 && spec.precision < 0)
      return Pad(WithSign(FloatRepr(std::abs(value.number())), std::signbit(value.number()), spec),
                 spec, '>');
    return Pad(FormatFloat(value.number(), spec), spec, '>');
  }
  if (spec.type == 'c') return Pad(Character(value.integer()), spec, '<');
  return Pad(FormatInteger(value.integer(), spec), spec, '>');
}

/// Finds the value of a replacement field such as `0`, `name`, `` or `name.attribute[0]`.
class FieldFinder {
 public:
  FieldFinder(Evaluator& evaluator, const Arguments& arguments)
      : evaluator_(evaluator), arguments_(arguments) {}

  Value Find(std::string_view field) {
    const size_t name_end = std::min(field.find_first_of(".["), field.size());
    Value value = Argument(field.substr(0, name_end));
    field.remove_prefix(name_end);
    while (!field.empty()) {
      if (field[0] == '.') {
        const size_t end = std::min(field.find_first_of(".[", 1), field.size());
        value = evaluator_.GetAttribute(value, field.substr(1, end - 1));
        field.remove_prefix(end);
      } else {
        const size_t end = field.find(']');
        if (end == std::string_view::npos) Fail("a format field lacks its ']'");
        value = evaluator_.GetItem(value, Key(field.substr(1, end - 1)));
        field.remove_prefix(end + 1);
      }
    }
    return value;
  }

 private:
  static Value Key(std::string_view text) {
    int64_t number = 0;
    const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error == std::errc() && rest == text.data() + text.size()) return number;
    return text;
  }

  Value Argument(std::string_view name) {
    const Value key = name.empty() ? Value(next_++) : Key(name);
    if (key.is_int()) {
      if (key.integer() < 0 || size_t(key.integer()) >= arguments_.positional.size())
        Fail("a format asks for argument " + std::to_string(key.integer()) + " of " +
             std::to_string(arguments_.positional.size()));
      return arguments_.positional[size_t(key.integer())];
    }
    for (const auto& [given, value] : arguments_.named)
      if (given == name) return value;
    Fail("a format asks for '" + std::string(name) + "', which is not given");
  }

  Evaluator& evaluator_;
  const Arguments& arguments_;
  int64_t next_ = 0;
};

}  // namespace

Value FormatPercent(Evaluator& evaluator, std::string_view format, const Value& values) {
  std::vector<Value> items = {values};
  const bool tuple = values.is_list() && values.list().flavor() == List::Flavor::kTuple;
  if (tuple) items = values.list().items();
  size_t next = 0;
  bool named = false;
  std::string result;
  while (!format.empty()) {
    const size_t percent = std::min(format.find('%'), format.size());
    result += format.substr(0, percent);
    format.remove_prefix(percent);
    if (format.empty()) break;
    format.remove_prefix(1);
    if (format.starts_with('%')) {
      result += '%';
      format.remove_prefix(1);
      continue;
    }
    std::optional<Value> item;
    if (format.starts_with('(')) {
      const size_t close = format.find(')');
      if (close == std::string_view::npos || !values.is_dict())
        Fail("a named format needs '%(name)s' and a mapping");
      const Value* found = values.dict().Find(format.substr(1, close - 1));
      if (!found) Fail("a format asks for a key that is not there");
      item = *found;
      named = true;
      format.remove_prefix(close + 1);
    }
    const Spec spec = ParsePercentSpec(format);
    if (!item) {
      if (next == items.size()) Fail("not enough arguments for format string");
      item = items[next++];
    }
    result += PercentItem(evaluator, *item, spec);
  }
  const bool mapping = values.is_dict() || (values.is_list() && !tuple);
  if (next < items.size() && !named && !mapping)
    Fail("not all arguments converted during string formatting");
  return evaluator.String(std::move(result));
}

Value FormatBraces(Evaluator& evaluator, std::string_view format, const Arguments& arguments) {
  FieldFinder finder(evaluator, arguments);
  std::string result;
  while (!format.empty()) {
    const size_t brace = std::min(format.find_first_of("{}"), format.size());
    result += format.substr(0, brace);
    format.remove_prefix(brace);
    if (format.empty()) break;
    if (format.size() > 1 && format[1] == format[0]) {
      result += format[0];
      format.remove_prefix(2);
      continue;
    }
    const size_t close = format.find('}');
    if (format[0] == '}' || close == std::string_view::npos)
      Fail("a single '{' or '}' in a format string");
    std::string_view field = format.substr(1, close - 1);
    format.remove_prefix(close + 1);
    if (field.find('{') != std::string_view::npos)
      FailUnsupported("nested fields in a format string are not supported");
    const size_t colon = std::min(field.find(':'), field.size());
    const std::string_view spec = field.substr(std::min(colon + 1, field.size()));
    field = field.substr(0, colon);
    char conversion = 0;
    if (const size_t mark = field.find('!'); mark != std::string_view::npos) {
      conversion = mark + 2 == field.size() ? field[mark + 1] : '?';
      if (conversion != 'r' && conversion != 's') Fail("unknown conversion in a format string");
      field = field.substr(0, mark);
    }
    Value value = finder.Find(field);
    if (conversion == 'r') value = Value(Repr(value));
    if (conversion == 's') value = Value(evaluator.Text(value));
    result += BraceItem(evaluator, value, spec);
  }
  return evaluator.String(std::move(result));
}

}  // namespace quern::jinja
