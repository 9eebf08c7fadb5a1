//===- Emitter.h - Kernel IR for NVIDIA GPUs --------------------*- C++ -*-===//
//
// What GPU kernels say beyond IrEmitter: places in the grid, warps, shared
// memory, and the instructions of the PTX ISA that have no plain form. Places
// are i64, so that they go into addresses as they are.
//
// Reference: "Parallel Thread Execution ISA" 9.0, NVIDIA.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_PTX_EMITTER_H
#define QUERN_CODEGEN_PTX_EMITTER_H

#include "codegen/kernels/IrEmitter.h"
#include "codegen/target/Target.h"

namespace quern::nvptx {

/// Lanes of a warp.
inline constexpr int64_t kWarp = 32;

/// Address spaces of LLVM's NVPTX backend.
inline constexpr unsigned kGlobal = 1;
inline constexpr unsigned kShared = 3;

/// What tensor cores multiply. Their products take 32 bytes of K.
enum class Operands : uint8_t { F16, E4M3 };

class Emitter : public IrEmitter {
public:
  Emitter(mlir::OpBuilder &builder, mlir::Location loc, const Target &target)
      : IrEmitter(builder, loc), target(target) {}

  const Target &target;

  //===--- Places ---------------------------------------------------------===//
  /// Number of this thread in its block, of its block in the grid (i64).
  Value thread();
  Value block(int dimension);
  Value lane() { return rem(thread(), index(kWarp)); }
  Value warp() { return div(thread(), index(kWarp)); }

  //===--- Warps (all 32 lanes take part) ---------------------------------===//
  /// The value of lane `lane() ^ mask`. 32-bit types.
  Value shuffleXor(Value value, int mask);
  /// The value of lane `lane` (i32).
  Value shuffle(Value value, Value lane);
  /// Sum and maximum over `width` neighbouring lanes, in every one of them, by
  /// halving: a fixed tree.
  Value warpSum(Value value, int width = kWarp);
  Value warpMax(Value value, int width = kWarp);
  void warpBarrier();
  /// All threads of the block.
  void barrier();

  //===--- Memory -------------------------------------------------------===//
  /// A pointer or i64 of which LLVM knows nothing: it would take sums that are
  /// carried through a loop apart, and add them again in every turn; and unroll
  /// loops where registers are short.
  Value opaque(Value value);
  /// Adds `x` (i32 or i64) to what `pointer` holds and returns what was there:
  /// one step to every thread of the device, without any order of others.
  Value atomicAdd(Value pointer, Value x);
  /// Loads and stores before it are seen by the device before those after it.
  void fence();

  //===--- Arithmetic -----------------------------------------------------===//
  /// 2^x within 2 ulp, denormals flushed.
  Value exp2Fast(Value x);
  /// (x & y) | z in one instruction: ptxas does not join two constants.
  Value andOr(Value x, int32_t y, int32_t z);
  /// 2 x f16, and the same of two f32, rounded.
  mlir::Type half2() { return vec(2, f16()); }
  Value packHalves(Value low, Value high);
  /// Two f32 as e4m3, rounded to nearest even, the largest number in place of
  /// what is beyond it: i16, `low` in the low byte.
  Value packE4m3(Value low, Value high);
  /// A float that rounds to a finite f16: x, or the largest f16 of its sign.
  Value clampToHalf(Value x);
  /// A half2 without infinities: the largest numbers in their place.
  Value clampHalves(Value x);
  /// Bytes of the eight of (x, y) that `selector` names, nibble by nibble.
  Value permute(Value x, Value y, int32_t selector);
  /// Bits of an i32 turned right by `count` (i32, taken modulo 32).
  Value rotateRight(Value x, Value count);
  Value maxI(Value x, Value y);
  /// The larger one; where one is NaN, the other.
  Value maxNumber(Value x, Value y);
  Value minI(Value x, Value y);
  /// Element `i` (i64) of an array of int32, as i64.
  Value loadIndex(Value array, Value i);
  /// A vector of the given scalars.
  Value pack(mlir::ValueRange scalars);

  //===--- Tensor cores ---------------------------------------------------===//
  /// acc (4 x f32) + A (4 x i32) * B (2 x i32): mma.m16n8k16 with f16 operands,
  /// (16, 16) x (16, 8), or mma.m16n8k32 with e4m3 operands, (16, 32) x (32,
  /// 8).
  Values mma(mlir::ValueRange a, mlir::ValueRange b, mlir::ValueRange acc,
             Operands kind = Operands::F16);
  /// The same; the result takes the place of `acc`.
  void mmaInto(llvm::MutableArrayRef<Value> acc, mlir::ValueRange a,
               mlir::ValueRange b) {
    llvm::copy(mma(a, b, mlir::ValueRange(acc)), acc.begin());
  }
  /// Four 8x8 matrices of 16-bit elements whose rows lane l points at: lanes
  /// 0-7 at the rows of the first, and so on. Shared memory.
  Values loadMatrices(Value pointer, bool transposed);

  //===--- Asynchronous copies --------------------------------------------===//
  /// 16 bytes from global to shared memory; only `bytes` (i32: 0 or 16) of them
  /// are read, the rest are zeros.
  void copyAsync(Value shared, Value global, Value bytes = {});
  void commitCopies();
  /// Waits until at most `pending` groups of this thread's copies are under
  /// way.
  void waitCopies(int pending);
};

} // namespace quern::nvptx

#endif // QUERN_CODEGEN_PTX_EMITTER_H
