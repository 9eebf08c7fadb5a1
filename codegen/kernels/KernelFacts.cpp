//===- KernelFacts.cpp ----------------------------------------------------===//
#include "codegen/kernels/KernelFacts.h"

#include "runtime/schema/kernel_abi.h"

using namespace mlir;

namespace quern {

KvLayout::KvLayout(lm::KvCacheType type, KvHome home)
    : pageRun(home == KvHome::Host ? kKvPageRun : 1), heads(type.getHeads()),
      headDim(type.getHeadDim()), page(type.getPage()),
      isInt8(lm::isQuantizedActivations(type.getElementType())),
      isFixed(home == KvHome::Host && type.getElementType().isF16()),
      elementBytes(isInt8 ? 1
                          : type.getElementType().getIntOrFloatBitWidth() / 8) {
}

int64_t KvLayout::headBytes() const {
  return isFixed ? static_cast<int64_t>(FixedKvHeadBytes(headDim, page))
                 : scalesOffset() + 2 * scalesBytes();
}

int64_t columnsOf(Value value) {
  return cast<RankedTensorType>(value.getType()).getShape().back();
}

BlockFormat formatOf(Value value) {
  return lm::formatOf(value.getType()).value();
}

bool isActivation(Value value) {
  return lm::isQuantizedActivations(value.getType());
}

Tile tileOf(rt::KernelOp op, const Target &target, Role role,
            KernelFamily family) {
  Tile tile = target.tileFor(role, family);
  DictionaryAttr tiles = op.getTilesAttr();
  if (!tiles)
    return tile;
  if (auto attr = tiles.getAs<lm::TileAttr>(tileKey(target, role)))
    tile = {attr.getRows(), attr.getBlocks(), attr.getKeys(),
            attr.getPrefetch()};
  return tile;
}

bool touchesActivations(rt::KernelOp op) {
  bool found = false;
  op->walk([&](Operation *inner) {
    for (Value value :
         llvm::concat<Value>(SmallVector<Value>(inner->getOperands()),
                             SmallVector<Value>(inner->getResults())))
      found |= isa<RankedTensorType>(value.getType()) && isActivation(value);
  });
  return found;
}

} // namespace quern
