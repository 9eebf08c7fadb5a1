//===- AttentionPlan.cpp --------------------------------------------------===//
#include "codegen/kernels/AttentionPlan.h"

using namespace mlir;

namespace quern {

template <typename Op> static void readOp(Op op, AttentionPlan &plan) {
  plan.op = op;
  plan.q = op.getQ();
  plan.kv = op.getKv();
  plan.attended = op.getResult();
  plan.heads = op.getHeads();
  plan.window = op.getWindow();
  plan.scale = op.getScale().convertToDouble();
}

std::optional<AttentionPlan> planAttention(rt::KernelOp kernel) {
  AttentionPlan plan;
  for (Operation &op : kernel.getBody().front().without_terminator()) {
    if (auto online = dyn_cast<lm::OnlineAttentionOp>(op); online && !plan.op) {
      readOp(online, plan);
    } else if (auto plain = dyn_cast<lm::AttentionOp>(op); plain && !plan.op) {
      readOp(plain, plan);
    } else if (auto quantize = dyn_cast<lm::QuantizeOp>(op);
               quantize && plan.op && !plan.quantized &&
               quantize.getX() == plan.attended) {
      plan.quantized = quantize.getResult();
    } else {
      return std::nullopt;
    }
  }
  if (!plan.op)
    return std::nullopt;
  return plan;
}

} // namespace quern
