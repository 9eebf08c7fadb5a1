// Who computes which part of a step's attention, on the CPU.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/schema/kernel_abi.h"

namespace quern {

/// How the shares of a program cut the query heads of attention kernels.
struct AttentionCut {
  /// Query heads that read the same KV head.
  int64_t group = 1;
  /// Elements of a head.
  int64_t head_dim = 0;
  /// The kernel takes parts of a context, and merges.
  bool takes_parts = false;
  /// (shares) begin and end of the heads of each, ascending: what the same share's next dispatch
  /// reads of the result.
  std::vector<std::array<int64_t, 2>> heads;

  /// Query heads in all.
  int64_t head_count() const { return heads.empty() ? 0 : heads.back()[1]; }
  /// Bytes of the states of a row for one block of its context; 0 without parts.
  uint64_t state_bytes() const {
    const bool has_states = takes_parts && heads.size() > 1;
    return has_states ? static_cast<uint64_t>(head_count() * (kAttentionStateLanes + head_dim)) *
                            sizeof(float)
                      : 0;
  }
  bool operator==(const AttentionCut&) const = default;
};

/// An attention work item (AttentionWorkField).
using AttentionItem = std::array<int32_t, kAttentionWorkFields>;

/// The work items of one step, by share. Who computes what changes no bit of a result, only the
/// time. Layers with a window of attention have the same items, of which their kernels do what is
/// visible: there the balance may be off.
class AttentionWork {
 public:
  /// Deals out a step.
  ///
  /// Small steps with short contexts are *aligned*: a share computes the heads that it reads next,
  /// and nobody waits. In large steps, units of a tile and a KV head are given out whole, the most
  /// expensive first, each to the share that has the least to do. In small steps with long contexts
  /// the list of (tile, KV head, block of the context) is cut in runs of equally many keys; what a
  /// cut goes through is computed in parts, whose states the shares merge behind a join.
  ///
  /// `tiles` (tiles, kAttentionTileFields) and `slots` (rows) of the step.
  void Deal(const AttentionCut& cut, std::span<const int32_t> tiles, std::span<const int32_t> slots,
            bool small);

  /// Nobody needs to wait for another between attention and the dispatches beside it.
  bool aligned() const { return aligned_; }
  /// Whether there are merge items.
  bool merges() const { return merges_; }
  /// Of the dispatch of attention, or of the `merge` dispatch behind it.
  std::span<const AttentionItem> items(size_t share, bool merge) const {
    return merge ? shares_[share].merges : shares_[share].items;
  }

 private:
  /// Rows of a tile with all query heads of a KV head.
  struct Unit {
    AttentionItem item;  // kAttentionWhole
    /// Tokens that the last row sees.
    int64_t keys;
    /// Twice the pairs of a row and a key.
    int64_t cost;
  };
  struct Share {
    std::vector<AttentionItem> items, merges;
  };
  /// Where a run of blocks begins.
  struct Place {
    size_t unit;
    int64_t block;
  };

  void ListUnits(const AttentionCut& cut, std::span<const int32_t> tiles,
                 std::span<const int32_t> slots);
  void DealAligned(const AttentionCut& cut, std::span<const int32_t> tiles);
  void DealUnits();
  /// False, and nothing was dealt out: it would not gain enough.
  bool DealRuns(const AttentionCut& cut);
  /// The begin of a block, or of the next unit, that is nearest to key `key` of all units' keys.
  Place NearestBlock(int64_t key) const;
  int64_t KeysBefore(Place place) const;
  /// Keys of a head that the busiest share reads where work is aligned.
  int64_t MostKeysAligned(const AttentionCut& cut) const;
  void AddRun(const AttentionCut& cut, size_t share, Place begin, Place end);
  void AddMerges(const AttentionCut& cut, AttentionItem item);

  bool aligned_ = true, merges_ = false;
  std::vector<Share> shares_;
  // Kept from step to step to reuse their memory.
  std::vector<Unit> units_;
  std::vector<size_t> order_;
  std::vector<int64_t> loads_;
  std::vector<Place> places_;
};

}  // namespace quern
