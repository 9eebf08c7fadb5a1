//===- RowwiseEmitter.h - Kernels in which rows are independent -*- C++ -*-===//
//
// Norms, residual adds, SwiGLU, quantization: each op of the body is one pass
// over the row, 32 columns (an activation group) at a time. A target says which
// of a row's groups a thread passes and what it holds of one: a *piece*, a few
// f32 values, scalars or vectors.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_KERNELS_ROWWISEEMITTER_H
#define QUERN_CODEGEN_KERNELS_ROWWISEEMITTER_H

#include "codegen/kernels/KernelArgs.h"

namespace quern {

class RowwiseEmitter {
public:
  using Value = mlir::Value;
  using Values = IrEmitter::Values;
  using GroupBody =
      llvm::function_ref<Values(Value group, mlir::ValueRange carried)>;

  RowwiseEmitter(KernelArgs &k, IrEmitter &e) : k(k), e(e), buffers(k, e) {}
  virtual ~RowwiseEmitter() = default;

  /// The body's ops for row `row`; reports one that has no code.
  mlir::LogicalResult emitRow(Value row);

protected:
  /// Passes this thread's groups of the `groups` of a row, carrying values from
  /// one to the next.
  virtual Values forGroups(int64_t groups, mlir::ValueRange inits,
                           GroupBody body) = 0;
  /// The piece of group `group` of the f32 row at `row`.
  virtual Values load(Value row, Value group) = 0;
  virtual void store(mlir::ValueRange piece, Value row, Value group) = 0;
  /// The same of a numeric row of `rows`.
  virtual Values loadActivations(Value row, Value rows, Value group) = 0;
  virtual void storeActivations(mlir::ValueRange piece, Value row, Value rows,
                                Value group) = 0;
  /// What the f32 row at `source` is to be multiplied by before its groups are
  /// stored in the numeric row `row` of `rows`, whose scale this stores; null
  /// where rows have no scale.
  virtual Value factorOfRow(Value source, Value row, Value rows) { return {}; }
  /// A piece of zeros.
  virtual Values zeros() = 0;
  /// A scalar as each value of a piece is.
  virtual Value spread(Value scalar) = 0;
  /// Sum of all threads' pieces: a fixed tree.
  virtual Value total(mlir::ValueRange piece) = 0;

private:
  mlir::LogicalResult emitOp(mlir::Operation &op);
  void
  emitElementwise(mlir::Operation &op,
                  llvm::function_ref<Value(mlir::ValueRange operands)> compute);
  Values emitSum(Value x, Value delta, Value sum);
  void emitRmsNorm(Value x, Value weight, Value result, mlir::FloatAttr eps,
                   Values squares);
  Values squaresOf(Value x);
  void emitQuantize(Value x, Value result);

  KernelArgs &k;
  IrEmitter &e;
  RowBuffers buffers;
  Value row;
};

} // namespace quern

#endif // QUERN_CODEGEN_KERNELS_ROWWISEEMITTER_H
