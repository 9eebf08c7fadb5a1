//===- WeightDecoder.cpp --------------------------------------------------===//
#include "codegen/ptx/WeightDecoder.h"

using namespace mlir;

namespace quern::nvptx {

WeightDecoder::Group WeightDecoder::group(Value base, Value index,
                                          Value row) const {
  if (!format.hasSuperblock())
    return {e.at(e.offset(base, format.frontBytes()), index,
                 format.superblockBytes()),
            format.isRowScaled() ? base : Value(), row};
  Value count = e.index(format.groupsPerSuperblock);
  Value super = e.at(base, e.div(index, count), format.superblockBytes());
  return {e.at(super, e.rem(index, count), format.groupBytes()), super, row};
}

Value WeightDecoder::rowBlockBytes(Value columns) const {
  return e.add(e.mul(e.div(columns, e.index(format.superblockColumns())),
                     e.index(format.superblockBytes())),
               e.index(format.frontBytes()));
}

Value WeightDecoder::codes(const Group &group, int quad) const {
  Value merged;
  Value rowWord = e.mul(group.row, e.index(4));
  for (int p = 0; p < format.planeCount; ++p) {
    auto [bits, shift] = format.planes[p];
    int64_t vector = quad * bits / 8;
    int from = quad * bits % 8;
    Value at = e.offset(e.offset(group.pointer, rowWord),
                        format.planeOffset(p) + vector * kPackedVectorBytes);
    Value word = e.load(e.i32(), at, 4);
    // Shifts work on all four bytes: bits that cross one fall to the mask.
    if (from > shift)
      word = e.shrU(word, e.constant(e.i32(), from - shift));
    if (from < shift)
      word = e.shl(word, e.constant(e.i32(), shift - from));
    if (bits < 8) {
      int64_t mask = ((1 << bits) - 1) << shift;
      word = e.andI(word, e.constant(e.i32(), mask * 0x01010101));
    }
    merged = merged ? e.orI(merged, word) : word;
  }
  return merged;
}

Value WeightDecoder::codes(const Group &group, Value quad) const {
  Value merged;
  Value rowWord = e.mul(group.row, e.index(4));
  for (int p = 0; p < format.planeCount; ++p) {
    auto [bits, shift] = format.planes[p];
    Value bit = e.mul(quad, e.index(bits));
    Value vector = e.mul(e.div(bit, e.index(8)), e.index(kPackedVectorBytes));
    Value at = e.offset(e.offset(group.pointer, rowWord),
                        e.add(vector, e.index(format.planeOffset(p))));
    Value word = e.load(e.i32(), at, 4);
    word = e.shrU(word, e.truncate(e.rem(bit, e.index(8)), e.i32()));
    if (bits < 8)
      word = e.andI(
          word, e.constant(e.i32(), ((1 << bits) - 1) * int64_t{0x01010101}));
    if (shift > 0)
      word = e.shl(word, e.constant(e.i32(), shift));
    merged = merged ? e.orI(merged, word) : word;
  }
  return merged;
}

Value WeightDecoder::byte(Value pointer, Value row, bool isSigned) const {
  Value byte = e.load(e.i8(), e.offset(pointer, row));
  Value wide =
      isSigned ? e.extend(byte, e.i32()) : e.extendUnsigned(byte, e.i32());
  return e.toFloat(wide, e.f32());
}

Value WeightDecoder::rowScale(Value base, Value row) const {
  return e.load(e.f32(), e.at(base, row, 4), 4);
}

Value WeightDecoder::scale(const Group &group, int sub) const {
  if (format.isRowScaled())
    return rowScale(group.super, group.row);
  Value pointer = e.offset(group.pointer, format.scaleOffset(sub));
  if (format.scaleKind == ParamKind::F16)
    return half(pointer, group.row);
  Value super =
      half(e.offset(group.super, format.superScaleOffset()), group.row);
  return e.mul(super, byte(pointer, group.row, format.scaleSigned));
}

Value WeightDecoder::minimum(const Group &group, int sub) const {
  Value pointer = e.offset(group.pointer, format.minOffset(sub));
  Value minimum;
  if (format.minKind == ParamKind::F16) {
    minimum = half(pointer, group.row);
  } else {
    Value super =
        half(e.offset(group.super, format.superMinOffset()), group.row);
    minimum = e.mul(super, byte(pointer, group.row, /*isSigned=*/false));
  }
  return format.minSign > 0 ? minimum
                            : e.sub(e.constant(e.f32(), -0.0), minimum);
}

Value WeightDecoder::value(Value codes, int j, Value scale,
                           Value minimum) const {
  Value code = j > 0 ? e.shrU(codes, e.constant(e.i32(), 8 * j)) : codes;
  if (format.isRowScaled())
    return e.mul(scale, e.e4m3ToFloat(code));
  if (j < 3)
    code = e.andI(code, e.constant(e.i32(), 0xff));
  if (format.zero)
    code = e.sub(code, e.constant(e.i32(), format.zero));
  Value scaled = e.mul(scale, e.toFloat(code, e.f32()));
  return minimum ? e.add(scaled, minimum) : scaled;
}

Value WeightDecoder::floatValue(const Group &group, Value column) const {
  Type element = format.elementBytes == 4             ? e.f32()
                 : format.format == BlockFormat::BF16 ? e.bf16()
                                                      : e.f16();
  Value at = e.add(e.mul(column, e.index(kPackedRows)), group.row);
  Value value = e.load(element, e.at(group.pointer, at, format.elementBytes),
                       format.elementBytes);
  return format.elementBytes == 4 ? value : e.extend(value, e.f32());
}

} // namespace quern::nvptx
