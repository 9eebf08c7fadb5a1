//===- LmOps.cpp - Inputs, quantization, elementwise and row ops ----------===//
//
// Labels in comments (`embedding_c1`) are those of docs/spec.md.
//
//===----------------------------------------------------------------------===//
#include "dialects/lm/Lm.h"
#include "dialects/lm/Verify.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/TypeUtilities.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace quern;
using namespace quern::lm;

#define GET_OP_CLASSES
#include "dialects/lm/LmOps.cpp.inc"

LogicalResult lm::expectSize(Operation *op, StringRef what, int64_t size,
                             int64_t wanted) {
  if (compatible(size, wanted))
    return success();
  return op->emitOpError() << "expected " << what << " to be " << wanted
                           << ", but got " << size;
}

LogicalResult lm::verifyBlocks(Operation *op, StringRef what, Type type) {
  auto tensor = cast<RankedTensorType>(type);
  const int64_t columns = tensor.getDimSize(tensor.getRank() - 1);
  if (ShapedType::isDynamic(columns))
    return op->emitOpError() << "expected a static last dimension of " << what;
  std::optional<BlockFormat> format = formatOf(type);
  const int64_t block = format ? blockFormatInfo(*format).blockElements : 1;
  if (columns % block == 0)
    return success();
  return op->emitOpError() << "expected the last dimension of " << what
                           << " to be a multiple of the block of " << block
                           << ", but got " << columns;
}

LogicalResult lm::verifyDelta(Operation *op, Value x, Value delta) {
  if (failed(
          expectSize(op, "columns of the delta", dim(delta, -1), dim(x, -1))) ||
      failed(expectSize(op, "rows of the delta", dim(delta, -2), dim(x, -2))))
    return failure();
  if (rank(delta) == 3 && ShapedType::isDynamic(dim(delta, 0)))
    return op->emitOpError("expected a static number of shares in the delta");
  return success();
}

/// Checks that x and y have the same rows and columns.
static LogicalResult verifySameShape(Operation *op, Value x, Value y) {
  return success(
      succeeded(expectSize(op, "rows of the result", dim(y, -2), dim(x, -2))) &&
      succeeded(
          expectSize(op, "columns of the result", dim(y, -1), dim(x, -1))));
}

//===----------------------------------------------------------------------===//
// Inputs
//===----------------------------------------------------------------------===//

LogicalResult WeightOp::verify() {
  // weight_c1
  if (getName().empty())
    return emitOpError("expected a name");
  // weight_c2
  auto type = cast<RankedTensorType>(getType());
  if (!type.hasStaticShape())
    return emitOpError() << "expected a static shape, but got " << type;
  // weight_c7: sizes in bytes, too, then fit 64 bits.
  constexpr int64_t kMaxElements = int64_t(1) << 40;
  int64_t elements = 1;
  for (int64_t size : type.getShape())
    if (llvm::MulOverflow(elements, size, elements) || elements > kMaxElements)
      return emitOpError() << "expected at most 2^40 elements, but got "
                           << type;
  // weight_c3
  if (failed(verifyBlocks(*this, "the weight", type)))
    return failure();
  // weight_c4
  if (isQuantizedActivations(type))
    return emitOpError("expected a weight format, but a8 is for activations");
  // weight_c5
  if (std::optional<Type> source = getSource()) {
    std::optional<BlockFormat> from = formatOf(*source);
    std::optional<BlockFormat> to = formatOf(type);
    if (!from || !to || !canQuantize(*to))
      return emitOpError() << "cannot store " << *source << " as "
                           << type.getElementType();
    // weight_c6
    if (type.getShape().back() % blockFormatInfo(*from).blockElements != 0)
      return emitOpError() << "expected the last dimension to be a multiple of "
                              "the source's block of "
                           << blockFormatInfo(*from).blockElements;
  }
  return success();
}

LogicalResult EmbeddingOp::verify() {
  // embedding_c1
  if (failed(verifyBlocks(*this, "the table", getTable().getType())))
    return failure();
  // embedding_c2
  if (failed(expectSize(*this, "columns of the result", dim(getResult(), 1),
                        dim(getTable(), 1))))
    return failure();
  // embedding_c3
  return expectSize(*this, "rows of the result", dim(getResult(), 0),
                    dim(getTokens(), 0));
}

LogicalResult SelectRowsOp::verify() {
  // select_rows_c1
  if (failed(expectSize(*this, "columns of the result", dim(getResult(), 1),
                        dim(getX(), 1))))
    return failure();
  // select_rows_c2
  return expectSize(*this, "rows of the result", dim(getResult(), 0),
                    dim(getRows(), 0));
}

//===----------------------------------------------------------------------===//
// Quantization
//===----------------------------------------------------------------------===//

LogicalResult QuantizeOp::verify() {
  // quantize_c1
  if (failed(verifySameShape(*this, getX(), getResult())))
    return failure();
  // quantize_c2
  if (failed(verifyBlocks(*this, "the result", getResult().getType())))
    return failure();
  // quantize_c3
  if (!canQuantize(*formatOf(getResult().getType())))
    return emitOpError() << "cannot quantize to "
                         << getElementTypeOrSelf(getResult().getType());
  return success();
}

LogicalResult DequantizeOp::verify() {
  // dequantize_c1
  if (failed(verifySameShape(*this, getX(), getResult())))
    return failure();
  // dequantize_c2
  return verifyBlocks(*this, "the operand", getX().getType());
}

OpFoldResult DequantizeOp::fold(FoldAdaptor) {
  // A tensor of floats is what it stores.
  return getX().getType() == getType() ? getX() : Value();
}

//===----------------------------------------------------------------------===//
// Elementwise and rows
//===----------------------------------------------------------------------===//

LogicalResult AddOp::verify() {
  // add_c1
  if (failed(verifySameShape(*this, getX(), getResult())))
    return failure();
  // add_c2
  return verifyDelta(*this, getX(), getDelta());
}

/// Checks a norm's weight and eps.
static LogicalResult verifyNorm(Operation *op, Value x, Value w,
                                const APFloat &eps) {
  if (failed(expectSize(op, "the weight's size", dim(w, 0), dim(x, -1))))
    return failure();
  if (eps.isNegative() || !eps.isFinite())
    return op->emitOpError("expected eps to be finite and not negative");
  return success();
}

LogicalResult RmsNormOp::verify() {
  // rms_norm_c1
  if (failed(verifySameShape(*this, getX(), getResult())))
    return failure();
  // rms_norm_c2, rms_norm_c3
  return verifyNorm(*this, getX(), getW(), getEps());
}

LogicalResult AddRmsNormOp::verify() {
  // add_rms_norm_c1
  if (failed(verifySameShape(*this, getX(), getSum())) ||
      failed(verifySameShape(*this, getX(), getResult())))
    return failure();
  // add_rms_norm_c2
  if (failed(verifyDelta(*this, getX(), getDelta())))
    return failure();
  // add_rms_norm_c3, add_rms_norm_c4
  return verifyNorm(*this, getX(), getW(), getEps());
}

LogicalResult TopKOp::verify() {
  // top_k_c1
  const int64_t columns = dim(getX(), 1), k = getK();
  if (k < 1 || (!ShapedType::isDynamic(columns) && k > columns))
    return emitOpError() << "expected k from 1 to the number of columns, "
                         << "but got " << k;
  // top_k_c2
  for (Value result : {getValues(), getColumns()})
    if (failed(expectSize(*this, "rows of the result", dim(result, 0),
                          dim(getX(), 0))) ||
        failed(expectSize(*this, "columns of the result", dim(result, 1), k)))
      return failure();
  return success();
}
