//===- SplitMatmulKernel.cpp - Matmuls of few tokens on tensor cores ------===//
//
// Products of at most 8 rows of f16 or e4m3 with packed weights by mma. The
// warps of a block share a row block, each taking every kWarps-th stage (64
// columns of f16 or 128 of e4m3) of K; their sums are added in their order. A
// warp copies its own stages into a ring of its own, so that no warp waits for
// another before the end.
//
//===----------------------------------------------------------------------===//
#include "codegen/ptx/TensorProducts.h"

#include <optional>

using namespace mlir;

namespace quern::nvptx {
namespace {

constexpr int64_t kWarps = 8;
/// Bytes of a token in a stage.
constexpr int64_t kStageBytes = 128;
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
    /// WeightStages::groupEnds of weights; and of tokens, 0 past the last row.
    Values ends, tokenEnds;
  };
  Sources sourcesOf(ArrayRef<Stream> streams, Value firstGroup, Value groups);
  int64_t ringBytes() const { return stages->count * stages->stageBytes; }
  /// Starts the copies of stage `t` (i32): zeros, where there is none.
  void copyStage(const Sources &from, Decoders decoders, Value t, Value stage);
  /// This warp's sums, [stream][kSums].
  Values multiply(const Sources &from, Decoders decoders);
  void multiplyStage(Decoders decoders, Value stage,
                     MutableArrayRef<Value> sums);
  /// Adds all warps' sums and visits them.
  void visitSums(ArrayRef<Stream> streams, ValueRange sums, Visit visit);

  std::optional<WeightStages> stages; ///< a ring a warp
  Value warp; ///< of this thread, known to be the same in all lanes
};

void SplitEmitter::launch(GridFactor columns) {
  k.launch.blockThreads = kWarps * kWarp;
  k.launch.grid = {columns, {GridCount::Rows, static_cast<uint32_t>(tokens)}};
  // Two blocks should fit on a multiprocessor.
  stages.emplace(
      k, plan, operands,
      WeightStages::Shape{.tokens = kMmaTokens,
                          .warps = 1,
                          .streams = streamCount,
                          .groups = kMmaTokens * kStageBytes / groupBytes,
                          .rings = kWarps},
      e.target.gpu.sharedBytes / 2);
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
  Value lane = stages->laneBytes();
  Value rows = k.activationRow(k.argument(plan.x), firstRow, plan.depth());
  Value at = e.at(rows, firstGroup, groupBytes);
  from.tokens = e.opaque(e.offset(at, lane));
  Value row = e.add(firstRow, e.rem(e.lane(), e.index(kHalfRows)));
  Value hasToken = e.less(row, k.rows());
  from.ends = stages->groupEnds(groups);
  for (Value end : from.ends)
    from.tokenEnds.push_back(e.select(hasToken, end, e.constant(e.i32(), 0)));
  for (const Stream &stream : streams)
    from.weights.push_back(e.opaque(e.offset(stream.base(place()), lane)));
  return from;
}

void SplitEmitter::copyStage(const Sources &from, Decoders decoders, Value t,
                             Value stage) {
  Value source =
      e.at(from.tokens, e.extendUnsigned(t, e.i64()), stages->blockBytes);
  Value target = e.offset(stages->tokens(stage), stages->laneBytes());
  stages->copyTokens(source, target, t, from.tokenEnds);
  for (auto [i, decoder] : llvm::enumerate(decoders))
    stages->copyWarp(decoder, from.weights[i], stages->slot(stage, place(), i),
                     t, from.ends);
  e.commitCopies();
}

Emitter::Values SplitEmitter::multiply(const Sources &from, Decoders decoders) {
  auto number = [&](int64_t value) { return e.constant(e.i32(), value); };
  Value first = e.truncate(warp, e.i32());
  Value ring = e.at(stages->base, warp, ringBytes());
  for (int64_t turn = 0; turn < stages->count; ++turn)
    copyStage(from, decoders, e.add(first, number(turn * kWarps)),
              e.offset(ring, turn * stages->stageBytes));
  Value end = sharedAddress(e, e.offset(ring, ringBytes()));
  // The loop counts the stages to copy, a ring ahead of those multiplied.
  Value ahead = number(stages->count * kWarps);
  Values state(streamCount * kSums, e.constant(e.f32(), 0.0));
  state.push_back(ring); // the next stage to multiply
  state = e.forLoop(e.add(first, ahead), e.add(from.ends.front(), ahead),
                    kWarps, state, [&](Value t, ValueRange carried) {
                      Values next(carried.drop_back());
                      Value stage = carried.back();
                      e.waitCopies(static_cast<int>(stages->count) - 1);
                      e.warpBarrier(); // the other lanes' copies
                      multiplyStage(decoders, stage, next);
                      e.warpBarrier(); // nobody reads the stage any more
                      copyStage(from, decoders, t, stage);
                      stage = e.offset(stage, stages->stageBytes);
                      next.push_back(e.select(
                          e.equal(sharedAddress(e, stage), end), ring, stage));
                      return next;
                    });
  // The ring is free for other things.
  e.waitCopies(0);
  e.warpBarrier();
  state.pop_back();
  return state;
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
  // Sums of a warp, [stream][kSums][lane], where its ring was.
  Value partials = stages->base;
  Value mine = e.offset(partials, e.add(e.mul(e.warp(), e.index(ringBytes())),
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
          Value at = e.at(partials, e.add(e.mul(sum, e.index(kWarp)), lane), 4);
          SmallVector<Value> values;
          for (int64_t i = 0; i < streamCount; ++i) {
            Value total;
            for (int64_t warp = 0; warp < kWarps; ++warp) {
              Value part = e.load(
                  e.f32(),
                  e.offset(at, warp * ringBytes() + i * kSums * kWarp * 4), 4);
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
