//===- PtxCodegen.h - rt.kernel ops to PTX text -----------------*- C++ -*-===//
//
// The GPU's sibling of codegen/host: one generator per kernel family emits IR
// for a block of threads, LLVM's NVPTX backend makes PTX of it, and the text of
// all kernels becomes one module per target. The launch of a kernel is data
// that goes into the manifest (section 8 of docs/architecture.md).
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_PTX_PTXCODEGEN_H
#define QUERN_CODEGEN_PTX_PTXCODEGEN_H

#include "codegen/target/Target.h"
#include "mlir/IR/BuiltinOps.h"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace quern::nvptx {

/// What a factor of a grid counts. The numbers are those of the manifest's
/// enum.
enum class GridCount : uint8_t {
  /// Nothing: the factor is `per` itself.
  One = 0,
  /// Rows of the dispatch.
  Rows = 1,
  /// Elements of each range segment of this share; a block stays in one
  /// segment.
  Columns = 2,
  /// Elements of range segment 0 of this share.
  Columns0 = 3,
  AttentionTiles = 4,
  /// Entries of the page table a sequence.
  Pages = 5,
};

/// Blocks along one dimension of a grid: ceil(count / per).
struct GridFactor {
  GridCount count;
  uint32_t per;
};

/// How an entry is launched.
struct Launch {
  uint32_t blockThreads = 0;
  /// Dynamic shared memory of a block.
  uint32_t sharedBytes = 0;
  /// x, y, z; those left out are 1.
  std::vector<GridFactor> grid;
  /// Of Kernel::workspace(), per row of a session's capacity; 0: it has none.
  uint64_t workspaceBytesPerRow = 0;
  uint32_t countersPerRow = 0;
};

/// One kernel's entry for one role.
struct PtxKernel {
  std::string kernel; ///< Symbol of the rt.kernel.
  Role role;
  std::string entry; ///< Name behind `.visible .entry`; roles may share one.
  Launch launch;
  KernelForm form;
};

/// An entry that picks the best logits of each row, so that only these leave
/// the device. Its arguments: logits (rows, vocab) f32, then (rows, candidates)
/// values f32 and their columns i32, the best first.
struct PtxSampler {
  uint32_t candidates;
  std::string entry;
  Launch launch;
};

/// PTX of all kernels for one target.
struct PtxImage {
  std::string target;
  std::string text;
  std::vector<PtxKernel> kernels;
  std::vector<PtxSampler> samplers; ///< By ascending candidates.
};

struct PtxOptions {
  /// Directory for KERNEL.TARGET.ROLE.{mlir,ll,ptx}; empty: nothing is written.
  std::string dumpKernelsTo;
  /// Called with one line per kernel: generator, tile and launch.
  std::function<void(const std::string &)> explain;
};

/// Generates every `rt.kernel` of `module` for the GPU `target`, both roles.
/// Kernels whose two roles share numerics and tile share one entry.
mlir::FailureOr<PtxImage> generatePtx(mlir::ModuleOp module,
                                      const Target &target,
                                      const PtxOptions &options);

} // namespace quern::nvptx

#endif // QUERN_CODEGEN_PTX_PTXCODEGEN_H
