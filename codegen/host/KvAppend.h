//===- KvAppend.h - A token's key and value into its page -------*- C++ -*-===//
//
// Writes one token of one KV head as KvLayout says: f32 as it is, 16-bit pages
// in fixed point. The arithmetic has one order on every machine, so pages have
// the same bytes whichever wrote them. Nothing but the token's own bytes is
// written: tokens of a page may be written by several threads.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_HOST_KVAPPEND_H
#define QUERN_CODEGEN_HOST_KVAPPEND_H

#include "codegen/host/Emitter.h"
#include "codegen/kernels/KernelFacts.h"

namespace quern::host {

/// Stores the f32 key at `from` (head_dim) as the one of place `token` (i64) of
/// the page whose KV head begins at `head`.
///
/// Fixed point: codes round(key * 32000 / n) under the scale n / 32000, n being
/// the key's norm; all zero when n < 1e-30. Rounding moves the norm of codes by
/// at most sqrt(head_dim) / 2, so it stays far below 2^15.5, and the product of
/// two such vectors in int32.
void storeKey(Emitter &e, const KvLayout &layout, mlir::Value from,
              mlir::Value head, mlir::Value token);

/// The same of its value. Fixed point: codes round(value / s) under the scale
/// s = 2^l, where l is at most 0.09 above log2(largest value / 8191).
void storeValue(Emitter &e, const KvLayout &layout, mlir::Value from,
                mlir::Value head, mlir::Value token);

/// Codes of a key, or of a query to multiply keys with: its f32 columns at
/// `from` (head_dim) become int16 at `target`, aligned to 32 bytes. Returns
/// their scale, f32.
mlir::Value storeKeyCodes(Emitter &e, int64_t headDim, mlir::Value from,
                          mlir::Value target);

} // namespace quern::host

#endif // QUERN_CODEGEN_HOST_KVAPPEND_H
