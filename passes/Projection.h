//===- Projection.h - Products with a weight, in either form ----*- C++ -*-===//
#ifndef QUERN_PASSES_PROJECTION_H
#define QUERN_PASSES_PROJECTION_H

#include "dialects/lm/BlockFormat.h"
#include "dialects/lm/Lm.h"

#include <optional>

namespace quern {

/// An `lm.matmul` or an unsplit `lm.quant_matmul`, seen as one thing.
struct Projection {
  mlir::Operation *op;
  mlir::Value x;      ///< (rows, K)
  mlir::Value w;      ///< (N, K)
  mlir::Value bias;   ///< (N), or null
  mlir::Value result; ///< (rows, N)

  /// Columns of the result.
  int64_t n() const {
    return mlir::cast<mlir::RankedTensorType>(w.getType()).getDimSize(0);
  }
};

/// The projection that `op` is.
std::optional<Projection> projectionOf(mlir::Operation *op);

/// The projection whose result `value` is, where nothing else reads it.
std::optional<Projection> soleProjectionOf(mlir::Value value);

/// The defining op of `value` where it is an `OpT` and has no other reader.
template <typename OpT> OpT soleDef(mlir::Value value) {
  return value.hasOneUse() ? value.getDefiningOp<OpT>() : OpT();
}

/// The format in which a matmul reads activations beside the stored weight `w`.
BlockFormat activationFormatFor(mlir::Value w);

/// The weight as stored behind an optional `lm.dequantize`.
mlir::Value storedWeight(mlir::Value w);

} // namespace quern

#endif // QUERN_PASSES_PROJECTION_H
