//===- Kernel.h - One GPU kernel while it is being generated ----*- C++ -*-===//
//
// What GPU generators add to KernelArgs: shared memory, the launch, and the
// numeric rows. The ABI is section 8 of docs/architecture.md.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_PTX_KERNEL_H
#define QUERN_CODEGEN_PTX_KERNEL_H

#include "codegen/kernels/KernelArgs.h"
#include "codegen/kernels/MatmulPlan.h"
#include "codegen/ptx/Emitter.h"
#include "codegen/ptx/PtxCodegen.h"

namespace quern::nvptx {

class Kernel : public KernelArgs {
public:
  Kernel(Emitter &e, rt::KernelOp op, Role role, mlir::Block *entry)
      : KernelArgs(e, op, e.target, role), e(e), entry(entry),
        firstDim(pointerCount(op)) {}

  Emitter &e;
  /// Threads and grid, which the generator sets; shared bytes, which shared()
  /// adds up.
  Launch launch;

  /// The most elements of segment `segment` that a share has in any dispatch of
  /// the module; `whole` where none is cut.
  int64_t widestRange(unsigned segment, int64_t whole);
  /// What divides the number of elements of segment `segment` in every share of
  /// every dispatch of the module; `least` where none is cut.
  int64_t rangeUnit(unsigned segment, int64_t least);
  /// Adds parameters until there are `segments` ranges.
  void addRanges(unsigned segments);

  /// A 128-byte aligned piece of the block's shared memory.
  mlir::Value shared(int64_t bytes);
  mlir::Value temporary(int64_t bytes) override { return shared(bytes); }
  mlir::Value activationRow(mlir::Value buffer, mlir::Value row,
                            int64_t columns) override;
  /// The numeric rows of `value` are e4m3 with a scale a row: type e4m3 on
  /// machines whose kernels multiply them.
  bool hasFp8Rows(mlir::Value value) const {
    return target.gpu.hasFp8 && formatOf(value) == BlockFormat::E4M3;
  }

  /// E4M3 where a matmul multiplies e4m3 rows, else the role's numerics.
  Numerics arithmetic() const override;

  /// Memory of the device beside the buffers, which blocks may use to talk to
  /// each other: `bytesPerRow` for every row that a step can have, and
  /// `countersPerRow` i32 that are 0 and must be left so. Called once.
  struct Workspace {
    mlir::Value data, counters;
  };
  Workspace workspace(int64_t bytesPerRow, int64_t countersPerRow);

private:
  /// Elements of segment `segment` in every share of every dispatch.
  llvm::SmallVector<int64_t> rangeSizes(unsigned segment);
  mlir::Value pointerAt(unsigned position) override {
    return entry->getArgument(position);
  }
  mlir::Value dim(unsigned i) override {
    return entry->getArgument(firstDim + i);
  }
  mlir::Value rangeEdge(unsigned i) override;

  mlir::Block *entry;
  unsigned firstDim;
  mlir::Value sharedBase;
};

// Numeric rows (types a8, f16 and e4m3 in the IR) are f16, in blocks of 8 rows
// x 8 columns, the matrices that tensor cores read (section 8 of
// docs/architecture.md): a buffer is [rows / 8][groups][4][8 rows][8 columns]
// f16. Rows of e4m3 are [rows / 8]{[groups][2][8 rows][16 columns] e4m3 |
// [8 rows] of 16 bytes, the first four a row's f32 scale}, at the same stride.

/// Rows of a block.
inline constexpr int64_t kHalfRows = 8;
/// Bytes of a row in a block, of a block, and of a group of 32 columns of 8
/// rows.
inline constexpr int64_t kHalfBlockRowBytes = 16;
inline constexpr int64_t kHalfBlockBytes = kHalfRows * kHalfBlockRowBytes;
inline constexpr int64_t kHalfGroupBytes = 4 * kHalfBlockBytes;

inline constexpr int64_t kFp8GroupBytes = 2 * kHalfBlockBytes;
constexpr int64_t groupBytesOf(Operands operands) {
  return operands == Operands::E4M3 ? kFp8GroupBytes : kHalfGroupBytes;
}

/// The address of column `column` (i64, 0..31) of group `group` (i64) of the
/// numeric row at `row`.
mlir::Value halfAt(Emitter &e, mlir::Value row, mlir::Value group,
                   mlir::Value column);

/// Writes that column as a finite number: what is too large becomes the
/// largest.
void storeActivation(Emitter &e, mlir::Value row, mlir::Value group,
                     mlir::Value column, mlir::Value value);

/// The address of a column of the e4m3 row at `row`, as halfAt() has it.
mlir::Value fp8At(Emitter &e, mlir::Value row, mlir::Value group,
                  mlir::Value column);
/// Where the scale of the e4m3 row at `row` lies, which has `columns` columns.
mlir::Value fp8ScaleAt(Emitter &e, mlir::Value row, int64_t columns);

/// All generators, in the order in which they are asked.
llvm::ArrayRef<KernelGenerator<Kernel>> kernelGenerators();

// One pair a family, each in the file of its name.
bool matchesTensorMemoryMatmul(Kernel &);
mlir::LogicalResult generateTensorMemoryMatmul(Kernel &);
bool matchesWgmmaMatmul(Kernel &);
mlir::LogicalResult generateWgmmaMatmul(Kernel &);
bool matchesTensorMatmul(Kernel &);
mlir::LogicalResult generateTensorMatmul(Kernel &);
/// The part of tensor-matmul that serves tiles of 8 tokens.
mlir::LogicalResult generateSplitMatmul(Kernel &, const MatmulPlan &);
bool matchesVectorMatmul(Kernel &);
mlir::LogicalResult generateVectorMatmul(Kernel &);
bool matchesWgmmaAttention(Kernel &);
mlir::LogicalResult generateWgmmaAttention(Kernel &);
bool matchesTensorAttention(Kernel &);
mlir::LogicalResult generateTensorAttention(Kernel &);
bool matchesSplitAttention(Kernel &);
mlir::LogicalResult generateSplitAttention(Kernel &);
bool matchesVectorAttention(Kernel &);
mlir::LogicalResult generateVectorAttention(Kernel &);
bool matchesRopeAppend(Kernel &);
mlir::LogicalResult generateRopeAppend(Kernel &);
bool matchesLookup(Kernel &);
mlir::LogicalResult generateLookup(Kernel &);
bool matchesTopK(Kernel &);
mlir::LogicalResult generateTopK(Kernel &);
bool matchesRowwise(Kernel &);
mlir::LogicalResult generateRowwise(Kernel &);

} // namespace quern::nvptx

#endif // QUERN_CODEGEN_PTX_KERNEL_H
