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
#include "dialects/lm/Lm.h"
#include "dialects/rt/Rt.h"

namespace quern::host {

/// Bytes between numeric rows of `columns` activations (type a8 in the IR).
constexpr int64_t activationRowBytes(int64_t columns) {
  return (2 * columns + 63) / 64 * 64;
}
/// Offsets inside an int8 numeric row: [K int8][K/32 f32 scale][K/16 i32 sums].
constexpr int64_t activationScaleOffset(int64_t columns) { return columns; }
constexpr int64_t activationSumOffset(int64_t columns) {
  return columns + columns / 32 * 4;
}

/// Where a KV head lies in a page of one layer: K (head_dim, page) then V (page,
/// head_dim), heads one after the other.
struct KvLayout {
  explicit KvLayout(lm::KvCacheType type)
      : headDim(type.getHeadDim()), page(type.getPage()),
        elementBytes(type.getElementType().getIntOrFloatBitWidth() / 8) {}
  int64_t headDim, page, elementBytes;
  int64_t valuesOffset() const { return headDim * page * elementBytes; }
  int64_t headBytes() const { return 2 * valuesOffset(); }
};

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

  mlir::InFlightDiagnostic emitError() { return op.emitOpError(); }

private:
  mlir::Value pointerAt(int64_t position);
  int64_t positionOf(unsigned argument);

  mlir::Value args, dims, ranges, rowCount, scratchBase;
  int64_t scratchUsed = 0;
};

/// Columns (last dimension) of a tensor value.
int64_t columnsOf(mlir::Value value);
/// The block format of a tensor's elements: !lm.block, or f32/f16/bf16.
BlockFormat formatOf(mlir::Value value);
/// The value is a numeric row buffer (type a8).
bool isActivation(mlir::Value value);

/// Writes 32 f32 columns (two vectors) as group `group` (i64) of the numeric row
/// at `row` in the kernel's numerics.
void storeActivationGroup(Kernel &k, mlir::Value row, int64_t columns,
                          mlir::Value group, mlir::Value low, mlir::Value high);

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
