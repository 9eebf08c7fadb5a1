//===- Kernel.h - One kernel while it is being generated --------*- C++ -*-===//
//
// What host generators add to KernelArgs: scratch, and the two activation
// formats of int8 and bf16 numerics. The ABI is section 5 of
// docs/architecture.md.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_HOST_KERNEL_H
#define QUERN_CODEGEN_HOST_KERNEL_H

#include "codegen/host/Emitter.h"
#include "codegen/kernels/KernelArgs.h"

namespace quern::host {

class Kernel : public KernelArgs {
public:
  /// `parameters` are args, dims and ranges.
  Kernel(Emitter &e, rt::KernelOp op, Role role, int64_t context,
         mlir::ValueRange parameters);

  Emitter &e;
  /// Longest context of the model: bounds scratch that grows with it.
  int64_t context;

  /// A 64-byte aligned piece of the thread's scratch.
  mlir::Value temporary(int64_t bytes) override;
  int64_t scratchBytes() const { return scratchUsed; }

private:
  mlir::Value pointerAt(unsigned position) override;
  mlir::Value dim(unsigned i) override;
  mlir::Value rangeEdge(unsigned i) override;

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

/// All generators, in the order in which they are asked.
llvm::ArrayRef<KernelGenerator<Kernel>> kernelGenerators();

// One pair a family, each in the file of its name.
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
