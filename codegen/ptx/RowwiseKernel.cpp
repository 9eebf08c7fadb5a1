//===- RowwiseKernel.cpp - Kernels in which rows are independent ----------===//
//
// Norms, residual adds, SwiGLU, quantization: a block per row. Each op of the
// body is one pass over the row: a warp takes every kWarps-th group of 32
// columns, a lane one column of it. A column stays with its thread from op to
// op, so what one wrote the next reads without a barrier; only norms join the
// threads.
//
//===----------------------------------------------------------------------===//
#include "codegen/ptx/Kernel.h"

#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;

namespace quern::nvptx {
namespace {

constexpr int64_t kWarps = 8;

class RowwiseEmitter {
public:
  explicit RowwiseEmitter(Kernel &k) : k(k), e(k.e) {}

  LogicalResult emit();

private:
  LogicalResult emitOp(Operation &op);
  void emitRmsNorm(Value x, Value weight, Value result, FloatAttr eps,
                   Value squares);
  Value emitSum(Value x, Value delta, Value sum);

  /// One pass over the columns of `result`: reads a column of every operand,
  /// writes what `compute` makes of them.
  void elementwise(Value result, ArrayRef<Value> operands,
                   function_ref<Value(ArrayRef<Value>)> compute);
  void quantize(Value x, Value result);
  void dequantize(Value x, Value result);

  /// Calls `body` for this thread's groups of `value`, carrying `init`.
  Value forGroups(Value value, Value init,
                  function_ref<Value(Value group, Value carried)> body) {
    return e.forLoop(e.warp(), e.index(columnsOf(value) / 32), kWarps,
                     ValueRange{init}, [&](Value group, ValueRange carried) {
                       return Emitter::Values{body(group, carried[0])};
                     })[0];
  }
  void forGroups(Value value, function_ref<void(Value group)> body) {
    e.forLoop(e.warp(), e.index(columnsOf(value) / 32), kWarps, body);
  }
  /// Sum over all threads, in every one of them.
  Value blockSum(Value value);

  /// Pointer of this row of `value`: an argument, a result, or shared memory.
  Value rowPointer(Value value);
  Value shareRowPointer(Value partials, int64_t share);
  static int64_t rowBytes(Value value) {
    return isActivation(value) ? activationRowBytes(columnsOf(value))
                               : 4 * columnsOf(value);
  }
  Value columnAt(Value pointer, Value group) {
    Value column = e.add(e.mul(group, e.index(32)), e.lane());
    return e.offset(pointer, e.mul(column, e.index(4)));
  }
  Value load(Value pointer, Value group) {
    return e.load(e.f32(), columnAt(pointer, group), 4);
  }

  Kernel &k;
  Emitter &e;
  Value row;
  llvm::DenseMap<Value, Value> pointers;
};

Value RowwiseEmitter::rowPointer(Value value) {
  if (!isa<BlockArgument>(value) && !llvm::is_contained(k.yielded(), value))
    return pointers[value];
  return e.offset(pointers[value], e.mul(row, e.index(rowBytes(value))));
}

Value RowwiseEmitter::shareRowPointer(Value partials, int64_t share) {
  Value at = e.add(e.mul(k.rows(), e.index(share)), row);
  return e.offset(pointers[partials],
                  e.mul(at, e.index(4 * columnsOf(partials))));
}

Value RowwiseEmitter::blockSum(Value value) {
  Value sums = k.shared(4 * kWarps);
  Value sum = e.warpSum(value);
  e.ifThen(e.equal(e.lane(), e.index(0)), [&] {
    e.store(sum, e.offset(sums, e.mul(e.warp(), e.index(4))), 4);
  });
  e.barrier();
  Value total = e.load(e.f32(), sums, 4);
  for (int64_t warp = 1; warp < kWarps; ++warp)
    total = e.add(total, e.load(e.f32(), e.offset(sums, 4 * warp), 4));
  return total;
}

void RowwiseEmitter::elementwise(Value result, ArrayRef<Value> operands,
                                 function_ref<Value(ArrayRef<Value>)> compute) {
  SmallVector<Value> sources;
  for (Value operand : operands)
    sources.push_back(rowPointer(operand));
  Value target = rowPointer(result);
  forGroups(result, [&](Value group) {
    SmallVector<Value> inputs;
    for (Value source : sources)
      inputs.push_back(load(source, group));
    e.store(compute(inputs), columnAt(target, group), 4);
  });
}

void RowwiseEmitter::quantize(Value x, Value result) {
  Value source = rowPointer(x), target = rowPointer(result);
  forGroups(result, [&](Value group) {
    storeActivation(k, target, columnsOf(result), group, e.lane(),
                    load(source, group));
  });
}

void RowwiseEmitter::dequantize(Value x, Value result) {
  Value source = rowPointer(x), target = rowPointer(result);
  forGroups(result, [&](Value group) {
    Value value;
    if (k.numerics == Numerics::F16) {
      Value at = e.add(e.mul(group, e.index(64)), halfRowOffset(e, e.lane()));
      value = e.extend(e.load(e.f16(), e.offset(source, at), 2), e.f32());
    } else {
      Value at = e.add(e.mul(group, e.index(32)), e.lane());
      Value code = e.extend(e.load(e.i8(), e.offset(source, at)), e.i32());
      Value scales = e.offset(source, activationScaleOffset(columnsOf(x)));
      Value scale =
          e.load(e.f32(), e.offset(scales, e.mul(group, e.index(4))), 4);
      value = e.mul(e.toFloat(code, e.f32()), scale);
    }
    e.store(value, columnAt(target, group), 4);
  });
}

/// sum = x + (delta[0] + delta[1] + ...). Returns this thread's sum of squares.
Value RowwiseEmitter::emitSum(Value x, Value delta, Value sum) {
  auto type = cast<RankedTensorType>(delta.getType());
  SmallVector<Value> deltas;
  if (type.getRank() == 3)
    for (int64_t share = 0; share < type.getShape()[0]; ++share)
      deltas.push_back(shareRowPointer(delta, share));
  else
    deltas.push_back(rowPointer(delta));
  Value source = x ? rowPointer(x) : Value();
  Value target = rowPointer(sum);
  return forGroups(sum, e.constant(e.f32(), 0.0),
                   [&](Value group, Value squares) {
                     Value total = load(deltas[0], group);
                     for (Value pointer : ArrayRef<Value>(deltas).drop_front())
                       total = e.add(total, load(pointer, group));
                     if (source)
                       total = e.add(load(source, group), total);
                     e.store(total, columnAt(target, group), 4);
                     return e.fma(total, total, squares);
                   });
}

void RowwiseEmitter::emitRmsNorm(Value x, Value weight, Value result,
                                 FloatAttr eps, Value squares) {
  Value source = rowPointer(x);
  if (!squares)
    squares =
        forGroups(x, e.constant(e.f32(), 0.0), [&](Value group, Value sum) {
          Value value = load(source, group);
          return e.fma(value, value, sum);
        });
  Value mean = e.div(blockSum(squares),
                     e.constant(e.f32(), static_cast<double>(columnsOf(x))));
  Value root = e.sqrt(e.add(mean, e.constant(e.f32(), eps.getValueAsDouble())));
  Value scale = e.div(e.constant(e.f32(), 1.0), root);
  Value weights = pointers[weight], target = rowPointer(result);
  forGroups(x, [&](Value group) {
    Value scaled = e.mul(load(source, group), scale);
    e.store(e.mul(scaled, load(weights, group)), columnAt(target, group), 4);
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
        Value squares = emitSum(norm.getX(), norm.getDelta(), norm.getSum());
        emitRmsNorm(norm.getSum(), norm.getW(), norm.getResult(),
                    norm.getEpsAttr(), squares);
        return success();
      })
      .Case([&](lm::RmsNormOp norm) {
        emitRmsNorm(norm.getX(), norm.getW(), norm.getResult(),
                    norm.getEpsAttr(), {});
        return success();
      })
      .Case([&](lm::SiluOp silu) {
        elementwise(silu.getResult(), {silu.getX()},
                    [&](ArrayRef<Value> x) { return e.silu(x[0]); });
        return success();
      })
      .Case([&](lm::MulOp mul) {
        elementwise(mul.getResult(), {mul.getLhs(), mul.getRhs()},
                    [&](ArrayRef<Value> x) { return e.mul(x[0], x[1]); });
        return success();
      })
      .Case([&](lm::SwigluOp swiglu) {
        elementwise(
            swiglu.getResult(), {swiglu.getGate(), swiglu.getUp()},
            [&](ArrayRef<Value> x) { return e.mul(e.silu(x[0]), x[1]); });
        return success();
      })
      .Case([&](lm::QuantizeOp op) {
        quantize(op.getX(), op.getResult());
        return success();
      })
      .Case([&](lm::DequantizeOp op) {
        dequantize(op.getX(), op.getResult());
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
        pointers[result] = k.shared(rowBytes(result));
    }
  for (Value value : k.yielded())
    pointers[value] = k.result(nextResult++);
  k.launch.blockThreads = kWarps * kWarp;
  k.launch.grid = {{GridCount::Rows, 1}};
  row = e.add(k.rangeBegin(0), e.block(0));
  LogicalResult status = success();
  e.ifThen(e.less(row, k.rangeEnd(0)), [&] {
    for (Operation &op : k.body().without_terminator())
      if (failed(emitOp(op)))
        status = k.emitError() << "no row-wise code for " << op.getName();
  });
  return status;
}

} // namespace

bool matchesRowwise(Kernel &k) { return !k.splitShares(); }

LogicalResult generateRowwise(Kernel &k) { return RowwiseEmitter(k).emit(); }

} // namespace quern::nvptx
