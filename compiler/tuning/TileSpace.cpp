#include "compiler/tuning/TileSpace.h"

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/STLExtras.h"

using namespace quern;

namespace {
struct Shape {
  int64_t rows, blocks;
};

/// What may be chosen for the kernels of a generator.
struct TileSpace {
  llvm::StringRef generator;
  llvm::ArrayRef<Shape> shapes;
  llvm::ArrayRef<int64_t> prefetches;
};
} // namespace

// Products in vectors: rows * blocks <= 8. The likely ones first, since a
// search may end early.
static constexpr Shape kVectorShapes[] = {
    {8, 1}, {4, 1}, {6, 1}, {2, 1}, {1, 1}, {3, 1}, {5, 1},
    {2, 2}, {1, 2}, {4, 2}, {3, 2}, {1, 4}, {2, 4}, {1, 8}};
// Products in tile registers: (rows / 16 + 1) * blocks + 1 <= 8.
static constexpr Shape kAmxShapes[] = {{32, 2}, {48, 1}, {32, 1}, {16, 3},
                                       {64, 1}, {16, 2}, {80, 1}, {16, 1}};
static constexpr Shape kAttentionShapes[] = {{4, 1}, {8, 1}, {6, 1},
                                             {3, 1}, {2, 1}, {1, 1}};
static constexpr int64_t kPrefetches[] = {8192, 4096, 2048, 16384, 1024, 0};

static constexpr TileSpace kSpaces[] = {
    {"matmul", kVectorShapes, kPrefetches},
    {"float-matmul", kVectorShapes, kPrefetches},
    {"amx-matmul", kAmxShapes, kPrefetches},
    {"fixed-attention", kAttentionShapes, {}},
    {"attention", kAttentionShapes, {}},
};

static const TileSpace *findSpace(llvm::StringRef generator) {
  return llvm::find_if(kSpaces, [&](const TileSpace &space) {
    return space.generator == generator;
  });
}

/// Shapes whose blocks are those of `base`, or are not.
static std::vector<Tile> shapesToTry(llvm::StringRef generator,
                                     const Tile &base, bool sameBlocks) {
  std::vector<Tile> tiles;
  const TileSpace *space = findSpace(generator);
  if (space == std::end(kSpaces))
    return tiles;
  for (const Shape &shape : space->shapes) {
    const Tile tile = {shape.rows, shape.blocks, base.keys, base.prefetch};
    if ((shape.blocks == base.blocks) == sameBlocks && tile != base)
      tiles.push_back(tile);
  }
  return tiles;
}

std::vector<Tile> quern::rowsToTry(llvm::StringRef generator,
                                   const Tile &base) {
  return shapesToTry(generator, base, /*sameBlocks=*/true);
}

std::vector<Tile> quern::blocksToTry(llvm::StringRef generator,
                                     const Tile &base) {
  return shapesToTry(generator, base, /*sameBlocks=*/false);
}

std::vector<Tile> quern::prefetchesToTry(llvm::StringRef generator,
                                         const Tile &base) {
  std::vector<Tile> tiles;
  const TileSpace *space = findSpace(generator);
  if (space == std::end(kSpaces))
    return tiles;
  for (int64_t prefetch : space->prefetches)
    if (prefetch != base.prefetch)
      tiles.push_back({base.rows, base.blocks, base.keys, prefetch});
  return tiles;
}
