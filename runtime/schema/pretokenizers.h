// How text is cut into pieces before byte pair encoding: one row per value of GGUF's
// `tokenizer.ggml.pre`. Pure data, read by the compiler, which writes the patterns into the
// artifact; the runtime knows patterns only.
#pragma once

#include <span>
#include <string_view>

namespace quern::schema {

struct PreTokenizer {
  std::string_view name;  ///< As in `tokenizer.ggml.pre`.
  /// PCRE2 patterns for UTF mode, applied in turn (tokenizer.fbs, `pre_tokenizer_patterns`).
  std::span<const std::string_view> patterns;
  bool nfc;            ///< Text is put in Unicode normalization form C first.
  bool ignore_merges;  ///< A piece that is a token as a whole is not merged.
};

/// All rows, in the order of the file.
std::span<const PreTokenizer> PreTokenizers();

/// The row called `name`, or null.
const PreTokenizer* FindPreTokenizer(std::string_view name);

}  // namespace quern::schema
