//===- Kernel.h - One GPU kernel while it is being generated ----*- C++ -*-===//
//
// What every generator shares: the entry's parameters by their place in the
// `rt.kernel`, ranges, shared memory, the launch, and the numeric rows. The ABI
// is section 8 of docs/architecture.md.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_PTX_KERNEL_H
#define QUERN_CODEGEN_PTX_KERNEL_H

#include "codegen/kernels/KernelFacts.h"
#include "codegen/ptx/Emitter.h"
#include "codegen/ptx/PtxCodegen.h"

namespace quern::nvptx {

/// Pointers that an argument of type !lm.kv_cache expands to.
struct KvArgs {
  mlir::Value pool;      ///< this layer's pages
  mlir::Value pageTable; ///< int32 [sequences][page table stride]
  mlir::Value tiles;     ///< int32 [tiles][4]: first row, rows, sequence, 0
  mlir::Value slots;     ///< int32 [rows]
  mlir::Value sequences; ///< int32 [rows]
};

class Kernel {
public:
  Kernel(Emitter &e, rt::KernelOp op, Role role, Numerics numerics,
         mlir::Block *entry);

  Emitter &e;
  rt::KernelOp op;
  Role role;
  Numerics numerics;
  Tile tile;
  /// Threads and grid, which the generator sets; shared bytes, which shared()
  /// adds up.
  Launch launch;

  mlir::Block &body() { return op.getBody().front(); }
  /// The yielded values, in order.
  mlir::ValueRange yielded() { return body().getTerminator()->getOperands(); }
  bool splitShares() { return op.getSplit() == lm::KernelSplit::Shares; }

  /// Pointer of the block argument `value`, which must be one.
  mlir::Value argument(mlir::Value value);
  KvArgs kvArgument(mlir::Value value);
  /// Pointer of the `i`-th result that is not a KV cache.
  mlir::Value result(unsigned i);

  /// Rows of this dispatch.
  mlir::Value rows() { return dim(0); }
  mlir::Value attentionTiles() { return dim(1); }
  mlir::Value pageTableStride() { return dim(2); }
  mlir::Value pageBytes() { return dim(3); }
  /// [begin, end) of segment `i` in elements; rows for split rows.
  mlir::Value rangeBegin(unsigned i) { return rangeEdge(2 * i); }
  mlir::Value rangeEnd(unsigned i) { return rangeEdge(2 * i + 1); }
  /// Adds parameters until there are `segments` ranges.
  void addRanges(unsigned segments);

  /// A 128-byte aligned piece of the block's shared memory.
  mlir::Value shared(int64_t bytes);

  mlir::InFlightDiagnostic emitError() { return op.emitOpError(); }

private:
  mlir::Value dim(unsigned i);
  mlir::Value rangeEdge(unsigned i);
  unsigned positionOf(unsigned argument);

  mlir::Block *entry;
  unsigned firstDim;
  mlir::Value sharedBase;
};

/// Pointer parameters of a kernel: a cache counts five.
unsigned pointerCount(rt::KernelOp op);

/// Writes column `lane` of group `group` (i64) of the numeric row at `row`,
/// whose `columns` columns a warp passes with one column of the group a lane.
void storeActivation(Kernel &k, mlir::Value row, int64_t columns,
                     mlir::Value group, mlir::Value lane, mlir::Value value);

/// Bytes from the start of a group of an f16 numeric row to column `column`
/// (i64, 0..31). The order is that of section 8 of docs/architecture.md.
mlir::Value halfRowOffset(Emitter &e, mlir::Value column);

/// One family of kernels: which bodies it takes and how it makes code of them.
struct KernelGenerator {
  llvm::StringRef name;
  KernelFamily family; ///< whose tile applies
  bool (*matches)(Kernel &);
  mlir::LogicalResult (*generate)(Kernel &);
};

/// All generators, in the order in which they are asked.
llvm::ArrayRef<KernelGenerator> kernelGenerators();

// One pair a family, each in the file of its name.
bool matchesVectorMatmul(Kernel &);
mlir::LogicalResult generateVectorMatmul(Kernel &);
bool matchesVectorAttention(Kernel &);
mlir::LogicalResult generateVectorAttention(Kernel &);
bool matchesRopeAppend(Kernel &);
mlir::LogicalResult generateRopeAppend(Kernel &);
bool matchesLookup(Kernel &);
mlir::LogicalResult generateLookup(Kernel &);
bool matchesRowwise(Kernel &);
mlir::LogicalResult generateRowwise(Kernel &);

} // namespace quern::nvptx

#endif // QUERN_CODEGEN_PTX_KERNEL_H
