//===- WeightDecoder.cpp --------------------------------------------------===//
#include "codegen/host/WeightDecoder.h"

using namespace mlir;

namespace quern::host {

Value WeightDecoder::halfParameters(Value pointer) {
  return e.extend(e.load(e.vec(kLanes, e.f16()), pointer, 2), e.f32());
}

Value WeightDecoder::byteParameters(Value pointer, bool isSigned) {
  Value bytes = e.load(e.vec(kLanes, e.i8()), pointer);
  Value wide =
      isSigned ? e.extend(bytes, e.i32()) : e.extendUnsigned(bytes, e.i32());
  return e.toFloat(wide, e.f32());
}

Emitter::Values WeightDecoder::forGroups(
    Value base, Value columns, ValueRange inits,
    function_ref<Emitter::Values(const Group &, ValueRange)> body) {
  int64_t groups = format.groupsPerSuperblock;
  Value zero = e.index(0);
  Value count = e.div(columns, e.index(format.superblockColumns()));
  return e.forLoop(zero, count, 1, inits, [&](Value block, ValueRange carried) {
    Value super = e.at(e.offset(base, format.frontBytes()), block,
                       format.superblockBytes());
    Group group;
    if (!format.hasSuperblock()) {
      group.pointer = super;
      group.index = block;
      if (format.isRowScaled()) {
        group.super = base;
        loadSuperParameters(group);
      }
      return body(group, carried);
    }
    group.super = super;
    loadSuperParameters(group);
    Value first = e.mul(block, e.index(groups));
    return e.forLoop(zero, e.index(groups), 1, carried,
                     [&](Value i, ValueRange inner) {
                       group.pointer = e.at(super, i, format.groupBytes());
                       group.index = e.add(first, i);
                       return body(group, inner);
                     });
  });
}

void WeightDecoder::loadSuperParameters(Group &group) {
  if (format.isRowScaled()) {
    group.superScale = e.load(e.vec(kLanes, e.f32()), group.super, 4);
    return;
  }
  group.superScale =
      halfParameters(e.offset(group.super, format.superScaleOffset()));
  if (hasMinimum())
    group.superMin =
        halfParameters(e.offset(group.super, format.superMinOffset()));
}

Value WeightDecoder::rowBlockBytes(Value columns) {
  return e.add(e.mul(e.div(columns, e.index(format.superblockColumns())),
                     e.index(format.superblockBytes())),
               e.index(format.frontBytes()));
}

int WeightDecoder::maxCode() const {
  int bits = 0;
  for (int p = 0; p < format.planeCount; ++p)
    bits += format.planes[p].bits;
  return (1 << bits) - 1;
}

Value WeightDecoder::codes(const Group &group, int quad) {
  Type lanes = e.vec(kLanes, e.i32());
  Value merged;
  for (int p = 0; p < format.planeCount; ++p) {
    auto [bits, shift] = format.planes[p];
    int64_t vector = quad * bits / 8;
    int from = quad * bits % 8;
    Value word =
        e.load(lanes, e.offset(group.pointer, format.planeOffset(p) +
                                                  vector * kPackedVectorBytes));
    // Shifts work on 32-bit lanes: bits that cross a byte fall to the mask.
    if (from > shift)
      word = e.shrU(word, e.constant(lanes, from - shift));
    if (from < shift)
      word = e.shl(word, e.constant(lanes, shift - from));
    if (bits < 8) {
      int64_t mask = ((1 << bits) - 1) << shift;
      word = e.andI(word, e.constant(lanes, mask * 0x01010101));
    }
    merged = merged ? e.orI(merged, word) : word;
  }
  return e.bitcast(merged, e.vec(64, e.i8()));
}

Value WeightDecoder::scale(const Group &group, int sub) {
  if (format.isRowScaled())
    return group.superScale;
  Value pointer = e.offset(group.pointer, format.scaleOffset(sub));
  if (format.scaleKind == ParamKind::F16)
    return halfParameters(pointer);
  return e.mul(group.superScale, byteParameters(pointer, format.scaleSigned));
}

Value WeightDecoder::minimum(const Group &group, int sub) {
  Value pointer = e.offset(group.pointer, format.minOffset(sub));
  Value minimum =
      format.minKind == ParamKind::F16
          ? halfParameters(pointer)
          : e.mul(group.superMin, byteParameters(pointer, /*isSigned=*/false));
  if (format.minSign > 0)
    return minimum;
  return e.sub(e.constant(minimum.getType(), -0.0), minimum);
}

Value WeightDecoder::value(Value codes, int j, Value scale, Value minimum) {
  Type lanes = e.vec(kLanes, e.i32());
  Value word = e.bitcast(codes, lanes);
  if (j > 0)
    word = e.shrU(word, e.constant(lanes, 8 * j));
  if (format.isRowScaled())
    return e.mul(scale, e.e4m3ToFloat(word));
  if (j < 3)
    word = e.andI(word, e.constant(lanes, 0xff));
  Value centred =
      format.zero ? e.sub(word, e.constant(lanes, format.zero)) : word;
  Value scaled = e.mul(scale, e.toFloat(centred, e.f32()));
  return minimum ? e.add(scaled, minimum) : scaled;
}

void WeightDecoder::forColumns(const Group &group,
                               function_ref<void(int, Value)> body) {
  if (format.isFloat()) {
    bool isBf16 = format.format == BlockFormat::BF16;
    Type element = format.elementBytes == 4 ? e.f32()
                   : isBf16                 ? e.bf16()
                                            : e.f16();
    for (int k = 0; k < kPackedGroup; ++k) {
      Value pointer =
          e.offset(group.pointer, k * kPackedRows * format.elementBytes);
      Value values = e.load(e.vec(kLanes, element), pointer);
      body(k, format.elementBytes == 4 ? values : e.extend(values, e.f32()));
    }
    return;
  }
  Value scales[2], minima[2];
  for (int sub = 0; sub < format.subGroups(); ++sub) {
    scales[sub] = scale(group, sub);
    if (hasMinimum())
      minima[sub] = minimum(group, sub);
  }
  for (int quad = 0; quad < 8; ++quad) {
    int sub = 4 * quad / format.subGroup;
    Value operand = codes(group, quad);
    for (int j = 0; j < 4; ++j)
      body(4 * quad + j, value(operand, j, scales[sub], minima[sub]));
  }
}

WeightDecoder::Group WeightDecoder::shifted(const Group &group,
                                            Value blockBytes, int64_t blocks) {
  if (blocks == 0)
    return group;
  Value bytes = e.mul(blockBytes, e.index(blocks));
  Group result = group;
  result.pointer = e.offset(group.pointer, bytes);
  if (!group.super)
    return result;
  result.super = e.offset(group.super, bytes);
  loadSuperParameters(result);
  return result;
}

void WeightDecoder::prefetch(const Group &group, Value more, int64_t distance) {
  if (distance <= 0)
    return;
  Value ahead = e.offset(e.offset(group.pointer, distance), more);
  for (int64_t byte = 0; byte < format.groupBytes(); byte += 64)
    e.prefetch(e.offset(ahead, byte));
}

} // namespace quern::host
