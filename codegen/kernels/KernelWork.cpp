//===- KernelWork.cpp -----------------------------------------------------===//
#include "codegen/kernels/KernelWork.h"

#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;

namespace quern {

/// Matrices of a (?, N) or (S, ?, N) value: 1 or S.
static int64_t copiesOf(Value value) {
  auto type = cast<RankedTensorType>(value.getType());
  return type.getRank() == 3 ? type.getDimSize(0) : 1;
}

static int64_t productFlops(Value weight, Value bias) {
  auto type = cast<RankedTensorType>(weight.getType());
  return 2 * type.getNumElements() + (bias ? type.getDimSize(0) : 0);
}

/// Operations of one op for each row.
static int64_t flopsPerRow(Operation *op) {
  // Elementwise ops: so many for each element of the last operand.
  auto each = [op](int64_t flops) {
    Value last = op->getOperand(op->getNumOperands() - 1);
    return flops * columnsOf(last);
  };
  return llvm::TypeSwitch<Operation *, int64_t>(op)
      .Case<lm::MatmulOp, lm::QuantMatmulOp>([](auto product) {
        return productFlops(product.getW(), product.getBias());
      })
      .Case([](lm::QkvProjOp qkv) {
        return productFlops(qkv.getWq(), qkv.getBq()) +
               productFlops(qkv.getWk(), qkv.getBk()) +
               productFlops(qkv.getWv(), qkv.getBv());
      })
      // Square and add, then two products.
      .Case([&](lm::RmsNormOp) { return each(4); })
      .Case([&](lm::AddRmsNormOp norm) {
        return each(4 + copiesOf(norm.getDelta()));
      })
      .Case([&](lm::AddOp add) { return each(copiesOf(add.getDelta())); })
      .Case([&](lm::ReduceSharesOp reduce) {
        return each(copiesOf(reduce.getPartials()) - 1);
      })
      .Case<lm::MulOp, lm::DequantizeOp>([&](auto) { return each(1); })
      // Negate, exponential, add, divide.
      .Case([&](lm::SiluOp) { return each(4); })
      .Case([&](lm::SwigluOp) { return each(5); })
      // Largest, scale, round.
      .Case([&](lm::QuantizeOp) { return each(3); })
      // A pair takes four products and two sums.
      .Case([](lm::RopeOp rope) {
        return static_cast<int64_t>(3 * rope.getHeads() * rope.getRotaryDim());
      })
      .Default([](Operation *) { return 0; });
}

/// Attention, for each row and key: both products, and for each head scale,
/// largest, subtract, exponential and sum.
template <typename Op> static void addAttention(Op op, KernelWork &work) {
  auto kv = cast<lm::KvCacheType>(op.getKv().getType());
  const auto heads = static_cast<int64_t>(op.getHeads());
  work.flopsPerPair += 4 * heads * kv.getHeadDim() + 5 * heads;
  work.bytesPerKey += KvLayout(kv).pageBytes() / kv.getPage();
  work.window = static_cast<int64_t>(op.getWindow());
}

/// Bytes of a row of a buffer that the kernel takes or gives; 0 for weights.
static int64_t rowTraffic(Value value) {
  auto type = dyn_cast<RankedTensorType>(value.getType());
  if (!type || type.hasStaticShape())
    return 0;
  if (type.getElementType().isInteger(32))
    return 4 * (type.getRank() == 1 ? 1 : columnsOf(value));
  return copiesOf(value) * *rt::bytesPerRow(value.getType());
}

KernelWork workOf(rt::KernelOp kernel) {
  KernelWork work;
  Block &body = kernel.getBody().front();
  for (Value argument : body.getArguments())
    work.bytesPerRow += rowTraffic(argument);
  for (Value result : body.getTerminator()->getOperands())
    work.bytesPerRow += rowTraffic(result);
  for (Operation &op : body.without_terminator()) {
    work.flopsPerRow += flopsPerRow(&op);
    if (auto online = dyn_cast<lm::OnlineAttentionOp>(op))
      addAttention(online, work);
    if (auto attention = dyn_cast<lm::AttentionOp>(op))
      addAttention(attention, work);
    if (auto append = dyn_cast<lm::KvAppendOp>(op)) {
      auto kv = cast<lm::KvCacheType>(append.getKv().getType());
      work.bytesPerRow += KvLayout(kv).pageBytes() / kv.getPage();
    }
    if (auto embedding = dyn_cast<lm::EmbeddingOp>(op)) {
      Value table = embedding.getTable();
      work.gathersWeights = true;
      work.bytesPerRow +=
          blockFormatInfo(formatOf(table)).rowBytes(columnsOf(table));
    }
  }
  return work;
}

} // namespace quern
