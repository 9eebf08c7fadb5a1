//===- WgmmaMatmulKernel.cpp - Prompt matmuls of sm_90a -------------------===//
//
// Products of f16 numeric rows with packed weights by wgmma, for steps of many
// tokens. A block of the grid is three warpgroups:
//
//   producer   brings stages of two groups of K (64 columns) with bulk copies:
//              the activations of a tile of tokens, which lie in core matrices
//              as wgmma wants B, and the weights of every row block, packed
//   consumers  two of them. A warp has row blocks of its own (16 outputs each),
//              decodes them from shared memory into the A fragments of its
//              registers and multiplies them with all tokens of the tile
//
// Two groups of fragment registers take turns: one is decoded while the
// products of the other are under way.
//
// A token is a column of its own and K is summed in ascending order: a row's
// result depends neither on the rows beside it nor on the grid.
//
//===----------------------------------------------------------------------===//
#include "codegen/kernels/MatmulPlan.h"
#include "codegen/ptx/Hopper.h"
#include "codegen/ptx/Kernel.h"
#include "codegen/ptx/OutputTiles.h"
#include "codegen/ptx/WeightDecoder.h"

#include <optional>

using namespace mlir;

namespace quern::nvptx {
namespace {

constexpr int64_t kProducerWarps = kGroupWarps;
constexpr int64_t kConsumerWarps = 2 * kGroupWarps;
constexpr int64_t kThreads = (kProducerWarps + kConsumerWarps) * kWarp;
/// Registers a thread once the producer gave most of its own away. All are
/// 65536: 128 * 40 + 256 * 232 fit, as 384 * 168 do before.
constexpr int64_t kProducerRegisters = 40;
constexpr int64_t kConsumerRegisters = 232;

/// Groups of K in a stage, and products of 16 columns in a group.
constexpr int64_t kStageGroups = 2;
constexpr int64_t kSteps = 2;
/// A block of 8 tokens in a stage.
constexpr int64_t kStageBlockBytes = kStageGroups * kHalfGroupBytes;
/// Stages, a power of two, where shared memory has the place.
constexpr int64_t kMostStages = 4;
/// Accumulators of a thread beside fragments and addresses.
constexpr int64_t kMostSums = 128;

class WgmmaMatmulEmitter {
public:
  WgmmaMatmulEmitter(Kernel &k, MatmulPlan plan)
      : k(k), e(k.e), plan(std::move(plan)) {}

  void emitStore();
  void emitSwiglu();

private:
  using Values = Emitter::Values;

  /// One of the row blocks that every consumer warp multiplies.
  struct Stream {
    /// It has one of these formats.
    SmallVector<FormatChoice, 2> formats;
    /// First byte of that of consumer warp `warp`.
    std::function<Value(Value warp)> base;
  };
  /// What `make` gives for the format that the stream has. (One copy of the
  /// products serves all formats: ptxas runs wgmma one by one where a kernel
  /// has two loops of them.)
  Values byFormat(ArrayRef<FormatChoice> formats,
                  function_ref<Values(const WeightDecoder &)> make);
  /// Output (i64, 0..15) of a row block, row of x, what each stream has there.
  using Visit =
      function_ref<void(Value output, Value row, ArrayRef<Value> values)>;

  /// Row blocks of one warp.
  void setStreams(int64_t count);
  /// Grid, shared memory and barriers.
  void launch(GridFactor columns);
  /// Multiplies the streams with this block's tokens over `groups` groups,
  /// group 0 being `firstGroup` of x, and visits the results.
  void compute(ArrayRef<Stream> streams, Value firstGroup, Value groups,
               Visit visit);
  void visitZeros(ArrayRef<Stream> streams, Visit visit);

  void produce(ArrayRef<Stream> streams, Value firstGroup, Value groups);
  /// Copies `count` groups of the row block at `base`, from group `first` on.
  void copyGroups(const WeightDecoder &decoder, Value base, Value first,
                  Value count, Value to, Value filled);
  /// Sums of the tile's tokens, [stream][tokens / 2].
  Values consume(ArrayRef<Stream> streams, Value groups);
  /// A fragments of group `group` of stage `number`, [step][stream][4].
  Values decode(ArrayRef<Stream> streams, Value number, int64_t group);
  /// Starts the products of group `group` of stage `number`.
  Values multiply(Value number, int64_t group, ValueRange a, ValueRange sums);
  void visitTile(ArrayRef<Stream> streams, ValueRange sums, Visit visit);

  // Stages. Step `t` (i64) of K is in stage t % stageCount.
  Value numberOf(Value t) { return e.rem(t, e.index(stageCount)); }
  /// Parity of the phase that step `t` ends.
  Value parityOf(Value t) {
    return e.truncate(e.rem(e.div(t, e.index(stageCount)), e.index(2)),
                      e.i32());
  }
  Value stagesOf(Value groups) {
    return e.div(e.add(groups, e.index(kStageGroups - 1)),
                 e.index(kStageGroups));
  }
  Value stage(Value number) {
    return e.offset(stages, e.mul(number, e.index(stageBytes)));
  }
  /// The groups of row block `stream` of a consumer warp in a stage, behind
  /// which a superblock's parameters lie.
  Value slot(Value number, Value warp, size_t stream) {
    Value place = e.add(e.mul(warp, e.index(streamCount)),
                        e.index(static_cast<int64_t>(stream)));
    return e.offset(
        e.offset(stage(number), tokens / kHalfRows * kStageBlockBytes),
        e.mul(place, e.index(slotBytes)));
  }
  Value consumerWarp() { return e.sub(warp, e.index(kProducerWarps)); }

  Kernel &k;
  Emitter &e;
  MatmulPlan plan;
  int64_t streamCount = 0;
  int64_t tokens = 0; ///< of a tile
  int64_t slotBytes = 0, stageBytes = 0, stageCount = kMostStages;
  Value stages; ///< shared: [stage]{[token block][group] | [warp][stream] slot}
  /// Phases: a stage is full, it may be written again.
  std::optional<Barriers> full, empty;
  Value firstRow; ///< of the tile
  Value warp;     ///< of this thread, known to be the same in all lanes
};

/// Bytes of the parameters behind a superblock's groups, if there are any.
int64_t superBytes(const PackedFormat &format) {
  return format.superblockBytes() - format.superScaleOffset();
}

Emitter::Values
WgmmaMatmulEmitter::byFormat(ArrayRef<FormatChoice> formats,
                             function_ref<Values(const WeightDecoder &)> make) {
  auto first = [&] { return make(WeightDecoder(e, formats.front().format)); };
  if (formats.size() == 1)
    return first();
  return e.choose(formats.front().here, first,
                  [&] { return byFormat(formats.drop_front(), make); });
}

void WgmmaMatmulEmitter::setStreams(int64_t count) {
  streamCount = count;
  tokens = std::clamp<int64_t>(k.tile.rows / 32 * 32, 32,
                               2 * kMostSums / streamCount);
  for (const Projection &projection : plan.projections) {
    const PackedFormat &format = packedFormat(formatOf(projection.weight));
    slotBytes = std::max(slotBytes, kStageGroups * format.groupBytes() +
                                        superBytes(format));
  }
  stageBytes = tokens / kHalfRows * kStageBlockBytes +
               kConsumerWarps * streamCount * slotBytes;
}

void WgmmaMatmulEmitter::launch(GridFactor columns) {
  k.launch.blockThreads = kThreads;
  k.launch.grid = {columns, {GridCount::Rows, static_cast<uint32_t>(tokens)}};
  int64_t barrierBytes = Barriers::bytes(kMostStages);
  while (stageCount * stageBytes + 4 * barrierBytes > e.target.gpu.sharedBytes)
    stageCount /= 2;
  stages = k.shared(stageCount * stageBytes);
  Value barriers = k.shared(2 * barrierBytes);
  full.emplace(e, barriers);
  empty.emplace(e, e.offset(barriers, barrierBytes));
  firstRow = e.mul(e.block(1), e.index(tokens));
  warp = warpUniform(e, e.warp());
  e.ifThen(e.equal(e.thread(), e.index(0)), [&] {
    for (int64_t i = 0; i < stageCount; ++i) {
      full->init(i, kProducerWarps);
      empty->init(i, kConsumerWarps);
    }
    publishBarriers(e);
  });
  e.barrier();
}

//===----------------------------------------------------------------------===//
// Producer
//===----------------------------------------------------------------------===//

void WgmmaMatmulEmitter::produce(ArrayRef<Stream> streams, Value firstGroup,
                                 Value groups) {
  // A warp brings every fourth block of tokens, and the row blocks of two
  // consumer warps.
  constexpr int64_t kServed = kConsumerWarps / kProducerWarps;
  Value blocks =
      e.minI(e.div(e.add(e.sub(k.rows(), firstRow), e.index(kHalfRows - 1)),
                   e.index(kHalfRows)),
             e.index(tokens / kHalfRows));
  Value mine = e.div(e.add(e.sub(blocks, warp), e.index(kProducerWarps - 1)),
                     e.index(kProducerWarps));
  Value rows =
      e.offset(k.activationRow(k.argument(plan.x), firstRow, plan.depth()),
               e.mul(firstGroup, e.index(kHalfGroupBytes)));
  int64_t blockStride = kHalfRows * activationRowBytes(plan.depth());

  struct Source {
    const Stream *stream;
    size_t number;
    Value warp, base, groupBytes, superBytes;
  };
  SmallVector<Source> sources;
  for (auto [number, stream] : llvm::enumerate(streams)) {
    Values sizes = byFormat(stream.formats, [&](const WeightDecoder &decoder) {
      return Values{e.index(decoder.format.groupBytes()),
                    e.index(superBytes(decoder.format))};
    });
    for (int64_t i = 0; i < kServed; ++i) {
      Value served = e.add(e.mul(warp, e.index(kServed)), e.index(i));
      sources.push_back(
          {&stream, number, served, stream.base(served), sizes[0], sizes[1]});
    }
  }

  e.ifThen(electLane(e), [&] {
    e.forLoop(e.index(0), stagesOf(groups), 1, [&](Value t) {
      Value number = numberOf(t), filled = full->at(number);
      Value first = e.mul(t, e.index(kStageGroups));
      Value present = e.minI(e.sub(groups, first), e.index(kStageGroups));
      Value rowBytes = e.mul(present, e.index(kHalfGroupBytes));
      Value total = e.mul(rowBytes, mine);
      for (const Source &source : sources)
        total = e.add(
            total, e.add(e.mul(present, source.groupBytes), source.superBytes));
      empty->wait(number, e.sub(e.constant(e.i32(), 1), parityOf(t)));
      full->arriveExpecting(number, e.truncate(total, e.i32()));
      e.forLoop(warp, blocks, kProducerWarps, [&](Value block) {
        Value from = e.add(e.mul(block, e.index(blockStride)),
                           e.mul(first, e.index(kHalfGroupBytes)));
        Value to =
            e.offset(stage(number), e.mul(block, e.index(kStageBlockBytes)));
        copyBulk(e, to, e.offset(rows, from), e.truncate(rowBytes, e.i32()),
                 filled);
      });
      for (const Source &source : sources)
        byFormat(source.stream->formats, [&](const WeightDecoder &decoder) {
          copyGroups(decoder, source.base, first, present,
                     slot(number, source.warp, source.number), filled);
          return Values();
        });
    });
  });
}

void WgmmaMatmulEmitter::copyGroups(const WeightDecoder &decoder, Value base,
                                    Value first, Value count, Value to,
                                    Value filled) {
  const PackedFormat &format = decoder.format;
  WeightDecoder::Group group = decoder.group(base, first, e.index(0));
  Value bytes = e.mul(count, e.index(format.groupBytes()));
  copyBulk(e, to, group.pointer, e.truncate(bytes, e.i32()), filled);
  if (format.hasSuperblock())
    copyBulk(e, e.offset(to, kStageGroups * format.groupBytes()),
             e.offset(group.super, format.superScaleOffset()),
             e.constant(e.i32(), superBytes(format)), filled);
}

//===----------------------------------------------------------------------===//
// Consumers
//===----------------------------------------------------------------------===//

Emitter::Values WgmmaMatmulEmitter::decode(ArrayRef<Stream> streams,
                                           Value number, int64_t group) {
  Value lane = e.lane();
  SmallVector<Values> fragments; // a stream's: [step][4]
  for (auto [i, stream] : llvm::enumerate(streams)) {
    Value at = slot(number, consumerWarp(), i);
    auto decodeAs = [&](const WeightDecoder &decoder) {
      const PackedFormat &format = decoder.format;
      WeightDecoder::Group place{e.offset(at, group * format.groupBytes()),
                                 {},
                                 decoder.fragmentRow(lane, 0)};
      if (format.hasSuperblock())
        place.super = e.offset(at, kStageGroups * format.groupBytes() -
                                       format.superScaleOffset());
      Values words;
      for (const auto &step :
           decoder.decodeFragment(decoder.loadFragment(place, lane), lane))
        llvm::append_range(words, step);
      return words;
    };
    fragments.push_back(byFormat(stream.formats, decodeAs));
  }
  Values words;
  for (int64_t s = 0; s < kSteps; ++s)
    for (const Values &fragment : fragments)
      llvm::append_range(words, ArrayRef(fragment).slice(4 * s, 4));
  return words;
}

Emitter::Values WgmmaMatmulEmitter::multiply(Value number, int64_t group,
                                             ValueRange a, ValueRange sums) {
  Value start =
      e.add(sharedAddress(e, stages), e.mul(e.truncate(number, e.i32()),
                                            e.constant(e.i32(), stageBytes)));
  SmallVector<WgmmaStep> steps;
  for (int64_t s = 0; s < kSteps; ++s)
    for (int64_t i = 0; i < streamCount; ++i) {
      WgmmaStep step;
      llvm::copy(a.take_front(4), step.a);
      a = a.drop_front(4);
      int64_t at = group * kHalfGroupBytes + s * 2 * kHalfBlockBytes;
      step.b = matrixDescriptor(e, e.add(start, e.constant(e.i32(), at)),
                                kHalfBlockBytes, kStageBlockBytes);
      step.firstSum = i * tokens / 2;
      steps.push_back(step);
    }
  return startProducts(e, tokens, steps, sums);
}

Emitter::Values WgmmaMatmulEmitter::consume(ArrayRef<Stream> streams,
                                            Value groups) {
  auto fill = [&](Value t) { full->wait(numberOf(t), parityOf(t)); };
  Value isFirstLane = e.equal(e.lane(), e.index(0));
  int64_t sumCount = streamCount * tokens / 2;
  Values state(sumCount, e.constant(e.f32(), 0.0));
  Value zero = e.index(0), one = e.index(1);
  fill(zero);
  llvm::append_range(state, decode(streams, zero, 0));
  Value last = e.sub(stagesOf(groups), one);
  state = e.forLoop(zero, last, 1, state, [&](Value t, ValueRange carried) {
    Value number = numberOf(t);
    Values sums = multiply(number, 0, carried.drop_front(sumCount),
                           carried.take_front(sumCount));
    waitProducts(e, 1);
    // What the step before read is free now.
    e.ifThen(e.andI(isFirstLane, e.less(zero, t)),
             [&] { empty->arrive(numberOf(e.sub(t, one))); });
    sums = multiply(number, 1, decode(streams, number, 1), sums);
    waitProducts(e, 1);
    Value next = e.add(t, one);
    fill(next);
    llvm::append_range(sums, decode(streams, numberOf(next), 0));
    return sums;
  });
  Value number = numberOf(last);
  ValueRange lastState(state);
  Values sums =
      finishProducts(e, multiply(number, 0, lastState.drop_front(sumCount),
                                 lastState.take_front(sumCount)));
  // The second group of the last stage, if there is one.
  Value second = e.sub(e.sub(groups, one), e.mul(last, e.index(kStageGroups)));
  return e.forLoop(zero, second, 1, sums, [&](Value, ValueRange carried) {
    Values a = decode(streams, number, 1);
    return finishProducts(e, multiply(number, 1, a, carried));
  });
}

void WgmmaMatmulEmitter::visitTile(ArrayRef<Stream> streams, ValueRange sums,
                                   Visit visit) {
  Value lane = e.lane();
  Value pair = e.mul(e.rem(lane, e.index(4)), e.index(2));
  Values outputs =
      byFormat(streams.front().formats, [&](const WeightDecoder &decoder) {
        return Values{decoder.fragmentRow(lane, 0),
                      decoder.fragmentRow(lane, 1)};
      });
  for (int64_t block = 0; block < tokens / kHalfRows; ++block)
    for (int64_t j = 0; j < 2; ++j) {
      Value row = e.add(firstRow, e.add(pair, e.index(block * kHalfRows + j)));
      e.ifThen(e.less(row, k.rows()), [&] {
        for (int half = 0; half < 2; ++half) {
          SmallVector<Value> values;
          for (size_t i = 0; i < streams.size(); ++i)
            values.push_back(sums[i * tokens / 2 + block * 4 + 2 * half + j]);
          visit(outputs[half], row, values);
        }
      });
    }
}

void WgmmaMatmulEmitter::visitZeros(ArrayRef<Stream> streams, Visit visit) {
  Values zeros(streamCount * tokens / 2, e.constant(e.f32(), 0.0));
  e.ifThen(e.less(e.index(kProducerWarps - 1), warp),
           [&] { visitTile(streams, zeros, visit); });
}

//===----------------------------------------------------------------------===//
// Kernels
//===----------------------------------------------------------------------===//

void WgmmaMatmulEmitter::compute(ArrayRef<Stream> streams, Value firstGroup,
                                 Value groups, Visit visit) {
  e.ifElse(
      e.less(warp, e.index(kProducerWarps)),
      [&] {
        setRegisters(e, kProducerRegisters, /*increase=*/false);
        produce(streams, firstGroup, groups);
      },
      [&] {
        setRegisters(e, kConsumerRegisters, /*increase=*/true);
        visitTile(streams, consume(streams, groups), visit);
      });
}

void WgmmaMatmulEmitter::emitStore() {
  setStreams(k.tile.blocks >= 2 * kConsumerWarps ? 2 : 1);
  OutputTiles tiles(k, plan, kConsumerWarps * streamCount);
  launch(tiles.gridFactor());
  tiles.locate([&](const OutputTile &tile, ArrayRef<FormatChoice> formats) {
    Value blockBytes = byFormat(formats, [&](const WeightDecoder &decoder) {
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
    auto visit = [&](Value output, Value row, ArrayRef<Value> values) {
      for (auto [i, value] : llvm::enumerate(values)) {
        Value block = blockOf(consumerWarp(), static_cast<int64_t>(i));
        Value column = e.add(e.mul(block, e.index(kPackedRows)), output);
        tiles.store(tile, row, e.add(tile.firstColumn, column), value);
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

void WgmmaMatmulEmitter::emitSwiglu() {
  // A warp has a row block of gate and the same of up, so that both numbers of
  // an element are in one lane.
  setStreams(2);
  launch({GridCount::Columns,
          static_cast<uint32_t>(kConsumerWarps * kPackedRows)});
  Value begin = k.rangeBegin(0);
  Value count = e.div(e.sub(k.rangeEnd(0), begin), e.index(kPackedRows));
  auto blockOf = [&](Value warp) {
    return e.add(e.mul(e.block(0), e.index(kConsumerWarps)), warp);
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
  auto visit = [&](Value output, Value row, ArrayRef<Value> values) {
    Value block = blockOf(consumerWarp());
    Value column =
        e.add(e.add(begin, e.mul(block, e.index(kPackedRows))), output);
    Value y = e.mul(e.silu(values[0]), values[1]);
    e.ifThen(e.less(block, count),
             [&] { storeSwiglu(k, plan, row, column, y); });
  };
  compute(streams, e.index(0), e.index(plan.depth() / kPackedGroup), visit);
}

} // namespace

bool matchesWgmmaMatmul(Kernel &k) {
  if (k.e.target.gpu.sm != 90 || k.role != Role::Prefill)
    return false;
  std::optional<MatmulPlan> plan = planMatmul(k.op);
  return plan && k.hasNumericRows(plan->x) &&
         llvm::all_equal(llvm::map_range(
             plan->projections, [](const Projection &p) { return !p.bias; }));
}

LogicalResult generateWgmmaMatmul(Kernel &k) {
  MatmulPlan plan = *planMatmul(k.op);
  if (failed(checkMatmul(k, plan)))
    return failure();
  WgmmaMatmulEmitter emitter(k, plan);
  if (plan.epilogue == MatmulPlan::Epilogue::Store)
    emitter.emitStore();
  else
    emitter.emitSwiglu();
  return success();
}

} // namespace quern::nvptx
