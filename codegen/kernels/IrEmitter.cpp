//===- IrEmitter.cpp ------------------------------------------------------===//
#include "codegen/kernels/IrEmitter.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

#include <cmath>
#include <numeric>

using namespace mlir;

namespace quern {

static bool isFloat(Type type) {
  return isa<FloatType>(getElementTypeOrSelf(type));
}

/// `type` with its element replaced: scalar stays scalar, vector stays vector.
static Type withElement(Type type, Type element) {
  if (auto vector = dyn_cast<VectorType>(type))
    return VectorType::get(vector.getShape(), element);
  return element;
}

Type IrEmitter::ptrType(unsigned space) {
  return LLVM::LLVMPointerType::get(b.getContext(), space);
}

//===----------------------------------------------------------------------===//
// Constants
//===----------------------------------------------------------------------===//

static Value makeConstant(IrEmitter &e, Type type, Attribute element) {
  TypedAttr attr = cast<TypedAttr>(element);
  if (auto vector = dyn_cast<VectorType>(type))
    attr = DenseElementsAttr::get(vector, element);
  return arith::ConstantOp::create(e.b, e.loc, attr);
}

Value IrEmitter::index(int64_t value) { return constant(i64(), value); }

Value IrEmitter::constant(Type type, double value) {
  return makeConstant(*this, type,
                      b.getFloatAttr(getElementTypeOrSelf(type), value));
}

Value IrEmitter::constant(Type type, int64_t value) {
  Type element = getElementTypeOrSelf(type);
  APInt bits(element.getIntOrFloatBitWidth(), value, /*isSigned=*/true,
             /*implicitTrunc=*/true);
  return makeConstant(*this, type, b.getIntegerAttr(element, bits));
}

Value IrEmitter::constantVector(ArrayRef<float> values) {
  auto type = vec(values.size(), f32());
  return arith::ConstantOp::create(b, loc,
                                   DenseElementsAttr::get(type, values));
}

//===----------------------------------------------------------------------===//
// Arithmetic
//===----------------------------------------------------------------------===//

template <typename FloatOp, typename IntOp>
static Value binary(IrEmitter &e, Value x, Value y) {
  if (isFloat(x.getType()))
    return FloatOp::create(e.b, e.loc, x, y);
  return IntOp::create(e.b, e.loc, x, y);
}

Value IrEmitter::add(Value x, Value y) {
  return binary<arith::AddFOp, arith::AddIOp>(*this, x, y);
}
Value IrEmitter::sub(Value x, Value y) {
  return binary<arith::SubFOp, arith::SubIOp>(*this, x, y);
}
Value IrEmitter::mul(Value x, Value y) {
  return binary<arith::MulFOp, arith::MulIOp>(*this, x, y);
}
Value IrEmitter::div(Value x, Value y) {
  return binary<arith::DivFOp, arith::DivUIOp>(*this, x, y);
}
Value IrEmitter::rem(Value x, Value y) {
  return arith::RemUIOp::create(b, loc, x, y);
}
Value IrEmitter::minU(Value x, Value y) {
  return arith::MinUIOp::create(b, loc, x, y);
}
Value IrEmitter::maxF(Value x, Value y) {
  Value greater =
      arith::CmpFOp::create(b, loc, arith::CmpFPredicate::OGT, x, y);
  return select(greater, x, y);
}
Value IrEmitter::fma(Value x, Value y, Value z) {
  return math::FmaOp::create(b, loc, x, y, z);
}
Value IrEmitter::andI(Value x, Value y) {
  return arith::AndIOp::create(b, loc, x, y);
}
Value IrEmitter::orI(Value x, Value y) {
  return arith::OrIOp::create(b, loc, x, y);
}
Value IrEmitter::xorI(Value x, Value y) {
  return arith::XOrIOp::create(b, loc, x, y);
}
Value IrEmitter::shl(Value x, Value y) {
  return arith::ShLIOp::create(b, loc, x, y);
}
Value IrEmitter::shrU(Value x, Value y) {
  return arith::ShRUIOp::create(b, loc, x, y);
}

Value IrEmitter::less(Value x, Value y) {
  if (isFloat(x.getType()))
    return arith::CmpFOp::create(b, loc, arith::CmpFPredicate::OLT, x, y);
  return arith::CmpIOp::create(b, loc, arith::CmpIPredicate::slt, x, y);
}
Value IrEmitter::equal(Value x, Value y) {
  return arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, x, y);
}
Value IrEmitter::select(Value condition, Value x, Value y) {
  return arith::SelectOp::create(b, loc, condition, x, y);
}
Value IrEmitter::sqrt(Value x) { return math::SqrtOp::create(b, loc, x); }
Value IrEmitter::absF(Value x) { return math::AbsFOp::create(b, loc, x); }
Value IrEmitter::roundEven(Value x) {
  return math::RoundEvenOp::create(b, loc, x);
}
Value IrEmitter::roundProduct(Value x, Value factor) {
  // Above 1.5 * 2^23 floats are integers, and their low bits count them.
  Type integers = withElement(x.getType(), i32());
  Value sum = fma(x, factor, constant(x.getType(), 0x1.8p23));
  return sub(bitcast(sum, integers), constant(integers, int64_t{0x4b400000}));
}

//===----------------------------------------------------------------------===//
// Conversions
//===----------------------------------------------------------------------===//

Value IrEmitter::toFloat(Value value, Type element) {
  return arith::SIToFPOp::create(b, loc, withElement(value.getType(), element),
                                 value);
}
Value IrEmitter::toInt(Value value, Type element) {
  return arith::FPToSIOp::create(b, loc, withElement(value.getType(), element),
                                 value);
}
Value IrEmitter::extend(Value value, Type element) {
  Type type = withElement(value.getType(), element);
  if (isFloat(value.getType()))
    return arith::ExtFOp::create(b, loc, type, value);
  return arith::ExtSIOp::create(b, loc, type, value);
}
Value IrEmitter::extendUnsigned(Value value, Type element) {
  return arith::ExtUIOp::create(b, loc, withElement(value.getType(), element),
                                value);
}
Value IrEmitter::truncate(Value value, Type element) {
  Type type = withElement(value.getType(), element);
  if (isFloat(value.getType()))
    return arith::TruncFOp::create(b, loc, type, value);
  return arith::TruncIOp::create(b, loc, type, value);
}
Value IrEmitter::bitcast(Value value, Type type) {
  return LLVM::BitcastOp::create(b, loc, type, value);
}

//===----------------------------------------------------------------------===//
// Vectors
//===----------------------------------------------------------------------===//

Value IrEmitter::broadcast(Value scalar, int64_t lanes) {
  return vector::BroadcastOp::create(b, loc, vec(lanes, scalar.getType()),
                                     scalar);
}

Value IrEmitter::laneNumbers(int64_t lanes) {
  SmallVector<int32_t> numbers(lanes);
  std::iota(numbers.begin(), numbers.end(), 0);
  return arith::ConstantOp::create(
      b, loc,
      DenseElementsAttr::get(vec(lanes, i32()), ArrayRef<int32_t>(numbers)));
}
Value IrEmitter::shuffle(Value x, Value y, ArrayRef<int32_t> lanes) {
  return LLVM::ShuffleVectorOp::create(b, loc, x, y, lanes);
}

Value IrEmitter::extract(Value vector, int64_t lane) {
  return vector::ExtractOp::create(b, loc, vector, ArrayRef<int64_t>{lane});
}

Value IrEmitter::halves(Value vector, Combine combine) {
  for (int64_t n = cast<VectorType>(vector.getType()).getNumElements(); n > 1;
       n /= 2) {
    SmallVector<int32_t> low, high;
    for (int64_t i = 0; i < n / 2; ++i) {
      low.push_back(i);
      high.push_back(i + n / 2);
    }
    vector =
        combine(shuffle(vector, vector, low), shuffle(vector, vector, high));
  }
  return extract(vector, 0);
}

Value IrEmitter::reduceAdd(Value vector) {
  return halves(vector, [&](Value x, Value y) { return add(x, y); });
}
Value IrEmitter::reduceMax(Value vector) {
  return halves(vector, [&](Value x, Value y) { return maxF(x, y); });
}

Value IrEmitter::halvesOfBoth(Value x, Value y, Combine combine) {
  // After the first step the lower half of one vector is of x, the upper of y.
  for (int64_t n = cast<VectorType>(x.getType()).getNumElements(); n > 1;
       n /= 2) {
    SmallVector<int32_t> low, high;
    for (int64_t part : {int64_t{0}, n})
      for (int64_t i = 0; i < n / 2; ++i) {
        low.push_back(part + i);
        high.push_back(part + i + n / 2);
      }
    x = y = combine(shuffle(x, y, low), shuffle(x, y, high));
  }
  return x;
}

Value IrEmitter::reduceAddBoth(Value x, Value y) {
  return halvesOfBoth(x, y, [&](Value a, Value b) { return add(a, b); });
}
Value IrEmitter::reduceMaxBoth(Value x, Value y) {
  return halvesOfBoth(x, y, [&](Value a, Value b) { return maxF(a, b); });
}

Value IrEmitter::exp(Value x) {
  // exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln(2)/2, ln 2 in two parts
  // (Cody and Waite). The polynomial is the Taylor series of exp to degree 7.
  Type type = x.getType();
  auto c = [&](double value) { return constant(type, value); };
  Value low = less(x, c(-87.3));
  Value clamped = maxF(x, c(-87.3));
  clamped = select(less(c(88.0), clamped), c(88.0), clamped);
  Value n = roundEven(mul(clamped, c(1.4426950408889634)));
  Value r = fma(n, c(-0.693359375), clamped);
  r = fma(n, c(2.12194440e-4), r);
  Value p = c(1.0 / 5040);
  for (double coefficient :
       {1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0})
    p = fma(p, r, c(coefficient));
  Type integers = withElement(type, i32());
  Value exponent = add(toInt(n, i32()), constant(integers, 127));
  Value scale = bitcast(shl(exponent, constant(integers, 23)), type);
  return select(low, c(0.0), mul(p, scale));
}

Value IrEmitter::exp2(Value x) {
  // 2^x = 2^n 2^r, n = round(x), |r| <= 1/2. The polynomial is 1 + r q(r), its
  // coefficients fitted for the least relative error, 1e-7.
  Type type = x.getType(), integers = withElement(type, i32());
  auto c = [&](double value) { return constant(type, value); };
  Value least = c(-125.0);
  Value clamped = maxF(x, least);
  Value n = roundEven(clamped);
  Value r = sub(clamped, n);
  Value p = c(1.3264727e-3);
  for (double coefficient :
       {9.6715120e-3, 5.5507336e-2, 0.24022242, 0.69314700, 1.0})
    p = fma(p, r, c(coefficient));
  Value bits =
      add(bitcast(p, integers), shl(toInt(n, i32()), constant(integers, 23)));
  return select(less(x, least), c(0.0), bitcast(bits, type));
}

Value IrEmitter::powerOfTwo(Value x) {
  Type integers = withElement(x.getType(), i32());
  Value exponent = add(toInt(x, i32()), constant(integers, 127));
  return select(less(x, constant(x.getType(), -126.0)),
                constant(x.getType(), 0.0),
                bitcast(shl(exponent, constant(integers, 23)), x.getType()));
}

Value IrEmitter::e4m3ToFloat(Value codes) {
  // The same bits as a float32 have an exponent that is 120 too small, also
  // where they are subnormal.
  Type ints = codes.getType();
  auto moved = [&](int64_t mask, int by) {
    return shl(andI(codes, constant(ints, mask)), constant(ints, by));
  };
  Type floats = withElement(ints, f32());
  Value bits = bitcast(orI(moved(0x80, 24), moved(0x7f, 20)), floats);
  return mul(bits, constant(floats, 0x1p120));
}

Value IrEmitter::silu(Value x) {
  Value one = constant(x.getType(), 1.0);
  Value minus = sub(constant(x.getType(), 0.0), x);
  return div(x, add(one, exp(minus)));
}

//===----------------------------------------------------------------------===//
// Memory
//===----------------------------------------------------------------------===//

Value IrEmitter::offset(Value pointer, Value bytes) {
  return LLVM::GEPOp::create(b, loc, pointer.getType(), i8(), pointer,
                             ArrayRef<LLVM::GEPArg>{bytes});
}
Value IrEmitter::offset(Value pointer, int64_t bytes) {
  return bytes == 0 ? pointer : offset(pointer, index(bytes));
}
Value IrEmitter::at(Value pointer, Value i, int64_t stride) {
  return offset(pointer, mul(i, index(stride)));
}
Value IrEmitter::load(Type type, Value pointer, int64_t alignment) {
  return LLVM::LoadOp::create(b, loc, type, pointer, alignment);
}
void IrEmitter::store(Value value, Value pointer, int64_t alignment) {
  LLVM::StoreOp::create(b, loc, value, pointer, alignment);
}
void IrEmitter::storePartial(Value vector, Value pointer, int64_t lanes) {
  auto type = cast<VectorType>(vector.getType());
  if (lanes == type.getNumElements())
    return store(vector, pointer);
  int64_t bytes = type.getElementTypeBitWidth() / 8;
  for (int64_t lane = 0; lane < lanes; ++lane)
    store(extract(vector, lane), offset(pointer, lane * bytes));
}
//===----------------------------------------------------------------------===//
// Control
//===----------------------------------------------------------------------===//

IrEmitter::Values
IrEmitter::forLoop(Value begin, Value end, int64_t step, ValueRange inits,
                   function_ref<Values(Value, ValueRange)> body) {
  auto loop = scf::ForOp::create(
      b, loc, begin, end, constant(begin.getType(), step), inits,
      [&](OpBuilder &, Location, Value iv, ValueRange carried) {
        Values next = body(iv, carried);
        scf::YieldOp::create(b, loc, next);
      });
  return Values(loop.getResults());
}

void IrEmitter::forLoop(Value begin, Value end, int64_t step,
                        function_ref<void(Value)> body) {
  forLoop(begin, end, step, {}, [&](Value iv, ValueRange) {
    body(iv);
    return Values();
  });
}

void IrEmitter::ifThen(Value condition, function_ref<void()> body) {
  scf::IfOp::create(b, loc, condition, [&](OpBuilder &, Location) {
    body();
    scf::YieldOp::create(b, loc);
  });
}

void IrEmitter::ifElse(Value condition, function_ref<void()> then,
                       function_ref<void()> otherwise) {
  scf::IfOp::create(
      b, loc, condition,
      [&](OpBuilder &, Location) {
        then();
        scf::YieldOp::create(b, loc);
      },
      [&](OpBuilder &, Location) {
        otherwise();
        scf::YieldOp::create(b, loc);
      });
}

IrEmitter::Values IrEmitter::choose(Value condition,
                                    function_ref<Values()> then,
                                    function_ref<Values()> otherwise) {
  auto side = [&](function_ref<Values()> body) {
    return [this, body](OpBuilder &, Location) {
      scf::YieldOp::create(b, loc, body());
    };
  };
  return Values(
      scf::IfOp::create(b, loc, condition, side(then), side(otherwise))
          .getResults());
}

//===----------------------------------------------------------------------===//
// Machine
//===----------------------------------------------------------------------===//

Value IrEmitter::intrinsic(StringRef name, Type result, ValueRange operands) {
  if (!result) {
    LLVM::CallIntrinsicOp::create(b, loc, b.getStringAttr(name), operands);
    return {};
  }
  return LLVM::CallIntrinsicOp::create(b, loc, result, b.getStringAttr(name),
                                       operands)
      .getResult(0);
}

} // namespace quern
