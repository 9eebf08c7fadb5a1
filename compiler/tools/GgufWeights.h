//===- GgufWeights.h - Weights of a file for the interpreter ----*- C++ -*-===//
#ifndef QUERN_COMPILER_TOOLS_GGUFWEIGHTS_H
#define QUERN_COMPILER_TOOLS_GGUFWEIGHTS_H

#include "compiler/import/ImportResult.h"
#include "dialects/reference/Interpreter.h"

namespace quern {

/// A provider of the weights of the GGUF file at `path`, which stays mapped as
/// long as the provider lives. A weight whose type in the IR is another than in
/// the file is rounded to it, as packing does.
importer::ImportResult<reference::WeightProvider>
ggufWeights(const std::string &path);

} // namespace quern

#endif // QUERN_COMPILER_TOOLS_GGUFWEIGHTS_H
