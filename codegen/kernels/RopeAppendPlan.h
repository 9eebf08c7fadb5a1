//===- RopeAppendPlan.h - What a rope and append kernel does ----*- C++ -*-===//
#ifndef QUERN_CODEGEN_KERNELS_ROPEAPPENDPLAN_H
#define QUERN_CODEGEN_KERNELS_ROPEAPPENDPLAN_H

#include "codegen/kernels/IrEmitter.h"
#include "codegen/kernels/KernelFacts.h"

#include <optional>

namespace quern {

/// What the body of the kernel asks for, in order.
struct RopeAppendPlan {
  struct Step {
    lm::RopeOp rope; ///< or null:
    lm::KvAppendOp append;
    unsigned segment; ///< range of the rope's heads, or of the keys; values
                      ///< have the next
    bool newAngles;   ///< those of the rope before do not serve this one
  };
  llvm::SmallVector<Step> steps;
  int64_t angles = 0; ///< angles of the longest rope: rotary_dim / 2
};

/// The plan of a body of ropes and KV appends.
std::optional<RopeAppendPlan> planRopeAppend(rt::KernelOp kernel);

/// (sin, cos) of f64, scalar or vector: reduction by pi/2 in two parts, Taylor
/// series on [-pi/4, pi/4] (error below 1e-11), then the quadrant. Angles are
/// products in f32, as the models were trained with; their sine and cosine are
/// computed in f64, since a position may be large.
std::pair<mlir::Value, mlir::Value> sinCos(IrEmitter &e, mlir::Value angle);

} // namespace quern

#endif // QUERN_CODEGEN_KERNELS_ROPEAPPENDPLAN_H
