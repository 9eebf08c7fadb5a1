//===- RowwiseKernel.cpp - Kernels in which rows are independent ----------===//
//
// Norms, residual adds, SwiGLU, quantization: each op of the body is one pass
// over the row, 32 columns (two vectors, one activation group) at a time. What
// only later ops of the body read stays in a row of scratch, in L1.
//
//===----------------------------------------------------------------------===//
#include "codegen/host/Kernel.h"

#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;

namespace quern::host {
namespace {

/// Two vectors: 32 columns of a row.
struct Pair {
  Value low, high;
};

class RowwiseEmitter {
public:
  explicit RowwiseEmitter(Kernel &k)
      : k(k), e(k.e), lanes(e.vec(kLanes, e.f32())) {}

  LogicalResult emit();

private:
  LogicalResult emitOp(Operation &op, Value row);
  void emitRmsNorm(Value x, Value weight, Value result, FloatAttr eps,
                   Value row, std::pair<Value, Value> squares);
  std::pair<Value, Value> emitSum(Value x, Value delta, Value sum, Value row);

  /// One pass over the columns of `result`: reads 32 columns of every operand,
  /// writes what `compute` makes of them.
  void elementwise(Value row, Value result, ArrayRef<Value> operands,
                   function_ref<Pair(ArrayRef<Pair>)> compute);
  void quantize(Value row, Value x, Value result);
  void dequantize(Value row, Value x, Value result);

  /// Pointer of row `row` of `value`: an argument, a result or scratch.
  Value rowPointer(Value value, Value row);
  Value shareRowPointer(Value partials, int64_t share, Value row);
  static int64_t rowBytes(Value value) {
    return isActivation(value) ? activationRowBytes(columnsOf(value))
                               : 4 * columnsOf(value);
  }
  Pair loadPair(Value pointer, Value group) {
    Value at = e.offset(pointer, e.mul(group, e.index(128)));
    return {e.load(lanes, at, 4), e.load(lanes, e.offset(at, 64), 4)};
  }
  void storePair(Pair values, Value pointer, Value group) {
    Value at = e.offset(pointer, e.mul(group, e.index(128)));
    e.store(values.low, at, 4);
    e.store(values.high, e.offset(at, 64), 4);
  }
  Value groupsOf(Value value) { return e.index(columnsOf(value) / 32); }

  Kernel &k;
  Emitter &e;
  Type lanes;
  llvm::DenseMap<Value, Value> pointers;
};

Value RowwiseEmitter::rowPointer(Value value, Value row) {
  bool isTemporary =
      !isa<BlockArgument>(value) && !llvm::is_contained(k.yielded(), value);
  if (isTemporary)
    return pointers[value];
  return e.offset(pointers[value], e.mul(row, e.index(rowBytes(value))));
}

Value RowwiseEmitter::shareRowPointer(Value partials, int64_t share,
                                      Value row) {
  Value at = e.add(e.mul(k.rows(), e.index(share)), row);
  return e.offset(pointers[partials],
                  e.mul(at, e.index(4 * columnsOf(partials))));
}

void RowwiseEmitter::elementwise(Value row, Value result,
                                 ArrayRef<Value> operands,
                                 function_ref<Pair(ArrayRef<Pair>)> compute) {
  SmallVector<Value> sources;
  for (Value operand : operands)
    sources.push_back(rowPointer(operand, row));
  Value target = rowPointer(result, row);
  e.forLoop(e.index(0), groupsOf(result), 1, [&](Value group) {
    SmallVector<Pair> inputs;
    for (Value source : sources)
      inputs.push_back(loadPair(source, group));
    storePair(compute(inputs), target, group);
  });
}

void RowwiseEmitter::quantize(Value row, Value x, Value result) {
  Value source = rowPointer(x, row), target = rowPointer(result, row);
  e.forLoop(e.index(0), groupsOf(result), 1, [&](Value group) {
    Pair pair = loadPair(source, group);
    storeActivationGroup(k, target, columnsOf(result), group, pair.low,
                         pair.high);
  });
}

void RowwiseEmitter::dequantize(Value row, Value x, Value result) {
  Value source = rowPointer(x, row), target = rowPointer(result, row);
  int64_t columns = columnsOf(x);
  e.forLoop(e.index(0), groupsOf(result), 1, [&](Value group) {
    Value parts[2];
    for (int half = 0; half < 2; ++half) {
      if (k.numerics == Numerics::Bf16) {
        Value at =
            e.offset(e.offset(source, e.mul(group, e.index(64))), 32 * half);
        parts[half] = e.extend(e.load(e.vec(kLanes, e.bf16()), at, 2), e.f32());
        continue;
      }
      Value at =
          e.offset(e.offset(source, e.mul(group, e.index(32))), 16 * half);
      Value codes = e.extend(e.load(e.vec(kLanes, e.i8()), at), e.i32());
      Value scale =
          e.load(e.f32(),
                 e.offset(e.offset(source, activationScaleOffset(columns)),
                          e.mul(group, e.index(4))),
                 4);
      parts[half] = e.mul(e.toFloat(codes, e.f32()), e.broadcast(scale));
    }
    storePair({parts[0], parts[1]}, target, group);
  });
}

/// sum = x + (delta[0] + delta[1] + ...). Returns the sums of squares, by lane.
std::pair<Value, Value> RowwiseEmitter::emitSum(Value x, Value delta, Value sum,
                                                Value row) {
  auto type = cast<RankedTensorType>(delta.getType());
  SmallVector<Value> deltas;
  if (type.getRank() == 3)
    for (int64_t share = 0; share < type.getShape()[0]; ++share)
      deltas.push_back(shareRowPointer(delta, share, row));
  else
    deltas.push_back(rowPointer(delta, row));
  Value source = x ? rowPointer(x, row) : Value();
  Value target = rowPointer(sum, row);
  Value zero = e.constant(lanes, 0.0);
  auto squares = e.forLoop(
      e.index(0), groupsOf(sum), 1, ValueRange{zero, zero},
      [&](Value group, ValueRange acc) {
        Pair total = loadPair(deltas[0], group);
        for (Value pointer : ArrayRef<Value>(deltas).drop_front()) {
          Pair next = loadPair(pointer, group);
          total = {e.add(total.low, next.low), e.add(total.high, next.high)};
        }
        if (source) {
          Pair base = loadPair(source, group);
          total = {e.add(base.low, total.low), e.add(base.high, total.high)};
        }
        storePair(total, target, group);
        return Emitter::Values{e.fma(total.low, total.low, acc[0]),
                               e.fma(total.high, total.high, acc[1])};
      });
  return {squares[0], squares[1]};
}

void RowwiseEmitter::emitRmsNorm(Value x, Value weight, Value result,
                                 FloatAttr eps, Value row,
                                 std::pair<Value, Value> squares) {
  Value source = rowPointer(x, row);
  if (!squares.first) {
    Value zero = e.constant(lanes, 0.0);
    auto sums =
        e.forLoop(e.index(0), groupsOf(x), 1, ValueRange{zero, zero},
                  [&](Value group, ValueRange acc) {
                    Pair pair = loadPair(source, group);
                    return Emitter::Values{e.fma(pair.low, pair.low, acc[0]),
                                           e.fma(pair.high, pair.high, acc[1])};
                  });
    squares = {sums[0], sums[1]};
  }
  Value sum = e.reduceAdd(e.add(squares.first, squares.second));
  Value mean =
      e.div(sum, e.constant(e.f32(), static_cast<double>(columnsOf(x))));
  Value root = e.sqrt(e.add(mean, e.constant(e.f32(), eps.getValueAsDouble())));
  Value scale = e.broadcast(e.div(e.constant(e.f32(), 1.0), root));
  Value weights = pointers[weight], target = rowPointer(result, row);
  e.forLoop(e.index(0), groupsOf(x), 1, [&](Value group) {
    Pair pair = loadPair(source, group), w = loadPair(weights, group);
    storePair({e.mul(e.mul(pair.low, scale), w.low),
               e.mul(e.mul(pair.high, scale), w.high)},
              target, group);
  });
}

LogicalResult RowwiseEmitter::emitOp(Operation &op, Value row) {
  return TypeSwitch<Operation *, LogicalResult>(&op)
      .Case([&](lm::AddOp add) {
        emitSum(add.getX(), add.getDelta(), add.getResult(), row);
        return success();
      })
      .Case([&](lm::ReduceSharesOp reduce) {
        emitSum({}, reduce.getPartials(), reduce.getResult(), row);
        return success();
      })
      .Case([&](lm::AddRmsNormOp norm) {
        auto squares =
            emitSum(norm.getX(), norm.getDelta(), norm.getSum(), row);
        emitRmsNorm(norm.getSum(), norm.getW(), norm.getResult(),
                    norm.getEpsAttr(), row, squares);
        return success();
      })
      .Case([&](lm::RmsNormOp norm) {
        emitRmsNorm(norm.getX(), norm.getW(), norm.getResult(),
                    norm.getEpsAttr(), row, {});
        return success();
      })
      .Case([&](lm::SiluOp silu) {
        elementwise(row, silu.getResult(), {silu.getX()},
                    [&](ArrayRef<Pair> x) {
                      return Pair{e.silu(x[0].low), e.silu(x[0].high)};
                    });
        return success();
      })
      .Case([&](lm::MulOp mul) {
        elementwise(row, mul.getResult(), {mul.getLhs(), mul.getRhs()},
                    [&](ArrayRef<Pair> x) {
                      return Pair{e.mul(x[0].low, x[1].low),
                                  e.mul(x[0].high, x[1].high)};
                    });
        return success();
      })
      .Case([&](lm::SwigluOp swiglu) {
        elementwise(row, swiglu.getResult(), {swiglu.getGate(), swiglu.getUp()},
                    [&](ArrayRef<Pair> x) {
                      return Pair{e.mul(e.silu(x[0].low), x[1].low),
                                  e.mul(e.silu(x[0].high), x[1].high)};
                    });
        return success();
      })
      .Case([&](lm::QuantizeOp quantizeOp) {
        quantize(row, quantizeOp.getX(), quantizeOp.getResult());
        return success();
      })
      .Case([&](lm::DequantizeOp dequantizeOp) {
        dequantize(row, dequantizeOp.getX(), dequantizeOp.getResult());
        return success();
      })
      .Default([](Operation *) { return failure(); });
}

LogicalResult RowwiseEmitter::emit() {
  unsigned nextResult = 0;
  for (BlockArgument argument : k.body().getArguments())
    pointers[argument] = k.argument(argument);
  for (Operation &op : k.body().without_terminator())
    for (Value result : op.getResults()) {
      if (columnsOf(result) % 32 != 0)
        return k.emitError() << "rows of " << columnsOf(result)
                             << " columns, expected a multiple of 32";
      if (!llvm::is_contained(k.yielded(), result))
        pointers[result] = k.temporary(rowBytes(result));
    }
  for (Value value : k.yielded())
    pointers[value] = k.result(nextResult++);
  LogicalResult status = success();
  e.forLoop(k.rangeBegin(0), k.rangeEnd(0), 1, [&](Value row) {
    for (Operation &op : k.body().without_terminator())
      if (failed(emitOp(op, row)))
        status = k.emitError() << "no row-wise code for " << op.getName();
  });
  return status;
}

} // namespace

bool matchesRowwise(Kernel &k) { return !k.splitShares(); }

LogicalResult generateRowwise(Kernel &k) { return RowwiseEmitter(k).emit(); }

} // namespace quern::host
