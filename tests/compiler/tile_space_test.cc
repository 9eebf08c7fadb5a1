// Tiles that the search tries are those that generators take.
#include "compiler/tuning/TileSpace.h"

#include "gtest/gtest.h"

namespace quern {
namespace {

std::vector<Tile> AllTiles(llvm::StringRef generator, const Tile& base) {
  std::vector<Tile> tiles;
  for (auto* stage : {rowsToTry, prefetchesToTry, blocksToTry}) {
    const std::vector<Tile> more = stage(generator, base);
    tiles.insert(tiles.end(), more.begin(), more.end());
  }
  return tiles;
}

TEST(TileSpace, VectorsHoldTheirSums) {
  const Tile base = {8, 1, 32, 2048};
  const std::vector<Tile> tiles = AllTiles("matmul", base);
  EXPECT_GT(tiles.size(), 10u);
  for (const Tile& tile : tiles) {
    EXPECT_LE(tile.rows * tile.blocks, 8);
    EXPECT_EQ(tile.keys, base.keys);
    EXPECT_NE(tile, base);
  }
}

TEST(TileSpace, TileRegistersHoldSumsAndOperands) {
  const Tile base = {32, 2, 32, 2048};
  for (const Tile& tile : AllTiles("amx-matmul", base)) {
    EXPECT_EQ(tile.rows % 16, 0);
    EXPECT_LE((tile.rows / 16 + 1) * tile.blocks + 1, 8);
    EXPECT_NE(tile, base);
  }
}

TEST(TileSpace, StagesShareNoTile) {
  const Tile base = {4, 1, 32, 8192};
  const std::vector<Tile> tiles = AllTiles("matmul", base);
  for (size_t i = 0; i < tiles.size(); ++i)
    for (size_t j = 0; j < i; ++j) EXPECT_NE(tiles[i], tiles[j]);
}

TEST(TileSpace, OtherKernelsHaveNoChoice) {
  for (llvm::StringRef generator : {"rowwise", "lookup", "rope-append", "no generator"})
    EXPECT_TRUE(AllTiles(generator, Tile()).empty());
  for (llvm::StringRef generator : {"attention", "fixed-attention"}) {
    EXPECT_FALSE(rowsToTry(generator, Tile()).empty());
    EXPECT_TRUE(prefetchesToTry(generator, Tile()).empty());
    EXPECT_TRUE(blocksToTry(generator, Tile()).empty());
  }
}

}  // namespace
}  // namespace quern
