//===- KvAppend.cpp -------------------------------------------------------===//
#include "codegen/host/KvAppend.h"

#include <cmath>

using namespace mlir;

namespace quern::host {
namespace {

/// Smaller norms and magnitudes count as this, whose reciprocal is finite.
constexpr double kLeast = 1e-30;

/// Reads a head's f32 vector, 16 columns at a time.
class Source {
public:
  Source(Emitter &e, Value from, int64_t headDim)
      : e(e), from(from), headDim(headDim) {}

  /// Calls body(first column (i64), the columns) for columns ascending.
  void forEach(function_ref<void(Value, Value)> body) {
    e.forLoop(e.index(0), e.index(headDim), kLanes,
              [&](Value column) { body(column, load(column)); });
  }
  /// Combines all columns, lane by lane, in ascending order.
  Value fold(Value init, function_ref<Value(Value, Value)> combine) {
    return e.forLoop(e.index(0), e.index(headDim), kLanes, init,
                     [&](Value column, ValueRange carried) {
                       return Emitter::Values{
                           combine(carried[0], load(column))};
                     })[0];
  }

private:
  Value load(Value column) {
    return e.load(e.vec(kLanes, e.f32()), e.at(from, column, 4), 4);
  }

  Emitter &e;
  Value from;
  int64_t headDim;
};

/// Stores the lanes of `vector` `stride` bytes apart.
void storeLanes(Emitter &e, Value vector, Value pointer, int64_t stride) {
  auto type = cast<VectorType>(vector.getType());
  for (int64_t lane = 0; lane < type.getNumElements(); ++lane)
    e.store(e.extract(vector, lane), e.offset(pointer, lane * stride),
            type.getElementTypeBitWidth() / 8);
}

/// int16 codes of 16 columns: round(columns * inverse).
Value codesOf(Emitter &e, Value columns, Value inverse) {
  Value scaled = e.mul(columns, e.broadcast(inverse));
  return e.truncate(e.toInt(e.roundEven(scaled), e.i32()), e.i16());
}

void storeScale(Emitter &e, const KvLayout &layout, FixedKvScale scale,
                Value value, Value head, Value token) {
  Value at = e.offset(head, layout.scaleOffset(scale));
  e.store(value, e.at(at, token, KvLayout::kWordBytes), 4);
}

/// Calls body(first column, codes) for a key's columns; returns the scale.
Value forKeyCodes(Emitter &e, Source source,
                  function_ref<void(Value, Value)> body) {
  // In f64, where no square of an f32 overflows or vanishes.
  Value squares = source.fold(e.constant(e.vec(kLanes, e.f64()), 0.0),
                              [&](Value sum, Value columns) {
                                Value x = e.extend(columns, e.f64());
                                return e.fma(x, x, sum);
                              });
  Value norm = e.truncate(e.sqrt(e.reduceAdd(squares)), e.f32());
  auto c = [&](double value) { return e.constant(e.f32(), value); };
  Value inverse =
      e.select(e.less(norm, c(kLeast)), c(0.0), e.div(c(kFixedKeyNorm), norm));
  source.forEach([&](Value column, Value columns) {
    body(column, codesOf(e, columns, inverse));
  });
  return e.div(norm, c(kFixedKeyNorm));
}

void storeFixedKey(Emitter &e, const KvLayout &layout, Source source,
                   Value head, Value token) {
  Value words = e.at(head, token, KvLayout::kWordBytes);
  Value scale = forKeyCodes(e, source, [&](Value column, Value codes) {
    Value pairs = e.bitcast(codes, e.vec(kLanes / 2, e.i32()));
    Value pair = e.div(column, e.index(2));
    storeLanes(e, pairs, e.at(words, pair, layout.dimPairStride()),
               layout.dimPairStride());
  });
  storeScale(e, layout, FixedKvScale::kKey, scale, head, token);
}

/// An upper bound of log2(amax / kFixedValueMax), at most 0.09 above it.
///
/// A float's bits as a number, times 2^-23, less 127, are its logarithm but for
/// log2(1 + m) - m, m being the mantissa: between 0 and 0.08608. Adding 0.0862
/// so leaves a margin of 1.2e-4. Roundings take 2e-5 of it: the bits to f32,
/// the constant, the sum, each 8e-6 at most. What is left is a factor of 1 +
/// 7e-5, and exp2, the reciprocal and the product that make a code are wrong by
/// 4 ulp, 5e-7, together: no code is larger than kFixedValueMax.
Value logOfValueScale(Emitter &e, Value amax) {
  Value bits = e.toFloat(e.bitcast(amax, e.i32()), e.f32());
  Value log = e.mul(bits, e.constant(e.f32(), 0x1p-23));
  return e.add(log,
               e.constant(e.f32(), 0.0862 - 127 - std::log2(kFixedValueMax)));
}

void storeFixedValue(Emitter &e, const KvLayout &layout, Source source,
                     Value head, Value token) {
  Value largest = source.fold(
      e.constant(e.vec(kLanes, e.f32()), 0.0),
      [&](Value most, Value columns) { return e.maxF(most, e.absF(columns)); });
  // A NaN gives way to what it is compared with.
  Value amax = e.maxF(e.reduceMax(largest), e.constant(e.f32(), kLeast));
  Value log = logOfValueScale(e, amax);
  Value inverse = e.div(e.constant(e.f32(), 1.0), e.exp2(log));
  Value pair = e.div(token, e.index(2)), half = e.rem(token, e.index(2));
  Value codes = e.offset(e.offset(head, layout.valuesOffset()),
                         e.add(e.mul(pair, e.index(layout.tokenPairStride())),
                               e.mul(half, e.index(KvLayout::kWordBytes / 2))));
  source.forEach([&](Value column, Value columns) {
    storeLanes(e, codesOf(e, columns, inverse),
               e.at(codes, column, KvLayout::kWordBytes), KvLayout::kWordBytes);
  });
  storeScale(e, layout, FixedKvScale::kValueLog2, log, head, token);
  storeScale(e, layout, FixedKvScale::kValueInverse, inverse, head, token);
}

} // namespace

void storeKey(Emitter &e, const KvLayout &layout, Value from, Value head,
              Value token) {
  Source source(e, from, layout.headDim);
  if (layout.isFixed)
    return storeFixedKey(e, layout, source, head, token);
  Value to = e.at(head, token, layout.elementBytes);
  int64_t stride = layout.page * layout.elementBytes;
  source.forEach([&](Value column, Value columns) {
    storeLanes(e, columns, e.at(to, column, stride), stride);
  });
}

void storeValue(Emitter &e, const KvLayout &layout, Value from, Value head,
                Value token) {
  Source source(e, from, layout.headDim);
  if (layout.isFixed)
    return storeFixedValue(e, layout, source, head, token);
  Value to = e.at(e.offset(head, layout.valuesOffset()), token,
                  layout.headDim * layout.elementBytes);
  source.forEach([&](Value column, Value columns) {
    e.store(columns, e.at(to, column, layout.elementBytes),
            layout.elementBytes);
  });
}

Value storeKeyCodes(Emitter &e, int64_t headDim, Value from, Value target) {
  return forKeyCodes(e, Source(e, from, headDim),
                     [&](Value column, Value codes) {
                       e.store(codes, e.at(target, column, 2), 32);
                     });
}

} // namespace quern::host
