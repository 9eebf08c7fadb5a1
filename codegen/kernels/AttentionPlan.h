//===- AttentionPlan.h - What an attention kernel computes ------*- C++ -*-===//
#ifndef QUERN_CODEGEN_KERNELS_ATTENTIONPLAN_H
#define QUERN_CODEGEN_KERNELS_ATTENTIONPLAN_H

#include "codegen/kernels/KernelFacts.h"

#include <optional>

namespace quern {

/// What the body of the kernel asks for.
struct AttentionPlan {
  mlir::Operation *op = nullptr; ///< lm.attention or lm.online_attention
  mlir::Value q, kv;
  mlir::Value attended;  ///< f32 (rows, heads * head_dim)
  mlir::Value quantized; ///< the same as numeric rows, or null
  int64_t heads = 0;
  int64_t window = 0; ///< last tokens that a row sees; 0: all of its prefix
  double scale = 1;
};

/// The plan of a body that is one attention op and at most a quantize behind
/// it.
std::optional<AttentionPlan> planAttention(rt::KernelOp kernel);

} // namespace quern

#endif // QUERN_CODEGEN_KERNELS_ATTENTIONPLAN_H
