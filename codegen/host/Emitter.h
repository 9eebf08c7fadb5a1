//===- Emitter.h - Kernel IR for x86-64 -------------------------*- C++ -*-===//
//
// What host kernels say beyond IrEmitter: 16 lanes, integer dots, prefetch.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_HOST_EMITTER_H
#define QUERN_CODEGEN_HOST_EMITTER_H

#include "codegen/kernels/IrEmitter.h"
#include "codegen/target/Target.h"

namespace quern::host {

/// Lanes of the vectors that kernels think in: 16 x f32. AVX2 splits them.
inline constexpr int64_t kLanes = 16;

/// Where a prefetch brings a cache line.
enum class CacheLevel { L1, L2 };

class Emitter : public IrEmitter {
public:
  Emitter(mlir::OpBuilder &builder, mlir::Location loc, const Target &target)
      : IrEmitter(builder, loc), target(target) {}

  const Target &target;

  Value broadcast(Value scalar, int64_t lanes = kLanes) {
    return IrEmitter::broadcast(scalar, lanes);
  }
  Value laneNumbers() { return IrEmitter::laneNumbers(kLanes); }
  /// 16 x f32 rounded to nearest even to 16 x bf16, as i16 lanes.
  Value roundToBf16Bits(Value value);
  void prefetch(Value pointer, CacheLevel level = CacheLevel::L1);
  /// acc[r] + sum_j w[4r+j] * x[j]: u8 codes (64 lanes) by s8 (i32, 4 packed
  /// bytes, the same for every row) into 16 x i32, exactly. `maxCode` is the
  /// largest code; x lies in [-127, 127].
  Value dot(Value acc, Value codes, Value packedX, int maxCode);
  /// acc[r] + x[2r] * y[2r] + x[2r+1] * y[2r+1]: pairs of int16 (16 x i32) into
  /// 16 x i32, exactly.
  Value dotPairs(Value acc, Value x, Value y);
};

} // namespace quern::host

#endif // QUERN_CODEGEN_HOST_EMITTER_H
