//===- MatmulPlan.h - What a matmul kernel computes -------------*- C++ -*-===//
//
// The bodies that form-kernels makes around matmuls, reduced to one form that
// every matmul generator (integer dots, float, AMX) reads:
//
//   split n:  one or more projections of the same x, each stored as f32
//             (+ bias), or gate and up joined by SwiGLU into f32 or numeric rows
//   split k:  one projection over this share's range of K, a partial result
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_HOST_MATMULPLAN_H
#define QUERN_CODEGEN_HOST_MATMULPLAN_H

#include "codegen/host/Kernel.h"

#include <optional>

namespace quern::host {

struct Projection {
  mlir::Value weight; ///< (N, K)
  mlir::Value bias;   ///< (N) or null
  int64_t outputs() const {
    return mlir::cast<mlir::RankedTensorType>(weight.getType()).getShape()[0];
  }
};

struct MatmulPlan {
  enum class Epilogue { Store, Swiglu, SwigluQuantize };

  mlir::Value x; ///< (rows, K): f32 or a8
  llvm::SmallVector<Projection, 3> projections;
  Epilogue epilogue = Epilogue::Store;
  bool splitK = false;

  int64_t depth() const { return columnsOf(x); }
};

/// The plan of a kernel's body, or nothing when it is no matmul kernel.
std::optional<MatmulPlan> planMatmul(Kernel &k);

/// Stores 16 output columns of one row as f32, adding the bias if there is one.
/// `column` is a multiple of 16; columns past `outputs` are dropped.
void storeColumns(Kernel &k, mlir::Value pointer, mlir::Value row,
                  mlir::Value column, int64_t outputs, mlir::Value biasPointer,
                  mlir::Value values);

} // namespace quern::host

#endif // QUERN_CODEGEN_HOST_MATMULPLAN_H
