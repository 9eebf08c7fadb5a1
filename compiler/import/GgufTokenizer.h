// The tokenizer of a GGUF file, as the artifact's tokenizer writer wants it.
#ifndef QUERN_COMPILER_IMPORT_GGUFTOKENIZER_H
#define QUERN_COMPILER_IMPORT_GGUFTOKENIZER_H

#include "codegen/artifact/TokenizerWriter.h"
#include "compiler/import/Gguf.h"

namespace quern::importer {

/// Reads the `tokenizer.*` metadata of a model whose embedding has `vocab`
/// rows; nothing when the file has no tokenizer. Checked here: types of the
/// values, lengths against each other and against `vocab`, ids against the
/// vocabulary, UTF-8. What the pieces mean (merges, byte letters, the
/// pre-tokenizer's name) buildTokenizerSegment() checks. Errors: Malformed;
/// Unsupported for tokenizers other than byte-level BPE.
ImportResult<std::optional<TokenizerSpec>> readTokenizer(const GgufFile &file,
                                                         int64_t vocab);

} // namespace quern::importer

#endif // QUERN_COMPILER_IMPORT_GGUFTOKENIZER_H
