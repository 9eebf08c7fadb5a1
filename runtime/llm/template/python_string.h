// Python's str methods that need Unicode. Case mapping is one character to one, except that
// sharp s becomes SS; Python also knows a few dozen other characters that grow.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace quern::jinja {

/// What str.isspace() is true for.
bool IsSpace(char32_t c);

std::string Upper(std::string_view text);
std::string Lower(std::string_view text);
std::string Capitalize(std::string_view text);
/// str.title(): the first letter of each run of letters.
std::string Title(std::string_view text);
std::string SwapCase(std::string_view text);

/// Whether all cased characters are of one case, and there is one.
bool IsUpper(std::string_view text);
bool IsLower(std::string_view text);
/// Whether `text` is not empty and holds only characters of a kind.
bool IsAlpha(std::string_view text);
bool IsDigit(std::string_view text);
bool IsAlnum(std::string_view text);
bool IsAllSpace(std::string_view text);

enum class Side { kLeft = 1, kRight = 2, kBoth = 3 };
/// Without the characters of `characters`, or white space when it is null, on some sides.
std::string Strip(std::string_view text, const std::string* characters, Side side);

/// str.split and str.rsplit by `separator` (not empty), or white space when it is null; `limit`
/// splits at most, -1: no limit.
std::vector<std::string> Split(std::string_view text, const std::string* separator, int64_t limit,
                               bool from_right);
std::vector<std::string> SplitLines(std::string_view text, bool keep_ends);

/// The number of times that `part` (not empty) is in `text`, without overlap.
uint64_t CountParts(std::string_view text, std::string_view part);
/// str.replace: at most `limit` times, -1: no limit.
std::string Replace(std::string_view text, std::string_view from, std::string_view to,
                    int64_t limit);

}  // namespace quern::jinja
