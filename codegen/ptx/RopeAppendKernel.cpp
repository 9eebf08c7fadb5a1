//===- RopeAppendKernel.cpp - Rotary embedding and the KV cache -----------===//
//
// Turns the query and key heads of a share and appends its keys and values to
// their pages: a block per row. Angles are products in f32, as the models were
// trained with; their sine and cosine are then computed in f64, since a
// position may be large. They are made once a row and lie in shared memory.
//
//===----------------------------------------------------------------------===//
#include "codegen/ptx/KvPages.h"

#include <cmath>

using namespace mlir;

namespace quern::nvptx {
namespace {

constexpr int64_t kThreads = 128;

class RopeAppendEmitter {
public:
  explicit RopeAppendEmitter(Kernel &k) : k(k), e(k.e) {}

  void emit();

private:
  /// Columns [begin, end) of a segment, or all columns when rows are split.
  std::pair<Value, Value> columns(unsigned segment, int64_t width) {
    if (k.splitShares())
      return {k.rangeBegin(segment), k.rangeEnd(segment)};
    return {e.index(0), e.index(width)};
  }
  void emitAngles(lm::RopeOp rope);
  std::pair<Value, Value> sinCos(Value angle);
  void emitRope(lm::RopeOp rope, unsigned segment);
  void turnPair(lm::RopeOp rope, Value source, Value target, Value pair);
  void emitAppend(lm::KvAppendOp append, unsigned segment);
  /// This row of `value`: an argument, a result, or shared memory.
  Value rowPointer(Value value);
  /// Calls `body(head, i)` for heads [begin, end) (columns) and i < count,
  /// spread over the block's threads.
  void forHeads(std::pair<Value, Value> range, int64_t headDim, int64_t count,
                function_ref<void(Value column, Value i)> body);

  Kernel &k;
  Emitter &e;
  Value row;
  llvm::DenseMap<Value, Value> pointers;
  Value cosines, sines; ///< f32 (rotary_dim / 2) in shared memory
  lm::RopeOp anglesOf;  ///< whose angles they are
};

Value RopeAppendEmitter::rowPointer(Value value) {
  if (!isa<BlockArgument>(value) && !llvm::is_contained(k.yielded(), value))
    return pointers[value];
  return e.offset(pointers[value], e.mul(row, e.index(4 * columnsOf(value))));
}

void RopeAppendEmitter::forHeads(std::pair<Value, Value> range, int64_t headDim,
                                 int64_t count,
                                 function_ref<void(Value, Value)> body) {
  Value heads = e.div(e.sub(range.second, range.first), e.index(headDim));
  e.forLoop(e.thread(), e.mul(heads, e.index(count)), kThreads,
            [&](Value item) {
              Value head = e.mul(e.div(item, e.index(count)), e.index(headDim));
              body(e.add(range.first, head), e.rem(item, e.index(count)));
            });
}

/// (sin, cos) of an f64: reduction by pi/2 in two parts, Taylor series on
/// [-pi/4, pi/4] (error below 1e-11), then the quadrant.
std::pair<Value, Value> RopeAppendEmitter::sinCos(Value angle) {
  auto c = [&](double value) { return e.constant(e.f64(), value); };
  Value n = e.roundEven(e.mul(angle, c(M_2_PI)));
  Value r = e.fma(n, c(-M_PI_2), angle);
  r = e.fma(n, c(-6.123233995736766e-17), r);
  Value r2 = e.mul(r, r);
  auto series = [&](ArrayRef<double> coefficients) {
    Value p = c(coefficients.front());
    for (double coefficient : coefficients.drop_front())
      p = e.fma(p, r2, c(coefficient));
    return p;
  };
  Value sine = e.mul(r, series({-1.0 / 39916800, 1.0 / 362880, -1.0 / 5040,
                                1.0 / 120, -1.0 / 6, 1.0}));
  Value cosine = series({1.0 / 479001600, -1.0 / 3628800, 1.0 / 40320,
                         -1.0 / 720, 1.0 / 24, -0.5, 1.0});
  Value quadrant = e.toInt(n, e.i32());
  auto bit = [&](Value value, int mask) {
    return e.equal(e.andI(value, e.constant(e.i32(), mask)),
                   e.constant(e.i32(), mask));
  };
  Value odd = bit(quadrant, 1);
  Value s = e.select(odd, cosine, sine), co = e.select(odd, sine, cosine);
  s = e.select(bit(quadrant, 2), e.mul(s, c(-1.0)), s);
  co = e.select(bit(e.add(quadrant, e.constant(e.i32(), 1)), 2),
                e.mul(co, c(-1.0)), co);
  return {s, co};
}

void RopeAppendEmitter::emitAngles(lm::RopeOp rope) {
  int64_t rotary = rope.getRotaryDim();
  double base = rope.getBase().convertToDouble();
  Value at = e.offset(k.argument(rope.getPositions()), e.mul(row, e.index(4)));
  Value position = e.toFloat(e.load(e.i32(), at, 4), e.f32());
  if (anglesOf)
    e.barrier(); // readers of the angles before
  e.forLoop(e.thread(), e.index(rotary / 2), kThreads, [&](Value i) {
    // base^(-2 i / rotary) from the powers of the bits of i, in f64.
    Value power = e.constant(e.f64(), 1.0);
    for (int bit = 0; int64_t{1} << bit < rotary / 2; ++bit) {
      Value mask = e.index(int64_t{1} << bit);
      double factor = std::pow(
          base, -2.0 * static_cast<double>(int64_t{1} << bit) / rotary);
      power = e.select(e.equal(e.andI(i, mask), mask),
                       e.mul(power, e.constant(e.f64(), factor)), power);
    }
    Value frequency = e.truncate(power, e.f32());
    Value byte = e.mul(i, e.index(4));
    if (Value factors = rope.getFactors())
      frequency = e.div(
          frequency, e.load(e.f32(), e.offset(k.argument(factors), byte), 4));
    auto [sine, cosine] = sinCos(e.extend(e.mul(position, frequency), e.f64()));
    e.store(e.truncate(sine, e.f32()), e.offset(sines, byte), 4);
    e.store(e.truncate(cosine, e.f32()), e.offset(cosines, byte), 4);
  });
  e.barrier();
  anglesOf = rope;
}

/// One pair of a head, f32: y1 = x1 cos - x2 sin, y2 = x2 cos + x1 sin.
void RopeAppendEmitter::turnPair(lm::RopeOp rope, Value source, Value target,
                                 Value pair) {
  bool interleaved = rope.getMode() == lm::RopeMode::Interleaved;
  Value first = e.mul(pair, e.index(interleaved ? 8 : 4));
  Value second =
      e.add(first, e.index(interleaved ? 4 : 2 * rope.getRotaryDim()));
  Value x1 = e.load(e.f32(), e.offset(source, first), 4);
  Value x2 = e.load(e.f32(), e.offset(source, second), 4);
  Value byte = e.mul(pair, e.index(4));
  Value cosine = e.load(e.f32(), e.offset(cosines, byte), 4);
  Value sine = e.load(e.f32(), e.offset(sines, byte), 4);
  e.store(e.sub(e.mul(x1, cosine), e.mul(x2, sine)), e.offset(target, first),
          4);
  e.store(e.add(e.mul(x2, cosine), e.mul(x1, sine)), e.offset(target, second),
          4);
}

void RopeAppendEmitter::emitRope(lm::RopeOp rope, unsigned segment) {
  bool known = anglesOf && anglesOf.getRotaryDim() == rope.getRotaryDim() &&
               anglesOf.getBase() == rope.getBase() &&
               anglesOf.getFactors() == rope.getFactors() &&
               anglesOf.getPositions() == rope.getPositions();
  if (!known)
    emitAngles(rope);
  auto range = columns(segment, columnsOf(rope.getX()));
  Value source = rowPointer(rope.getX()), target = rowPointer(rope.getResult());
  int64_t rotary = rope.getRotaryDim(), rest = rope.getHeadDim() - rotary;
  forHeads(range, rope.getHeadDim(), rotary / 2, [&](Value column, Value pair) {
    Value bytes = e.mul(column, e.index(4));
    turnPair(rope, e.offset(source, bytes), e.offset(target, bytes), pair);
  });
  if (rest == 0)
    return;
  forHeads(range, rope.getHeadDim(), rest, [&](Value column, Value i) {
    Value byte = e.mul(e.add(column, e.add(i, e.index(rotary))), e.index(4));
    e.store(e.load(e.f32(), e.offset(source, byte), 4), e.offset(target, byte),
            4);
  });
}

void RopeAppendEmitter::emitAppend(lm::KvAppendOp append, unsigned segment) {
  auto type = cast<lm::KvCacheType>(append.getKv().getType());
  KvLayout layout(type);
  KvArgs kv = k.kvArgument(append.getKv());
  auto intAt = [&](Value pointer, Value i) {
    return e.extend(e.load(e.i32(), e.offset(pointer, e.mul(i, e.index(4))), 4),
                    e.i64());
  };
  Value slot = intAt(kv.slots, row), sequence = intAt(kv.sequences, row);
  Value entry = e.add(e.mul(sequence, k.pageTableStride()),
                      e.div(slot, e.index(layout.page)));
  Value page =
      e.offset(kv.pool, e.mul(intAt(kv.pageTable, entry), k.pageBytes()));
  Value token = e.rem(slot, e.index(layout.page));
  Type element = type.getElementType();

  e.barrier(); // what other threads turned
  auto copy = [&](Value source, unsigned sourceSegment, KvPart part) {
    Value pointer = rowPointer(source);
    forHeads(columns(sourceSegment, columnsOf(source)), layout.headDim,
             layout.headDim, [&](Value column, Value i) {
               Value from =
                   e.offset(pointer, e.mul(e.add(column, i), e.index(4)));
               Value value = e.load(e.f32(), from, 4);
               Value head = e.mul(e.div(column, e.index(layout.headDim)),
                                  e.index(layout.headBytes()));
               Value to = e.offset(
                   page, e.add(head, kvOffset(e, layout, part, token, i)));
               e.store(element.isF32() ? value : e.truncate(value, element), to,
                       layout.elementBytes);
             });
  };
  copy(append.getK(), segment, KvPart::Keys);
  copy(append.getV(), segment + 1, KvPart::Values);
}

void RopeAppendEmitter::emit() {
  k.launch.blockThreads = kThreads;
  k.launch.grid = {{GridCount::Rows, 1}};
  for (BlockArgument argument : k.body().getArguments())
    if (!isa<lm::KvCacheType>(argument.getType()))
      pointers[argument] = k.argument(argument);
  unsigned nextResult = 0;
  for (Value value : k.yielded())
    if (!isa<lm::KvCacheType>(value.getType()))
      pointers[value] = k.result(nextResult++);
  int64_t half = 0;
  for (auto rope : k.body().getOps<lm::RopeOp>()) {
    half = std::max<int64_t>(half, rope.getRotaryDim() / 2);
    if (!pointers.count(rope.getResult()))
      pointers[rope.getResult()] = k.shared(4 * columnsOf(rope.getResult()));
  }
  if (half > 0) {
    cosines = k.shared(4 * half);
    sines = k.shared(4 * half);
  }
  row = k.splitShares() ? e.block(0) : e.add(k.rangeBegin(0), e.block(0));
  llvm::DenseMap<Value, unsigned> segments;
  unsigned next = 0;
  for (Operation &op : k.body().without_terminator()) {
    if (auto rope = dyn_cast<lm::RopeOp>(op)) {
      segments[rope.getResult()] = next;
      emitRope(rope, next++);
      continue;
    }
    auto append = cast<lm::KvAppendOp>(op);
    auto known = segments.find(append.getK());
    emitAppend(append, known == segments.end() ? next : known->second);
  }
}

} // namespace

bool matchesRopeAppend(Kernel &k) {
  return llvm::all_of(k.body().without_terminator(), [](Operation &op) {
    return isa<lm::RopeOp, lm::KvAppendOp>(op);
  });
}

LogicalResult generateRopeAppend(Kernel &k) {
  for (auto append : k.body().getOps<lm::KvAppendOp>())
    if (failed(
            checkKvCache(k, cast<lm::KvCacheType>(append.getKv().getType()))))
      return failure();
  RopeAppendEmitter(k).emit();
  return success();
}

} // namespace quern::nvptx
