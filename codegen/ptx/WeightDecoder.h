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
    Value super;   ///< first byte of the superblock, K-quants only
    Value row;     ///< i64, 0..15
  };

  /// Group `index` (i64) of the stream at `base`.
  Group group(Value base, Value index, Value row);
  /// Bytes of a row block over `columns` columns.
  Value rowBlockBytes(Value columns);

  /// Four u8 codes of quad `quad`: byte j is k = 4 * quad + j.
  Value codes(const Group &group, int quad);
  /// The same where only the kernel knows the quad (i64).
  Value codes(const Group &group, Value quad);
  /// f32: the scale of sub-group `sub`.
  Value scale(const Group &group, int sub);
  /// f32: what is added to scale * (code - zero), sign applied. Only where the
  /// format has minima.
  Value minimum(const Group &group, int sub);
  bool hasMinimum() const { return format.minSign != 0; }
  /// f32: byte `j` of `codes` as the format defines it (product and sum each
  /// rounded).
  Value value(Value codes, int j, Value scale, Value minimum);
  /// f32: column `column` (i64, 0..31) of a float format.
  Value floatValue(const Group &group, Value column);

private:
  Value half(Value pointer, Value row) {
    Value at = e.offset(pointer, e.mul(row, e.index(2)));
    return e.extend(e.load(e.f16(), at, 2), e.f32());
  }
  Value byte(Value pointer, Value row, bool isSigned);
};

} // namespace quern::nvptx

#endif // QUERN_CODEGEN_PTX_WEIGHTDECODER_H
