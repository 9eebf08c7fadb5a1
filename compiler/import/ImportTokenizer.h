// The tokenizer of a GGUF file, as TokenizerWriter takes it.
#ifndef QUERN_COMPILER_IMPORT_IMPORTTOKENIZER_H
#define QUERN_COMPILER_IMPORT_IMPORTTOKENIZER_H

#include "codegen/artifact/TokenizerWriter.h"
#include "compiler/import/Gguf.h"

#include <optional>

namespace quern::importer {

/// Reads the `tokenizer.*` keys of `file`; nothing when it has no tokenizer.
/// Errors: Malformed (keys of the wrong type, ids out of range), Unsupported
/// (anything but byte-level BPE).
ImportResult<std::optional<TokenizerSpec>>
importTokenizer(const GgufFile &file);

} // namespace quern::importer

#endif // QUERN_COMPILER_IMPORT_IMPORTTOKENIZER_H
