//===- IrEmitter.h - Building kernel IR with few words ----------*- C++ -*-===//
//
// The vocabulary that the kernel generators of every target share: scalars,
// vectors, pointers and loops as short calls over OpBuilder. It emits arith,
// math, vector, scf and llvm ops; nothing here knows a kernel family or a
// machine. Integers that address or count are i64; pointers are !llvm.ptr with
// byte offsets, in any address space.
//
// Floating point is exact IEEE: no op carries fast-math flags, reductions have
// a fixed tree shape, and fma() is the only contraction. So the same kernel
// gives the same bits at every tile size.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_KERNELS_IREMITTER_H
#define QUERN_CODEGEN_KERNELS_IREMITTER_H

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/IR/Builders.h"

#include <functional>

namespace quern {

class IrEmitter {
public:
  using Value = mlir::Value;
  using Values = llvm::SmallVector<Value>;

  IrEmitter(mlir::OpBuilder &builder, mlir::Location loc)
      : b(builder), loc(loc) {}

  mlir::OpBuilder &b;
  mlir::Location loc;

  //===--- Types ----------------------------------------------------------===//
  mlir::Type i8() { return b.getI8Type(); }
  mlir::Type i16() { return b.getIntegerType(16); }
  mlir::Type i32() { return b.getI32Type(); }
  mlir::Type i64() { return b.getI64Type(); }
  mlir::Type f16() { return b.getF16Type(); }
  mlir::Type bf16() { return b.getBF16Type(); }
  mlir::Type f32() { return b.getF32Type(); }
  mlir::Type f64() { return b.getF64Type(); }
  /// Pointers into address space `space`: 0 is generic.
  mlir::Type ptrType(unsigned space = 0);
  static mlir::VectorType vec(int64_t lanes, mlir::Type element) {
    return mlir::VectorType::get({lanes}, element);
  }

  //===--- Constants ------------------------------------------------------===//
  Value index(int64_t value);                     ///< i64
  Value constant(mlir::Type type, double value);  ///< scalar or splat, float
  Value constant(mlir::Type type, int64_t value); ///< scalar or splat, integer
  Value constant(mlir::Type type, int value) {
    return constant(type, static_cast<int64_t>(value));
  }
  Value constantVector(llvm::ArrayRef<float> values);

  //===--- Scalar and vector arithmetic, of integers or floats ----------===//
  Value add(Value x, Value y);
  Value sub(Value x, Value y);
  Value mul(Value x, Value y);
  Value div(Value x, Value y);  ///< float division, or unsigned integer
  Value rem(Value x, Value y);  ///< unsigned
  Value minU(Value x, Value y); ///< unsigned integer minimum
  Value maxF(Value x, Value y); ///< maxps: y when either is NaN
  Value fma(Value x, Value y, Value z);
  Value andI(Value x, Value y);
  Value orI(Value x, Value y);
  Value xorI(Value x, Value y);
  Value shl(Value x, Value y);
  Value shrU(Value x, Value y);
  Value less(Value x, Value y); ///< signed or ordered float, as i1
  Value equal(Value x, Value y);
  Value select(Value condition, Value x, Value y);
  Value sqrt(Value x);
  Value absF(Value x);
  Value roundEven(Value x);
  /// The nearest i32 to x * factor, which lies within +-2^22.
  Value roundProduct(Value x, Value factor);

  //===--- Conversions ----------------------------------------------------===//
  Value toFloat(Value integer, mlir::Type type); ///< signed
  Value toInt(Value value, mlir::Type type);     ///< truncating, signed
  Value extend(Value value, mlir::Type type); ///< f16/bf16 -> f32, signed int
  Value extendUnsigned(Value value, mlir::Type type);
  Value truncate(Value value, mlir::Type type); ///< f32 -> f16/bf16 or int
  Value bitcast(Value value, mlir::Type type);
  /// f32 of the E4M3 numbers (none of them NaN) in i32 codes, exact.
  Value e4m3ToFloat(Value codes);

  //===--- Vectors --------------------------------------------------------===//
  Value broadcast(Value scalar, int64_t lanes);
  /// i32 [0, 1, ...].
  Value laneNumbers(int64_t lanes);
  Value shuffle(Value x, Value y, llvm::ArrayRef<int32_t> lanes);
  Value extract(Value vector, int64_t lane);
  /// Sum, maximum of all lanes by halving: a fixed tree.
  Value reduceAdd(Value vector);
  Value reduceMax(Value vector);
  /// The same of two vectors at once: lane 0 is of x, lane 1 of y.
  Value reduceAddBoth(Value x, Value y);
  Value reduceMaxBoth(Value x, Value y);
  /// exp of every lane, within 2 ulp on [-87, 88]; smaller inputs give 0.
  Value exp(Value x);
  /// 2^x of every lane, within 2 ulp on [-125, 127], exact where x is an
  /// integer; smaller inputs give 0.
  Value exp2(Value x);
  /// The same of integers x <= 0 (f32), in fewer steps.
  Value powerOfTwo(Value x);
  /// 1 / (1 + exp(-x)) * x.
  Value silu(Value x);

  //===--- Memory ---------------------------------------------------------===//
  Value offset(Value pointer, Value bytes);
  Value offset(Value pointer, int64_t bytes);
  /// Element `i` (i64) of those that follow one another every `stride` bytes.
  Value at(Value pointer, Value i, int64_t stride);
  Value load(mlir::Type type, Value pointer, int64_t alignment = 1);
  void store(Value value, Value pointer, int64_t alignment = 1);
  /// Stores the first `lanes` lanes only.
  void storePartial(Value vector, Value pointer, int64_t lanes);

  //===--- Control --------------------------------------------------------===//
  /// for (i = begin; i < end; i += step); the body returns the next values of
  /// `inits`. Returns their last values.
  Values forLoop(Value begin, Value end, int64_t step, mlir::ValueRange inits,
                 llvm::function_ref<Values(Value, mlir::ValueRange)> body);
  void forLoop(Value begin, Value end, int64_t step,
               llvm::function_ref<void(Value)> body);
  void ifThen(Value condition, llvm::function_ref<void()> body);
  void ifElse(Value condition, llvm::function_ref<void()> then,
              llvm::function_ref<void()> otherwise);
  /// What the side that runs returns; both return values of the same types.
  Values choose(Value condition, llvm::function_ref<Values()> then,
                llvm::function_ref<Values()> otherwise);

  //===--- Machine --------------------------------------------------------===//
  /// A call of an LLVM intrinsic.
  Value intrinsic(llvm::StringRef name, mlir::Type result,
                  mlir::ValueRange operands);

private:
  using Combine = llvm::function_ref<Value(Value, Value)>;
  Value halves(Value vector, Combine combine);
  Value halvesOfBoth(Value x, Value y, Combine combine);
};

} // namespace quern

#endif // QUERN_CODEGEN_KERNELS_IREMITTER_H
