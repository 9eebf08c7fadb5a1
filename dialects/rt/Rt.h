//===- Rt.h - The dialect of runtime programs -------------------*- C++ -*-===//
#ifndef QUERN_DIALECTS_RT_RT_H
#define QUERN_DIALECTS_RT_RT_H

#include "dialects/lm/Lm.h"
#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/RegionKindInterface.h"
#include "mlir/IR/SymbolTable.h"

#include "dialects/rt/RtDialect.h.inc"
#include "dialects/rt/RtEnums.h.inc"
#define GET_ATTRDEF_CLASSES
#include "dialects/rt/RtAttrs.h.inc"
#define GET_OP_CLASSES
#include "dialects/rt/RtOps.h.inc"

namespace quern::rt {

/// Bytes that a row of K quantized activations takes in a buffer, whichever
/// numerics write it: K int8, K/16 f32 scales, K/16 and K/32 f32 sums, or K
/// bf16.
/// Source: docs/architecture.md, section 5.
int64_t activationRowBytes(int64_t columns);

/// Bytes per row of a kernel argument of `type`, (?, K) or (S, ?, K): f32 rows
/// or quantized activations. None for other types (weights, caches).
std::optional<int64_t> bytesPerRow(mlir::Type type);

/// Copies of a row of `type`: S of partial results (S, ?, N), otherwise 1.
int64_t copiesOf(mlir::Type type);

} // namespace quern::rt

#endif // QUERN_DIALECTS_RT_RT_H
