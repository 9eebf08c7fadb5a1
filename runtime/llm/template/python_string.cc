#include "runtime/llm/template/python_string.h"

#include <utf8proc.h>

#include <algorithm>

#include "runtime/llm/utf8.h"

namespace quern::jinja {
namespace {

utf8proc_category_t Category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}
bool IsLetter(char32_t c) {
  const auto category = Category(c);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}
bool IsCased(char32_t c) {
  const auto category = Category(c);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LT;
}
bool IsNumeric(char32_t c) {
  const auto category = Category(c);
  return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

constexpr char32_t kSharpS = 0xDF;

void AppendUpper(std::string& out, char32_t c) {
  if (c == kSharpS)
    out += "SS";
  else
    utf8::Append(out, static_cast<char32_t>(utf8proc_toupper(static_cast<int32_t>(c))));
}
void AppendLower(std::string& out, char32_t c) {
  utf8::Append(out, static_cast<char32_t>(utf8proc_tolower(static_cast<int32_t>(c))));
}
void AppendTitle(std::string& out, char32_t c) {
  if (c == kSharpS)
    out += "Ss";
  else
    utf8::Append(out, static_cast<char32_t>(utf8proc_totitle(static_cast<int32_t>(c))));
}

template <typename Visit>
void ForEach(std::string_view text, Visit visit) {
  while (!text.empty()) {
    const utf8::Scan scan = utf8::ScanOne(text);
    visit(scan.code_point);
    text.remove_prefix(scan.length);
  }
}

bool AllAre(std::string_view text, bool (*holds)(char32_t)) {
  bool all = !text.empty();
  ForEach(text, [&](char32_t c) { all = all && holds(c); });
  return all;
}

bool AllCasedAre(std::string_view text, utf8proc_category_t wanted) {
  bool any = false, all = true;
  ForEach(text, [&](char32_t c) {
    if (!IsCased(c)) return;
    any = true;
    all = all && Category(c) == wanted;
  });
  return any && all;
}

bool IsLineEnd(char32_t c) {
  return (c >= '\n' && c <= '\r') || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

std::vector<std::string> SplitBySpace(std::u32string_view text, int64_t limit, bool from_right) {
  std::vector<std::string> parts;
  auto is_space = [](char32_t c) { return IsSpace(c); };
  while (!text.empty()) {
    const bool last = limit >= 0 && static_cast<int64_t>(parts.size()) == limit;
    if (from_right) {
      while (!text.empty() && IsSpace(text.back())) text.remove_suffix(1);
      if (text.empty()) break;
      auto begin = last ? text.rend() : std::find_if(text.rbegin(), text.rend(), is_space);
      const auto length = static_cast<size_t>(begin - text.rbegin());
      parts.push_back(utf8::Encode(text.substr(text.size() - length)));
      text.remove_suffix(length);
    } else {
      while (!text.empty() && IsSpace(text.front())) text.remove_prefix(1);
      if (text.empty()) break;
      auto end = last ? text.end() : std::find_if(text.begin(), text.end(), is_space);
      const auto length = static_cast<size_t>(end - text.begin());
      parts.push_back(utf8::Encode(text.substr(0, length)));
      text.remove_prefix(length);
    }
  }
  return parts;
}

std::vector<std::string> SplitBySeparator(std::string_view text, std::string_view separator,
                                          int64_t limit, bool from_right) {
  std::vector<std::string> parts;
  while (limit < 0 || static_cast<int64_t>(parts.size()) < limit) {
    const size_t found = from_right ? text.rfind(separator) : text.find(separator);
    if (found == std::string_view::npos) break;
    if (from_right) {
      parts.emplace_back(text.substr(found + separator.size()));
      text = text.substr(0, found);
    } else {
      parts.emplace_back(text.substr(0, found));
      text.remove_prefix(found + separator.size());
    }
  }
  parts.emplace_back(text);
  return parts;
}

}  // namespace

bool IsSpace(char32_t c) {
  return (c >= '\t' && c <= '\r') || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

std::string Upper(std::string_view text) {
  std::string out;
  ForEach(text, [&](char32_t c) { AppendUpper(out, c); });
  return out;
}

std::string Lower(std::string_view text) {
  std::string out;
  ForEach(text, [&](char32_t c) { AppendLower(out, c); });
  return out;
}

std::string Capitalize(std::string_view text) {
  std::string out;
  bool first = true;
  ForEach(text, [&](char32_t c) {
    first ? AppendTitle(out, c) : AppendLower(out, c);
    first = false;
  });
  return out;
}

std::string Title(std::string_view text) {
  std::string out;
  bool in_word = false;
  ForEach(text, [&](char32_t c) {
    in_word ? AppendLower(out, c) : AppendTitle(out, c);
    in_word = IsCased(c);
  });
  return out;
}

std::string SwapCase(std::string_view text) {
  std::string out;
  ForEach(text, [&](char32_t c) {
    Category(c) == UTF8PROC_CATEGORY_LU ? AppendLower(out, c) : AppendUpper(out, c);
  });
  return out;
}

bool IsUpper(std::string_view text) { return AllCasedAre(text, UTF8PROC_CATEGORY_LU); }
bool IsLower(std::string_view text) { return AllCasedAre(text, UTF8PROC_CATEGORY_LL); }
bool IsAlpha(std::string_view text) { return AllAre(text, IsLetter); }
bool IsDigit(std::string_view text) {
  return AllAre(text, [](char32_t c) { return Category(c) == UTF8PROC_CATEGORY_ND; });
}
bool IsAlnum(std::string_view text) {
  return AllAre(text, [](char32_t c) { return IsLetter(c) || IsNumeric(c); });
}
bool IsAllSpace(std::string_view text) { return AllAre(text, IsSpace); }

std::string Strip(std::string_view text, const std::string* characters, Side side) {
  const std::u32string all = utf8::Decode(text);
  const std::u32string set = characters ? utf8::Decode(*characters) : std::u32string();
  auto dropped = [&](char32_t c) {
    return characters ? set.find(c) != std::u32string::npos : IsSpace(c);
  };
  size_t begin = 0, end = all.size();
  if (side != Side::kRight)
    while (begin < end && dropped(all[begin])) ++begin;
  if (side != Side::kLeft)
    while (end > begin && dropped(all[end - 1])) --end;
  return utf8::Encode(std::u32string_view(all).substr(begin, end - begin));
}

std::vector<std::string> Split(std::string_view text, const std::string* separator, int64_t limit,
                               bool from_right) {
  std::vector<std::string> parts = separator ? SplitBySeparator(text, *separator, limit, from_right)
                                             : SplitBySpace(utf8::Decode(text), limit, from_right);
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string> SplitLines(std::string_view text, bool keep_ends) {
  std::vector<std::string> lines;
  size_t begin = 0, at = 0;
  while (at < text.size()) {
    const utf8::Scan scan = utf8::ScanOne(text.substr(at));
    size_t next = at + scan.length;
    if (IsLineEnd(scan.code_point)) {
      if (scan.code_point == '\r' && next < text.size() && text[next] == '\n') ++next;
      lines.emplace_back(text.substr(begin, (keep_ends ? next : at) - begin));
      begin = next;
    }
    at = next;
  }
  if (begin < text.size()) lines.emplace_back(text.substr(begin));
  return lines;
}

uint64_t CountParts(std::string_view text, std::string_view part) {
  uint64_t count = 0;
  for (size_t at = text.find(part); at != std::string_view::npos;
       at = text.find(part, at + part.size()))
    ++count;
  return count;
}

std::string Replace(std::string_view text, std::string_view from, std::string_view to,
                    int64_t limit) {
  std::string out;
  if (from.empty()) {  // between all characters, as Python has it
    int64_t done = 0;
    auto put = [&] {
      if (limit < 0 || done < limit) out += to;
      ++done;
    };
    ForEach(text, [&](char32_t c) {
      put();
      utf8::Append(out, c);
    });
    put();
    return out;
  }
  size_t begin = 0;
  for (int64_t done = 0; limit < 0 || done < limit; ++done) {
    const size_t found = text.find(from, begin);
    if (found == std::string_view::npos) break;
    out += text.substr(begin, found - begin);
    out += to;
    begin = found + from.size();
  }
  out += text.substr(begin);
  return out;
}

}  // namespace quern::jinja
