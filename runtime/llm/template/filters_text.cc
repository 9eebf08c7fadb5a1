// Filters of text and of single values.
#include <charconv>
#include <cmath>

#include "runtime/llm/template/arguments.h"
#include "runtime/llm/template/error.h"
#include "runtime/llm/template/filters.h"
#include "runtime/llm/template/format.h"
#include "runtime/llm/template/operators.h"
#include "runtime/llm/template/python_string.h"
#include "runtime/llm/template/text.h"
#include "runtime/llm/utf8.h"

namespace quern::jinja {
namespace {

template <std::string (*kConvert)(std::string_view)>
Value Convert(Evaluator& evaluator, const Value& input, Arguments& arguments) {
  BoundArguments::RequireNone("the filter", arguments);
  return evaluator.String(kConvert(evaluator.Text(input)));
}

/// Jinja's title(), which begins words after blanks, hyphens and opening brackets only.
std::string JinjaTitle(std::string_view text) {
  std::string result;
  bool beginning = true;
  while (!text.empty()) {
    const size_t length = utf8::ScanOne(text).length;
    const std::string_view character = text.substr(0, length);
    const bool separator = std::string_view("-({[<").find(character) != std::string_view::npos ||
                           IsSpace(utf8::ScanOne(text).code_point);
    result += beginning ? Upper(character) : Lower(character);
    beginning = separator;
    text.remove_prefix(length);
  }
  return result;
}

Value Trim(Evaluator& evaluator, const Value& input, Arguments& arguments) {
  const BoundArguments bound("trim", arguments, {"chars"});
  const bool given = bound.Has(0) && !bound.Require(0).is_none();
  const std::string characters = bound.String(0, "");
  const std::string text = evaluator.Text(input);
  evaluator.Charge(text.size() / 16 * (1 + characters.size()));
  return evaluator.String(Strip(text, given ? &characters : nullptr, Side::kBoth));
}

Value ReplaceFilter(Evaluator& evaluator, const Value& input, Arguments& arguments) {
  const BoundArguments bound("replace", arguments, {"old", "new", "count"});
  const std::string text = evaluator.Text(input);
  const std::string from = evaluator.Text(bound.Require(0));
  const std::string to = evaluator.Text(bound.Require(1));
  const uint64_t places = from.empty() ? text.size() + 1 : CountParts(text, from);
  evaluator.ChargeBytes(text.size());
  for (uint64_t left = places; left > 0;) {  // places * to.size() may overflow
    const uint64_t some = std::min<uint64_t>(left, 1 << 20);
    evaluator.ChargeBytes(some * to.size());
    left -= some;
  }
  return Replace(text, from, to, bound.Integer(2, -1));
}

Value DefaultFilter(Evaluator&, const Value& input, Arguments& arguments) {
  const BoundArguments bound("default", arguments, {"default_value", "boolean"});
  const bool missing = input.is_undefined() || (bound.Flag(1, false) && !Truthy(input));
  return missing ? bound.Or(0, "") : input;
}

Value ToString(Evaluator& evaluator, const Value& input, Arguments& arguments) {
  BoundArguments::RequireNone("string", arguments);
  return input.is_string() ? input : Value(evaluator.Text(input));
}

Value Escape(Evaluator& evaluator, const Value& input, Arguments& arguments) {
  BoundArguments::RequireNone("escape", arguments);
  std::string result;
  const std::string text = evaluator.Text(input);
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&#34;";
        break;
      case '\'':
        result += "&#39;";
        break;
      default:
        result += c;
    }
  }
  return evaluator.String(std::move(result));
}

/// The number that all of `text` is, underscores between digits and blanks around it allowed.
std::optional<Value> ParseNumber(std::string_view text, int64_t base) {
  std::string digits = Strip(text, nullptr, Side::kBoth);
  std::erase(digits, '_');
  const bool negative = digits.starts_with('-');
  std::string_view body = digits;
  if (negative || body.starts_with('+')) body.remove_prefix(1);
  int64_t integer = 0;
  const auto [rest, error] =
      std::from_chars(body.data(), body.data() + body.size(), integer, static_cast<int>(base));
  if (body.empty() || body[0] == '-') return std::nullopt;
  if (error == std::errc() && rest == body.data() + body.size())
    return Value(negative ? -integer : integer);
  double number = 0;
  const auto real = std::from_chars(body.data(), body.data() + body.size(), number);
  if (real.ec == std::errc() && real.ptr == body.data() + body.size())
    return Value(negative ? -number : number);
  return std::nullopt;
}

bool FitsInteger(double number) { return std::abs(number) < 0x1p63; }  // false for NaN

Value ToInteger(Evaluator&, const Value& input, Arguments& arguments) {
  const BoundArguments bound("int", arguments, {"default", "base"});
  const int64_t base = bound.Integer(1, 10);
  if (base < 2 || base > 36) Fail("the base of int is " + std::to_string(base));
  Value number = input;
  if (input.is_string()) {
    std::string_view text = input.string();
    if (base == 16 && (text.starts_with("0x") || text.starts_with("0X"))) text.remove_prefix(2);
    number = ParseNumber(text, base).value_or(Value(None{}));
  } else {
    RequireDefined(input);
  }
  if (number.is_integral()) return number.integer();
  if (number.is_double() && FitsInteger(number.number()))
    return static_cast<int64_t>(number.number());
  return bound.Or(0, int64_t{0});
}

Value ToFloat(Evaluator&, const Value& input, Arguments& arguments) {
  const BoundArguments bound("float", arguments, {"default"});
  RequireDefined(input);
  if (input.is_number()) return input.number();
  if (input.is_string())
    if (const std::optional<Value> number = ParseNumber(input.string(), 10))
      return number->number();
  return bound.Or(0, 0.0);
}

Value Abs(Evaluator&, const Value& input, Arguments& arguments) {
  BoundArguments::RequireNone("abs", arguments);
  RequireDefined(input);
  if (input.is_integral()) return input.integer() < 0 ? Negate(input) : Value(input.integer());
  if (input.is_double()) return std::abs(input.number());
  Fail("bad operand type for abs: '" + std::string(input.TypeName()) + "'");
}

/// Python's round(): correctly rounded decimal digits, ties to even.
double RoundDecimal(double value, int64_t digits) {
  if (!std::isfinite(value) || digits > 300) return value;
  if (digits < 0) {
    const double scale = std::pow(10.0, static_cast<double>(-digits));
    return std::nearbyint(value / scale) * scale;
  }
  char text[700];
  std::snprintf(text, sizeof(text), "%.*f", static_cast<int>(digits), value);
  double rounded = value;
  std::from_chars(text, text + std::string_view(text).size(), rounded);
  return rounded;
}

Value Round(Evaluator&, const Value& input, Arguments& arguments) {
  const BoundArguments bound("round", arguments, {"precision", "method"});
  RequireDefined(input);
  if (!input.is_number())
    Fail("a value of type '" + std::string(input.TypeName()) + "' cannot be rounded");
  const int64_t precision = std::clamp<int64_t>(bound.Integer(0, 0), -400, 400);
  const std::string method = bound.String(1, "common");
  if (method == "common") {
    if (input.is_integral() && precision >= 0) return input.integer();
    const double rounded = RoundDecimal(input.number(), precision);
    return input.is_integral() && FitsInteger(rounded) ? Value(static_cast<int64_t>(rounded))
                                                       : Value(rounded);
  }
  if (method != "ceil" && method != "floor") Fail("method must be common, ceil or floor");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = input.number() * scale;
  return (method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale;
}

Value Indent(Evaluator& evaluator, const Value& input, Arguments& arguments) {
  const BoundArguments bound("indent", arguments, {"width", "first", "blank"});
  std::string by;
  if (bound.Has(0) && bound.Require(0).is_string()) {
    by = bound.Require(0).string();
  } else {
    const int64_t width = bound.Integer(0, 4);
    if (width > 1000) Fail("the width of indent is above 1000");
    by = std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
  }
  std::string result = bound.Flag(1, false) ? by : "";
  const std::string text = evaluator.Text(input);
  if (bound.Flag(2, false)) {  // blank lines too: every line end is followed by the indent
    evaluator.ChargeBytes(CountParts(text, "\n") * by.size());
    return evaluator.String(result + Replace(text, "\n", "\n" + by, -1));
  }
  const std::vector<std::string> lines = SplitLines(text + "\n", false);
  for (size_t i = 0; i < lines.size(); ++i) {
    evaluator.ChargeBytes(lines[i].size() + by.size() + 1);
    if (i) result += '\n';
    if (i && !lines[i].empty()) result += by;
    result += lines[i];
  }
  return result;
}

Value WordCount(Evaluator& evaluator, const Value& input, Arguments& arguments) {
  BoundArguments::RequireNone("wordcount", arguments);
  int64_t count = 0;
  bool in_word = false;
  for (const char32_t c : utf8::Decode(evaluator.Text(input))) {
    std::string one;
    utf8::Append(one, c);
    const bool word = c == '_' || IsAlnum(one);
    count += word && !in_word;
    in_word = word;
  }
  return count;
}

Value FormatFilter(Evaluator& evaluator, const Value& input, Arguments& arguments) {
  const std::string format = evaluator.Text(input);
  if (arguments.named.empty())
    return FormatPercent(evaluator, format,
                         evaluator.List(arguments.positional, List::Flavor::kTuple));
  if (!arguments.positional.empty()) Fail("format takes positional or named values, not both");
  auto dict = std::make_shared<Dict>();
  for (const auto& [name, value] : arguments.named) dict->Set(Value(name), value);
  return FormatPercent(evaluator, format, dict);
}

Value ToJson(Evaluator& evaluator, const Value& input, Arguments& arguments) {
  const BoundArguments bound("tojson", arguments,
                             {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = bound.Flag(0, false);
  style.sort_keys = bound.Flag(3, false);
  if (bound.Has(1) && !bound.Require(1).is_none()) {
    if (bound.Require(1).is_string()) {
      style.indent = bound.Require(1).string();
    } else {
      const int64_t width = RequireInteger(bound.Require(1), "the indent of tojson");
      style.indent = std::string(static_cast<size_t>(std::clamp<int64_t>(width, 0, 100)), ' ');
    }
    style.item_separator = ",";
  }
  if (bound.Has(2) && !bound.Require(2).is_none()) {
    const std::vector<Value> separators = evaluator.Iterate(bound.Require(2));
    if (separators.size() != 2) Fail("the separators of tojson are two strings");
    style.item_separator = RequireString(separators[0], "a separator of tojson");
    style.key_separator = RequireString(separators[1], "a separator of tojson");
  }
  RequireDefined(input);
  const uint64_t around = style.item_separator.size() + style.key_separator.size() +
                          (style.indent ? style.indent->size() * input.depth() : 0);
  if (around > 20000) Fail("the indent or separators of tojson are too long");
  evaluator.Charge(input.weight());
  evaluator.ChargeBytes(input.weight() * (around + 16));
  return Json(input, style);
}

Value Attr(Evaluator& evaluator, const Value& input, Arguments& arguments) {
  const BoundArguments bound("attr", arguments, {"name"});
  const Value& name = bound.Require(0);
  // As in jinja2 this sees attributes only, never the keys of a dict.
  const Value object = input.is_dict() ? Value(std::make_shared<Dict>()) : input;
  return evaluator.GetAttribute(object, RequireString(name, "the name of attr"));
}

Value Safe(Evaluator& evaluator, const Value& input, Arguments& arguments) {
  BoundArguments::RequireNone("safe", arguments);
  return input.is_string() ? input : Value(evaluator.Text(input));
}

constexpr FilterEntry kFilters[] = {
    {"abs", Abs},
    {"attr", Attr},
    {"capitalize", Convert<Capitalize>},
    {"d", DefaultFilter},
    {"default", DefaultFilter},
    {"e", Escape},
    {"escape", Escape},
    {"float", ToFloat},
    {"forceescape", Escape},
    {"format", FormatFilter},
    {"indent", Indent},
    {"int", ToInteger},
    {"lower", Convert<Lower>},
    {"replace", ReplaceFilter},
    {"round", Round},
    {"safe", Safe},
    {"string", ToString},
    {"title", Convert<JinjaTitle>},
    {"tojson", ToJson},
    {"trim", Trim},
    {"upper", Convert<Upper>},
    {"wordcount", WordCount},
};

}  // namespace

std::span<const FilterEntry> TextFilters() { return kFilters; }

}  // namespace quern::jinja
