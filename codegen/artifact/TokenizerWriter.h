//===- TokenizerWriter.h - The tokenizer segment of an artifact -----------===//
//
// Turns a tokenizer as a model file describes it into the segment that the
// runtime reads (runtime/schema/tokenizer.fbs). Plain C++: no MLIR, no LLVM.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_ARTIFACT_TOKENIZERWRITER_H
#define QUERN_CODEGEN_ARTIFACT_TOKENIZERWRITER_H

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace quern {

/// A byte-level BPE tokenizer in GGUF's terms.
struct TokenizerSpec {
  /// `tokenizer.ggml.tokens`: normal tokens in the letters of byte-level BPE
  /// (a space is U+0120), the others as plain text.
  std::vector<std::string> tokens;
  /// `tokenizer.ggml.token_type`, one a token; empty: all normal.
  std::vector<int32_t> types;
  /// `tokenizer.ggml.merges`: "left right", best first.
  std::vector<std::string> merges;
  /// `tokenizer.ggml.pre`.
  std::string preTokenizer;
  /// Ids of tokens with a role; -1 where there is none.
  int32_t bos = -1, eos = -1, eot = -1, pad = -1, unknown = -1;
  bool addBos = false, addEos = false;
  /// Ends of an answer beside `eos`, `eot` and the usual names (<|im_end|>,
  /// <|eot_id|>, ...), which are found by themselves.
  std::vector<int32_t> endOfGeneration;
  /// Jinja source, or empty.
  std::string chatTemplate;
};

/// Why a segment cannot be written: one line, no final period.
struct TokenizerError {
  enum class Kind {
    Malformed,   ///< The spec contradicts itself.
    Unsupported, ///< Well formed, but nothing here can run it.
  };
  Kind kind;
  std::string message;
};

/// The bytes of the segment. The same spec gives the same bytes.
std::variant<std::vector<uint8_t>, TokenizerError>
buildTokenizerSegment(const TokenizerSpec &spec);

} // namespace quern

#endif // QUERN_CODEGEN_ARTIFACT_TOKENIZERWRITER_H
