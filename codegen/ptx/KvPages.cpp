//===- KvPages.cpp --------------------------------------------------------===//
#include "codegen/ptx/KvPages.h"

using namespace mlir;

namespace quern::nvptx {

Value kvOffset(Emitter &e, const KvLayout &layout, KvPart part, Value token,
               Value dim) {
  Value start =
      e.index(part == KvPart::Values ? layout.valuesOffset() : int64_t{0});
  if (layout.elementBytes < 4) {
    Value side = e.index(kBlockSide);
    Value block =
        e.add(e.mul(e.div(token, side), e.index(layout.headDim / kBlockSide)),
              e.div(dim, side));
    Value element =
        e.add(e.mul(block, e.index(kBlockSide * kBlockSide)),
              e.add(e.mul(e.rem(token, side), side), e.rem(dim, side)));
    return e.add(start, e.mul(element, e.index(layout.elementBytes)));
  }
  Value element = part == KvPart::Keys
                      ? e.add(e.mul(dim, e.index(layout.page)), token)
                      : e.add(e.mul(token, e.index(layout.headDim)), dim);
  return e.add(start, e.mul(element, e.index(layout.elementBytes)));
}

Value kvScaleOffset(Emitter &e, const KvLayout &layout, KvPart part,
                    Value token, Value group) {
  int64_t start = layout.scalesOffset();
  if (part == KvPart::Values)
    start += layout.scalesBytes();
  Value scale = e.add(e.mul(group, e.index(layout.page)), token);
  return e.add(e.index(start), e.mul(scale, e.index(4)));
}

Value loadKvElement(Emitter &e, const KvLayout &layout, KvPart part, Value head,
                    Value token, Value dim) {
  Value at = e.offset(head, kvOffset(e, layout, part, token, dim));
  if (layout.isInt8)
    return e.toFloat(e.load(e.i8(), at, 1), e.f32());
  if (layout.elementBytes == 2)
    return e.extend(e.load(e.f16(), at, 2), e.f32());
  return e.load(e.f32(), at, 4);
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
  if (layout.isInt8) {
    Value group = e.div(first, e.index(KvLayout::kScaleColumns));
    Value scale =
        e.load(e.f32(),
               e.offset(head, kvScaleOffset(e, layout, part, token, group)), 4);
    Value codes =
        e.load(e.vec(kBlockSide, e.i8()),
               e.offset(head, kvOffset(e, layout, part, token, first)), 8);
    Value floats = e.toFloat(codes, e.f32());
    for (int64_t i = 0; i < kBlockSide; ++i)
      result.push_back(e.mul(e.extract(floats, i), scale));
    return result;
  }
  for (int64_t i = 0; i < kBlockSide; ++i)
    result.push_back(
        loadKvElement(e, layout, part, head, token, e.add(first, e.index(i))));
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
