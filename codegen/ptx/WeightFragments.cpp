//===- WeightFragments.cpp - Packed weights as operands of mma ------------===//
//
// The part of WeightDecoder that serves tensor cores. A code of up to 10 bits
// below the exponent 0x6400 is the f16 1024 + code, so codes become numbers by
// one lop3; taking 1024 + zero away is exact. What remains, scale * code or
// scale * code + minimum, rounds once. E4M3 numbers become f16 by moving bits.
//
//===----------------------------------------------------------------------===//
#include "codegen/ptx/WeightDecoder.h"

using namespace mlir;

namespace quern::nvptx {

/// 2 x f16 of 1024.
static constexpr int32_t kMagic = 0x64006400;

Value WeightDecoder::fragmentRow(Value lane, int i) const {
  Value g = e.div(lane, e.index(4));
  return e.add(e.mul(g, e.index(fragmentRowFirst())),
               e.index(i * fragmentRowStep()));
}

/// Words of a plane that a lane holds of one row.
static int wordsOf(const PlaneSpec &plane) { return plane.bits == 8 ? 2 : 1; }

static unsigned parameterCount(ParamKind kind) {
  return kind == ParamKind::F16 ? 1 : kind == ParamKind::Byte ? 2 : 0;
}

WeightDecoder::Fragment WeightDecoder::fragment(const Group &group, Value lane,
                                                Operands operands) const {
  return decodeFragment(loadFragment(group, lane), lane, operands);
}

//===----------------------------------------------------------------------===//
// Loads
//===----------------------------------------------------------------------===//

void WeightDecoder::loadParameters(ParamKind kind, Value pointer,
                                   Value superPointer, Value row,
                                   Emitter::Values &loaded) const {
  auto halves = [&](Value at) {
    loaded.push_back(e.load(e.i32(), e.at(at, row, 2), 4));
  };
  if (kind == ParamKind::F16)
    return halves(pointer);
  Value bytes = e.load(e.i16(), e.offset(pointer, row), 2);
  loaded.push_back(e.extendUnsigned(bytes, e.i32()));
  halves(superPointer);
}

Emitter::Values WeightDecoder::loadFragment(const Group &group,
                                            Value lane) const {
  Value c = e.rem(lane, e.index(4));
  if (format.isFloat())
    return format.elementBytes == 2 ? loadHalfFragment(group, lane)
                                    : loadFloatFragment(group, c);
  Emitter::Values loaded;
  Value rows = e.at(group.pointer, group.row, 4);
  for (int p = 0; p < format.planeCount; ++p) {
    // Quad 2 c lies in vector 2 c * bits / 8.
    int bits = format.planes[p].bits;
    Value vector = bits == 8   ? e.mul(c, e.index(2))
                   : bits == 4 ? c
                   : bits == 2 ? e.div(c, e.index(2))
                               : e.index(0);
    Value at =
        e.offset(e.at(rows, vector, kPackedVectorBytes), format.planeOffset(p));
    for (int word = 0; word < wordsOf(format.planes[p]); ++word) {
      Value both =
          e.load(e.vec(2, e.i32()), e.offset(at, word * kPackedVectorBytes), 8);
      loaded.push_back(e.extract(both, 0));
      loaded.push_back(e.extract(both, 1));
    }
  }
  // Both quads lie in one sub-group.
  auto parameters = [&](ParamKind kind, int64_t first, int64_t second,
                        int64_t super) {
    if (parameterCount(kind) == 0)
      return;
    Value at = e.offset(group.pointer, first);
    if (format.subGroups() == 2)
      at = e.at(at, e.div(c, e.index(2)), second - first);
    Value superAt = group.super ? e.offset(group.super, super) : Value();
    loadParameters(kind, at, superAt, group.row, loaded);
  };
  parameters(format.scaleKind, format.scaleOffset(0), format.scaleOffset(1),
             format.superScaleOffset());
  parameters(format.minKind, format.minOffset(0), format.minOffset(1),
             format.superMinOffset());
  return loaded;
}

Emitter::Values WeightDecoder::loadHalfFragment(const Group &group,
                                                Value lane) const {
  // A step's matrix 2 h + i has rows [8 i, 8 i + 8) of columns 8 c + 4 s + 2 j
  // + h, line 2 c + j of it being a column.
  Emitter::Values loaded;
  Value matrix = e.div(lane, e.index(8)), line = e.rem(lane, e.index(8));
  Value column = e.add(e.add(e.mul(e.div(line, e.index(2)), e.index(8)),
                             e.mul(e.rem(line, e.index(2)), e.index(2))),
                       e.div(matrix, e.index(2)));
  Value row = e.mul(e.rem(matrix, e.index(2)), e.index(8));
  Value element = e.add(e.mul(column, e.index(kPackedRows)), row);
  Value at = e.at(group.pointer, element, 2);
  for (int s = 0; s < 2; ++s)
    llvm::append_range(loaded,
                       e.loadMatrices(e.offset(at, 4 * s * kPackedRows * 2),
                                      /*transposed=*/true));
  return loaded;
}

Emitter::Values WeightDecoder::loadFloatFragment(const Group &group,
                                                 Value c) const {
  // Columns 8 c + 4 s + 2 j + h of rows g and g + 8, [s][h][row][j].
  Emitter::Values loaded;
  Value first = e.add(e.mul(c, e.index(8 * kPackedRows)), group.row);
  Value at = e.at(group.pointer, first, 4);
  for (int s = 0; s < 2; ++s)
    for (int h = 0; h < 2; ++h)
      for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 2; ++j) {
          int64_t element = (4 * s + 2 * j + h) * kPackedRows + 8 * i;
          loaded.push_back(e.load(e.f32(), e.offset(at, 4 * element), 4));
        }
  return loaded;
}

//===----------------------------------------------------------------------===//
// Decoding
//===----------------------------------------------------------------------===//

WeightDecoder::Fragment
WeightDecoder::decodeFloatFragment(ValueRange loaded) const {
  // Numbers too large for f16 become its largest.
  auto pack = [&](Value low, Value high) {
    return e.bitcast(e.clampHalves(e.packHalves(low, high)), e.i32());
  };
  Fragment result(2);
  for (int s = 0; s < 2; ++s)
    for (int r = 0; r < 4; ++r) {
      Value &pair = result[s][r];
      if (format.elementBytes == 4) {
        pair = pack(loaded[0], loaded[1]);
        loaded = loaded.drop_front(2);
        continue;
      }
      pair = loaded.front();
      loaded = loaded.drop_front();
      if (format.format != BlockFormat::BF16)
        continue;
      Value low = e.shl(pair, e.constant(e.i32(), 16));
      Value high = e.andI(pair, e.constant(e.i32(), int64_t{0xffff0000}));
      pair = pack(e.bitcast(low, e.f32()), e.bitcast(high, e.f32()));
    }
  return result;
}

std::array<WeightDecoder::Parameter, 2>
WeightDecoder::takeParameters(ValueRange &loaded, ParamKind kind,
                              bool isSigned) const {
  auto take = [&] {
    Value word = loaded.front();
    loaded = loaded.drop_front();
    return word;
  };
  auto splat = [&](Value word, Value other, int32_t selector) {
    return e.bitcast(e.permute(word, other, selector), e.half2());
  };
  std::array<Parameter, 2> rows;
  Value bytes = kind == ParamKind::Byte ? take() : Value(), units = take();
  rows[0].unit = splat(units, units, 0x1010);
  rows[1].unit = splat(units, units, 0x3232);
  if (!bytes)
    return rows;
  // int8 as u8 with an offset of 128.
  if (isSigned)
    bytes = e.xorI(bytes, e.constant(e.i32(), 0x8080));
  Value bias = e.constant(e.half2(), isSigned ? 1024.0 + 128 : 1024.0);
  Value magic = e.constant(e.i32(), kMagic);
  rows[0].byte = e.sub(splat(bytes, magic, 0x5050), bias);
  rows[1].byte = e.sub(splat(bytes, magic, 0x5151), bias);
  return rows;
}

/// Planes of a fragment as words by [plane][step][row], the codes of the first
/// pair of step 0 at their plane's shift.
using PlaneWords = std::array<std::array<std::array<Value, 2>, 2>, 2>;

static PlaneWords takeWords(Emitter &e, const PackedFormat &format,
                            ValueRange &loaded, Value c) {
  PlaneWords words;
  for (int p = 0; p < format.planeCount; ++p) {
    auto [bits, shift] = format.planes[p];
    for (int word = 0; word < wordsOf(format.planes[p]); ++word)
      for (int row = 0; row < 2; ++row) {
        Value value = loaded.front();
        loaded = loaded.drop_front();
        if (bits < 4) {
          Value from = e.rem(e.mul(c, e.index(2 * bits)), e.index(8));
          value = e.rotateRight(value, e.sub(e.truncate(from, e.i32()),
                                             e.constant(e.i32(), shift)));
        }
        words[p][word][row] = value;
        if (bits < 8)
          words[p][1][row] = value;
      }
  }
  return words;
}

/// Bits by which the codes of step `s` lie above those of step 0.
static int stepBits(const PlaneSpec &plane, int s) {
  return plane.bits < 8 ? s * plane.bits : 0;
}

/// Pair (h, h + 2) of step `s` as 2 x f16 of 1024 + 2^lift * code.
static Value pairCodes(Emitter &e, const PackedFormat &format,
                       const PlaneWords &words, int s, int h, int row,
                       int lift) {
  Value codes;
  for (int p = 0; p < format.planeCount; ++p) {
    auto [bits, shift] = format.planes[p];
    int down = 8 * h + stepBits(format.planes[p], s) - lift;
    Value word = words[p][s][row];
    if (down)
      word = e.shrU(word, e.constant(e.i32(), down));
    int32_t mask = (((1 << bits) - 1) << (shift + lift)) * 0x00010001;
    codes = codes ? e.orI(codes, e.andI(word, e.constant(e.i32(), mask)))
                  : e.andOr(word, mask, kMagic);
  }
  return e.bitcast(codes, e.half2());
}

/// Numbers of bytes (h, h + 2) of a word, e4m3, as 2 x f16: sign and magnitude
/// stay next to each other, which is the number times 2^-8, subnormal or not.
static Value pairOfE4m3(Emitter &e, Value word, int h) {
  if (h == 0)
    word = e.shl(word, e.constant(e.i32(), 8));
  Value magnitude = e.andI(e.shrU(word, e.constant(e.i32(), 1)),
                           e.constant(e.i32(), 0x3f803f80));
  return e.orI(e.andI(word, e.constant(e.i32(), int64_t{0x80008000})),
               magnitude);
}

WeightDecoder::Fragment
WeightDecoder::decodeRowScaledFragment(ValueRange words,
                                       Operands operands) const {
  if (operands == Operands::E4M3)
    return {{words[0], words[1], words[2], words[3]}};
  Fragment result(2);
  for (int s = 0; s < 2; ++s)
    for (int h = 0; h < 2; ++h)
      for (int row = 0; row < 2; ++row)
        result[s][2 * h + row] = pairOfE4m3(e, words[2 * s + row], h);
  return result;
}

WeightDecoder::Fragment WeightDecoder::decodeFragment(ValueRange loaded,
                                                      Value lane,
                                                      Operands operands) const {
  if (format.isFloat())
    return decodeFloatFragment(loaded);
  if (format.isRowScaled())
    return decodeRowScaledFragment(loaded, operands);
  auto splat = [&](double value) { return e.constant(e.half2(), value); };
  PlaneWords words = takeWords(e, format, loaded, e.rem(lane, e.index(4)));
  auto scales = takeParameters(loaded, format.scaleKind, format.scaleSigned);
  std::array<Value, 2> minima;
  if (hasMinimum())
    for (auto [row, minimum] :
         llvm::enumerate(takeParameters(loaded, format.minKind, false))) {
      Value value =
          minimum.byte ? e.mul(minimum.byte, minimum.unit) : minimum.unit;
      minima[row] = format.minSign < 0 ? e.sub(splat(-0.0), value) : value;
    }

  Fragment result(2);
  for (int s = 0; s < 2; ++s) {
    // Codes of a single plane stay above their place, which saves a shift.
    int lift = format.planeCount == 1 ? stepBits(format.planes[0], s) : 0;
    double unit = 1.0 / (1 << lift);
    for (int row = 0; row < 2; ++row) {
      auto [byte, scale] = scales[row];
      Value factor, bias;
      bool scaled = byte && format.zero == 0;
      if (scaled) {
        // At most 31 * 63: code * byte is exact, and so is the bias.
        factor = e.mul(byte, splat(unit));
        bias = e.mul(byte, splat(-1024 * unit));
      } else {
        factor = splat(unit);
        bias = splat(-1024 * unit - format.zero);
        if (byte)
          scale = e.mul(byte, scale);
      }
      for (int h = 0; h < 2; ++h) {
        Value codes = pairCodes(e, format, words, s, h, row, lift);
        codes =
            lift || scaled ? e.fma(codes, factor, bias) : e.add(codes, bias);
        codes = minima[row] ? e.fma(codes, scale, minima[row])
                            : e.mul(codes, scale);
        result[s][2 * h + row] = e.bitcast(codes, e.i32());
      }
    }
  }
  return result;
}

} // namespace quern::nvptx
