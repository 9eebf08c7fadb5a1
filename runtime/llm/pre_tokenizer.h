// Cutting text into the pieces that byte pair encoding works on, by regular expressions.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

struct pcre2_real_code_8;

namespace quern {

/// A compiled list of patterns (tokenizer.fbs, `pre_tokenizer_patterns`). Immutable: threads may
/// share one.
class PreTokenizer {
 public:
  static constexpr size_t kMaxPatterns = 32;
  static constexpr size_t kMaxPatternBytes = 16384;

  /// Errors: kMalformed with the pattern's number, and PCRE2's message and offset; kOutOfMemory.
  static Result<PreTokenizer> Create(const std::vector<std::string_view>& patterns);

  /// The pieces of `text`, valid UTF-8, in order and without gaps. Errors: kMalformed when a
  /// pattern exceeds its match limit; kOutOfMemory.
  Result<std::vector<std::string_view>> Split(std::string_view text) const;

 private:
  struct FreeCode {
    void operator()(pcre2_real_code_8* code) const;
  };
  using Code = std::unique_ptr<pcre2_real_code_8, FreeCode>;

  Status SplitBy(size_t pattern, const std::vector<std::string_view>& pieces,
                 std::vector<std::string_view>& out) const;

  std::vector<Code> codes_;
};

}  // namespace quern
