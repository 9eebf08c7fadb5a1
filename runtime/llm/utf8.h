// UTF-8, as the Unicode standard (15.0, sections 3.9 and D92) defines it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace quern::utf8 {

inline constexpr char32_t kReplacement = 0xFFFD;

/// What stands at the beginning of some bytes.
struct Scan {
  enum class Kind {
    kCharacter,   ///< A character of `length` bytes.
    kIllFormed,   ///< `length` bytes that are one U+FFFD: a maximal subpart.
    kIncomplete,  ///< The bytes end inside what may still become a character.
  };
  Kind kind;
  size_t length;
  char32_t code_point;
};

/// Looks at the beginning of `bytes`, which must not be empty.
Scan ScanOne(std::string_view bytes);

void Append(std::string& text, char32_t code_point);

bool IsValid(std::string_view bytes);

/// `bytes` with each maximal subpart of an ill-formed sequence as one U+FFFD.
std::string Sanitize(std::string_view bytes);

/// The code points of valid UTF-8.
std::u32string Decode(std::string_view text);
std::string Encode(std::u32string_view code_points);

/// The number of code points of valid UTF-8.
size_t Length(std::string_view text);

}  // namespace quern::utf8
