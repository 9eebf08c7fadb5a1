//===- RopeAppendKernel.cpp - Rotary embedding and the KV cache -----------===//
//
// Turns the query and key heads of a share and appends its keys and values to
// their pages, row by row.
//
//===----------------------------------------------------------------------===//
#include "codegen/host/Kernel.h"
#include "codegen/host/KvAppend.h"
#include "codegen/kernels/RopeAppendPlan.h"

#include <cmath>

using namespace mlir;

namespace quern::host {
namespace {

class RopeAppendEmitter {
public:
  RopeAppendEmitter(Kernel &k, const RopeAppendPlan &plan)
      : k(k), e(k.e), plan(plan), buffers(k, e),
        cosines(k.temporary(4 * plan.angles)),
        sines(k.temporary(4 * plan.angles)) {}

  void emit();

private:
  void emitAngles(lm::RopeOp rope, Value row);
  void emitRope(lm::RopeOp rope, Value row, unsigned segment);
  void turnHead(lm::RopeOp rope, Value source, Value target);
  void emitAppend(lm::KvAppendOp append, Value row, unsigned segment);

  Kernel &k;
  Emitter &e;
  const RopeAppendPlan &plan;
  RowBuffers buffers;
  Value cosines, sines; ///< f32 (angles) in scratch
};

/// Lanes that divide `count`: the widest power of two up to 16.
int64_t lanesFor(int64_t count) {
  return std::min<int64_t>(kLanes, count & -count);
}

void RopeAppendEmitter::emitAngles(lm::RopeOp rope, Value row) {
  int64_t half = rope.getRotaryDim() / 2, lanes = lanesFor(half);
  double base = rope.getBase().convertToDouble();
  Value at = e.at(k.argument(rope.getPositions()), row, 4);
  Value position = e.toFloat(e.load(e.i32(), at, 4), e.f32());
  for (int64_t i = 0; i < half; i += lanes) {
    SmallVector<float> frequencies;
    for (int64_t j = i; j < i + lanes; ++j)
      frequencies.push_back(
          static_cast<float>(std::pow(base, -2.0 * j / rope.getRotaryDim())));
    Value frequency = e.constantVector(frequencies);
    if (Value factors = rope.getFactors())
      frequency =
          e.div(frequency, e.load(frequency.getType(),
                                  e.offset(k.argument(factors), 4 * i), 4));
    Value angle = e.mul(e.broadcast(position, lanes), frequency);
    auto [sine, cosine] = sinCos(e, e.extend(angle, e.f64()));
    e.store(e.truncate(sine, e.f32()), e.offset(sines, 4 * i), 4);
    e.store(e.truncate(cosine, e.f32()), e.offset(cosines, 4 * i), 4);
  }
}

/// One head, f32: y1 = x1 cos - x2 sin, y2 = x2 cos + x1 sin.
void RopeAppendEmitter::turnHead(lm::RopeOp rope, Value source, Value target) {
  int64_t rotary = rope.getRotaryDim(), half = rotary / 2,
          lanes = lanesFor(half);
  Type type = e.vec(lanes, e.f32());
  SmallVector<int32_t> evens, odds, zipped;
  for (int64_t i = 0; i < lanes; ++i) {
    evens.push_back(2 * i);
    odds.push_back(2 * i + 1);
    zipped.append({static_cast<int32_t>(i), static_cast<int32_t>(i + lanes)});
  }
  bool interleaved = rope.getMode() == lm::RopeMode::Interleaved;
  for (int64_t i = 0; i < half; i += lanes) {
    int64_t first = interleaved ? 2 * i : i,
            second = interleaved ? 2 * i + lanes : i + half;
    Value a = e.load(type, e.offset(source, 4 * first), 4);
    Value b = e.load(type, e.offset(source, 4 * second), 4);
    Value x1 = interleaved ? e.shuffle(a, b, evens) : a;
    Value x2 = interleaved ? e.shuffle(a, b, odds) : b;
    Value cosine = e.load(type, e.offset(cosines, 4 * i), 4);
    Value sine = e.load(type, e.offset(sines, 4 * i), 4);
    Value y1 = e.sub(e.mul(x1, cosine), e.mul(x2, sine));
    Value y2 = e.add(e.mul(x2, cosine), e.mul(x1, sine));
    if (!interleaved) {
      e.store(y1, e.offset(target, 4 * first), 4);
      e.store(y2, e.offset(target, 4 * second), 4);
      continue;
    }
    e.store(e.shuffle(y1, y2, zipped), e.offset(target, 4 * first), 4);
  }
  for (int64_t i = rotary; i < static_cast<int64_t>(rope.getHeadDim()); ++i)
    e.store(e.load(e.f32(), e.offset(source, 4 * i), 4),
            e.offset(target, 4 * i), 4);
}

void RopeAppendEmitter::emitRope(lm::RopeOp rope, Value row, unsigned segment) {
  auto [begin, end] = k.columns(segment, columnsOf(rope.getX()));
  Value source = buffers.row(rope.getX(), row),
        target = buffers.row(rope.getResult(), row);
  e.forLoop(begin, end, rope.getHeadDim(), [&](Value column) {
    Value bytes = e.mul(column, e.index(4));
    turnHead(rope, e.offset(source, bytes), e.offset(target, bytes));
  });
}

void RopeAppendEmitter::emitAppend(lm::KvAppendOp append, Value row,
                                   unsigned segment) {
  auto type = cast<lm::KvCacheType>(append.getKv().getType());
  KvLayout layout = kvLayout(type);
  auto [page, token] = k.kvPlace(k.kvArgument(append.getKv()), layout, row);
  auto forHeads = [&, page = page](Value source, unsigned part,
                                   function_ref<void(Value, Value)> body) {
    Value pointer = buffers.row(source, row);
    auto [begin, end] = k.columns(segment + part, columnsOf(source));
    e.forLoop(begin, end, layout.headDim, [&](Value column) {
      Value head = e.div(column, e.index(layout.headDim));
      body(e.at(pointer, column, 4), e.at(page, head, layout.headStride()));
    });
  };
  forHeads(append.getK(), 0, [&, token = token](Value from, Value head) {
    storeKey(e, layout, from, head, token);
  });
  forHeads(append.getV(), 1, [&, token = token](Value from, Value head) {
    storeValue(e, layout, from, head, token);
  });
}

void RopeAppendEmitter::emit() {
  Value begin = k.splitShares() ? e.index(0) : k.rangeBegin(0);
  Value end = k.splitShares() ? k.rows() : k.rangeEnd(0);
  e.forLoop(begin, end, 1, [&](Value row) {
    for (const RopeAppendPlan::Step &step : plan.steps) {
      if (step.newAngles)
        emitAngles(step.rope, row);
      if (step.rope)
        emitRope(step.rope, row, step.segment);
      else
        emitAppend(step.append, row, step.segment);
    }
  });
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

} // namespace quern::host
