//===- RopeAppendKernel.cpp - Rotary embedding and the KV cache -----------===//
//
// Turns the query and key heads of a share and appends its keys and values to
// their pages. Angles are products in f32, as the models were trained with;
// their sine and cosine are then computed in f64, since a position may be
// large.
//
//===----------------------------------------------------------------------===//
#include "codegen/host/Kernel.h"

#include <cmath>

using namespace mlir;

namespace quern::host {
namespace {

class RopeAppendEmitter {
public:
  explicit RopeAppendEmitter(Kernel &k)
      : k(k), e(k.e), bySegment(k.op.getSplit() == lm::KernelSplit::Shares) {}

  LogicalResult emit();

private:
  /// Columns [begin, end) of a segment, or all columns when rows are split.
  std::pair<Value, Value> columns(int64_t segment, int64_t width) {
    if (bySegment)
      return {k.rangeBegin(segment), k.rangeEnd(segment)};
    return {e.index(0), e.index(width)};
  }
  void emitAngles(lm::RopeOp rope, Value row);
  std::pair<Value, Value> sinCos(Value angle);
  void emitRope(lm::RopeOp rope, Value row, int64_t segment);
  void turnHead(lm::RopeOp rope, Value source, Value target);
  void emitAppend(lm::KvAppendOp append, Value row, int64_t segment);
  Value rowPointer(Value value, Value row);

  Kernel &k;
  Emitter &e;
  bool bySegment;
  llvm::DenseMap<Value, Value> pointers;
  Value cosines, sines; ///< f32 (rotary_dim / 2) in scratch
  lm::RopeOp anglesOf;  ///< whose angles they are
};

/// Lanes that divide `count`: the widest power of two up to 16.
int64_t lanesFor(int64_t count) {
  return std::min<int64_t>(kLanes, count & -count);
}

Value RopeAppendEmitter::rowPointer(Value value, Value row) {
  if (!isa<BlockArgument>(value) && !llvm::is_contained(k.yielded(), value))
    return pointers[value];
  return e.offset(pointers[value], e.mul(row, e.index(4 * columnsOf(value))));
}

/// (sin, cos) of f64 lanes: reduction by pi/2 in two parts, Taylor series on
/// [-pi/4, pi/4] (error below 1e-11), then the quadrant.
std::pair<Value, Value> RopeAppendEmitter::sinCos(Value angle) {
  Type type = angle.getType();
  auto c = [&](double value) { return e.constant(type, value); };
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
  Type ints = quadrant.getType();
  auto bit = [&](Value value, int mask) {
    Value set = e.andI(value, e.constant(ints, mask));
    return e.equal(set, e.constant(ints, mask));
  };
  Value odd = bit(quadrant, 1);
  Value s = e.select(odd, cosine, sine), co = e.select(odd, sine, cosine);
  Value minus = c(-1.0);
  s = e.select(bit(quadrant, 2), e.mul(s, minus), s);
  co = e.select(bit(e.add(quadrant, e.constant(ints, 1)), 2), e.mul(co, minus),
                co);
  return {s, co};
}

void RopeAppendEmitter::emitAngles(lm::RopeOp rope, Value row) {
  int64_t half = rope.getRotaryDim() / 2, lanes = lanesFor(half);
  double base = rope.getBase().convertToDouble();
  Value at = e.offset(k.argument(rope.getPositions()), e.mul(row, e.index(4)));
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
    auto [sine, cosine] = sinCos(e.extend(angle, e.f64()));
    e.store(e.truncate(sine, e.f32()), e.offset(sines, 4 * i), 4);
    e.store(e.truncate(cosine, e.f32()), e.offset(cosines, 4 * i), 4);
  }
  anglesOf = rope;
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

void RopeAppendEmitter::emitRope(lm::RopeOp rope, Value row, int64_t segment) {
  bool known = anglesOf && anglesOf.getRotaryDim() == rope.getRotaryDim() &&
               anglesOf.getBase() == rope.getBase() &&
               anglesOf.getFactors() == rope.getFactors() &&
               anglesOf.getPositions() == rope.getPositions();
  if (!known)
    emitAngles(rope, row);
  auto [begin, end] = columns(segment, columnsOf(rope.getX()));
  Value source = rowPointer(rope.getX(), row),
        target = rowPointer(rope.getResult(), row);
  e.forLoop(begin, end, rope.getHeadDim(), [&](Value column) {
    Value bytes = e.mul(column, e.index(4));
    turnHead(rope, e.offset(source, bytes), e.offset(target, bytes));
  });
}

void RopeAppendEmitter::emitAppend(lm::KvAppendOp append, Value row,
                                   int64_t segment) {
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
  auto narrow = [&](Value value) {
    return element.isF32() ? value : e.truncate(value, element);
  };

  auto forHeads = [&](Value source, int64_t part,
                      function_ref<void(Value, Value)> body) {
    Value pointer = rowPointer(source, row);
    auto [begin, end] = columns(segment + part, columnsOf(source));
    e.forLoop(begin, end, layout.headDim, [&](Value column) {
      Value head = e.div(column, e.index(layout.headDim));
      body(e.offset(pointer, e.mul(column, e.index(4))),
           e.offset(page, e.mul(head, e.index(layout.headBytes()))));
    });
  };
  forHeads(append.getK(), 0, [&](Value from, Value head) {
    Value to = e.offset(head, e.mul(token, e.index(layout.elementBytes)));
    e.forLoop(e.index(0), e.index(layout.headDim), 1, [&](Value i) {
      Value value = e.load(e.f32(), e.offset(from, e.mul(i, e.index(4))), 4);
      e.store(
          narrow(value),
          e.offset(to, e.mul(i, e.index(layout.page * layout.elementBytes))),
          layout.elementBytes);
    });
  });
  int64_t lanes = lanesFor(layout.headDim);
  forHeads(append.getV(), 1, [&](Value from, Value head) {
    Value to =
        e.offset(e.offset(head, layout.valuesOffset()),
                 e.mul(token, e.index(layout.headDim * layout.elementBytes)));
    for (int64_t i = 0; i < layout.headDim; i += lanes) {
      Value values = e.load(e.vec(lanes, e.f32()), e.offset(from, 4 * i), 4);
      e.store(narrow(values), e.offset(to, layout.elementBytes * i),
              layout.elementBytes);
    }
  });
}

LogicalResult RopeAppendEmitter::emit() {
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
      pointers[rope.getResult()] = k.scratch(4 * columnsOf(rope.getResult()));
  }
  cosines = k.scratch(4 * half);
  sines = k.scratch(4 * half);

  Value begin = bySegment ? e.index(0) : k.rangeBegin(0);
  Value end = bySegment ? k.rows() : k.rangeEnd(0);
  e.forLoop(begin, end, 1, [&](Value row) {
    anglesOf = {};
    llvm::DenseMap<Value, int64_t> segments;
    int64_t next = 0;
    for (Operation &op : k.body().without_terminator()) {
      if (auto rope = dyn_cast<lm::RopeOp>(op)) {
        segments[rope.getResult()] = next;
        emitRope(rope, row, next++);
        continue;
      }
      auto append = cast<lm::KvAppendOp>(op);
      auto known = segments.find(append.getK());
      emitAppend(append, row, known == segments.end() ? next : known->second);
    }
  });
  return success();
}

} // namespace

bool matchesRopeAppend(Kernel &k) {
  return llvm::all_of(k.body().without_terminator(), [](Operation &op) {
    return isa<lm::RopeOp, lm::KvAppendOp>(op);
  });
}

LogicalResult generateRopeAppend(Kernel &k) {
  return RopeAppendEmitter(k).emit();
}

} // namespace quern::host
