//===- OutputTiles.cpp ----------------------------------------------------===//
#include "codegen/ptx/OutputTiles.h"

#include "codegen/host/PackedLayout.h"

using namespace mlir;

namespace quern::nvptx {

Emitter::Values
byFormat(Emitter &e, ArrayRef<FormatChoice> formats,
         function_ref<Emitter::Values(const WeightDecoder &)> make) {
  auto first = [&] { return make(WeightDecoder(e, formats.front().format)); };
  if (formats.size() == 1)
    return first();
  return e.choose(formats.front().here, first,
                  [&] { return byFormat(e, formats.drop_front(), make); });
}

GridFactor OutputTiles::gridFactor() {
  int64_t columns = blocks * kPackedRows;
  if (!plan.splitK)
    return {GridCount::Columns, static_cast<uint32_t>(columns)};
  int64_t outputs = plan.projections.front().outputs();
  return {GridCount::One,
          static_cast<uint32_t>((outputs + columns - 1) / columns)};
}

OutputTile OutputTiles::segmentTile(unsigned segment) {
  const Projection &projection = plan.projections[segment];
  OutputTile tile;
  tile.weight = k.argument(projection.weight);
  tile.out = k.result(segment);
  tile.outputs = e.index(projection.outputs());
  if (projection.bias)
    tile.bias = k.argument(projection.bias);
  if (plan.splitK) {
    tile.firstColumn = e.index(0);
    tile.endColumn = tile.outputs;
    tile.firstDepth = k.rangeBegin(0);
    tile.depth = e.sub(k.rangeEnd(0), k.rangeBegin(0));
    if (tile.bias) // the first share adds it
      tile.addBias = e.equal(tile.firstDepth, e.index(0));
  } else {
    tile.firstColumn = k.rangeBegin(segment);
    tile.endColumn = k.rangeEnd(segment);
    tile.firstDepth = e.index(0);
    tile.depth = e.index(plan.depth());
  }
  Value columns = e.sub(tile.endColumn, tile.firstColumn);
  tile.blockCount =
      e.div(e.add(columns, e.index(kPackedRows - 1)), e.index(kPackedRows));
  return tile;
}

SmallVector<OutputTiles::Candidate> OutputTiles::candidates() {
  SmallVector<Candidate> result;
  Value rest = e.block(0);
  for (unsigned i = 0; i < plan.projections.size(); ++i) {
    OutputTile tile = segmentTile(i);
    tile.block = e.mul(rest, e.index(blocks));
    // A block that an earlier segment took has a negative rest here.
    Value inside =
        e.andI(e.less(e.index(-1), rest), e.less(tile.block, tile.blockCount));
    Value count =
        e.div(e.add(tile.blockCount, e.index(blocks - 1)), e.index(blocks));
    rest = e.sub(rest, count);
    result.push_back({tile, formatOf(plan.projections[i].weight), inside});
  }
  return result;
}

void OutputTiles::merge(Candidate &merged, const Candidate &other) {
  for (auto field :
       {&OutputTile::weight, &OutputTile::out, &OutputTile::outputs,
        &OutputTile::bias, &OutputTile::firstColumn, &OutputTile::endColumn,
        &OutputTile::block, &OutputTile::blockCount})
    if (merged.tile.*field && merged.tile.*field != other.tile.*field)
      merged.tile.*field =
          e.select(other.inside, other.tile.*field, merged.tile.*field);
  merged.inside = e.orI(merged.inside, other.inside);
}

void OutputTiles::locate(
    function_ref<void(const OutputTile &, ArrayRef<FormatChoice>)> body) {
  SmallVector<Candidate> all = candidates();
  Candidate merged = all.front();
  SmallVector<FormatChoice> formats;
  for (const Candidate &candidate : all) {
    if (&candidate != &all.front())
      merge(merged, candidate);
    auto *known = llvm::find_if(formats, [&](const FormatChoice &choice) {
      return choice.format == candidate.format;
    });
    if (known == formats.end())
      formats.push_back({candidate.format, candidate.inside});
    else
      known->here = e.orI(known->here, candidate.inside);
  }
  e.ifThen(merged.inside, [&] { body(merged.tile, formats); });
}

void OutputTiles::store(const OutputTile &tile, Value row, Value column,
                        Value value) {
  e.ifThen(e.less(column, tile.endColumn), [&] {
    Value bytes = e.mul(column, e.index(4));
    Value sum = value;
    if (tile.bias) {
      Value bias = e.load(e.f32(), e.offset(tile.bias, bytes), 4);
      if (tile.addBias)
        bias = e.select(tile.addBias, bias, e.constant(e.f32(), 0.0));
      sum = e.add(sum, bias);
    }
    Value at = e.mul(e.mul(row, tile.outputs), e.index(4));
    e.store(sum, e.offset(e.offset(tile.out, at), bytes), 4);
  });
}

void storeSwiglu(Kernel &k, const MatmulPlan &plan, Value row, Value column,
                 Value y) {
  Emitter &e = k.e;
  int64_t width = plan.projections.front().outputs();
  if (plan.epilogue == MatmulPlan::Epilogue::SwigluQuantize)
    return storeActivation(e, k.activationRow(k.result(0), row, width),
                           e.div(column, e.index(kPackedGroup)),
                           e.rem(column, e.index(kPackedGroup)), y);
  Value at = e.add(e.mul(row, e.index(width)), column);
  e.store(y, e.at(k.result(0), at, 4), 4);
}

LogicalResult checkMatmul(Kernel &k, const MatmulPlan &plan) {
  for (const Projection &projection : plan.projections) {
    const PackedFormat &format = packedFormat(formatOf(projection.weight));
    if (k.hasFp8Rows(plan.x) && !format.isRowScaled())
      return k.emitError() << "reads e4m3 activations against a weight of "
                           << projection.weight.getType() << "; leave x in f16";
    if (plan.depth() % format.superblockColumns() != 0)
      return k.emitError() << "sums over " << plan.depth()
                           << " columns, expected a multiple of "
                           << format.superblockColumns();
  }
  int64_t width = plan.projections.front().outputs();
  if (plan.epilogue != MatmulPlan::Epilogue::Store && width % kPackedGroup != 0)
    return k.emitError() << "swiglu over " << width
                         << " columns, expected a multiple of " << kPackedGroup;
  return success();
}

} // namespace quern::nvptx
