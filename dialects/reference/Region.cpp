//===- Region.cpp - Runs regions, and the ops that are about regions ------===//
#include "dialects/reference/Evaluate.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace quern;
using namespace quern::reference;

LogicalResult reference::expectRows(Operation *op, int64_t rows,
                                    int64_t wanted) {
  if (rows == wanted)
    return success();
  return op->emitOpError() << "expected " << wanted << " rows, but got "
                           << rows;
}

static std::string replaceAll(StringRef text, StringRef from, StringRef to) {
  std::string result;
  while (true) {
    auto [head, tail] = text.split(from);
    result += head;
    if (head.size() == text.size())
      return result;
    result += to;
    text = tail;
  }
}

FailureOr<Tensor> reference::getWeight(Operation *op, StringRef name,
                                       RankedTensorType type,
                                       std::optional<Type> source,
                                       const WeightProvider &weights,
                                       int64_t layer) {
  std::string instance = replaceAll(name, "{layer}", llvm::utostr(layer));
  FailureOr<Tensor> tensor = weights(instance, type, source.value_or(Type()));
  if (failed(tensor))
    return op->emitOpError() << "has no weight '" << instance << "'";
  if (ArrayRef<int64_t>(tensor->shape) != type.getShape() ||
      tensor->format != lm::formatOf(type))
    return op->emitOpError()
           << "expected weight '" << instance << "' to be a " << type;
  return tensor;
}

LogicalResult reference::evaluate(lm::WeightOp op, Frame &frame) {
  FailureOr<Tensor> tensor =
      getWeight(op, op.getName(), cast<RankedTensorType>(op.getType()),
                op.getSource(), frame.weights, frame.layer);
  if (failed(tensor))
    return failure();
  frame.set(op.getResult(), std::move(*tensor));
  return success();
}

LogicalResult reference::evaluate(lm::KernelOp op, Frame &frame) {
  Data arguments;
  for (Value input : op.getInputs())
    arguments.push_back(frame.get(input));
  FailureOr<Data> results = runRegion(op.getBody(), arguments, frame.weights,
                                      frame.layer, op.getRangesAttr());
  if (failed(results))
    return failure();
  for (auto [output, result] : llvm::zip_equal(op.getOutputs(), *results))
    frame.set(output, result);
  return success();
}

/// Constants of f32 or i32, for tests that give their numbers in the IR.
static LogicalResult evaluate(arith::ConstantOp op, Frame &frame) {
  auto elements = dyn_cast<DenseElementsAttr>(op.getValue());
  if (!elements || elements.getType().getRank() == 0)
    return op.emitOpError("expected a tensor of rank 1 or more");
  std::vector<int64_t> shape(elements.getType().getShape());
  if (elements.getElementType().isF32()) {
    Tensor tensor = Tensor::makeFloats(shape);
    llvm::copy(elements.getValues<float>(), tensor.floats.begin());
    frame.set(op.getResult(), std::move(tensor));
    return success();
  }
  if (elements.getElementType().isInteger(32)) {
    Tensor tensor = Tensor::makeIndices(shape);
    llvm::copy(elements.getValues<int32_t>(), tensor.indices.begin());
    frame.set(op.getResult(), std::move(tensor));
    return success();
  }
  return op.emitOpError("expected elements of f32 or i32");
}

static LogicalResult evaluateOp(Operation &op, Frame &frame) {
  using namespace quern::lm;
  auto run = [&](auto typed) { return evaluate(typed, frame); };
  return llvm::TypeSwitch<Operation *, LogicalResult>(&op)
      .Case<AddOp, AddRmsNormOp, AttentionOp, DequantizeOp, EmbeddingOp,
            lm::KernelOp, KvAppendOp, MatmulOp, MulOp>(run)
      .Case<OnlineAttentionOp, QkvProjOp, QuantMatmulOp, QuantizeOp,
            ReduceSharesOp, RmsNormOp, RopeOp, SelectRowsOp, SiluOp, SoftmaxOp,
            SwigluOp, TopKOp, WeightOp>(run)
      .Case<arith::ConstantOp>(run)
      .Default([](Operation *other) {
        return other->emitOpError("has no reference semantics");
      });
}

FailureOr<Data> reference::runRegion(Region &region, ArrayRef<Datum> arguments,
                                     const WeightProvider &weights,
                                     int64_t layer, lm::RangesAttr ranges) {
  Frame frame(weights, layer, ranges);
  for (auto [argument, datum] :
       llvm::zip_equal(region.getArguments(), arguments))
    frame.set(argument, datum);
  for (Operation &op : region.front().without_terminator())
    if (failed(evaluateOp(op, frame)))
      return failure();
  Data results;
  for (Value value : region.front().getTerminator()->getOperands())
    results.push_back(frame.get(value));
  return results;
}
