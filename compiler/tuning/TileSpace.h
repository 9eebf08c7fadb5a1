//===- TileSpace.h - Which tiles are worth trying ---------------*- C++ -*-===//
#ifndef QUERN_COMPILER_TUNING_TILESPACE_H
#define QUERN_COMPILER_TUNING_TILESPACE_H

#include "codegen/target/Target.h"
#include "llvm/ADT/StringRef.h"

#include <vector>

namespace quern {

/// Tiles for kernels of `generator` that differ from `base` in rows alone,
/// within what the generator takes (codegen/target/Target.h). Keys stay: they
/// would change the sums of attention. Empty for generators without a choice.
std::vector<Tile> rowsToTry(llvm::StringRef generator, const Tile &base);

/// Tiles that differ from `base` in the distance of prefetches; empty for
/// generators that stream no weights.
std::vector<Tile> prefetchesToTry(llvm::StringRef generator, const Tile &base);

/// Tiles that differ from `base` in blocks, and perhaps in rows.
std::vector<Tile> blocksToTry(llvm::StringRef generator, const Tile &base);

} // namespace quern

#endif // QUERN_COMPILER_TUNING_TILESPACE_H
