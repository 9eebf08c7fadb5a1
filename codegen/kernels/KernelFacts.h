//===- KernelFacts.h - What an rt.kernel says -------------------*- C++ -*-===//
//
// Facts about kernels that generators of every target read the same way: types
// of values, the formats of activation rows and of KV pages (section 5 of
// docs/architecture.md), the tile that applies.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_KERNELS_KERNELFACTS_H
#define QUERN_CODEGEN_KERNELS_KERNELFACTS_H

#include "codegen/target/Target.h"
#include "dialects/lm/Lm.h"
#include "dialects/rt/Rt.h"

#include "runtime/schema/fixed_kv.h"

namespace quern {

/// Bytes between numeric rows of `columns` activations.
constexpr int64_t activationRowBytes(int64_t columns) {
  return (2 * columns + 63) / 64 * 64;
}
/// Columns of an int8 numeric row that share a scale.
inline constexpr int64_t kActivationGroup = 16;
/// Offsets inside an int8 numeric row:
/// [K int8][K/16 f32 scale][K/16 f32 sum, which is scale * sum of the codes]
/// [K/32 f32 sum of two of these, which weights of one scale for both read].
constexpr int64_t activationScaleOffset(int64_t columns) { return columns; }
constexpr int64_t activationSumOffset(int64_t columns) {
  return activationScaleOffset(columns) + columns / kActivationGroup * 4;
}
constexpr int64_t activationPairSumOffset(int64_t columns) {
  return activationSumOffset(columns) + columns / kActivationGroup * 4;
}

/// Whose memory KV pages lie in.
enum class KvHome { Gpu, Host };

/// Where a KV head lies in the pool of one layer. Of a page it has K (head_dim,
/// page) then V (page, head_dim); behind int8 codes lie the f32 scales of K,
/// then of V, (head_dim / 32, page) each.
///
/// 16-bit pages of a host are fixed-point (runtime/schema/fixed_kv.h): 32-bit
/// words of two int16, the first in the low half. K has the words of dims (2i,
/// 2i + 1) as (head_dim / 2, page), V those of tokens (2t, 2t + 1) as (page /
/// 2, head_dim), and between them lie FixedKvScale's arrays: attention reads a
/// head from begin to end, which hardware follows.
///
/// Pages lie in runs of `pageRun` (1 on GPUs, kKvPageRun on hosts): a run holds
/// its pages of head 0, then those of head 1, and so on.
struct KvLayout {
  explicit KvLayout(lm::KvCacheType type, KvHome home = KvHome::Gpu);
  /// Columns that share a scale of int8.
  static constexpr int64_t kScaleColumns = lm::kKvScaleColumns;
  /// Bytes of a word of fixed-point pages, and of any scale.
  static constexpr int64_t kWordBytes = 4;

  int64_t pageRun, heads, headDim, page;
  bool isInt8, isFixed;
  int64_t elementBytes;
  int64_t partBytes() const { return headDim * page * elementBytes; }
  /// Of fixed-point pages, behind the scales.
  int64_t valuesOffset() const {
    return partBytes() + (isFixed ? kFixedKvScales * page * kWordBytes : 0);
  }
  /// Of fixed-point pages between keys and values, of int8 behind both.
  int64_t scalesOffset() const { return (isFixed ? 1 : 2) * partBytes(); }
  /// Of K, or of V.
  int64_t scalesBytes() const {
    return isInt8 ? headDim / kScaleColumns * page * 4 : 0;
  }
  int64_t headBytes() const;
  int64_t pageBytes() const { return heads * headBytes(); }
  /// From a page of a KV head to the same page of the next one.
  int64_t headStride() const { return pageRun * headBytes(); }

  // Of fixed-point pages:
  /// From the words of one pair of dims of K to those of the next.
  int64_t dimPairStride() const { return page * kWordBytes; }
  /// From the words of one pair of tokens of V to those of the next.
  int64_t tokenPairStride() const { return headDim * kWordBytes; }
  int64_t scaleOffset(FixedKvScale scale) const {
    return scalesOffset() + static_cast<int64_t>(scale) * page * kWordBytes;
  }
};

/// Columns (last dimension) of a tensor value.
int64_t columnsOf(mlir::Value value);
/// The block format of a tensor's elements: !lm.block, or f32/f16/bf16.
BlockFormat formatOf(mlir::Value value);
/// The value is a numeric row buffer (type a8).
bool isActivation(mlir::Value value);

/// The tile of a kernel for `target` and `role`: its attribute's, or the
/// target's default.
Tile tileOf(rt::KernelOp op, const Target &target, Role role,
            KernelFamily family);

/// The kernel reads or writes numeric rows, so that its code depends on the
/// numerics of the role.
bool touchesActivations(rt::KernelOp op);

} // namespace quern

#endif // QUERN_CODEGEN_KERNELS_KERNELFACTS_H
