//===- LookupKernel.cpp - Rows picked by index ----------------------------===//
//
// lm.embedding reads one lane of a packed row block per token; lm.select_rows
// copies rows. A block per row. Indices were checked by the session.
//
//===----------------------------------------------------------------------===//
#include "codegen/ptx/Kernel.h"
#include "codegen/ptx/WeightDecoder.h"

using namespace mlir;

namespace quern::nvptx {
namespace {

constexpr int64_t kThreads = 128;

void selectRow(Kernel &k, lm::SelectRowsOp op, Value row, Value target) {
  Emitter &e = k.e;
  int64_t columns = columnsOf(op.getResult());
  Value from =
      e.mul(k.intAt(k.argument(op.getRows()), row), e.index(4 * columns));
  Value source = e.offset(k.argument(op.getX()), from);
  e.forLoop(e.thread(), e.index(columns), kThreads, [&](Value column) {
    Value at = e.mul(column, e.index(4));
    e.store(e.load(e.f32(), e.offset(source, at), 4), e.offset(target, at), 4);
  });
}

/// A thread decodes quads of a row: four columns.
void embedRow(Kernel &k, lm::EmbeddingOp op, Value row, Value target) {
  Emitter &e = k.e;
  int64_t columns = columnsOf(op.getResult());
  WeightDecoder w(e, formatOf(op.getTable()));
  Value token = k.intAt(k.argument(op.getTokens()), row);
  Value block = e.mul(e.div(token, e.index(kPackedRows)),
                      e.index(w.format.rowBlockBytes(columns)));
  Value base = e.offset(k.argument(op.getTable()), block);
  Value lane = e.rem(token, e.index(kPackedRows));
  e.forLoop(e.thread(), e.index(columns / 4), kThreads, [&](Value place) {
    Value quad = e.rem(place, e.index(8));
    WeightDecoder::Group group = w.group(base, e.div(place, e.index(8)), lane);
    SmallVector<Value> values;
    if (w.format.isFloat()) {
      for (int64_t j = 0; j < 4; ++j)
        values.push_back(
            w.floatValue(group, e.add(e.mul(quad, e.index(4)), e.index(j))));
    } else {
      auto parameter = [&](Value (WeightDecoder::*read)(
                           const WeightDecoder::Group &, int) const) {
        Value first = (w.*read)(group, 0);
        if (w.format.subGroups() == 1)
          return first;
        return e.select(e.less(quad, e.index(4)), first, (w.*read)(group, 1));
      };
      Value codes = w.codes(group, quad);
      Value scale = parameter(&WeightDecoder::scale);
      Value minimum =
          w.hasMinimum() ? parameter(&WeightDecoder::minimum) : Value();
      for (int j = 0; j < 4; ++j)
        values.push_back(w.value(codes, j, scale, minimum));
    }
    e.store(e.pack(values), e.at(target, place, 16), 16);
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
  k.launch.blockThreads = kThreads;
  k.launch.grid = {{GridCount::Rows, 1}};
  Value row = e.add(k.rangeBegin(0), e.block(0));
  Value target = e.at(k.result(0), row, 4 * columns);
  if (auto select = dyn_cast<lm::SelectRowsOp>(op)) {
    selectRow(k, select, row, target);
    return success();
  }
  auto embedding = cast<lm::EmbeddingOp>(op);
  int64_t unit =
      packedFormat(formatOf(embedding.getTable())).superblockColumns();
  if (columns % unit != 0)
    return k.emitError() << "embedding of " << columns
                         << " columns, expected a multiple of " << unit;
  embedRow(k, embedding, row, target);
  return success();
}

} // namespace quern::nvptx
