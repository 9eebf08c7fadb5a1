#include "runtime/llm/template/text.h"

#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "runtime/llm/template/error.h"
#include "runtime/llm/utf8.h"

namespace quern::jinja {
namespace {

/// str.isprintable of one character: everything but controls, unassigned, and blanks other than
/// the space.
bool IsPrintable(char32_t c) {
  if (c == ' ') return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

void AppendHex(std::string& out, const char* prefix, int digits, char32_t value) {
  char text[16];
  std::snprintf(text, sizeof(text), "%s%0*x", prefix, digits, static_cast<unsigned>(value));
  out += text;
}

std::string Joined(const std::vector<Value>& items, const char* open, const char* close) {
  std::string text = open;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i) text += ", ";
    text += Repr(items[i]);
  }
  return text + close;
}

std::string ListRepr(const List& list) {
  const std::vector<Value>& items = list.items();
  switch (list.flavor()) {
    case List::Flavor::kTuple:
      return Joined(items, "(", items.size() == 1 ? ",)" : ")");
    case List::Flavor::kItems:
      return Joined(items, "dict_items([", "])");
    case List::Flavor::kKeys:
      return Joined(items, "dict_keys([", "])");
    case List::Flavor::kValues:
      return Joined(items, "dict_values([", "])");
    case List::Flavor::kIterator:
      return "<generator>";
    case List::Flavor::kList:
    case List::Flavor::kRange:
      break;
  }
  return Joined(items, "[", "]");
}

std::string DictRepr(const Dict& dict) {
  std::string text = "{";
  for (const auto& [key, value] : dict.entries()) {
    if (text.size() > 1) text += ", ";
    text += Repr(key) + ": " + Repr(value);
  }
  return text + "}";
}

/// Writes JSON; `depth` of nesting is bounded by kMaxValueDepth.
class JsonWriter {
 public:
  explicit JsonWriter(const JsonStyle& style) : style_(style) {}

  void Write(const Value& value) {
    switch (value.kind()) {
      case Value::Kind::kNone:
        out_ += "null";
        return;
      case Value::Kind::kBool:
        out_ += value.boolean() ? "true" : "false";
        return;
      case Value::Kind::kInt:
        out_ += std::to_string(value.integer());
        return;
      case Value::Kind::kDouble:
        out_ += Number(value.number());
        return;
      case Value::Kind::kString:
        WriteString(value.string());
        return;
      case Value::Kind::kDict:
        WriteDict(value.dict());
        return;
      case Value::Kind::kList:
        if (value.list().flavor() <= List::Flavor::kTuple) return WriteList(value.list());
        break;
      default:
        break;
    }
    Fail("a value of type " + std::string(value.TypeName()) + " cannot be written as JSON");
  }

  std::string Take() { return std::move(out_); }

 private:
  static std::string Number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
    return FloatRepr(value);
  }

  void NewLine() {
    if (!style_.indent) return;
    out_ += '\n';
    for (int i = 0; i < depth_; ++i) out_ += *style_.indent;
  }

  void WriteList(const List& list) {
    if (list.items().empty()) {
      out_ += "[]";
      return;
    }
    out_ += '[';
    ++depth_;
    for (size_t i = 0; i < list.items().size(); ++i) {
      if (i) out_ += style_.item_separator;
      NewLine();
      Write(list.items()[i]);
    }
    --depth_;
    NewLine();
    out_ += ']';
  }

  void WriteDict(const Dict& dict) {
    if (dict.size() == 0) {
      out_ += "{}";
      return;
    }
    std::vector<std::pair<std::string, const Value*>> entries;
    for (const auto& [key, value] : dict.entries()) entries.emplace_back(KeyText(key), &value);
    if (style_.sort_keys)
      std::sort(entries.begin(), entries.end(),
                [](const auto& a, const auto& b) { return a.first < b.first; });
    out_ += '{';
    ++depth_;
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i) out_ += style_.item_separator;
      NewLine();
      WriteString(entries[i].first);
      out_ += style_.key_separator;
      Write(*entries[i].second);
    }
    --depth_;
    NewLine();
    out_ += '}';
  }

  static std::string KeyText(const Value& key) {
    switch (key.kind()) {
      case Value::Kind::kString:
        return key.string();
      case Value::Kind::kNone:
        return "null";
      case Value::Kind::kBool:
        return key.boolean() ? "true" : "false";
      case Value::Kind::kInt:
        return std::to_string(key.integer());
      case Value::Kind::kDouble:
        return Number(key.number());
      default:
        Fail("JSON keys are strings, not " + std::string(key.TypeName()));
    }
  }

  void WriteString(std::string_view text) {
    out_ += '"';
    while (!text.empty()) {
      const utf8::Scan scan = utf8::ScanOne(text);
      WriteCharacter(scan.code_point);
      text.remove_prefix(scan.length);
    }
    out_ += '"';
  }

  void WriteCharacter(char32_t c) {
    switch (c) {
      case '"':
        out_ += "\\\"";
        return;
      case '\\':
        out_ += "\\\\";
        return;
      case '\n':
        out_ += "\\n";
        return;
      case '\r':
        out_ += "\\r";
        return;
      case '\t':
        out_ += "\\t";
        return;
      case '\f':
        out_ += "\\f";
        return;
      case '\b':
        out_ += "\\b";
        return;
      default:
        break;
    }
    if (c >= 0x20 && (c < 0x7F || !style_.ensure_ascii)) {
      utf8::Append(out_, c);
    } else if (c >= 0x10000) {
      AppendHex(out_, "\\u", 4, 0xD800 + ((c - 0x10000) >> 10));
      AppendHex(out_, "\\u", 4, 0xDC00 + ((c - 0x10000) & 0x3FF));
    } else {
      AppendHex(out_, "\\u", 4, c);
    }
  }

  const JsonStyle& style_;
  std::string out_;
  int depth_ = 0;
};

}  // namespace

std::string FloatRepr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[64];
  const auto written = std::to_chars(buffer, buffer + sizeof(buffer), std::abs(value),
                                     std::chars_format::scientific);
  const std::string_view text(buffer, static_cast<size_t>(written.ptr - buffer));
  const size_t e = text.find('e');
  std::string digits(text.substr(0, e));
  if (digits.size() > 1) digits.erase(1, 1);  // the point
  int exponent = 0;
  const char* from = buffer + e + (text[e + 1] == '+' ? 2 : 1);
  std::from_chars(from, written.ptr, exponent);

  std::string result = std::signbit(value) ? "-" : "";
  if (exponent < -4 || exponent >= 16) {
    result += digits[0];
    if (digits.size() > 1) result += "." + digits.substr(1);
    std::snprintf(buffer, sizeof(buffer), "e%c%02d", exponent < 0 ? '-' : '+', std::abs(exponent));
    return result + buffer;
  }
  if (exponent < 0) return result + "0." + std::string(size_t(-exponent - 1), '0') + digits;
  const auto whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() < whole) digits.append(whole - digits.size(), '0');
  std::string fraction = digits.substr(whole);
  return result + digits.substr(0, whole) + "." + (fraction.empty() ? "0" : fraction);
}

std::string StringRepr(std::string_view text) {
  const bool single =
      text.find('\'') == std::string_view::npos || text.find('"') != std::string_view::npos;
  const char quote = single ? '\'' : '"';
  std::string out(1, quote);
  while (!text.empty()) {
    const utf8::Scan scan = utf8::ScanOne(text);
    text.remove_prefix(scan.length);
    const char32_t c = scan.code_point;
    if (c == '\\' || c == static_cast<char32_t>(quote)) {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (IsPrintable(c)) {
      utf8::Append(out, c);
    } else if (c < 0x100) {
      AppendHex(out, "\\x", 2, c);
    } else if (c < 0x10000) {
      AppendHex(out, "\\u", 4, c);
    } else {
      AppendHex(out, "\\U", 8, c);
    }
  }
  return out + quote;
}

std::string Repr(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      return "Undefined";
    case Value::Kind::kNone:
      return "None";
    case Value::Kind::kBool:
      return value.boolean() ? "True" : "False";
    case Value::Kind::kInt:
      return std::to_string(value.integer());
    case Value::Kind::kDouble:
      return FloatRepr(value.number());
    case Value::Kind::kString:
      return StringRepr(value.string());
    case Value::Kind::kList:
      return ListRepr(value.list());
    case Value::Kind::kDict:
      return DictRepr(value.dict());
    case Value::Kind::kNamespace:
      return "<Namespace>";
    case Value::Kind::kCallable:
      return "<function " + value.callable().name + ">";
  }
  return {};
}

std::string Str(const Value& value) {
  if (value.is_string()) return value.string();
  if (value.is_undefined()) return {};
  return Repr(value);
}

std::string Json(const Value& value, const JsonStyle& style) {
  JsonWriter writer(style);
  writer.Write(value);
  return writer.Take();
}

}  // namespace quern::jinja
