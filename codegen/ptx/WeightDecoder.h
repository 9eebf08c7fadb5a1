//===- WeightDecoder.h - Reading packed weights in a GPU kernel -*- C++ -*-===//
//
// IR by which one lane turns its row of a group of the packed layout
// (PackedLayout.h) into integer codes, scales, minima or float values. 16
// neighbouring lanes read the 16 rows of a row block, so that a load of a plane
// vector is one access of 64 bytes. The format table drives it: no kernel knows
// a format by name.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_PTX_WEIGHTDECODER_H
#define QUERN_CODEGEN_PTX_WEIGHTDECODER_H

#include "codegen/host/PackedLayout.h"
#include "codegen/ptx/Emitter.h"

#include <array>

namespace quern::nvptx {

class WeightDecoder {
public:
  using Value = mlir::Value;

  WeightDecoder(Emitter &e, BlockFormat format)
      : e(e), format(packedFormat(format)) {}

  Emitter &e;
  const PackedFormat &format;

  /// A group of a row block's stream and a row of it.
  struct Group {
    Value pointer; ///< first byte of the group
    Value super;   ///< first byte of the superblock, K-quants only; of the
                   ///< row block in row-scaled formats
    Value row;     ///< i64, 0..15
  };

  /// Group `index` (i64) of the stream at `base`.
  Group group(Value base, Value index, Value row) const;
  /// Bytes of a row block over `columns` columns.
  Value rowBlockBytes(Value columns) const;

  /// Four u8 codes of quad `quad`: byte j is k = 4 * quad + j.
  Value codes(const Group &group, int quad) const;
  /// The same where only the kernel knows the quad (i64).
  Value codes(const Group &group, Value quad) const;
  /// f32: the scale of row `row` (i64) of the row block at `base`, of a
  /// row-scaled format.
  Value rowScale(Value base, Value row) const;
  /// f32: the scale of sub-group `sub`.
  Value scale(const Group &group, int sub) const;
  /// f32: what is added to scale * (code - zero), sign applied. Only where the
  /// format has minima.
  Value minimum(const Group &group, int sub) const;
  bool hasMinimum() const { return format.minSign != 0; }
  /// f32: byte `j` of `codes` as the format defines it (product and sum each
  /// rounded).
  Value value(Value codes, int j, Value scale, Value minimum) const;
  /// f32: column `column` (i64, 0..31) of a float format.
  Value floatValue(const Group &group, Value column) const;

  //===--- Fragments of mma ---------------------------------------------===//
  // A warp holds a group of a row block as the A operands of two steps of 16
  // columns in f16, or of one step of all 32 in e4m3. In f16, lane 4 g + c has
  // two rows, and quads 2 c and 2 c + 1, step s being quad 2 c + s: mma sums
  // over columns in any order in which A and B agree, and this is the order of
  // f16 numeric rows. Register 2 h + i of a step is columns (h, h + 2) of the
  // quad and the lane's row i. In e4m3, register 2 s + i is quad 2 c + s of row
  // i.

  /// [step][register], 2 x f16 or 4 x e4m3 in an i32.
  using Fragment = llvm::SmallVector<std::array<Value, 4>, 2>;

  /// Row `i` (0 or 1) of a lane is row `first g + step i` of the row block. The
  /// rows of an int format are neighbours, so that one load has both; those of
  /// a float format are g and g + 8, as ldmatrix gives them.
  int64_t fragmentRowStep() const { return format.isFloat() ? 8 : 1; }
  int64_t fragmentRowFirst() const { return format.isFloat() ? 1 : 2; }
  /// The lane's row `i` (i64).
  Value fragmentRow(Value lane, int i) const;
  /// What a lane holds of `group`, which is in shared memory and whose row is
  /// fragmentRow(lane, 0), as operands. To f16, codes are exact and what
  /// follows rounds once or twice; numbers of row-scaled formats come without
  /// their scale, times fragmentUnit(). To e4m3, of which only such formats
  /// are.
  Fragment fragment(const Group &group, Value lane, Operands operands) const;
  /// What products with fragments of a row-scaled format are to be divided by,
  /// beside the row's scale.
  static double fragmentUnit(Operands operands) {
    return operands == Operands::F16 ? 0x1p-8 : 1;
  }

private:
  /// Packed words and parameters, and what they decode to.
  Emitter::Values loadFragment(const Group &group, Value lane) const;
  Fragment decodeFragment(mlir::ValueRange loaded, Value lane,
                          Operands operands) const;
  /// 16-bit floats, by ldmatrix.
  Emitter::Values loadHalfFragment(const Group &group, Value lane) const;
  /// f32.
  Emitter::Values loadFloatFragment(const Group &group, Value c) const;
  Fragment decodeFloatFragment(mlir::ValueRange loaded) const;
  Fragment decodeRowScaledFragment(mlir::ValueRange words,
                                   Operands operands) const;
  /// Appends the two rows' parameters as stored: a word of both, and the
  /// superblock's where there is one.
  void loadParameters(ParamKind kind, Value pointer, Value superPointer,
                      Value row, Emitter::Values &loaded) const;
  /// A row's scale or minimum: `byte` * `unit`, 2 x f16 each; without `byte`,
  /// `unit` alone.
  struct Parameter {
    Value byte, unit;
  };
  /// Takes the next parameters of both rows from `loaded`.
  std::array<Parameter, 2> takeParameters(mlir::ValueRange &loaded,
                                          ParamKind kind, bool isSigned) const;
  Value half(Value pointer, Value row) const {
    Value at = e.at(pointer, row, 2);
    return e.extend(e.load(e.f16(), at, 2), e.f32());
  }
  Value byte(Value pointer, Value row, bool isSigned) const;
};

} // namespace quern::nvptx

#endif // QUERN_CODEGEN_PTX_WEIGHTDECODER_H
