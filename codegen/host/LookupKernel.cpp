//===- LookupKernel.cpp - Rows picked by index ----------------------------===//
//
// lm.embedding reads one lane of a packed row block per token; lm.select_rows
// copies rows. Indices were checked by the session.
//
//===----------------------------------------------------------------------===//
#include "codegen/host/Kernel.h"
#include "codegen/host/WeightDecoder.h"

using namespace mlir;

namespace quern::host {
namespace {

/// Decodes columns of one row (lane) of packed row blocks to f32.
class LaneDecoder {
public:
  LaneDecoder(Emitter &e, BlockFormat format)
      : e(e), w(e, format), format(w.format) {}

  void decode(Value block, Value lane, int64_t columns, Value target);

private:
  void decodeGroup(const WeightDecoder::Group &group, Value lane, Value target);
  void decodeFloatGroup(const WeightDecoder::Group &group, Value lane,
                        Value target);
  Value parameter(Value pointer, Value lane, ParamKind kind, bool isSigned,
                  Value super);
  Value half(Value pointer, Value lane) {
    return e.extend(e.load(e.f16(), e.at(pointer, lane, 2), 2), e.f32());
  }

  Emitter &e;
  WeightDecoder w;
  const PackedFormat &format;
};

Value LaneDecoder::parameter(Value pointer, Value lane, ParamKind kind,
                             bool isSigned, Value super) {
  if (kind == ParamKind::F16)
    return half(pointer, lane);
  if (kind == ParamKind::Row)
    return super;
  Value byte = e.load(e.i8(), e.offset(pointer, lane));
  Value wide =
      isSigned ? e.extend(byte, e.i32()) : e.extendUnsigned(byte, e.i32());
  return e.mul(super, e.toFloat(wide, e.f32()));
}

void LaneDecoder::decodeFloatGroup(const WeightDecoder::Group &group,
                                   Value lane, Value target) {
  Type element = format.elementBytes == 4            ? e.f32()
                 : format.format == BlockFormat::F16 ? e.f16()
                                                     : e.bf16();
  Value first = e.at(group.pointer, lane, format.elementBytes);
  Value out = e.at(target, group.index, kPackedGroup * 4);
  e.forLoop(e.index(0), e.index(kPackedGroup), 1, [&](Value k) {
    Value at = e.at(first, k, kPackedRows * format.elementBytes);
    Value value = e.load(element, at, format.elementBytes);
    if (format.elementBytes != 4)
      value = e.extend(value, e.f32());
    e.store(value, e.at(out, k, 4), 4);
  });
}

void LaneDecoder::decodeGroup(const WeightDecoder::Group &group, Value lane,
                              Value target) {
  Value out = e.at(target, group.index, kPackedGroup * 4);
  Value word = e.mul(lane, e.index(4));
  Value superScale, superMin;
  if (format.hasSuperblock()) {
    superScale = half(e.offset(group.super, format.superScaleOffset()), lane);
    if (w.hasMinimum())
      superMin = half(e.offset(group.super, format.superMinOffset()), lane);
  }
  if (format.isRowScaled())
    superScale = e.load(e.f32(), e.offset(group.super, word), 4);
  Type four = e.vec(4, e.i8());
  for (int quad = 0; quad < 8; ++quad) {
    int sub = 4 * quad / format.subGroup;
    Value merged;
    for (int p = 0; p < format.planeCount; ++p) {
      auto [bits, shift] = format.planes[p];
      int64_t at = format.planeOffset(p) + quad * bits / 8 * kPackedVectorBytes;
      Value raw = e.load(four, e.offset(e.offset(group.pointer, at), word));
      Value part = e.shrU(raw, e.constant(four, quad * bits % 8));
      if (bits < 8)
        part = e.andI(part, e.constant(four, (1 << bits) - 1));
      part = e.shl(part, e.constant(four, shift));
      merged = merged ? e.orI(merged, part) : part;
    }
    Value codes = e.extendUnsigned(merged, e.i32());
    Value scale =
        parameter(e.offset(group.pointer, format.scaleOffset(sub)), lane,
                  format.scaleKind, format.scaleSigned, superScale);
    Value numbers =
        format.isRowScaled()
            ? e.e4m3ToFloat(codes)
            : e.toFloat(e.sub(codes, e.constant(codes.getType(), format.zero)),
                        e.f32());
    Value values = e.mul(e.broadcast(scale, 4), numbers);
    if (w.hasMinimum()) {
      Value minimum =
          parameter(e.offset(group.pointer, format.minOffset(sub)), lane,
                    format.minKind, /*isSigned=*/false, superMin);
      Value spread = e.broadcast(minimum, 4);
      values =
          format.minSign > 0 ? e.add(values, spread) : e.sub(values, spread);
    }
    e.store(values, e.offset(out, 16 * quad), 4);
  }
}

void LaneDecoder::decode(Value block, Value lane, int64_t columns,
                         Value target) {
  w.forGroups(block, e.index(columns), {},
              [&](const WeightDecoder::Group &group, ValueRange) {
                if (format.isFloat())
                  decodeFloatGroup(group, lane, target);
                else
                  decodeGroup(group, lane, target);
                return Emitter::Values();
              });
}

} // namespace

bool matchesLookup(Kernel &k) {
  return isa_and_nonnull<lm::EmbeddingOp, lm::SelectRowsOp>(k.onlyOp());
}

LogicalResult generateLookup(Kernel &k) {
  Emitter &e = k.e;
  Operation *op = k.onlyOp();
  int64_t columns = columnsOf(op->getResult(0));
  auto target = [&](Value row) { return e.at(k.result(0), row, 4 * columns); };
  if (auto select = dyn_cast<lm::SelectRowsOp>(op)) {
    if (columns % kLanes != 0)
      return k.emitError() << "rows of " << columns
                           << " columns, expected a multiple of 16";
    e.forLoop(k.rangeBegin(0), k.rangeEnd(0), 1, [&](Value row) {
      Value from = e.mul(k.intAt(k.argument(select.getRows()), row),
                         e.index(4 * columns));
      Value source = e.offset(k.argument(select.getX()), from);
      Value to = target(row);
      e.forLoop(e.index(0), e.index(4 * columns), 4 * kLanes, [&](Value byte) {
        e.store(e.load(e.vec(kLanes, e.f32()), e.offset(source, byte), 4),
                e.offset(to, byte), 4);
      });
    });
    return success();
  }
  auto embedding = cast<lm::EmbeddingOp>(op);
  BlockFormat format = formatOf(embedding.getTable());
  if (columns % packedFormat(format).superblockColumns() != 0)
    return k.emitError() << "embedding of " << columns
                         << " columns, expected a multiple of "
                         << packedFormat(format).superblockColumns();
  LaneDecoder decoder(e, format);
  int64_t blockBytes = packedFormat(format).rowBlockBytes(columns);
  e.forLoop(k.rangeBegin(0), k.rangeEnd(0), 1, [&](Value row) {
    Value token = k.intAt(k.argument(embedding.getTokens()), row);
    Value block =
        e.mul(e.div(token, e.index(kPackedRows)), e.index(blockBytes));
    decoder.decode(e.offset(k.argument(embedding.getTable()), block),
                   e.rem(token, e.index(kPackedRows)), columns, target(row));
  });
  return success();
}

} // namespace quern::host
