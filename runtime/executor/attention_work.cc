#include "runtime/executor/attention_work.h"

#include <algorithm>
#include <numeric>
#include <tuple>
#include <utility>

namespace quern {
namespace {

/// Keys of a head that the longest share must have less to read before a context is cut: a join
/// costs as much as so many.
constexpr int64_t kLeastGain = 512;

int64_t DivideUp(int64_t value, int64_t by) { return (value + by - 1) / by; }

int64_t Blocks(int64_t keys) { return DivideUp(keys, kAttentionBlock); }

}  // namespace

void AttentionWork::Deal(const AttentionCut& cut, std::span<const int32_t> tiles,
                         std::span<const int32_t> slots, bool small) {
  shares_.resize(cut.heads.size());
  for (Share& share : shares_) {
    share.items.clear();
    share.merges.clear();
  }
  aligned_ = true;
  merges_ = false;
  if (shares_.size() > 1) {
    ListUnits(cut, tiles, slots);
    if (!small) return DealUnits();
    if (cut.takes_parts && DealRuns(cut)) return;
  }
  DealAligned(cut, tiles);
}

void AttentionWork::ListUnits(const AttentionCut& cut, std::span<const int32_t> tiles,
                              std::span<const int32_t> slots) {
  units_.clear();
  const int64_t heads = cut.head_count();
  for (size_t at = 0; at < tiles.size(); at += kAttentionTileFields) {
    const int32_t *tile = &tiles[at], rows = tile[1];
    const int64_t keys = int64_t{slots[static_cast<size_t>(tile[0] + rows - 1)]} + 1;
    for (int64_t first = 0; first < heads; first += cut.group) {
      const auto end = static_cast<int32_t>(std::min(first + cut.group, heads));
      units_.push_back(
          {{tile[0], rows, tile[2], static_cast<int32_t>(first), end, 0, 0, kAttentionWhole},
           keys,
           rows * (2 * keys - rows + 1)});
    }
  }
}

void AttentionWork::DealAligned(const AttentionCut& cut, std::span<const int32_t> tiles) {
  for (size_t share = 0; share < shares_.size(); ++share) {
    const auto begin = static_cast<int32_t>(cut.heads[share][0]),
               end = static_cast<int32_t>(cut.heads[share][1]);
    for (size_t at = 0; begin < end && at < tiles.size(); at += kAttentionTileFields) {
      shares_[share].items.push_back(
          {tiles[at], tiles[at + 1], tiles[at + 2], begin, end, 0, 0, kAttentionWhole});
    }
  }
}

void AttentionWork::DealUnits() {
  aligned_ = false;
  order_.resize(units_.size());
  std::iota(order_.begin(), order_.end(), size_t{0});
  std::sort(order_.begin(), order_.end(), [&](size_t a, size_t b) {
    return std::pair(units_[b].cost, a) < std::pair(units_[a].cost, b);
  });
  loads_.assign(shares_.size(), 0);
  for (const size_t unit : order_) {
    const auto least = std::min_element(loads_.begin(), loads_.end());
    *least += units_[unit].cost;
    shares_[static_cast<size_t>(least - loads_.begin())].items.push_back(units_[unit].item);
  }
  // The tiles of a sequence find the pages of a KV head where the tile before left them.
  const auto order = [](const AttentionItem& item) {
    return std::tuple(item[kWorkSequence], item[kWorkFirstHead], item[kWorkFirstRow]);
  };
  for (Share& share : shares_) {
    std::sort(share.items.begin(), share.items.end(),
              [&](const auto& a, const auto& b) { return order(a) < order(b); });
  }
}

AttentionWork::Place AttentionWork::NearestBlock(int64_t key) const {
  for (size_t unit = 0; unit < units_.size(); ++unit) {
    const int64_t keys = units_[unit].keys;
    if (key >= keys) {
      key -= keys;
      continue;
    }
    const int64_t below = key / kAttentionBlock * kAttentionBlock,
                  above = std::min(below + kAttentionBlock, keys);
    if (key - below <= above - key) return {unit, below / kAttentionBlock};
    return above < keys ? Place{unit, above / kAttentionBlock} : Place{unit + 1, 0};
  }
  return {units_.size(), 0};
}

int64_t AttentionWork::KeysBefore(Place place) const {
  int64_t keys = place.block * kAttentionBlock;
  for (size_t unit = 0; unit < place.unit; ++unit) keys += units_[unit].keys;
  return keys;
}

int64_t AttentionWork::MostKeysAligned(const AttentionCut& cut) const {
  int64_t keys = 0, most = 0;  // of one head
  for (const Unit& unit : units_) keys += unit.item[kWorkFirstHead] == 0 ? unit.keys : 0;
  for (const auto& [begin, end] : cut.heads) {
    if (begin == end) continue;
    most = std::max(most, keys * (DivideUp(end, cut.group) - begin / cut.group));
  }
  return most;
}

bool AttentionWork::DealRuns(const AttentionCut& cut) {
  const int64_t keys = KeysBefore({units_.size(), 0});
  const auto shares = static_cast<int64_t>(shares_.size());
  places_.clear();
  int64_t longest = 0;
  for (int64_t share = 0; share <= shares; ++share) {
    places_.push_back(NearestBlock(keys * share / shares));
    if (share == 0) continue;
    longest = std::max(longest, KeysBefore(places_.back()) - KeysBefore(places_.end()[-2]));
  }
  if (MostKeysAligned(cut) - longest < kLeastGain) return false;
  aligned_ = false;
  for (size_t share = 0; share < shares_.size(); ++share) {
    AddRun(cut, share, places_[share], places_[share + 1]);
  }
  return true;
}

void AttentionWork::AddRun(const AttentionCut& cut, size_t share, Place begin, Place end) {
  for (size_t unit = begin.unit; unit < units_.size() && unit <= end.unit; ++unit) {
    const int64_t blocks = Blocks(units_[unit].keys), first = unit == begin.unit ? begin.block : 0,
                  last = unit == end.unit ? end.block : blocks;
    if (first == last) continue;
    AttentionItem item = units_[unit].item;
    if (last - first < blocks) {
      item[kWorkFirstBlock] = static_cast<int32_t>(first);
      item[kWorkEndBlock] = static_cast<int32_t>(last);
      item[kWorkKind] = kAttentionPart;
      if (first == 0) AddMerges(cut, item);  // once a unit
    }
    shares_[share].items.push_back(item);
  }
}

void AttentionWork::AddMerges(const AttentionCut& cut, AttentionItem item) {
  merges_ = true;
  const int32_t first = item[kWorkFirstHead], end = item[kWorkEndHead];
  item[kWorkFirstBlock] = item[kWorkEndBlock] = 0;
  item[kWorkKind] = kAttentionMerge;
  for (size_t share = 0; share < shares_.size(); ++share) {
    item[kWorkFirstHead] = std::max(first, static_cast<int32_t>(cut.heads[share][0]));
    item[kWorkEndHead] = std::min(end, static_cast<int32_t>(cut.heads[share][1]));
    if (item[kWorkFirstHead] < item[kWorkEndHead]) shares_[share].merges.push_back(item);
  }
}

}  // namespace quern
