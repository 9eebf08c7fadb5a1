// The calling convention of compiled kernels: what a code generator emits and the executor calls.
// docs/architecture.md, section 5.
#pragma once

#include <cstdint>

namespace quern {

/// A kernel, entered with the platform's C calling convention (System V on x86-64).
///
/// `args`   one pointer per argument of the dispatch, in the manifest's order, then the thread's
///          scratch (always present; aligned to kBufferAlignment).
/// `dims`   kDimCount facts of the step, see KernelDim.
/// `ranges` split over rows: {begin, end} in rows. Split over shares: {begin, end} in elements of
///          each range segment of the share that is to be computed.
///
/// A kernel calls nothing, keeps no state and touches nothing else. It may clobber vector and tile
/// registers, and leaves the tile unit released (TILERELEASE) and the floating-point control words
/// as it found them.
using KernelEntry = void (*)(void* const* args, const int64_t* dims, const int64_t* ranges);

/// Indices into `dims`.
enum KernelDim : int {
  /// Rows of the dispatch's row class in this step; also the stride, in rows, of partial copies.
  kDimRows = 0,
  /// On GPUs the attention tiles of the step; on hosts the attention work items of the share (of
  /// the step, where the dispatch is split over rows).
  kDimAttentionTiles = 1,
  /// Entries of the page table a sequence.
  kDimPageTableStride = 2,
  /// Bytes of a page, all KV heads, in the pool of the layer at hand; 0 outside layers.
  kDimPageBytes = 3,
};
inline constexpr int kDimCount = 4;

/// A step of at most so many rows is small: dispatches that are split over rows are computed by
/// every thread for itself, and joins of kind Rows are skipped.
inline constexpr int64_t kSmallStepRows = 4;

/// Rows of an attention tile at most, on the CPU; GPU targets say how many (artifact.fbs).
inline constexpr int64_t kAttentionTileRows = 16;
inline constexpr uint32_t kMaxAttentionTileRows = 1024;
/// int32 of an attention tile, on GPUs: first row, row count, sequence, 0.
inline constexpr int64_t kAttentionTileFields = 4;

/// What an attention work item asks of a host's kernel, for its rows and query heads. Arithmetic is
/// over blocks of the context in any case, so who computes which block changes no bit.
enum AttentionWorkKind : int32_t {
  /// Attend all that the rows see and store the result.
  kAttentionWhole = 0,
  /// Attend blocks [first block, end block) and store a state a row, head and block.
  kAttentionPart = 1,
  /// Merge the states of all blocks that the rows see, and store the result.
  kAttentionMerge = 2,
};

/// int32 of an attention work item: indices into it. (items, kAttentionWorkFields)
enum AttentionWorkField : int {
  kWorkFirstRow = 0,
  kWorkRows = 1,
  kWorkSequence = 2,
  /// Query heads.
  kWorkFirstHead = 3,
  kWorkEndHead = 4,
  /// Of kAttentionPart; 0 in other kinds.
  kWorkFirstBlock = 5,
  kWorkEndBlock = 6,
  kWorkKind = 7,
};
inline constexpr int64_t kAttentionWorkFields = 8;

/// Tokens of a block of the context: block b is tokens [b, b + 1) * kAttentionBlock of a sequence.
inline constexpr int64_t kAttentionBlock = 512;
/// Tokens of a page of a host's KV cache.
inline constexpr int64_t kHostPageTokens = 32;
/// f32 of an attention state in front of its head_dim accumulators: maxima and sums of 16 lanes.
/// States (schema::StepInput::AttentionStates) are f32, (rows, query heads, block stride,
/// kAttentionStateLanes + head_dim).
inline constexpr int64_t kAttentionStateLanes = 32;

/// Blocks between the states of a head and those of the next, for a page table of so many entries a
/// sequence (kDimPageTableStride).
inline constexpr int64_t AttentionBlockStride(int64_t page_table_stride) {
  constexpr int64_t kPages = kAttentionBlock / kHostPageTokens;
  return (page_table_stride + kPages - 1) / kPages;
}

/// In a pool of the host, pages lie in runs of so many: a run holds its pages of the first KV head
/// one after the other, then those of the second, and so on, so that a head of a sequence whose
/// pages follow one another is one stream. A power of two.
inline constexpr int64_t kKvPageRun = 16;

/// A split over rows is cut at multiples of so many rows.
inline constexpr int64_t kRowSplitUnit = 4;

/// Every activation buffer and weight piece begins at a multiple of so many bytes (activation rows
/// follow at bytes_per_row, which need not be one).
inline constexpr uint64_t kBufferAlignment = 64;
/// Entry points of a code image.
inline constexpr uint64_t kKernelAlignment = 64;

// ---- GPUs: what no device exceeds (a device's own limits are checked before it runs)
// --------------

inline constexpr uint32_t kMaxBlockThreads = 1024;
/// Dynamic shared memory of a block: 227 KiB, on compute capability 9.0 and 10.0.
inline constexpr uint32_t kMaxBlockSharedBytes = 227 * 1024;
/// Workspace of a kernel per row of capacity, and counters beside it.
inline constexpr uint32_t kMaxWorkspaceBytesPerRow = 1u << 26;
inline constexpr uint32_t kMaxCountersPerRow = 1u << 16;
/// Of a sampler.
inline constexpr uint32_t kMaxCandidates = 256;
/// Blocks of a grid in x, y, z.
inline constexpr uint64_t kMaxGridBlocks[3] = {2147483647, 65535, 65535};

}  // namespace quern
