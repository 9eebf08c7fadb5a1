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

/// What `factor` counts. Ranges ascend, as the loader checked.
inline uint64_t GridCountOf(schema::GridCount count, const GridCounts& counts) {
  uint64_t columns = 0;
  switch (count) {
    case schema::GridCount::One:
      return 1;
    case schema::GridCount::Rows:
      return counts.rows;
    case schema::GridCount::AttentionTiles:
      return counts.attention_tiles;
    case schema::GridCount::Pages:
      return counts.pages;
    case schema::GridCount::Columns:
      for (size_t i = 0; i + 1 < counts.ranges.size(); i += 2) {
        columns += static_cast<uint64_t>(counts.ranges[i + 1] - counts.ranges[i]);
      }
      return columns;
    case schema::GridCount::Columns0:
      return counts.ranges.empty() ? 0 : static_cast<uint64_t>(counts.ranges[1] - counts.ranges[0]);
  }
  return 0;
}

/// Blocks along one dimension.
inline uint64_t GridBlocks(const schema::GridFactor& factor, const GridCounts& counts) {
  if (factor.count() == schema::GridCount::One) return factor.per();
  return (GridCountOf(factor.count(), counts) + factor.per() - 1) / factor.per();
}

}  // namespace quern
