//===- SplitMatmulKernel.cpp - Matmuls of few tokens on tensor cores ------===//
//
// Products of at most 8 rows of f16 or e4m3 with packed weights by mma. The
// warps of a block share a row block, each taking every kWarps-th stage (64
// columns) of K; their sums are added in their order. A warp copies its own
// stages into a ring of its own, so that no warp waits for another before the
// end.
//
//===----------------------------------------------------------------------===//
#include "codegen/ptx/TensorProducts.h"

#include <optional>

using namespace mlir;

namespace quern::nvptx {
namespace {

constexpr int64_t kWarps = 8;
/// Accumulators of an mma.
constexpr int64_t kSums = 4;

class SplitEmitter : public TensorProducts {
public:
  SplitEmitter(Kernel &k, const MatmulPlan &plan)
      : TensorProducts(
            k, plan, {.rowUnit = kMmaTokens, .warps = 1, .sums = kMmaTokens}) {}

private:
  using Decoders = ArrayRef<WeightDecoder>;

  void launch(GridFactor columns) override;
  void compute(ArrayRef<Stream> streams, Value firstGroup, Value groups,
               Visit visit) override;
  void visitZeros(ArrayRef<Stream> streams, Visit visit) override {
    visitSums(streams, Values(streamCount * kSums, e.constant(e.f32(), 0.0)),
              visit);
  }
  Value place() override { return e.index(0); }

  /// What a lane copies.
  struct Sources {
    Value tokens;               ///< the block's rows
    SmallVector<Value> weights; ///< row block of a stream
    Value stages;               ///< of K, i32
    /// Stages that have both groups; and whose tokens are there as well (i32).
    Value whole, wholeTokens;
    Value tokenBytes; ///< i32: of a copy of tokens, 0 past the last row
  };
  Sources sourcesOf(ArrayRef<Stream> streams, Value firstGroup, Value groups);
  /// Where the warp's `turn`th stage (i32) is.
  Value stageAt(Value turn);
  /// Starts the copies of stage `t`, if there is one.
  void copyStage(const Sources &from, Decoders decoders, Value t, Value stage);
  /// This warp's sums, [stream][kSums].
  Values multiply(const Sources &from, Decoders decoders);
  void multiplyStage(Decoders decoders, Value stage,
                     MutableArrayRef<Value> sums);
  /// Adds all warps' sums and visits them.
  void visitSums(ArrayRef<Stream> streams, ValueRange sums, Visit visit);

  std::optional<WeightStages> stages; ///< a ring a warp
  Value warp;     ///< of this thread, known to be the same in all lanes
  Value partials; ///< shared f32 [warp][stream][kSums][lane]
};

void SplitEmitter::launch(GridFactor columns) {
  k.launch.blockThreads = kWarps * kWarp;
  k.launch.grid = {columns, {GridCount::Rows, static_cast<uint32_t>(tokens)}};
  partials = k.shared(kWarps * streamCount * kSums * kWarp * 4);
  // Two blocks should fit on a multiprocessor.
  stages.emplace(k, plan, operands, kMmaTokens, /*warps=*/1, streamCount,
                 e.target.gpu.sharedBytes / 2 - k.launch.sharedBytes,
                 /*frontBytes=*/0, kWarps);
  warp = warpUniform(e, e.warp());
}

void SplitEmitter::compute(ArrayRef<Stream> streams, Value firstGroup,
                           Value groups, Visit visit) {
  Sources from = sourcesOf(streams, firstGroup, groups);
  Values sums = byFormats(
      streams, [&](Decoders decoders) { return multiply(from, decoders); });
  visitSums(streams, sums, visit);
}

SplitEmitter::Sources SplitEmitter::sourcesOf(ArrayRef<Stream> streams,
                                              Value firstGroup, Value groups) {
  Sources from;
  auto narrow = [&](Value value) { return e.truncate(value, e.i32()); };
  Value lane = stages->laneBytes();
  Value rows = k.activationRow(k.argument(plan.x), firstRow, plan.depth());
  Value at = e.offset(rows, e.mul(firstGroup, e.index(groupBytes)));
  from.tokens = e.opaque(e.offset(at, lane));
  Value row = e.add(firstRow, e.rem(e.lane(), e.index(kHalfRows)));
  Value hasToken = e.less(row, k.rows()), none = e.constant(e.i32(), 0);
  from.stages = narrow(stages->stagesOf(groups));
  from.whole = narrow(e.div(groups, e.index(WeightStages::kGroups)));
  from.wholeTokens = e.select(hasToken, from.whole, none);
  from.tokenBytes =
      e.select(hasToken, e.constant(e.i32(), WeightStages::kCopyBytes), none);
  for (const Stream &stream : streams)
    from.weights.push_back(e.opaque(e.offset(stream.base(place()), lane)));
  return from;
}

Value SplitEmitter::stageAt(Value turn) {
  Value number = e.rem(turn, e.constant(e.i32(), stages->count));
  return stages->at(e.add(e.mul(warp, e.index(stages->count)),
                          e.extendUnsigned(number, e.i64())));
}

void SplitEmitter::copyStage(const Sources &from, Decoders decoders, Value t,
                             Value stage) {
  auto number = [&](int64_t value) { return e.constant(e.i32(), value); };
  e.ifThen(e.less(t, from.stages), [&] {
    // Where rows or the second group are missing, there are zeros.
    auto bytesBefore = [&](Value end) {
      return e.select(e.less(t, end), number(WeightStages::kCopyBytes),
                      number(0));
    };
    Value wide = e.extendUnsigned(t, e.i64());
    Value source =
        e.offset(from.tokens, e.mul(wide, e.index(stages->blockBytes)));
    Value target = e.offset(stages->tokens(stage), stages->laneBytes());
    stages->copyTokens(source, target, from.tokenBytes,
                       bytesBefore(from.wholeTokens));
    for (auto [i, decoder] : llvm::enumerate(decoders))
      stages->copyWarp(decoder, from.weights[i],
                       stages->slot(stage, place(), i), wide,
                       bytesBefore(from.whole));
  });
  e.commitCopies();
}

Emitter::Values SplitEmitter::multiply(const Sources &from, Decoders decoders) {
  auto number = [&](int64_t value) { return e.constant(e.i32(), value); };
  Value first = e.truncate(warp, e.i32());
  int64_t round = stages->count * kWarps;
  for (int64_t turn = 0; turn < stages->count; ++turn)
    copyStage(from, decoders, e.add(first, number(turn * kWarps)),
              stageAt(number(turn)));
  Values zeros(streamCount * kSums, e.constant(e.f32(), 0.0));
  Values sums = e.forLoop(
      first, from.stages, kWarps, zeros, [&](Value t, ValueRange carried) {
        Values next(carried);
        Value stage = stageAt(e.div(t, number(kWarps)));
        e.waitCopies(static_cast<int>(stages->count) - 1);
        e.warpBarrier(); // the other lanes' copies
        multiplyStage(decoders, stage, next);
        e.warpBarrier(); // nobody reads the stage any more
        copyStage(from, decoders, e.add(t, number(round)), stage);
        return next;
      });
  e.waitCopies(0);
  return sums;
}

void SplitEmitter::multiplyStage(Decoders decoders, Value stage,
                                 MutableArrayRef<Value> sums) {
  // Lane l points ldmatrix at row l % 8 of matrix l / 8.
  Value rows = e.offset(stages->tokens(stage), stages->laneBytes());
  for (int64_t at = 0; at < stages->blockBytes;
       at += WeightStages::kLoadBytes) {
    Values b = e.loadMatrices(e.offset(rows, at), /*transposed=*/false);
    for (auto [i, decoder] : llvm::enumerate(decoders))
      accumulate(stages->loaded(decoder, stages->slot(stage, place(), i), at),
                 b, sums.slice(i * kSums, kSums));
  }
}

void SplitEmitter::visitSums(ArrayRef<Stream> streams, ValueRange sums,
                             Visit visit) {
  int64_t warpBytes = streamCount * kSums * kWarp * 4;
  Value mine = e.offset(partials, e.add(e.mul(e.warp(), e.index(warpBytes)),
                                        e.mul(e.lane(), e.index(4))));
  for (auto [i, sum] : llvm::enumerate(sums))
    e.store(sum, e.offset(mine, i * kWarp * 4), 4);
  e.barrier();
  // A thread has an output of a token, neighbours of it neighbouring outputs.
  e.forLoop(
      e.thread(), e.index(kMmaTokens * kPackedRows), kWarps * kWarp,
      [&](Value item) {
        Value output = e.rem(item, e.index(kPackedRows)),
              token = e.div(item, e.index(kPackedRows));
        Value row = e.add(firstRow, token);
        e.ifThen(e.less(row, k.rows()), [&] {
          // Which half of which lane quad has the output.
          Values held = byFormat(
              e, streams.front().formats, [&](const WeightDecoder &decoder) {
                Value first = e.index(decoder.fragmentRowFirst()),
                      step = e.index(decoder.fragmentRowStep());
                return decoder.format.isFloat()
                           ? Values{e.div(output, step), e.rem(output, step)}
                           : Values{e.rem(output, first), e.div(output, first)};
              });
          Value lane =
              e.add(e.mul(held[1], e.index(4)), e.div(token, e.index(2)));
          Value sum =
              e.add(e.mul(held[0], e.index(2)), e.rem(token, e.index(2)));
          Value at =
              e.offset(partials, e.mul(e.add(e.mul(sum, e.index(kWarp)), lane),
                                       e.index(4)));
          SmallVector<Value> values;
          for (int64_t i = 0; i < streamCount; ++i) {
            Value total;
            for (int64_t warp = 0; warp < kWarps; ++warp) {
              Value part = e.load(
                  e.f32(),
                  e.offset(at, warp * warpBytes + i * kSums * kWarp * 4), 4);
              total = total ? e.add(total, part) : part;
            }
            values.push_back(total);
          }
          visit(place(), output, row, values);
        });
      });
}

} // namespace

LogicalResult generateSplitMatmul(Kernel &k, const MatmulPlan &plan) {
  return SplitEmitter(k, plan).emit();
}

} // namespace quern::nvptx
