//===- Emitter.cpp --------------------------------------------------------===//
#include "codegen/host/Emitter.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"

#include <numeric>

using namespace mlir;

namespace quern::host {

Value Emitter::roundToBf16Bits(Value value) {
  // Adding 0x7fff plus the lowest kept bit rounds the upper half to nearest
  // even. Integer arithmetic gives the same bits with and without AVX512-BF16,
  // which would also flush denormals.
  auto type = vec(kLanes, i32());
  Value bits = bitcast(value, type);
  Value sixteen = constant(type, 16);
  Value lowest = andI(shrU(bits, sixteen), constant(type, 1));
  Value rounded = add(bits, add(lowest, constant(type, 0x7fff)));
  return truncate(shrU(rounded, sixteen), i16());
}

void Emitter::prefetch(Value pointer, CacheLevel level) {
  LLVM::Prefetch::create(b, loc, pointer, /*rw=*/0,
                         /*hint=*/level == CacheLevel::L1 ? 3 : 2, /*cache=*/1);
}

Value Emitter::dot(Value acc, Value codes, Value packedX, int maxCode) {
  auto bytes64 = vec(64, i8());
  Value x = bitcast(broadcast(packedX), bytes64);
  if (target.hasVnni)
    return intrinsic("llvm.x86.avx512.vpdpbusd.512", acc.getType(),
                     {acc, codes, x});

  // AVX2: multiply-add of pairs saturates at 16 bits. Codes up to 128 cannot
  // reach it (2 * 128 * 127 = 32512); larger ones (Q8_0, zero = 128) go as
  // |w| by sign(w) x with w = code - 128, and 128 * sum(x) is added back.
  auto bytes32 = vec(32, i8());
  auto words = vec(16, i16());
  auto ints = vec(8, i32());
  Value ones = constant(words, 1);
  Value result[2];
  for (int half = 0; half < 2; ++half) {
    SmallVector<int32_t> lanes, lanes32;
    for (int i = 0; i < 32; ++i)
      lanes.push_back(half * 32 + i);
    for (int i = 0; i < 8; ++i)
      lanes32.push_back(half * 8 + i);
    Value w = shuffle(codes, codes, lanes);
    Value xh = shuffle(x, x, lanes);
    Value sum = shuffle(acc, acc, lanes32);
    if (maxCode > 128) {
      Value centred = arith::XOrIOp::create(b, loc, w, constant(bytes32, -128));
      Value magnitude = math::AbsIOp::create(b, loc, centred);
      Value bias = constant(bytes32, -128); // 128 as u8
      Value pairs = intrinsic("llvm.x86.avx2.pmadd.ub.sw", words, {bias, xh});
      sum = add(sum, intrinsic("llvm.x86.avx2.pmadd.wd", ints, {pairs, ones}));
      xh = intrinsic("llvm.x86.avx2.psign.b", bytes32, {xh, centred});
      w = magnitude;
    }
    Value pairs = intrinsic("llvm.x86.avx2.pmadd.ub.sw", words, {w, xh});
    result[half] =
        add(sum, intrinsic("llvm.x86.avx2.pmadd.wd", ints, {pairs, ones}));
  }
  SmallVector<int32_t> all;
  for (int i = 0; i < 16; ++i)
    all.push_back(i);
  return shuffle(result[0], result[1], all);
}

Value Emitter::dotPairs(Value acc, Value x, Value y) {
  auto words = vec(32, i16());
  x = bitcast(x, words);
  y = bitcast(y, words);
  if (target.hasVnni)
    return intrinsic("llvm.x86.avx512.vpdpwssd.512", acc.getType(),
                     {acc, x, y});
  SmallVector<int32_t> lanes(32);
  std::iota(lanes.begin(), lanes.end(), 0);
  ArrayRef<int32_t> all = lanes;
  Value sums[2];
  for (int half = 0; half < 2; ++half)
    sums[half] = intrinsic("llvm.x86.avx2.pmadd.wd", vec(8, i32()),
                           {shuffle(x, x, all.slice(16 * half, 16)),
                            shuffle(y, y, all.slice(16 * half, 16))});
  return add(acc, shuffle(sums[0], sums[1], all.take_front(16)));
}

} // namespace quern::host
