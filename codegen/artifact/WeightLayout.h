//===- WeightLayout.h - The order of a program's weights --------*- C++ -*-===//
//
// Decides where every weight of a runtime program lies in the weights segment
// (docs/architecture.md, section 4):
//
//   1-D weights | embedding table, unless tied |
//   share 0: layer 0, layer 1, ... | share 1: ... | head: share 0, share 1, ...
//
// so that each share reads one ascending stream in execution order. A weight
// that several places read is stored once.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_ARTIFACT_WEIGHTLAYOUT_H
#define QUERN_CODEGEN_ARTIFACT_WEIGHTLAYOUT_H

#include "codegen/artifact/CompileError.h"
#include "codegen/artifact/WeightStream.h"
#include "dialects/rt/Rt.h"

#include <deque>
#include <vector>

namespace quern {

/// Finds a weight of the model file by its name. Null: weights are as the
/// program says, without their numbers.
using WeightLookup =
    llvm::function_ref<llvm::Expected<WeightSource>(llvm::StringRef name)>;

/// The prologue, a block or the epilogue of a program, with its parts in order.
struct ProgramBody {
  std::string name; ///< "embed", the block's symbol, "head".
  std::vector<rt::WeightSlotOp> slots;
  std::vector<mlir::Operation *> instructions; ///< Dispatches and joins.
};

/// The bodies of a program: prologue first, epilogue last.
struct ProgramBodies {
  std::vector<ProgramBody> bodies;
  /// Index into `bodies` of every layer.
  std::vector<size_t> layers;
};

/// Takes a program apart. Errors: Malformed (no prologue, unknown blocks).
llvm::Expected<ProgramBodies> programBodies(rt::ProgramOp program);

/// One use of a body: where each share finds the bytes of each slot.
struct CallWeights {
  /// (slots, shares), from the start of the segment.
  std::vector<uint64_t> offsets;
};

/// The weights segment of a program, laid out.
struct WeightLayout {
  WeightPlan plan;
  /// (bodies) (slots, shares): bytes of each piece.
  std::vector<std::vector<uint64_t>> sizes;
  CallWeights prologue, epilogue;
  std::vector<CallWeights> layers;
  /// Numbers in all weights, each counted once.
  uint64_t parameters = 0;
  /// Bytes of those in the model file.
  uint64_t sourceBytes = 0;
  /// Matrices that are quantized while they are packed: bytes in the model file
  /// and bytes packed.
  uint64_t quantizedFrom = 0, quantizedTo = 0;
  /// What the pieces refer to; addresses are stable.
  std::deque<WeightSource> sources;
};

/// Lays the weights of `program` out. Errors: Malformed (ranges that do not fit
/// the program or the packed layout), Incompatible (a weight that the model
/// file lacks, or has in another shape or format).
llvm::Expected<WeightLayout> layOutWeights(rt::ProgramOp program,
                                           const ProgramBodies &bodies,
                                           WeightLookup lookup);

} // namespace quern

#endif // QUERN_CODEGEN_ARTIFACT_WEIGHTLAYOUT_H
