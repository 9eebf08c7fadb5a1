// Facts and text that the GGUF reader needs: sizes and names of types, and how
// strings of a hostile file appear in messages.
#ifndef QUERN_COMPILER_IMPORT_GGUFTEXT_H
#define QUERN_COMPILER_IMPORT_GGUFTEXT_H

#include "compiler/import/Gguf.h"

#include <string>
#include <string_view>

namespace quern::importer {

/// Bytes of a scalar of `type`; 0 for strings and arrays.
uint64_t ggufTypeBytes(GgufType type);

/// `text` in double quotes, at most 64 bytes of it, with control characters and
/// bytes above 126 as \xNN: one printable line whatever a file holds.
std::string quoted(std::string_view text);

/// Whether `text` is well-formed UTF-8 (no overlong forms, no surrogates).
bool isValidUtf8(std::string_view text);

/// A tensor type for messages: number, and GGUF's name where it has one.
std::string ggmlTypeText(uint32_t type);

/// "f32, f16, bf16, q4_0, ...": the tensor types Quern reads.
std::string supportedFormatsText();

} // namespace quern::importer

#endif // QUERN_COMPILER_IMPORT_GGUFTEXT_H
