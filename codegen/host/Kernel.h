//===- Kernel.h - One kernel while it is being generated --------*- C++ -*-===//
//
// What every generator shares: the entry's arguments by their place in the
// `rt.kernel`, ranges, scratch, and the two activation formats of int8 and bf16
// numerics. The ABI is section 5 of docs/architecture.md.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_HOST_KERNEL_H
#define QUERN_CODEGEN_HOST_KERNEL_H

#include "codegen/host/Emitter.h"
#include "codegen/kernels/KernelFacts.h"

namespace quern::host {

using quern::activationRowBytes;
using quern::activationScaleOffset;
using quern::activationSumOffset;

/// Pointers that an argument of type !lm.kv_cache expands to.
struct KvArgs {
  mlir::Value pool;      ///< this layer's pages
  mlir::Value pageTable; ///< int32 [sequences][dims[2]]
  mlir::Value tiles;     ///< int32 [dims[1]][4]: first row, rows, sequence, 0
  mlir::Value slots;     ///< int32 [rows]
  mlir::Value sequences; ///< int32 [rows]
};

class Kernel {
public:
  Kernel(Emitter &e, rt::KernelOp op, Role role, Numerics numerics, Tile tile,
         int64_t context, mlir::Value args, mlir::Value dims,
         mlir::Value ranges);

  Emitter &e;
  rt::KernelOp op;
  Role role;
  Numerics numerics;
  Tile tile;
  /// Longest context of the model: bounds scratch that grows with it.
  int64_t context;

  mlir::Block &body() { return op.getBody().front(); }
  /// The yielded values, in order.
  mlir::ValueRange yielded() { return body().getTerminator()->getOperands(); }

  /// Pointer of the block argument `value`, which must be one.
  mlir::Value argument(mlir::Value value);
  KvArgs kvArgument(mlir::Value value);
  /// Pointer of the `i`-th result that is not a KV cache.
  mlir::Value result(unsigned i);

  /// Rows of this dispatch.
  mlir::Value rows() { return rowCount; }
  mlir::Value attentionTiles();
  mlir::Value pageTableStride();
  mlir::Value pageBytes();
  /// [begin, end) of segment `i` in elements; rows for split rows.
  mlir::Value rangeBegin(int64_t i);
  mlir::Value rangeEnd(int64_t i);

  /// A 64-byte aligned piece of the thread's scratch.
  mlir::Value scratch(int64_t bytes);
  int64_t scratchBytes() const { return scratchUsed; }

  /// "kernel layer_0.attention for avx2/decode: ".
  mlir::InFlightDiagnostic emitError();

private:
  mlir::Value pointerAt(int64_t position);
  int64_t positionOf(unsigned argument);

  mlir::Value args, dims, ranges, rowCount, scratchBase;
  int64_t scratchUsed = 0;
};

/// Writes 32 f32 columns (two vectors) as group `group` (i64) of the numeric
/// row at `row` in the kernel's numerics.
void storeActivationGroup(Kernel &k, mlir::Value row, int64_t columns,
                          mlir::Value group, mlir::Value low, mlir::Value high);

/// Stores 16 output columns of one row as f32, adding the bias if there is one.
/// `column` is a multiple of 16; columns past `outputs` are dropped.
void storeColumns(Kernel &k, mlir::Value pointer, mlir::Value row,
                  mlir::Value column, int64_t outputs, mlir::Value biasPointer,
                  mlir::Value values);

/// One family of kernels: which bodies it takes and how it makes code of them.
struct KernelGenerator {
  llvm::StringRef name;
  KernelFamily family; ///< whose tile applies
  bool (*matches)(Kernel &);
  mlir::LogicalResult (*generate)(Kernel &);
};

/// All generators, in the order in which they are asked.
llvm::ArrayRef<KernelGenerator> kernelGenerators();

// One function a family, each in the file of its name.
bool matchesMatmul(Kernel &);
mlir::LogicalResult generateMatmul(Kernel &);
bool matchesAmxMatmul(Kernel &);
mlir::LogicalResult generateAmxMatmul(Kernel &);
bool matchesAttention(Kernel &);
mlir::LogicalResult generateAttention(Kernel &);
bool matchesRopeAppend(Kernel &);
mlir::LogicalResult generateRopeAppend(Kernel &);
bool matchesLookup(Kernel &);
mlir::LogicalResult generateLookup(Kernel &);
bool matchesRowwise(Kernel &);
mlir::LogicalResult generateRowwise(Kernel &);

} // namespace quern::host

#endif // QUERN_CODEGEN_HOST_KERNEL_H
