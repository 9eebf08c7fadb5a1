//===- Blackwell.h - What sm_100a adds to kernel IR -------------*- C++ -*-===//
//
// Tensor memory: 128 lanes x 512 columns of 32 bits beside the registers, where
// tensor cores keep their sums. One thread starts matrix products whose
// operands lie in shared memory; a barrier (Hopper.h) is told when they are
// over, and warps read the sums, each its own 32 lanes.
//
// Reference: "Parallel Thread Execution ISA" 9.0, section 9.7.16 (tcgen05).
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_PTX_BLACKWELL_H
#define QUERN_CODEGEN_PTX_BLACKWELL_H

#include "codegen/ptx/Hopper.h"

namespace quern::nvptx {

/// Rows of a product of one block's tensor cores, a lane of tensor memory each.
inline constexpr int64_t kTensorRows = 128;

/// Writes the address (i32) of `columns` new columns to shared memory. The
/// block allocates once; a warp that is converged does it, and frees them.
void allocateTensorMemory(Emitter &e, mlir::Value shared, int64_t columns);
void freeTensorMemory(Emitter &e, mlir::Value address, int64_t columns);
/// Columns that an allocation for `columns` has: a power of two from 32 on.
int64_t tensorAllocation(int64_t columns);

/// Stores four 8x8 matrices of f16 to shared memory: register i of a lane is
/// that of matrix i as mma has fragments, lane l points at row l % 8 of matrix
/// l / 8.
void storeMatrices(Emitter &e, mlir::Value pointer, mlir::ValueRange words);
/// Lets tensor cores see what this thread stored to shared memory.
void publishToTensorCores(Emitter &e);

/// Starts D (128, columns) (+)= A (128, 16) B (columns, 16)^T in f32, A and B
/// f16 matrices that descriptors (matrixDescriptor) name; added where
/// `accumulate` (i1). Products of a thread happen in their order.
void startTensorProduct(Emitter &e, mlir::Value address, int64_t columns,
                        mlir::Value a, mlir::Value b, mlir::Value accumulate);
/// An arrival at the barrier (Barriers::at) when all products that this thread
/// started are over.
void commitTensorProducts(Emitter &e, mlir::Value barrier);
/// Orders what tensor memory is asked from here on behind a wait for a barrier.
void fenceTensorMemory(Emitter &e);
/// `columns` (16, 32, 64) columns from each address on (i32, of lane 32 * (warp
/// % 4)) of this thread's lane: [address][column] f32.
Emitter::Values loadTensorMemory(Emitter &e, mlir::ValueRange addresses,
                                 int64_t columns);

} // namespace quern::nvptx

#endif // QUERN_CODEGEN_PTX_BLACKWELL_H
