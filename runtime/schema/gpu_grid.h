// How large the grid of a GPU kernel is: GridFactor of artifact.fbs as arithmetic.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "runtime/schema/artifact_generated.h"
#include "runtime/schema/kernel_abi.h"

namespace quern {

/// What grid factors count in one launch.
struct GridCounts {
  /// Of the dispatch's row class.
  uint64_t rows = 0;
  uint64_t attention_tiles = 0;
  /// Entries of the page table a sequence.
  uint64_t pages = 0;
  /// (segments, 2) this share's ranges; empty where the dispatch is split over rows.
  std::span<const int64_t> ranges;
};

/// ceil(count / per).
inline uint64_t BlocksOf(uint64_t count, uint64_t per) { return count / per + (count % per != 0); }

/// Blocks along one dimension. Ranges ascend, as the loader checked.
inline uint64_t GridBlocks(const schema::GridFactor& factor, const GridCounts& counts) {
  const auto columns_of = [&](size_t segment) {
    return static_cast<uint64_t>(counts.ranges[2 * segment + 1] - counts.ranges[2 * segment]);
  };
  uint64_t blocks = 0;
  switch (factor.count()) {
    case schema::GridCount::One:
      return factor.per();
    case schema::GridCount::Rows:
      return BlocksOf(counts.rows, factor.per());
    case schema::GridCount::AttentionTiles:
      return BlocksOf(counts.attention_tiles, factor.per());
    case schema::GridCount::Pages:
      return BlocksOf(counts.pages, factor.per());
    case schema::GridCount::Columns:
      for (size_t i = 0; i < counts.ranges.size() / 2; ++i) {
        blocks += BlocksOf(columns_of(i), factor.per());
      }
      return blocks;
    case schema::GridCount::Columns0:
      return counts.ranges.empty() ? 0 : BlocksOf(columns_of(0), factor.per());
  }
  return 0;
}

}  // namespace quern
