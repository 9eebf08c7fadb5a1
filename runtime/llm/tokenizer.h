// Text to token ids and back, from the tokenizer segment of an artifact.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

namespace quern {

struct EncodeOptions {
  /// Put the tokens around the text that the model asks for (add_bos, add_eos).
  bool add_special = true;
  /// Read control tokens written in the text, such as `<|im_end|>`, as those tokens. Turn it off
  /// for text from people: then they are plain letters. User-defined tokens are always read.
  bool parse_special = false;
  /// What MarkControl() put into parts of the text, or empty. It is taken out again once the
  /// control tokens are read.
  std::string_view mark = {};
};

struct DecodeOptions {
  /// Leave control tokens out.
  bool skip_special = false;
};

/// Byte-level BPE. Immutable after Create, so threads may share one.
///
/// Invalid UTF-8: before anything else, each maximal subpart of an ill-formed sequence becomes one
/// U+FFFD (Unicode 15, 3.9, "best practice"; what Python's errors="replace" does). For valid text
/// (in normalization form C where the model asks for it) Decode(Encode(x)) == x, unless the
/// vocabulary has no token for some byte, as SmolLM2's has none for 0x1D: such bytes are left out,
/// as Hugging Face's tokenizers leaves them out.
class Tokenizer {
 public:
  /// Checks `segment` (runtime/schema/tokenizer.fbs) whole and builds the lookup tables. `segment`
  /// must outlive the tokenizer: token bytes and the template stay there.
  /// Errors: kMalformed with the field and index; kUnsupported for a kind this build lacks.
  static Result<Tokenizer> Create(std::span<const uint8_t> segment);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  /// Time is O(n log n) in the bytes of `text`. Errors: kUsage above kMaxTextBytes; kMalformed when
  /// a pattern of the segment exceeds its match limit.
  Result<std::vector<int32_t>> Encode(std::string_view text, EncodeOptions options = {}) const;

  /// `text` with `mark` inside whatever Encode() would read as a control token, also where the text
  /// ends in the beginning of one: so it stays plain letters when it becomes part of a larger text
  /// that is encoded with `parse_special` and the same `mark`. `mark` is valid UTF-8 that occurs in
  /// none of the texts. (A control token of a single character has no inside; it is not held back.)
  std::string MarkControl(std::string_view text, std::string_view mark) const;

  /// The bytes of `ids`, which need not be valid UTF-8 (see TextStream). Error: kUsage for an id
  /// that is no token.
  Result<std::string> Decode(std::span<const int32_t> ids, DecodeOptions options = {}) const;

  int32_t vocab_size() const;
  /// Empty for an id that is no token.
  std::string_view TokenBytes(int32_t id) const;
  /// Control tokens steer the model and are not text.
  bool IsControl(int32_t id) const;
  bool IsEndOfGeneration(int32_t id) const;

  /// -1 where the model has none.
  int32_t bos() const;
  int32_t eos() const;
  int32_t eot() const;
  int32_t pad() const;
  int32_t unknown() const;
  bool add_bos() const;
  std::span<const int32_t> end_of_generation() const;
  /// Jinja source for runtime/llm/template; empty where the model has none.
  std::string_view chat_template() const;
  std::string_view pre_tokenizer_name() const;

  static constexpr size_t kMaxTextBytes = size_t{256} << 20;
  static constexpr size_t kMaxTokenBytes = 1024;

 private:
  class Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace quern
