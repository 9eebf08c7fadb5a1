//===- Phases.h - The phases of a compilation -------------------*- C++ -*-===//
//
// A model passes through the phases below, in this order. docs/phases.md has a
// row for each, tests/compiler/phases.mlir shows a model after each.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_COMPILER_PIPELINE_PHASES_H
#define QUERN_COMPILER_PIPELINE_PHASES_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"

#include <cstdint>
#include <optional>
#include <string>

namespace quern {

enum class Phase : uint8_t {
  Import,
  Normalize,
  Quantize,
  Fuse,
  Tile,
  Kernels,
  Lower,
  Memory,
  Codegen,
  Artifact,
};

/// A row of the table of phases.
struct PhaseInfo {
  Phase phase;
  /// `--compile-to=` and file names of dumps.
  llvm::StringLiteral name;
  /// What the phase does, in one sentence.
  llvm::StringLiteral sentence;
};

/// All phases, in order.
llvm::ArrayRef<PhaseInfo> phases();

/// The table's row of `phase`.
const PhaseInfo &phaseInfo(Phase phase);

/// The phase called `name`.
std::optional<Phase> parsePhase(llvm::StringRef name);

/// Phases whose result is a module, and so can be dumped and resumed: import to
/// memory.
constexpr bool isIrPhase(Phase phase) { return phase <= Phase::Memory; }

/// File name of the module after an IR phase: "05-tile.mlir".
std::string dumpFileName(Phase phase);

} // namespace quern

#endif // QUERN_COMPILER_PIPELINE_PHASES_H
