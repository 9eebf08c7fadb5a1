//===- RowwiseEmitter.cpp -------------------------------------------------===//
#include "codegen/kernels/RowwiseEmitter.h"

#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;

namespace quern {

static int64_t groupsOf(Value value) { return columnsOf(value) / 32; }

/// Every value of the result is `compute` of the operand pieces' values.
void RowwiseEmitter::emitElementwise(
    Operation &op, llvm::function_ref<Value(ValueRange)> compute) {
  Value result = op.getResult(0);
  SmallVector<Value> sources;
  for (Value operand : op.getOperands())
    sources.push_back(buffers.row(operand, row));
  Value target = buffers.row(result, row);
  forGroups(groupsOf(result), {}, [&](Value group, ValueRange) {
    SmallVector<Values> pieces;
    for (Value source : sources)
      pieces.push_back(load(source, group));
    Values computed;
    for (size_t i = 0; i < pieces[0].size(); ++i) {
      SmallVector<Value> operands;
      for (const Values &piece : pieces)
        operands.push_back(piece[i]);
      computed.push_back(compute(operands));
    }
    store(computed, target, group);
    return Values();
  });
}

/// sum = x + (delta[0] + delta[1] + ...). Returns the sums of squares of this
/// thread's groups, a piece.
RowwiseEmitter::Values RowwiseEmitter::emitSum(Value x, Value delta,
                                               Value sum) {
  auto type = cast<RankedTensorType>(delta.getType());
  SmallVector<Value> deltas;
  if (type.getRank() == 3)
    for (int64_t share = 0; share < type.getShape()[0]; ++share)
      deltas.push_back(buffers.shareRow(delta, share, row));
  else
    deltas.push_back(buffers.row(delta, row));
  Value source = x ? buffers.row(x, row) : Value();
  Value target = buffers.row(sum, row);
  auto addTo = [&](Values a, Values b) {
    for (auto [x, y] : llvm::zip_equal(a, b))
      x = e.add(x, y);
    return a;
  };
  return forGroups(
      groupsOf(sum), zeros(), [&](Value group, ValueRange carried) {
        Values total = load(deltas[0], group);
        for (Value pointer : ArrayRef<Value>(deltas).drop_front())
          total = addTo(total, load(pointer, group));
        if (source)
          total = addTo(load(source, group), total);
        store(total, target, group);
        Values squares;
        for (auto [value, square] : llvm::zip_equal(total, carried))
          squares.push_back(e.fma(value, value, square));
        return squares;
      });
}

RowwiseEmitter::Values RowwiseEmitter::squaresOf(Value x) {
  Value source = buffers.row(x, row);
  return forGroups(groupsOf(x), zeros(), [&](Value group, ValueRange carried) {
    Values squares;
    for (auto [value, square] : llvm::zip_equal(load(source, group), carried))
      squares.push_back(e.fma(value, value, square));
    return squares;
  });
}

void RowwiseEmitter::emitRmsNorm(Value x, Value weight, Value result,
                                 FloatAttr eps, Values squares) {
  Value mean = e.div(total(squares),
                     e.constant(e.f32(), static_cast<double>(columnsOf(x))));
  Value root = e.sqrt(e.add(mean, e.constant(e.f32(), eps.getValueAsDouble())));
  Value scale = spread(e.div(e.constant(e.f32(), 1.0), root));
  Value source = buffers.row(x, row), target = buffers.row(result, row);
  Value weights = buffers.base(weight);
  forGroups(groupsOf(x), {}, [&](Value group, ValueRange) {
    Values values = load(source, group);
    for (auto [value, w] : llvm::zip_equal(values, load(weights, group)))
      value = e.mul(e.mul(value, scale), w);
    store(values, target, group);
    return Values();
  });
}

void RowwiseEmitter::emitQuantize(Value x, Value result) {
  Value source = buffers.row(x, row), target = buffers.row(result, row);
  const bool isNumeric = k.hasNumericRows(result);
  Value factor = isNumeric ? factorOfRow(source, target, result) : Value();
  forGroups(groupsOf(x), {}, [&](Value group, ValueRange) {
    Values piece = load(source, group);
    if (factor)
      for (Value &value : piece)
        value = e.mul(value, factor);
    if (isNumeric)
      storeActivations(piece, target, result, group);
    else
      store(piece, target, group);
    return Values();
  });
}

LogicalResult RowwiseEmitter::emitOp(Operation &op) {
  return TypeSwitch<Operation *, LogicalResult>(&op)
      .Case([&](lm::AddOp add) {
        emitSum(add.getX(), add.getDelta(), add.getResult());
        return success();
      })
      .Case([&](lm::ReduceSharesOp reduce) {
        emitSum({}, reduce.getPartials(), reduce.getResult());
        return success();
      })
      .Case([&](lm::AddRmsNormOp norm) {
        Values squares = emitSum(norm.getX(), norm.getDelta(), norm.getSum());
        emitRmsNorm(norm.getSum(), norm.getW(), norm.getResult(),
                    norm.getEpsAttr(), squares);
        return success();
      })
      .Case([&](lm::RmsNormOp norm) {
        emitRmsNorm(norm.getX(), norm.getW(), norm.getResult(),
                    norm.getEpsAttr(), squaresOf(norm.getX()));
        return success();
      })
      .Case([&](lm::SiluOp silu) {
        emitElementwise(op, [&](ValueRange x) { return e.silu(x[0]); });
        return success();
      })
      .Case([&](lm::MulOp mul) {
        emitElementwise(op, [&](ValueRange x) { return e.mul(x[0], x[1]); });
        return success();
      })
      .Case([&](lm::SwigluOp swiglu) {
        emitElementwise(
            op, [&](ValueRange x) { return e.mul(e.silu(x[0]), x[1]); });
        return success();
      })
      .Case([&](lm::QuantizeOp quantize) {
        emitQuantize(quantize.getX(), quantize.getResult());
        return success();
      })
      .Case([&](lm::DequantizeOp dequantize) {
        Value x = dequantize.getX(), result = dequantize.getResult();
        Value source = buffers.row(x, row), target = buffers.row(result, row);
        forGroups(groupsOf(x), {}, [&](Value group, ValueRange) {
          store(k.hasNumericRows(x) ? loadActivations(source, x, group)
                                    : load(source, group),
                target, group);
          return Values();
        });
        return success();
      })
      .Default([](Operation *) { return failure(); });
}

LogicalResult RowwiseEmitter::emitRow(Value index) {
  row = index;
  for (Operation &op : k.body().without_terminator()) {
    for (Value result : op.getResults())
      if (columnsOf(result) % 32 != 0)
        return k.emitError() << "rows of " << columnsOf(result)
                             << " columns, expected a multiple of 32";
    if (failed(emitOp(op)))
      return k.emitError() << "no row-wise code for " << op.getName();
  }
  return success();
}

} // namespace quern
