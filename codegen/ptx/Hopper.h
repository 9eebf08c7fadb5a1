//===- Hopper.h - What sm_90a adds to kernel IR -----------------*- C++ -*-===//
//
// Bulk copies that signal barriers in shared memory, warps that give registers
// to one another, and wgmma: matrix products that a warpgroup (four warps)
// issues and that run beside it.
//
// References: "Parallel Thread Execution ISA" 9.0, sections 9.7.9.25.4
// (cp.async.bulk), 9.7.13.15 (mbarrier), 9.7.15 (wgmma).
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_PTX_HOPPER_H
#define QUERN_CODEGEN_PTX_HOPPER_H

#include "codegen/ptx/Emitter.h"

namespace quern::nvptx {

/// Warps of a warpgroup, each of which has 16 rows of a wgmma's 64.
inline constexpr int64_t kGroupWarps = 4;

/// mbarriers in shared memory, 8 bytes each. A phase of one is over when the
/// arrivals it was made for have come and every byte that they announced has
/// landed.
class Barriers {
public:
  using Value = mlir::Value;

  Barriers(Emitter &e, Value base) : e(e), base(base) {}

  /// Bytes of `count` barriers.
  static int64_t bytes(int64_t count) { return 8 * count; }

  /// One thread makes the barriers, then all of the block meet (see
  /// publishBarriers).
  void init(int64_t index, int64_t arrivals);
  /// Until the phase of parity `parity` (i32: 0 for the first) is over.
  void wait(Value index, Value parity);
  void arrive(Value index);
  /// Arrives and announces `bytes` (i32) of bulk copies.
  void arriveExpecting(Value index, Value bytes);
  Value at(Value index) { return e.at(base, index, bytes(1)); }

private:
  Emitter &e;
  Value base;
};

/// Makes the barriers that this thread initialised known to bulk copies.
void publishBarriers(Emitter &e);

/// Starts the copy of `bytes` (i32, a multiple of 16) bytes from global to
/// shared memory, both 16-byte aligned; `barrier` gets the bytes.
void copyBulk(Emitter &e, mlir::Value shared, mlir::Value global,
              mlir::Value bytes, mlir::Value barrier);

/// i1: true in one lane of the warp, which must be converged.
mlir::Value electLane(Emitter &e);
/// A value that is the same in all lanes, so that ptxas knows it (i32, or i64
/// below 2^32).
mlir::Value warpUniform(Emitter &e, mlir::Value value);
/// Registers that each thread of this warpgroup may have from here on: fewer
/// than the launch gave it, or more.
void setRegisters(Emitter &e, int64_t count, bool increase);

/// The shared address of a pointer (i32).
mlir::Value sharedAddress(Emitter &e, mlir::Value shared);
/// Descriptor (i64) of a K-major matrix at a shared address (i32), which lies
/// in core matrices of 8 rows x 16 bytes: `depthBytes` from one to the next
/// along K, `rowBytes` along rows. Also of an MN-major one, whose core matrices
/// are 8 of K by 16 bytes of rows.
mlir::Value matrixDescriptor(Emitter &e, mlir::Value address,
                             int64_t depthBytes, int64_t rowBytes);
/// The same matrix `words` (i32) times 16 bytes further on.
mlir::Value advance(Emitter &e, mlir::Value descriptor, mlir::Value words);

/// One operand pair of wgmma.m64nNk16 of f16, or .m64nNk32 of e4m3.
struct WgmmaStep {
  /// This warp's A fragment, 4 x i32 as mma has it; or one i64, the descriptor
  /// of A (64, 16 or 32), K-major.
  llvm::SmallVector<mlir::Value, 4> a;
  mlir::Value b; ///< descriptor of B (N, 16 or 32)
  /// The first of the N / 2 sums that the product is added to.
  int64_t firstSum = 0;
  bool rowMajorB = false; ///< MN-major, f16 only
};
/// Starts adding the products of `steps`, one group, to `sums` (f32); N is
/// `columns`. Without sums the products are added up from 0, N / 2 of them. The
/// result may be read behind finishProducts only, and `a` may be written when
/// waitProducts says so. Element i of lane l is row l / 4 + 8 (i / 2 % 2) of
/// the warp's 16, column 8 (i / 4) + 2 (l % 4) + i % 2.
Emitter::Values startProducts(Emitter &e, int64_t columns,
                              llvm::ArrayRef<WgmmaStep> steps,
                              mlir::ValueRange sums,
                              Operands kind = Operands::F16);
/// Waits until at most `pending` groups are under way.
void waitProducts(Emitter &e, int pending);
/// Waits until at most `pending` groups are under way, that of `sums` not among
/// them; returns what it made of `sums`.
Emitter::Values finishProducts(Emitter &e, mlir::ValueRange sums,
                               int pending = 0);
/// What shared memory holds is seen by wgmma and bulk copies, which other
/// threads start behind the next barrier.
void publishShared(Emitter &e);
/// The `threads` threads of named barrier `number` (i32) meet here with
/// `condition` (i1) made. ptxas moves neither what it is made of behind this,
/// nor a wait for products before it.
void meetWith(Emitter &e, mlir::Value number, int64_t threads,
              mlir::Value condition);

} // namespace quern::nvptx

#endif // QUERN_CODEGEN_PTX_HOPPER_H
