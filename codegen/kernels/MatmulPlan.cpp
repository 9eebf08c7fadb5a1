//===- MatmulPlan.cpp -----------------------------------------------------===//
#include "codegen/kernels/MatmulPlan.h"

using namespace mlir;

namespace quern {

/// The one projection that `value` is the result of, as a plan over its x.
static std::optional<MatmulPlan> projectionOf(Value value) {
  MatmulPlan plan;
  if (auto op = value.getDefiningOp<lm::QuantMatmulOp>()) {
    plan.x = op.getX();
    plan.projections.push_back({op.getW(), op.getBias()});
    plan.splitK = op.getSplit() == lm::MatmulSplit::K;
    return plan;
  }
  if (auto op = value.getDefiningOp<lm::MatmulOp>()) {
    plan.x = op.getX();
    plan.projections.push_back({op.getW(), op.getBias()});
    return plan;
  }
  return std::nullopt;
}

static std::optional<MatmulPlan> swigluPlan(lm::SwigluOp op,
                                            MatmulPlan::Epilogue epilogue) {
  auto gate = projectionOf(op.getGate());
  auto up = projectionOf(op.getUp());
  if (!gate || !up || gate->x != up->x || gate->splitK || up->splitK)
    return std::nullopt;
  // No generator adds biases before the product.
  if (gate->projections.front().bias || up->projections.front().bias)
    return std::nullopt;
  gate->projections.push_back(up->projections.front());
  gate->epilogue = epilogue;
  return gate;
}

std::optional<MatmulPlan> planMatmul(rt::KernelOp kernel) {
  Operation *last =
      kernel.getBody().front().getTerminator()->getOperand(0).getDefiningOp();
  std::optional<MatmulPlan> plan;
  if (auto qkv = dyn_cast_or_null<lm::QkvProjOp>(last)) {
    plan.emplace();
    plan->x = qkv.getX();
    plan->projections = {{qkv.getWq(), qkv.getBq()},
                         {qkv.getWk(), qkv.getBk()},
                         {qkv.getWv(), qkv.getBv()}};
  } else if (auto swiglu = dyn_cast_or_null<lm::SwigluOp>(last)) {
    plan = swigluPlan(swiglu, MatmulPlan::Epilogue::Swiglu);
  } else if (auto quantize = dyn_cast_or_null<lm::QuantizeOp>(last)) {
    if (auto inner = quantize.getX().getDefiningOp<lm::SwigluOp>())
      plan = swigluPlan(inner, MatmulPlan::Epilogue::SwigluQuantize);
  } else if (last) {
    plan = projectionOf(last->getResult(0));
  }
  if (!plan || !isa<BlockArgument>(plan->x))
    return std::nullopt;
  for (const Projection &projection : plan->projections)
    if (!isa<BlockArgument>(projection.weight))
      return std::nullopt;
  return plan;
}

} // namespace quern
