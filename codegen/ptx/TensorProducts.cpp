//===- TensorProducts.cpp -------------------------------------------------===//
#include "codegen/ptx/TensorProducts.h"

#include <numeric>

using namespace mlir;

namespace quern::nvptx {

//===----------------------------------------------------------------------===//
// Kernels
//===----------------------------------------------------------------------===//

LogicalResult TensorProducts::emit() {
  const int64_t rows = k.tile.rows, blocks = k.tile.blocks;
  const bool isSwiglu = plan.epilogue != MatmulPlan::Epilogue::Store;
  streamCount = blocks / limits.warps;
  if (blocks != limits.warps * streamCount || streamCount < 1 ||
      streamCount > 2 || rows % limits.rowUnit != 0 ||
      rows * streamCount > limits.sums)
    return k.emitError() << "expected a tile with blocks of " << limits.warps
                         << " or " << 2 * limits.warps
                         << " and rows of a multiple of " << limits.rowUnit
                         << ", rows * blocks of at most "
                         << limits.sums * limits.warps
                         << ", got rows = " << rows << ", blocks = " << blocks;
  tokens = rows;
  if (isSwiglu) {
    // A warp has a row block of gate and the same of up, so that both numbers
    // of an element are in one lane.
    tokens = std::max(limits.rowUnit, std::min(rows, limits.sums / 2));
    streamCount = 2;
    emitSwiglu();
  } else {
    emitStore();
  }
  return success();
}

void TensorProducts::emitStore() {
  OutputTiles tiles(k, plan, limits.warps * streamCount);
  launch(tiles.gridFactor());
  firstRow = e.mul(e.block(1), e.index(tokens));
  tiles.locate([&](const OutputTile &tile, ArrayRef<FormatChoice> formats) {
    Value blockBytes = byFormat(e, formats, [&](const WeightDecoder &decoder) {
                         return Values{decoder.rowBlockBytes(tile.depth)};
                       }).front();
    auto blockOf = [&](Value warp, int64_t stream) {
      return e.add(tile.block,
                   e.add(e.mul(warp, e.index(streamCount)), e.index(stream)));
    };
    // Row blocks past the last are computed as the last and not stored.
    SmallVector<Stream> streams;
    for (int64_t i = 0; i < streamCount; ++i)
      streams.push_back(
          {SmallVector<FormatChoice, 2>(formats), [&, i](Value warp) -> Value {
             Value block =
                 e.minI(blockOf(warp, i), e.sub(tile.blockCount, e.index(1)));
             return e.offset(tile.weight, e.mul(block, blockBytes));
           }});
    auto visit = [&](Value place, Value output, Value row,
                     ArrayRef<Value> values) {
      for (auto [i, value] : llvm::enumerate(values)) {
        Value block = blockOf(place, static_cast<int64_t>(i));
        Value column = e.add(e.mul(block, e.index(kPackedRows)), output);
        tiles.store(
            tile, row, e.add(tile.firstColumn, column),
            scaled(value, formats, streams[i].base(place), output, row));
      }
    };
    Value groups = e.div(tile.depth, e.index(kPackedGroup));
    auto multiply = [&] {
      compute(streams, e.div(tile.firstDepth, e.index(kPackedGroup)), groups,
              visit);
    };
    if (!plan.splitK)
      return multiply();
    // A share without columns of K still owes its partial result.
    e.ifElse(e.less(e.index(0), groups), multiply,
             [&] { visitZeros(streams, visit); });
  });
}

void TensorProducts::emitSwiglu() {
  launch(
      {GridCount::Columns, static_cast<uint32_t>(limits.warps * kPackedRows)});
  firstRow = e.mul(e.block(1), e.index(tokens));
  Value begin = k.rangeBegin(0);
  Value count = e.div(e.sub(k.rangeEnd(0), begin), e.index(kPackedRows));
  auto blockOf = [&](Value warp) {
    return e.add(e.mul(e.block(0), e.index(limits.warps)), warp);
  };
  SmallVector<Stream> streams;
  for (const Projection &projection : plan.projections) {
    BlockFormat format = formatOf(projection.weight);
    Value bytes = WeightDecoder(e, format).rowBlockBytes(e.index(plan.depth()));
    Value weight = k.argument(projection.weight);
    streams.push_back(
        {{{format, Value()}}, [&, bytes, weight](Value warp) -> Value {
           Value block = e.minI(blockOf(warp), e.sub(count, e.index(1)));
           return e.offset(weight, e.mul(block, bytes));
         }});
  }
  auto visit = [&](Value place, Value output, Value row,
                   ArrayRef<Value> values) {
    Value block = blockOf(place);
    Value column =
        e.add(e.add(begin, e.mul(block, e.index(kPackedRows))), output);
    Value products[2];
    for (auto [i, stream] : llvm::enumerate(streams))
      products[i] =
          scaled(values[i], stream.formats, stream.base(place), output, row);
    Value y = e.mul(e.silu(products[0]), products[1]);
    e.ifThen(e.less(block, count),
             [&] { storeSwiglu(k, plan, row, column, y); });
  };
  compute(streams, e.index(0), e.index(plan.depth() / kPackedGroup), visit);
}

Value TensorProducts::scaled(Value value, ArrayRef<FormatChoice> formats,
                             Value base, Value output, Value row) {
  auto isRowScaled = [](const FormatChoice &choice) {
    return packedFormat(choice.format).isRowScaled();
  };
  if (llvm::none_of(formats, isRowScaled))
    return value;
  Value unit = e.constant(e.f32(), 1 / WeightDecoder::fragmentUnit(operands));
  Value scale =
      byFormat(e, formats, [&](const WeightDecoder &decoder) {
        return Values{decoder.format.isRowScaled()
                          ? e.mul(decoder.rowScale(base, output), unit)
                          : e.constant(e.f32(), 1.0)};
      }).front();
  if (operands == Operands::E4M3) {
    Value x = k.activationRow(k.argument(plan.x), row, plan.depth());
    scale = e.mul(scale, e.load(e.f32(), fp8ScaleAt(e, x, plan.depth()), 4));
  }
  return e.mul(value, scale);
}

Emitter::Values
TensorProducts::byFormats(ArrayRef<Stream> streams,
                          function_ref<Values(ArrayRef<WeightDecoder>)> make) {
  if (streams.front().formats.size() > 1)
    return byFormat(e, streams.front().formats,
                    [&](const WeightDecoder &decoder) {
                      return make(std::vector(streams.size(), decoder));
                    });
  std::vector<WeightDecoder> decoders;
  for (const Stream &stream : streams)
    decoders.emplace_back(e, stream.formats.front().format);
  return make(decoders);
}

void TensorProducts::accumulate(const WeightDecoder::Fragment &a, ValueRange b,
                                MutableArrayRef<Value> sums) {
  for (auto [step, words] : llvm::enumerate(a))
    llvm::copy(e.mma(words, b.slice(2 * step, 2), ValueRange(sums), operands),
               sums.begin());
}

void TensorProducts::visitTile(ArrayRef<Stream> streams, int64_t count,
                               ValueRange sums, Visit visit) {
  Value lane = e.lane();
  Value pair = e.mul(e.rem(lane, e.index(4)), e.index(2));
  Values outputs =
      byFormat(e, streams.front().formats, [&](const WeightDecoder &decoder) {
        return Values{decoder.fragmentRow(lane, 0),
                      decoder.fragmentRow(lane, 1)};
      });
  for (int64_t block = 0; block < count / kMmaTokens; ++block)
    for (int64_t j = 0; j < 2; ++j) {
      Value row = e.add(firstRow, e.add(pair, e.index(block * kMmaTokens + j)));
      e.ifThen(e.less(row, k.rows()), [&] {
        for (int half = 0; half < 2; ++half) {
          SmallVector<Value> values;
          for (size_t i = 0; i < streams.size(); ++i)
            values.push_back(sums[i * count / 2 + block * 4 + 2 * half + j]);
          visit(place(), outputs[half], row, values);
        }
      });
    }
}

//===----------------------------------------------------------------------===//
// Stages
//===----------------------------------------------------------------------===//

WeightStages::WeightStages(Kernel &k, const MatmulPlan &plan, Operands operands,
                           const Shape &shape, int64_t bytes)
    : groups(shape.groups), count(kMost),
      blockBytes(groups * groupBytesOf(operands)), e(k.e), operands(operands),
      frontBytes(shape.frontBytes),
      tokenBytes(shape.tokens / kMmaTokens * blockBytes), slotBytes(0),
      streams(shape.streams) {
  // A share's K is known to be a multiple of its unit.
  int64_t depth =
      plan.splitK ? k.rangeUnit(/*segment=*/0, kPackedGroup) : plan.depth();
  groupsTogether = std::gcd(groups, depth / kPackedGroup);
  for (const Projection &projection : plan.projections) {
    const PackedFormat &format = packedFormat(formatOf(projection.weight));
    slotBytes =
        std::max(slotBytes, groups * format.groupBytes() + superBytes(format));
  }
  stageBytes = frontBytes + tokenBytes + shape.warps * streams * slotBytes;
  if (shape.rings * count * stageBytes > bytes)
    count = 2;
  base = k.shared(shape.rings * count * stageBytes);
}

Value WeightStages::stagesOf(Value groupCount) {
  return e.div(e.add(groupCount, e.index(groups - 1)), e.index(groups));
}

Emitter::Values WeightStages::groupEnds(Value groupCount) {
  Values ends;
  for (int64_t group = 0; group < groups; ++group) {
    if (group % groupsTogether) {
      ends.push_back(ends.back());
      continue;
    }
    Value end = e.add(groupCount, e.index(groups - 1 - group));
    ends.push_back(e.truncate(e.div(end, e.index(groups)), e.i32()));
  }
  return ends;
}

Value WeightStages::numberOf(Value t) { return e.rem(t, e.index(count)); }

Value WeightStages::parityOf(Value t) {
  return e.truncate(e.rem(e.div(t, e.index(count)), e.index(2)), e.i32());
}

Value WeightStages::at(Value number) { return e.at(base, number, stageBytes); }

Value WeightStages::slot(Value stage, Value warp, size_t stream) {
  Value place = e.add(e.mul(warp, e.index(streams)),
                      e.index(static_cast<int64_t>(stream)));
  return e.at(e.offset(stage, frontBytes + tokenBytes), place, slotBytes);
}

WeightDecoder::Fragment WeightStages::fragment(const WeightDecoder &decoder,
                                               Value slot, int64_t group) {
  const PackedFormat &format = decoder.format;
  Value lane = e.lane();
  WeightDecoder::Group place{e.offset(slot, group * format.groupBytes()),
                             {},
                             decoder.fragmentRow(lane, 0)};
  if (format.hasSuperblock())
    place.super = e.offset(slot, groups * format.groupBytes() -
                                     format.superScaleOffset());
  return decoder.fragment(place, lane, operands);
}

WeightDecoder::Fragment WeightStages::loaded(const WeightDecoder &decoder,
                                             Value slot, int64_t at) {
  const int64_t groupBytes = blockBytes / groups;
  WeightDecoder::Fragment steps;
  for (int64_t byte = at; byte < at + kLoadBytes; byte += groupBytes)
    llvm::append_range(steps, fragment(decoder, slot, byte / groupBytes));
  return steps;
}

Value WeightStages::copyBytes(Value t, int64_t at, int64_t groupBytes,
                              ValueRange groupEnds) {
  constexpr int64_t kWarpBytes = kCopyBytes * kWarp;
  int64_t last = std::min(groups - 1, (at + kWarpBytes - 1) / groupBytes);
  Value end = groupEnds[last];
  for (int64_t group = last - 1; group >= at / groupBytes; --group) {
    if (groupEnds[group] == end)
      continue;
    int64_t lanes = ((group + 1) * groupBytes - at) / kCopyBytes;
    end = e.select(e.less(e.lane(), e.index(lanes)), groupEnds[group], end);
  }
  return e.select(e.less(t, end), e.constant(e.i32(), kCopyBytes),
                  e.constant(e.i32(), 0));
}

void WeightStages::copyTokens(Value from, Value to, Value t,
                              ValueRange groupEnds) {
  for (int64_t at = 0; at < blockBytes; at += kCopyBytes * kWarp)
    e.copyAsync(e.offset(to, at), e.offset(from, at),
                copyBytes(t, at, blockBytes / groups, groupEnds));
}

void WeightStages::copyWarp(const WeightDecoder &decoder, Value base,
                            Value slot, Value t, ValueRange groupEnds) {
  const PackedFormat &format = decoder.format;
  Value first = e.mul(e.extendUnsigned(t, e.i64()), e.index(groups));
  WeightDecoder::Group group = decoder.group(base, first, Value());
  Value lane = e.lane();
  Value target = e.offset(slot, laneBytes());
  // Copies `bytes` from lane 0's place on.
  auto copyLanes = [&](int64_t bytes, int64_t at, Value source, Value read) {
    auto copy = [&] { e.copyAsync(e.offset(target, at), source, read); };
    if (bytes >= kCopyBytes * kWarp)
      copy();
    else
      e.ifThen(e.less(lane, e.index(bytes / kCopyBytes)), copy);
  };
  const int64_t groupBytes = format.groupBytes(), total = groups * groupBytes;
  for (int64_t at = 0; at < total; at += kCopyBytes * kWarp)
    copyLanes(total - at, at, e.offset(group.pointer, at),
              copyBytes(t, at, groupBytes, groupEnds));
  if (format.hasSuperblock())
    copyLanes(superBytes(format), total,
              e.offset(group.super, format.superScaleOffset()),
              copyBytes(t, 0, total, groupEnds));
}

void WeightStages::copyGroups(const WeightDecoder &decoder, Value base,
                              Value first, Value count, Value slot,
                              Value filled) {
  const PackedFormat &format = decoder.format;
  WeightDecoder::Group group = decoder.group(base, first, e.index(0));
  Value bytes = e.mul(count, e.index(format.groupBytes()));
  copyBulk(e, slot, group.pointer, e.truncate(bytes, e.i32()), filled);
  if (format.hasSuperblock())
    copyBulk(e, e.offset(slot, groups * format.groupBytes()),
             e.offset(group.super, format.superScaleOffset()),
             e.constant(e.i32(), superBytes(format)), filled);
}

} // namespace quern::nvptx
