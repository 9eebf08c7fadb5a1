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

/// Byte `i` of `codes` (i32, each with its sign bit turned) as the f32 that its
/// int8 is: 2^23 + (code + 128) has it as its low byte.
static Value codeNumber(Emitter &e, Value codes, int i) {
  constexpr int64_t kMagic = 0x4b000000; // 2^23
  constexpr double kBias = (1 << 23) + 128;
  Value word = e.permute(codes, e.constant(e.i32(), kMagic), 0x7440 + i);
  return e.sub(e.bitcast(word, e.f32()), e.constant(e.f32(), kBias));
}

/// Numbers [8 item, 8 item + 8) of `from`.
static void expandItem(Emitter &e, const KvLayout &layout,
                       const Int8Blocks &from, Value item, Value halves) {
  Value side = e.index(kBlockSide), block = e.div(item, side);
  Value dimBlocks = e.index(layout.headDim / kBlockSide);
  Value token = e.add(e.mul(e.div(block, dimBlocks), side), e.rem(item, side));
  Value group = e.div(e.rem(block, dimBlocks),
                      e.index(KvLayout::kScaleColumns / kBlockSide));
  Value place = e.add(e.mul(group, e.index(from.tokens)), token);
  Value scale = e.load(e.f32(), e.at(from.scales, place, 4), 4);
  // What is written is below; minnum of NaN is the other number.
  scale = e.intrinsic("llvm.minnum", e.f32(),
                      {e.absF(scale), e.constant(e.f32(), 65504.0 / 127)});
  Value codes = e.load(e.vec(2, e.i32()),
                       e.offset(from.codes, e.mul(item, side)), kBlockSide);
  Emitter::Values words;
  for (int word = 0; word < 2; ++word) {
    Value turned = e.xorI(e.extract(codes, word),
                          e.constant(e.i32(), int64_t{0x80808080}));
    for (int i = 0; i < 4; i += 2) {
      Value pair[2];
      for (int j = 0; j < 2; ++j)
        pair[j] = e.mul(codeNumber(e, turned, i + j), scale);
      words.push_back(e.bitcast(e.packHalves(pair[0], pair[1]), e.i32()));
    }
  }
  e.store(e.pack(words), e.at(halves, item, 16), 16);
}

void expandCodes(Emitter &e, const KvLayout &layout, const Int8Blocks &from,
                 Value thread, int64_t threads, Value halves) {
  int64_t items = from.tokens * layout.headDim / kBlockSide;
  e.forLoop(thread, e.opaque(e.index(items)), threads,
            [&](Value item) { expandItem(e, layout, from, item, halves); });
}

bool feedsTensorCores(lm::KvCacheType type) {
  return type.getElementType().isF16() || KvLayout(type).isInt8;
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
