//===- MatmulPlan.h - What a matmul kernel computes -------------*- C++ -*-===//
//
// The bodies that form-kernels makes around matmuls, reduced to one form that
// every matmul generator of every target reads:
//
//   split n:  one or more projections of the same x, each stored as f32
//             (+ bias), or gate and up joined by SwiGLU into f32 or numeric
//             rows
//   split k:  one projection over this share's range of K, a partial result
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_KERNELS_MATMULPLAN_H
#define QUERN_CODEGEN_KERNELS_MATMULPLAN_H

#include "codegen/kernels/KernelFacts.h"

#include <optional>

namespace quern {

struct Projection {
  mlir::Value weight; ///< (N, K)
  mlir::Value bias;   ///< (N) or null
  int64_t outputs() const {
    return mlir::cast<mlir::RankedTensorType>(weight.getType()).getShape()[0];
  }
};

struct MatmulPlan {
  enum class Epilogue { Store, Swiglu, SwigluQuantize };

  mlir::Value x; ///< (rows, K): f32, f16, a8 or e4m3
  llvm::SmallVector<Projection, 3> projections;
  Epilogue epilogue = Epilogue::Store;
  bool splitK = false;

  int64_t depth() const { return columnsOf(x); }
};

/// The plan of a kernel's body, or nothing when it is no matmul kernel.
std::optional<MatmulPlan> planMatmul(rt::KernelOp kernel);

} // namespace quern

#endif // QUERN_CODEGEN_KERNELS_MATMULPLAN_H
