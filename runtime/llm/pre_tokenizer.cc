#define PCRE2_CODE_UNIT_WIDTH 8
#include "runtime/llm/pre_tokenizer.h"

#include <pcre2.h>

#include <algorithm>
#include <cstdint>

#include "runtime/llm/utf8.h"

namespace quern {
namespace {

struct FreeMatch {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

std::string ErrorText(int code) {
  PCRE2_UCHAR text[256];
  if (pcre2_get_error_message(code, text, sizeof(text)) < 0) return std::to_string(code);
  return reinterpret_cast<const char*>(text);
}

/// Runs one pattern over pieces. The scratch of PCRE2 is made once.
class Matcher {
 public:
  explicit Matcher(const pcre2_code* code)
      : code_(code),
        data_(pcre2_match_data_create(1, nullptr)),
        context_(pcre2_match_context_create(nullptr)) {}

  /// False when there was no memory.
  bool ok() const { return data_ && context_; }

  /// Finds the first non-empty match at or after `start`. Returns PCRE2's result: 1 found,
  /// PCRE2_ERROR_NOMATCH, or another error.
  int Find(std::string_view text, size_t start, size_t& begin, size_t& end) {
    // A run of white space costs a step per character, so the limit grows with the text.
    const size_t limit = std::clamp<size_t>(16 * text.size(), 1'000'000, UINT32_MAX);
    pcre2_set_match_limit(context_.get(), static_cast<uint32_t>(limit));
    constexpr uint32_t kOptions = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY;
    int found = Match(text, start, kOptions);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) found = Match(text, start, kOptions | PCRE2_NO_JIT);
    if (found < 0) return found;
    const PCRE2_SIZE* span = pcre2_get_ovector_pointer(data_.get());
    begin = span[0];
    end = span[1];
    // \K may move the beginning past the end or before the start; no pattern of ours has it.
    return begin >= start && end > begin ? 1 : PCRE2_ERROR_NOMATCH;
  }

 private:
  int Match(std::string_view text, size_t start, uint32_t options) {
    const int found = pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                  start, options, data_.get(), context_.get());
    return found >= 0 ? 1 : found;
  }

  const pcre2_code* code_;
  std::unique_ptr<pcre2_match_data, FreeMatch> data_;
  std::unique_ptr<pcre2_match_context, FreeMatch> context_;
};

}  // namespace

void PreTokenizer::FreeCode::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }

Result<PreTokenizer> PreTokenizer::Create(const std::vector<std::string_view>& patterns) {
  if (patterns.size() > kMaxPatterns)
    return Malformed("tokenizer has " + std::to_string(patterns.size()) +
                     " pre-tokenizer patterns, at most " + std::to_string(kMaxPatterns) +
                     " are allowed");
  PreTokenizer result;
  for (size_t i = 0; i < patterns.size(); ++i) {
    if (patterns[i].size() > kMaxPatternBytes)
      return Malformed("pre-tokenizer pattern " + std::to_string(i) + " has " +
                       std::to_string(patterns[i].size()) + " bytes, at most " +
                       std::to_string(kMaxPatternBytes) + " are allowed");
    int error = 0;
    PCRE2_SIZE offset = 0;
    constexpr uint32_t kOptions = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C;
    Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(patterns[i].data()), patterns[i].size(),
                            kOptions, &error, &offset, nullptr));
    if (!code && error == PCRE2_ERROR_HEAP_FAILED)
      return OutOfMemory("no memory for compiling pre-tokenizer pattern " + std::to_string(i));
    if (!code)
      return Malformed("pre-tokenizer pattern " + std::to_string(i) + " is not a PCRE2 pattern: " +
                       ErrorText(error) + " at byte " + std::to_string(offset));
    // Without a JIT the same pattern is interpreted.
    (void)pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
    result.codes_.push_back(std::move(code));
  }
  return result;
}

Result<std::vector<std::string_view>> PreTokenizer::Split(std::string_view text) const {
  std::vector<std::string_view> pieces;
  if (text.empty()) return pieces;
  pieces.push_back(text);
  for (size_t i = 0; i < codes_.size(); ++i) {
    std::vector<std::string_view> finer;
    finer.reserve(std::max(pieces.size(), text.size() / 8));
    QUERN_RETURN_IF_ERROR(SplitBy(i, pieces, finer));
    pieces = std::move(finer);
  }
  return pieces;
}

Status PreTokenizer::SplitBy(size_t pattern, const std::vector<std::string_view>& pieces,
                             std::vector<std::string_view>& out) const {
  Matcher matcher(codes_[pattern].get());
  if (!matcher.ok()) return OutOfMemory("no memory for matching a pre-tokenizer pattern");
  for (const std::string_view piece : pieces) {
    size_t position = 0;
    while (position < piece.size()) {
      size_t begin = 0, end = 0;
      const int found = matcher.Find(piece, position, begin, end);
      if (found == PCRE2_ERROR_NOMATCH) break;
      if (found == PCRE2_ERROR_NOMEMORY)
        return OutOfMemory("no memory for matching a pre-tokenizer pattern");
      if (found < 0)
        return Malformed("pre-tokenizer pattern " + std::to_string(pattern) +
                         " cannot be matched: " + ErrorText(found) + " at byte " +
                         std::to_string(position));
      if (begin > position) out.push_back(piece.substr(position, begin - position));
      out.push_back(piece.substr(begin, end - begin));
      position = end;
    }
    if (position < piece.size()) out.push_back(piece.substr(position));
  }
  return {};
}

}  // namespace quern
