//===- WgmmaMatmulKernel.cpp - Prompt matmuls of sm_90a -------------------===//
//
// Products of rows of f16 or e4m3 with packed weights by wgmma, for steps of
// many tokens. A block of the grid is three warpgroups:
//
//   producer   brings stages of 64 columns with bulk copies: the activations
//              of a tile of tokens, which lie in core matrices as wgmma wants
//              B, and the weights of every row block, packed
//   consumers  two of them. A warp has row blocks of its own (16 outputs each),
//              decodes them from shared memory into the A fragments of its
//              registers (codes of e4m3 as they are, beside tokens of e4m3) and
//              multiplies them with all tokens of the tile
//
// Two groups of fragment registers take turns: one is decoded while the
// products of the other are under way. K is summed in ascending order.
//
//===----------------------------------------------------------------------===//
#include "codegen/ptx/Hopper.h"
#include "codegen/ptx/TensorProducts.h"

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
/// Shared memory for barriers.
constexpr int64_t kBarrierBytes = 256;

class WgmmaEmitter : public TensorProducts {
public:
  // A thread has half a sum for every token and row block of its warp, beside
  // fragments and addresses; wgmma takes 256 tokens at most.
  WgmmaEmitter(Kernel &k, const MatmulPlan &plan)
      : TensorProducts(k, plan,
                       {.rowUnit = 32, .warps = kConsumerWarps, .sums = 256}) {}

private:
  void launch(GridFactor columns) override;
  void compute(ArrayRef<Stream> streams, Value firstGroup, Value groups,
               Visit visit) override;
  void visitZeros(ArrayRef<Stream> streams, Visit visit) override;
  Value place() override { return e.sub(warp, e.index(kProducerWarps)); }
  /// Products of a group, each of 32 bytes of K.
  int64_t steps() const { return groupBytes / (2 * kHalfBlockBytes); }

  void produce(ArrayRef<Stream> streams, Value firstGroup, Value groups);
  /// Sums of the tile's tokens, [stream][tokens / 2].
  Values consume(ArrayRef<Stream> streams, Value groups);
  /// A fragments of group `group` of the stage at `stage`, [step][stream][4].
  Values decode(ArrayRef<Stream> streams, Value stage, int64_t group);
  /// Starts the products of group `group` of stage `number` (i32).
  Values multiply(Value number, int64_t group, ValueRange a, ValueRange sums);

  std::optional<WeightStages> stages;
  /// Phases: a stage is full, it may be written again.
  std::optional<Barriers> full, empty;
  Value warp; ///< of this thread, known to be the same in all lanes
};

void WgmmaEmitter::launch(GridFactor columns) {
  k.launch.blockThreads = kThreads;
  k.launch.grid = {columns, {GridCount::Rows, static_cast<uint32_t>(tokens)}};
  stages.emplace(k, plan, operands,
                 WeightStages::Shape{.tokens = tokens,
                                     .warps = kConsumerWarps,
                                     .streams = streamCount},
                 e.target.gpu.sharedBytes - kBarrierBytes);
  Value barriers = k.shared(kBarrierBytes);
  full.emplace(e, barriers);
  empty.emplace(e, e.offset(barriers, kBarrierBytes / 2));
  warp = warpUniform(e, e.warp());
  e.ifThen(e.equal(e.thread(), e.index(0)), [&] {
    for (int64_t i = 0; i < stages->count; ++i) {
      full->init(i, kProducerWarps);
      empty->init(i, kConsumerWarps);
    }
    publishBarriers(e);
  });
  e.barrier();
}

void WgmmaEmitter::compute(ArrayRef<Stream> streams, Value firstGroup,
                           Value groups, Visit visit) {
  e.ifElse(
      e.less(warp, e.index(kProducerWarps)),
      [&] {
        setRegisters(e, kProducerRegisters, /*increase=*/false);
        produce(streams, firstGroup, groups);
      },
      [&] {
        setRegisters(e, kConsumerRegisters, /*increase=*/true);
        visitTile(streams, tokens, consume(streams, groups), visit);
      });
}

void WgmmaEmitter::visitZeros(ArrayRef<Stream> streams, Visit visit) {
  Values zeros(streamCount * tokens / 2, e.constant(e.f32(), 0.0));
  e.ifThen(e.less(e.index(kProducerWarps - 1), warp),
           [&] { visitTile(streams, tokens, zeros, visit); });
}

//===----------------------------------------------------------------------===//
// Producer
//===----------------------------------------------------------------------===//

void WgmmaEmitter::produce(ArrayRef<Stream> streams, Value firstGroup,
                           Value groups) {
  // A warp brings every fourth block of tokens, and the row blocks of two
  // consumer warps.
  constexpr int64_t kServed = kConsumerWarps / kProducerWarps;
  constexpr int64_t kGroups = WeightStages::kGroups;
  Value blocks =
      e.minI(e.div(e.add(e.sub(k.rows(), firstRow), e.index(kMmaTokens - 1)),
                   e.index(kMmaTokens)),
             e.index(tokens / kMmaTokens));
  Value mine = e.div(e.add(e.sub(blocks, warp), e.index(kProducerWarps - 1)),
                     e.index(kProducerWarps));
  Value rows = e.at(k.activationRow(k.argument(plan.x), firstRow, plan.depth()),
                    firstGroup, groupBytes);
  int64_t blockStride = kHalfRows * activationRowBytes(plan.depth());

  struct Source {
    const Stream *stream;
    size_t number;
    Value warp, base, groupBytes, superBytes;
  };
  SmallVector<Source> sources;
  for (auto [number, stream] : llvm::enumerate(streams)) {
    Values sizes =
        byFormat(e, stream.formats, [&](const WeightDecoder &decoder) {
          return Values{e.index(decoder.format.groupBytes()),
                        e.index(WeightStages::superBytes(decoder.format))};
        });
    for (int64_t i = 0; i < kServed; ++i) {
      Value served = e.add(e.mul(warp, e.index(kServed)), e.index(i));
      sources.push_back(
          {&stream, number, served, stream.base(served), sizes[0], sizes[1]});
    }
  }

  e.ifThen(electLane(e), [&] {
    e.forLoop(e.index(0), stages->stagesOf(groups), 1, [&](Value t) {
      Value number = stages->numberOf(t), stage = stages->at(number);
      Value filled = full->at(number);
      Value first = e.mul(t, e.index(kGroups));
      Value present = e.minI(e.sub(groups, first), e.index(kGroups));
      Value rowBytes = e.mul(present, e.index(groupBytes));
      Value total = e.mul(rowBytes, mine);
      for (const Source &source : sources)
        total = e.add(
            total, e.add(e.mul(present, source.groupBytes), source.superBytes));
      empty->wait(number, e.sub(e.constant(e.i32(), 1), stages->parityOf(t)));
      full->arriveExpecting(number, e.truncate(total, e.i32()));
      e.forLoop(warp, blocks, kProducerWarps, [&](Value block) {
        Value from = e.add(e.mul(block, e.index(blockStride)),
                           e.mul(first, e.index(groupBytes)));
        Value to = e.at(stage, block, stages->blockBytes);
        copyBulk(e, to, e.offset(rows, from), e.truncate(rowBytes, e.i32()),
                 filled);
      });
      for (const Source &source : sources)
        byFormat(e, source.stream->formats, [&](const WeightDecoder &decoder) {
          stages->copyGroups(decoder, source.base, first, present,
                             stages->slot(stage, source.warp, source.number),
                             filled);
          return Values();
        });
    });
  });
}

//===----------------------------------------------------------------------===//
// Consumers
//===----------------------------------------------------------------------===//

Emitter::Values WgmmaEmitter::decode(ArrayRef<Stream> streams, Value stage,
                                     int64_t group) {
  SmallVector<Values> fragments; // a stream's: [step][4]
  for (auto [i, stream] : llvm::enumerate(streams)) {
    Value slot = stages->slot(stage, place(), i);
    auto decodeAs = [&](const WeightDecoder &decoder) {
      Values words;
      for (const auto &step : stages->fragment(decoder, slot, group))
        llvm::append_range(words, step);
      return words;
    };
    fragments.push_back(byFormat(e, stream.formats, decodeAs));
  }
  Values words;
  for (int64_t s = 0; s < steps(); ++s)
    for (const Values &fragment : fragments)
      llvm::append_range(words, ArrayRef(fragment).slice(4 * s, 4));
  return words;
}

Emitter::Values WgmmaEmitter::multiply(Value number, int64_t group,
                                       ValueRange a, ValueRange sums) {
  Value first = matrixDescriptor(e, sharedAddress(e, stages->base),
                                 kHalfBlockBytes, stages->blockBytes);
  first = advance(e, first,
                  e.mul(number, e.constant(e.i32(), stages->stageBytes / 16)));
  SmallVector<WgmmaStep> steps;
  for (int64_t s = 0; s < this->steps(); ++s)
    for (int64_t i = 0; i < streamCount; ++i) {
      WgmmaStep step;
      step.a.assign(a.begin(), a.begin() + 4);
      a = a.drop_front(4);
      int64_t bytes = group * groupBytes + s * 2 * kHalfBlockBytes;
      step.b = advance(e, first, e.constant(e.i32(), bytes / 16));
      step.firstSum = i * tokens / 2;
      steps.push_back(step);
    }
  return startProducts(e, tokens, steps, sums, operands);
}

Emitter::Values WgmmaEmitter::consume(ArrayRef<Stream> streams, Value groups) {
  // Counters of 32 bits take half the instructions.
  Value zero = e.constant(e.i32(), 0), one = e.constant(e.i32(), 1);
  auto wide = [&](Value value) { return e.extendUnsigned(value, e.i64()); };
  auto numberOf = [&](Value t) {
    return e.rem(t, e.constant(e.i32(), stages->count));
  };
  auto fill = [&](Value t, Value number) {
    Value phase = e.div(t, e.constant(e.i32(), stages->count));
    full->wait(wide(number), e.rem(phase, e.constant(e.i32(), 2)));
  };
  Value isFirstLane = e.equal(e.lane(), e.index(0));
  int64_t sumCount = streamCount * tokens / 2;
  Values state(sumCount, e.constant(e.f32(), 0.0));
  auto decodeGroup = [&](Value number, int64_t group) {
    return decode(streams, stages->at(wide(number)), group);
  };
  fill(zero, zero);
  // Sums, fragments, number of the stage.
  llvm::append_range(state, decodeGroup(zero, 0));
  state.push_back(zero);
  Value last = e.truncate(e.sub(stages->stagesOf(groups), e.index(1)), e.i32());
  state = e.forLoop(zero, last, 1, state, [&](Value t, ValueRange carried) {
    Value number = carried.back();
    Values sums = multiply(number, 0, carried.drop_back().drop_front(sumCount),
                           carried.take_front(sumCount));
    waitProducts(e, 1);
    // What the step before read is free now.
    e.ifThen(e.andI(isFirstLane, e.less(zero, t)),
             [&] { empty->arrive(wide(numberOf(e.sub(t, one)))); });
    sums = multiply(number, 1, decodeGroup(number, 1), sums);
    waitProducts(e, 1);
    Value next = e.add(t, one), nextNumber = numberOf(next);
    fill(next, nextNumber);
    llvm::append_range(sums, decodeGroup(nextNumber, 0));
    sums.push_back(nextNumber);
    return sums;
  });
  Value number = state.pop_back_val();
  ValueRange lastState(state);
  Values sums =
      finishProducts(e, multiply(number, 0, lastState.drop_front(sumCount),
                                 lastState.take_front(sumCount)));
  // The second group of the last stage, if there is one.
  Value hasSecond =
      e.equal(e.rem(groups, e.index(WeightStages::kGroups)), e.index(0));
  return e.choose(
      hasSecond,
      [&] {
        return finishProducts(
            e, multiply(number, 1, decodeGroup(number, 1), sums));
      },
      [&] { return sums; });
}

} // namespace

bool matchesWgmmaMatmul(Kernel &k) {
  std::optional<MatmulPlan> plan = planMatmul(k.op);
  return k.target.gpu.hasWgmma && k.role == Role::Prefill && plan &&
         k.hasNumericRows(plan->x);
}

LogicalResult generateWgmmaMatmul(Kernel &k) {
  MatmulPlan plan = *planMatmul(k.op);
  if (failed(checkMatmul(k, plan)))
    return failure();
  return WgmmaEmitter(k, plan).emit();
}

} // namespace quern::nvptx
