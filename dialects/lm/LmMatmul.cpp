//===- LmMatmul.cpp - Matrix products and their partial results -----------===//
//
// Labels in comments (`matmul_c1`) are those of docs/spec.md.
//
//===----------------------------------------------------------------------===//
#include "dialects/lm/Lm.h"
#include "dialects/lm/Verify.h"

using namespace mlir;
using namespace quern;
using namespace quern::lm;

LogicalResult lm::verifyProduct(Operation *op, Value x, Value w, Value bias,
                                Value y) {
  if (failed(verifyBlocks(op, "x", x.getType())) ||
      failed(verifyBlocks(op, "the weight", w.getType())))
    return failure();
  if (failed(expectSize(op, "columns of the weight (K)", dim(w, 1), dim(x, 1))))
    return failure();
  if (failed(
          expectSize(op, "columns of the result (N)", dim(y, -1), dim(w, 0))) ||
      failed(expectSize(op, "rows of the result", dim(y, -2), dim(x, 0))))
    return failure();
  return bias ? expectSize(op, "the bias's size (N)", dim(bias, 0), dim(w, 0))
              : success();
}

/// Checks that x is f32, f16, a8 or e4m3 and that w is not a8.
static LogicalResult verifyFormats(Operation *op, Value x, Value w) {
  std::optional<BlockFormat> format = formatOf(x.getType());
  if (format != BlockFormat::F32 && format != BlockFormat::F16 &&
      format != BlockFormat::A8 && format != BlockFormat::E4M3)
    return op->emitOpError()
           << "expected x of f32, f16, a8 or e4m3, but got " << x.getType();
  if (isQuantizedActivations(w.getType()))
    return op->emitOpError(
        "expected a weight format, but a8 is for activations");
  return success();
}

/// Checks that ranges of k begin at whole blocks of the weight.
static LogicalResult verifyWholeBlocks(Operation *op, RangesAttr ranges,
                                       Value w) {
  const int64_t block = blockFormatInfo(*formatOf(w.getType())).blockElements;
  for (int64_t share = 0; share < ranges.getShares(); ++share)
    if (ranges.getBegin(share, 0) % block != 0)
      return op->emitOpError()
             << "expected ranges of k at multiples of the weight's block of "
             << block << ", but got " << ranges.getBegin(share, 0);
  return success();
}

LogicalResult MatmulOp::verify() {
  // matmul_c1, matmul_c2, matmul_c3
  if (failed(verifyProduct(*this, getX(), getW(), getBias(), getResult())))
    return failure();
  // matmul_c4
  return verifyTiles(*this, getTilesAttr());
}

LogicalResult QuantMatmulOp::verify() {
  // quant_matmul_c1
  if (failed(verifyFormats(*this, getX(), getW())))
    return failure();
  // quant_matmul_c2, quant_matmul_c3, quant_matmul_c4
  if (failed(verifyProduct(*this, getX(), getW(), getBias(), getResult())))
    return failure();
  // quant_matmul_c5
  const bool alongK = getSplit() == MatmulSplit::K;
  if (rank(getResult()) != (alongK ? 3 : 2))
    return emitOpError() << "expected a result of rank " << (alongK ? 3 : 2)
                         << " when split along "
                         << stringifyMatmulSplit(getSplit());
  // quant_matmul_c6
  if (RangesAttr ranges = getRangesAttr()) {
    if (ranges.getSegments() != 1)
      return emitOpError("expected ranges of one segment");
    if (failed(expectSize(*this, "the extent of the ranges",
                          ranges.getExtent(0),
                          alongK ? dim(getX(), 1) : dim(getW(), 0))))
      return failure();
    if (alongK && failed(expectSize(*this, "the shares of the result",
                                    dim(getResult(), 0), ranges.getShares())))
      return failure();
    if (alongK && failed(verifyWholeBlocks(*this, ranges, getW())))
      return failure();
  }
  // quant_matmul_c7
  if (alongK && ShapedType::isDynamic(dim(getResult(), 0)))
    return emitOpError("expected a static number of shares in the result");
  // quant_matmul_c8
  return verifyTiles(*this, getTilesAttr());
}

LogicalResult QkvProjOp::verify() {
  const Value weights[] = {getWq(), getWk(), getWv()};
  const Value biases[] = {getBq(), getBk(), getBv()};
  const Value results[] = {getQ(), getK(), getV()};
  for (int i = 0; i < 3; ++i) {
    // qkv_proj_c1
    if (failed(verifyFormats(*this, getX(), weights[i])))
      return failure();
    // qkv_proj_c2
    if (failed(verifyProduct(*this, getX(), weights[i], biases[i], results[i])))
      return failure();
    // qkv_proj_c3
    if (!biases[i] != !biases[0])
      return emitOpError("expected all three biases or none");
  }
  // qkv_proj_c4
  if (dim(getK(), 1) != dim(getV(), 1))
    return emitOpError("expected k and v of the same size");
  // qkv_proj_c5
  if (RangesAttr ranges = getRangesAttr()) {
    if (ranges.getSegments() != 3)
      return emitOpError("expected ranges of three segments");
    for (int i = 0; i < 3; ++i)
      if (failed(expectSize(*this, "the extent of the ranges",
                            ranges.getExtent(i), dim(weights[i], 0))))
        return failure();
  }
  // qkv_proj_c6
  return verifyTiles(*this, getTilesAttr());
}

LogicalResult ReduceSharesOp::verify() {
  // reduce_shares_c1
  if (ShapedType::isDynamic(dim(getPartials(), 0)) ||
      dim(getPartials(), 0) == 0)
    return emitOpError("expected a static number of shares, at least one");
  // reduce_shares_c2
  if (failed(expectSize(*this, "rows of the result", dim(getResult(), 0),
                        dim(getPartials(), 1))))
    return failure();
  return expectSize(*this, "columns of the result", dim(getResult(), 1),
                    dim(getPartials(), 2));
}
