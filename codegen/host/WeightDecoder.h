//===- WeightDecoder.h - Reading packed weights in a kernel -----*- C++ -*-===//
//
// IR that turns a group of the packed layout (PackedLayout.h) into integer
// codes, scales, minima or float values. The format table drives it: no kernel
// knows a format by name.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_HOST_WEIGHTDECODER_H
#define QUERN_CODEGEN_HOST_WEIGHTDECODER_H

#include "codegen/host/Emitter.h"
#include "codegen/host/PackedLayout.h"

namespace quern::host {

class WeightDecoder {
public:
  using Value = mlir::Value;

  WeightDecoder(Emitter &e, BlockFormat format)
      : e(e), format(packedFormat(format)) {}

  Emitter &e;
  const PackedFormat &format;

  /// A group inside a row block's stream, while code for it is emitted.
  struct Group {
    Value pointer;    ///< first byte of the group
    Value index;      ///< i64, from the first group of the stream
    Value super;      ///< first byte of the superblock, K-quants only; of
                      ///< the row block in row-scaled formats
    Value superScale; ///< 16 x f32 d, where there is `super`
    Value superMin;   ///< 16 x f32 dmin, K-quants only
  };

  /// Loops over `columns` (i64, a multiple of the format's K unit) of the
  /// stream at `base`, in ascending k; carries `inits` like Emitter::forLoop.
  Emitter::Values
  forGroups(Value base, Value columns, mlir::ValueRange inits,
            llvm::function_ref<Emitter::Values(const Group &, mlir::ValueRange)>
                body);

  /// Bytes of a row block over `columns` columns.
  Value rowBlockBytes(Value columns);

  /// 64 u8 codes of quad `quad`: byte 4r+j is row r, k = 4 * quad + j.
  Value codes(const Group &group, int quad);
  /// Largest code that can occur.
  int maxCode() const;

  /// 16 x f32, one a row: the scale of sub-group `sub`.
  Value scale(const Group &group, int sub);
  /// 16 x f32: what is added to scale * (code - zero), sign applied. Only where
  /// the format has minima.
  Value minimum(const Group &group, int sub);
  bool hasMinimum() const { return format.minSign != 0; }

  /// 16 x f32: column 4 * quad + j of every row, as the format defines it
  /// (product and sum each rounded). `codes` are those of the quad.
  Value value(Value codes, int j, Value scale, Value minimum);
  /// All 32 columns of a group, ascending, of any format, float ones included.
  void forColumns(const Group &group,
                  llvm::function_ref<void(int column, Value values)> body);

  /// The group at the same place `blocks` row blocks further on.
  Group shifted(const Group &group, Value blockBytes, int64_t blocks);

  /// Prefetches the group's bytes `distance` bytes, and `more` (i64), ahead of
  /// its stream. No distance, no prefetch.
  void prefetch(const Group &group, Value more, int64_t distance);

private:
  void loadSuperParameters(Group &group);
  Value byteParameters(Value pointer, bool isSigned);
  Value halfParameters(Value pointer);
};

} // namespace quern::host

#endif // QUERN_CODEGEN_HOST_WEIGHTDECODER_H
