//===- KvPages.h - Where GPUs keep keys and values --------------*- C++ -*-===//
//
// A KV head of a page holds K, then V. In f16 each lies in 8x8 blocks of 128
// bytes, [page / 8][head_dim / 8][8 tokens][8 dims]: what `ldmatrix` and
// `wgmma` read, free of bank conflicts, and what 16-byte copies leave as it is.
// int8 pages lie in the same order, blocks of 64 bytes, and scales behind them.
// f32 pages (--precise) keep the host's order: K (head_dim, page), V (page,
// head_dim). Section 8 of docs/architecture.md.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_PTX_KVPAGES_H
#define QUERN_CODEGEN_PTX_KVPAGES_H

#include "codegen/ptx/Kernel.h"

namespace quern::nvptx {

/// Rows and columns of a block of f16.
inline constexpr int64_t kBlockSide = 8;
inline constexpr int64_t kBlockBytes = 128;

enum class KvPart : uint8_t { Keys, Values };

/// Bytes from the start of a KV head to element `dim` of token `token` of the
/// page (both i64).
mlir::Value kvOffset(Emitter &e, const KvLayout &layout, KvPart part,
                     mlir::Value token, mlir::Value dim);

/// The f32 scale of columns [32 group, 32 group + 32) of int8 pages: where it
/// lies in a KV head.
mlir::Value kvScaleOffset(Emitter &e, const KvLayout &layout, KvPart part,
                          mlir::Value token, mlir::Value group);
/// Element `dim` of `token` as f32; of int8 pages the code, without its scale.
mlir::Value loadKvElement(Emitter &e, const KvLayout &layout, KvPart part,
                          mlir::Value head, mlir::Value token, mlir::Value dim);

/// Elements [8 * dimBlock, 8 * dimBlock + 8) of `token`, as f32, scaled.
Emitter::Values loadKvDims(Emitter &e, const KvLayout &layout, KvPart part,
                           mlir::Value head, mlir::Value token,
                           mlir::Value dimBlock);

/// int8 blocks in shared memory and their scales, [head_dim / 32][tokens] f32;
/// one that no token wrote counts as a finite number.
struct Int8Blocks {
  mlir::Value codes, scales;
  int64_t tokens;
};
/// Thread `thread` (i64) of `threads` writes its part of `from` as blocks of
/// f16 to `halves`. Scaling rounds to f32, then to f16.
void expandCodes(Emitter &e, const KvLayout &layout, const Int8Blocks &from,
                 mlir::Value thread, int64_t threads, mlir::Value halves);

/// Whether attention on tensor cores takes its pages: of f16, or of int8, which
/// it expands to f16.
bool feedsTensorCores(lm::KvCacheType type);

/// Pages of the cache must be as above.
mlir::LogicalResult checkKvCache(Kernel &k, lm::KvCacheType type);

} // namespace quern::nvptx

#endif // QUERN_CODEGEN_PTX_KVPAGES_H
