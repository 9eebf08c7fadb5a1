//===- RopeAppendKernel.cpp - Rotary embedding and the KV cache -----------===//
//
// Turns the query and key heads of a share and appends its keys and values to
// their pages: a block per row. Sines and cosines are made once a row and lie
// in shared memory.
//
//===----------------------------------------------------------------------===//
#include "codegen/kernels/RopeAppendPlan.h"
#include "codegen/ptx/KvPages.h"

#include <cmath>
#include <limits>

using namespace mlir;

namespace quern::nvptx {
namespace {

constexpr int64_t kThreads = 128;

class RopeAppendEmitter {
public:
  RopeAppendEmitter(Kernel &k, const RopeAppendPlan &plan)
      : k(k), e(k.e), plan(plan), buffers(k, e) {}

  void emit();

private:
  void emitAngles(lm::RopeOp rope);
  void emitRope(lm::RopeOp rope, unsigned segment);
  void turnPair(lm::RopeOp rope, Value source, Value target, Value pair);
  void emitAppend(lm::KvAppendOp append, unsigned segment);
  /// Appends the heads of `source`, keys or values, as int8 with scales.
  void appendInt8(Value source, unsigned segment, KvPart part,
                  const KvLayout &layout, const KvPlace &place);
  /// Calls `body(head, i)` for heads [begin, end) (columns) and i < count,
  /// spread over the block's threads.
  void forHeads(std::pair<Value, Value> range, int64_t headDim, int64_t count,
                function_ref<void(Value column, Value i)> body);

  Kernel &k;
  Emitter &e;
  const RopeAppendPlan &plan;
  RowBuffers buffers;
  Value row;
  Value cosines, sines; ///< f32 (angles) in shared memory
};

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

void RopeAppendEmitter::emitAngles(lm::RopeOp rope) {
  int64_t rotary = rope.getRotaryDim();
  double base = rope.getBase().convertToDouble();
  Value at = e.at(k.argument(rope.getPositions()), row, 4);
  Value position = e.toFloat(e.load(e.i32(), at, 4), e.f32());
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
    auto [sine, cosine] =
        sinCos(e, e.extend(e.mul(position, frequency), e.f64()));
    e.store(e.truncate(sine, e.f32()), e.offset(sines, byte), 4);
    e.store(e.truncate(cosine, e.f32()), e.offset(cosines, byte), 4);
  });
  e.barrier();
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
  auto range = k.columns(segment, columnsOf(rope.getX()));
  Value source = buffers.row(rope.getX(), row),
        target = buffers.row(rope.getResult(), row);
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
  KvPlace place = k.kvPlace(k.kvArgument(append.getKv()), layout, row);
  Type element = type.getElementType();

  e.barrier(); // what other threads turned
  if (layout.isInt8) {
    appendInt8(append.getK(), segment, KvPart::Keys, layout, place);
    return appendInt8(append.getV(), segment + 1, KvPart::Values, layout,
                      place);
  }
  auto copy = [&](Value source, unsigned sourceSegment, KvPart part) {
    Value pointer = buffers.row(source, row);
    forHeads(k.columns(sourceSegment, columnsOf(source)), layout.headDim,
             layout.headDim, [&](Value column, Value i) {
               Value from = e.at(pointer, e.add(column, i), 4);
               Value value = e.load(e.f32(), from, 4);
               Value head = e.mul(e.div(column, e.index(layout.headDim)),
                                  e.index(layout.headBytes()));
               Value to = e.offset(
                   place.page,
                   e.add(head, kvOffset(e, layout, part, place.token, i)));
               if (element.isF16()) // what tensor cores read must be finite
                 value = e.truncate(e.clampToHalf(value), element);
               e.store(value, to, layout.elementBytes);
             });
  };
  copy(append.getK(), segment, KvPart::Keys);
  copy(append.getV(), segment + 1, KvPart::Values);
}

void RopeAppendEmitter::appendInt8(Value source, unsigned segment, KvPart part,
                                   const KvLayout &layout,
                                   const KvPlace &place) {
  // A warp has the columns of a scale, a lane each. The formula is
  // lm.quantize's, over more columns.
  constexpr int64_t kColumns = KvLayout::kScaleColumns;
  static_assert(kColumns == kWarp);
  Value pointer = buffers.row(source, row);
  auto [begin, end] = k.columns(segment, columnsOf(source));
  Value first = e.add(begin, e.mul(e.warp(), e.index(kColumns)));
  e.forLoop(first, end, kThreads, [&](Value column) {
    Value at = e.mul(e.add(column, e.lane()), e.index(4));
    Value value = e.clampToHalf(e.load(e.f32(), e.offset(pointer, at), 4));
    Value largest = e.warpMax(e.absF(value)), zero = e.constant(e.f32(), 0.0);
    Value most = e.constant(e.f32(), 127.0);
    Value inverse = e.div(most, largest);
    // A group too small for its inverse to be finite is zero.
    Value some = e.less(
        inverse, e.constant(e.f32(), std::numeric_limits<double>::infinity()));
    Value code = e.toInt(
        e.roundEven(e.mul(value, e.select(some, inverse, zero))), e.i32());
    Value dim = e.rem(column, e.index(layout.headDim));
    Value head = e.at(place.page, e.div(column, e.index(layout.headDim)),
                      layout.headBytes());
    e.store(e.truncate(code, e.i8()),
            e.offset(head, kvOffset(e, layout, part, place.token,
                                    e.add(dim, e.lane()))));
    e.ifThen(e.equal(e.lane(), e.index(0)), [&] {
      Value to = kvScaleOffset(e, layout, part, place.token,
                               e.div(dim, e.index(kColumns)));
      e.store(e.select(some, e.div(largest, most), zero), e.offset(head, to),
              4);
    });
  });
}

void RopeAppendEmitter::emit() {
  k.launch.blockThreads = kThreads;
  k.launch.grid = {{GridCount::Rows, 1}};
  if (plan.angles > 0) {
    cosines = k.shared(4 * plan.angles);
    sines = k.shared(4 * plan.angles);
  }
  row = k.splitShares() ? e.block(0) : e.add(k.rangeBegin(0), e.block(0));
  bool readAngles = false;
  for (const RopeAppendPlan::Step &step : plan.steps) {
    if (step.newAngles) {
      if (readAngles)
        e.barrier(); // readers of the angles before
      emitAngles(step.rope);
      readAngles = true;
    }
    if (step.rope)
      emitRope(step.rope, step.segment);
    else
      emitAppend(step.append, step.segment);
  }
}

} // namespace

bool matchesRopeAppend(Kernel &k) { return planRopeAppend(k.op).has_value(); }

LogicalResult generateRopeAppend(Kernel &k) {
  for (auto append : k.body().getOps<lm::KvAppendOp>())
    if (failed(
            checkKvCache(k, cast<lm::KvCacheType>(append.getKv().getType()))))
      return failure();
  RopeAppendEmitter(k, *planRopeAppend(k.op)).emit();
  return success();
}

} // namespace quern::nvptx
