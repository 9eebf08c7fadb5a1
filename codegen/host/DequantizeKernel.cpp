//===- DequantizeKernel.cpp - Weights as floats, in memory ----------------===//
//
// What a matmul reads when dequantization was not fused into it: a share's piece
// of the weight in the packed layout of f32 ([k][16 rows] per row block).
//
//===----------------------------------------------------------------------===//
#include "codegen/host/Kernel.h"
#include "codegen/host/WeightDecoder.h"

using namespace mlir;

namespace quern::host {

static lm::DequantizeOp dequantizeOf(Kernel &k) {
  auto op = dyn_cast<lm::DequantizeOp>(k.body().front());
  bool alone = op && op->getNextNode() == k.body().getTerminator();
  return alone && k.op.getSplit() == lm::KernelSplit::Shares ? op : lm::DequantizeOp();
}

bool matchesDequantize(Kernel &k) { return static_cast<bool>(dequantizeOf(k)); }

LogicalResult generateDequantize(Kernel &k) {
  Emitter &e = k.e;
  lm::DequantizeOp op = dequantizeOf(k);
  auto shape = cast<RankedTensorType>(op.getX().getType()).getShape();
  // The consumer's cut is of n or of k; the attribute says which.
  bool splitK = k.op->hasAttr("split_k");
  Value width = e.sub(k.rangeEnd(0), k.rangeBegin(0));
  Value columns = splitK ? width : e.index(shape[1]);
  Value blocks = splitK ? e.index((shape[0] + kPackedRows - 1) / kPackedRows)
                        : e.div(e.add(width, e.index(kPackedRows - 1)), e.index(kPackedRows));
  WeightDecoder w(e, formatOf(op.getX()));
  Value source = k.argument(op.getX()), target = k.result(0);
  Value blockBytes = w.rowBlockBytes(columns);
  Value targetBytes = e.mul(columns, e.index(4 * kPackedRows));
  e.forLoop(e.index(0), blocks, 1, [&](Value block) {
    Value to = e.offset(target, e.mul(block, targetBytes));
    w.forGroups(e.offset(source, e.mul(block, blockBytes)), columns, {},
                [&](const WeightDecoder::Group &group, ValueRange) {
                  Value at = e.offset(to, e.mul(group.index,
                                                e.index(4 * kPackedRows * kPackedGroup)));
                  w.forColumns(group, [&](int column, Value values) {
                    e.store(values, e.offset(at, column * kLanes * 4), 4);
                  });
                  return Emitter::Values();
                });
  });
  return success();
}

} // namespace quern::host
