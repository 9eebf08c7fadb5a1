//===- Verify.h - Checks that several verifiers share -----------*- C++ -*-===//
#ifndef QUERN_DIALECTS_LM_VERIFY_H
#define QUERN_DIALECTS_LM_VERIFY_H

#include "dialects/lm/Lm.h"

namespace quern::lm {

/// Size of dimension `index` of a ranked tensor, from the end when negative;
/// kDynamic when it is not known.
inline int64_t dim(mlir::Value value, int64_t index) {
  auto type = mlir::cast<mlir::RankedTensorType>(value.getType());
  return type.getDimSize(index < 0 ? type.getRank() + index : index);
}

inline int64_t rank(mlir::Value value) {
  return mlir::cast<mlir::RankedTensorType>(value.getType()).getRank();
}

/// Whether two sizes can be equal: a dynamic size fits any.
inline bool compatible(int64_t a, int64_t b) {
  return a == b || mlir::ShapedType::isDynamic(a) ||
         mlir::ShapedType::isDynamic(b);
}

/// Checks that `size`, of what `what` names, can equal `wanted`.
mlir::LogicalResult expectSize(mlir::Operation *op, llvm::StringRef what,
                               int64_t size, int64_t wanted);

/// Checks that the last dimension is static and a multiple of the element
/// format's block.
mlir::LogicalResult verifyBlocks(mlir::Operation *op, llvm::StringRef what,
                                 mlir::Type type);

/// Checks `y = x w^T + bias`: K of x and w, N of w, bias and y, rows of x and
/// y. `y` is (?, N) or, with partial results, (S, ?, N).
mlir::LogicalResult verifyProduct(mlir::Operation *op, mlir::Value x,
                                  mlir::Value w, mlir::Value bias,
                                  mlir::Value y);

/// Checks that `delta` is (?, K) or (S, ?, K) with the rows and K of `x`.
mlir::LogicalResult verifyDelta(mlir::Operation *op, mlir::Value x,
                                mlir::Value delta);

} // namespace quern::lm

#endif // QUERN_DIALECTS_LM_VERIFY_H
