//===- KvPages.cpp --------------------------------------------------------===//
#include "codegen/ptx/KvPages.h"

using namespace mlir;

namespace quern::nvptx {

Value kvOffset(Emitter &e, const KvLayout &layout, KvPart part, Value token,
               Value dim) {
  Value start =
      e.index(part == KvPart::Values ? layout.valuesOffset() : int64_t{0});
  if (layout.elementBytes == 2) {
    Value side = e.index(kBlockSide);
    Value block =
        e.add(e.mul(e.div(token, side), e.index(layout.headDim / kBlockSide)),
              e.div(dim, side));
    Value inBlock = e.add(e.mul(e.rem(token, side), e.index(2 * kBlockSide)),
                          e.mul(e.rem(dim, side), e.index(2)));
    return e.add(start, e.add(e.mul(block, e.index(kBlockBytes)), inBlock));
  }
  Value element = part == KvPart::Keys
                      ? e.add(e.mul(dim, e.index(layout.page)), token)
                      : e.add(e.mul(token, e.index(layout.headDim)), dim);
  return e.add(start, e.mul(element, e.index(layout.elementBytes)));
}

Emitter::Values loadKvDims(Emitter &e, const KvLayout &layout, KvPart part,
                           Value head, Value token, Value dimBlock) {
  Emitter::Values result;
  Value first = e.mul(dimBlock, e.index(kBlockSide));
  if (layout.elementBytes == 2) {
    Value halves =
        e.load(e.vec(kBlockSide, e.f16()),
               e.offset(head, kvOffset(e, layout, part, token, first)), 16);
    Value floats = e.extend(halves, e.f32());
    for (int64_t i = 0; i < kBlockSide; ++i)
      result.push_back(e.extract(floats, i));
    return result;
  }
  for (int64_t i = 0; i < kBlockSide; ++i) {
    Value at = kvOffset(e, layout, part, token, e.add(first, e.index(i)));
    result.push_back(e.load(e.f32(), e.offset(head, at), 4));
  }
  return result;
}

LogicalResult checkKvCache(Kernel &k, lm::KvCacheType type) {
  if (type.getPage() != kWarp)
    return k.emitError() << "expected pages of " << kWarp << " tokens, got "
                         << type.getPage();
  if (type.getHeadDim() % kBlockSide != 0)
    return k.emitError() << "expected head_dim to be a multiple of "
                         << kBlockSide << ", got " << type.getHeadDim();
  return success();
}

} // namespace quern::nvptx
