//===- QuantizeWeights.cpp - Store float weights in a block format --------===//
#include "passes/Passes.h"
#include "passes/Projection.h"

#include "llvm/ADT/StringSet.h"

using namespace mlir;

namespace quern {
#define GEN_PASS_DEF_QUANTIZEWEIGHTSPASS
#include "passes/Passes.h.inc"

namespace {
/// The weight behind an optional `lm.dequantize`.
lm::WeightOp weightOf(Value w) {
  return storedWeight(w).getDefiningOp<lm::WeightOp>();
}

struct QuantizeWeightsPass
    : impl::QuantizeWeightsPassBase<QuantizeWeightsPass> {
  using QuantizeWeightsPassBase::QuantizeWeightsPassBase;

  void runOnOperation() override {
    std::optional<BlockFormat> wanted = parseBlockFormat(format.getValue());
    if (!wanted || !canQuantize(*wanted) ||
        blockFormatInfo(*wanted).isFloat() || *wanted == BlockFormat::A8) {
      getOperation().emitError("cannot quantize weights to '")
          << format.getValue() << "' (known: q8_0, q4_0, q4_1, e4m3)";
      return signalPassFailure();
    }
    llvm::StringSet<> tables;
    getOperation().walk([&](lm::EmbeddingOp embedding) {
      if (lm::WeightOp weight = weightOf(embedding.getTable()))
        tables.insert(weight.getName());
    });
    llvm::StringSet<> tied;
    getOperation().walk([&](lm::MatmulOp matmul) {
      lm::WeightOp weight = weightOf(matmul.getW());
      if (!weight || !isStoredAsFloat(weight))
        return;
      bool isTable = tables.contains(weight.getName());
      if (isTable)
        tied.insert(weight.getName());
      quantizeWeight(weight, isTable ? BlockFormat::Q8_0 : *wanted);
    });
    // The other readers of a tied table, in other bodies.
    getOperation().walk([&](lm::EmbeddingOp embedding) {
      lm::WeightOp weight = weightOf(embedding.getTable());
      if (weight && tied.contains(weight.getName()) && isStoredAsFloat(weight))
        quantizeWeight(weight, BlockFormat::Q8_0);
    });
  }

  static bool isStoredAsFloat(lm::WeightOp weight) {
    return blockFormatInfo(*lm::formatOf(weight.getType())).isFloat();
  }

  /// Changes the type of `weight`, and gives readers that want floats some.
  void quantizeWeight(lm::WeightOp weight, BlockFormat format) {
    auto type = cast<RankedTensorType>(weight.getType());
    const int64_t block = blockFormatInfo(format).blockElements;
    if (type.getDimSize(1) % block != 0) {
      weight.emitRemark("stays ")
          << type.getElementType() << ": " << type.getDimSize(1)
          << " columns are not a multiple of " << block;
      return;
    }
    if (!weight.getSource())
      weight.setSource(type.getElementType());
    weight.getResult().setType(
        type.clone(lm::elementTypeOf(&getContext(), format)));
    if (!type.getElementType().isF32())
      return;
    OpBuilder builder(&getContext());
    builder.setInsertionPointAfter(weight);
    lm::DequantizeOp floats;
    for (OpOperand &use : llvm::make_early_inc_range(weight->getUses())) {
      if (!isa<lm::MatmulOp>(use.getOwner()))
        continue;
      if (!floats)
        floats = lm::DequantizeOp::create(builder, weight.getLoc(), type,
                                          weight.getResult());
      use.set(floats);
    }
  }
};
} // namespace
} // namespace quern
