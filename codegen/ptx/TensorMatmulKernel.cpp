//===- TensorMatmulKernel.cpp - Matmuls of many tokens by mma.sync --------===//
//
// Products of rows of f16 or e4m3 with packed weights by mma. The weights are
// the A operand: a warp has row blocks of its own, which it decodes to f16 in
// registers, or takes as they are to multiply e4m3. The activations are the B
// operand, as they lie in their buffer. Both come through shared memory, copied
// some stages of 64 columns ahead; a tile of tokens serves all warps. K is
// summed in ascending order.
//
// Steps of at most 8 tokens are SplitMatmulKernel's.
//
//===----------------------------------------------------------------------===//
#include "codegen/ptx/TensorProducts.h"

#include <optional>

using namespace mlir;

namespace quern::nvptx {
namespace {

constexpr int64_t kWarps = 4;
/// A tile with no more tokens than this takes less work.
constexpr int64_t kSmallTile = 16;
/// Accumulators of an mma.
constexpr int64_t kSums = 4;

class TensorEmitter : public TensorProducts {
public:
  // The sums of two row blocks take a register a token: those of 128 tokens
  // leave too few to decode weights without spilling.
  TensorEmitter(Kernel &k, const MatmulPlan &plan)
      : TensorProducts(k, plan,
                       {.rowUnit = kSmallTile, .warps = kWarps, .sums = 128}) {}

private:
  using Decoders = ArrayRef<WeightDecoder>;

  /// What a lane copies, group 0 of it.
  struct Sources {
    SmallVector<Value> tokens;  ///< rows of every kWarps-th block of tokens
    SmallVector<Value> weights; ///< row block of a stream
    Values ends;                ///< WeightStages::groupEnds
  };

  void launch(GridFactor columns) override;
  void compute(ArrayRef<Stream> streams, Value firstGroup, Value groups,
               Visit visit) override;
  void visitZeros(ArrayRef<Stream> streams, Visit visit) override {
    visitTile(streams, tokens,
              Values(streamCount * tokens / 2, e.constant(e.f32(), 0.0)),
              visit);
  }
  Value place() override { return e.warp(); }

  Sources sourcesOf(ArrayRef<Stream> streams, int64_t tileTokens,
                    Value firstGroup, Value groups);
  /// Starts the copies of stage `t` (i32), if there is one.
  void copyStage(const Sources &from, Decoders decoders, int64_t tileTokens,
                 Value t);
  void copyTokens(const Sources &from, int64_t tileTokens, Value t,
                  Value stage);
  /// Sums of the tile's tokens, [stream][block of tokens][kSums].
  Values multiply(const Sources &from, Decoders decoders, int64_t tileTokens);
  /// Multiplies what one ldmatrix brings from byte `at` of every block of
  /// tokens on.
  void multiplyLoad(Decoders decoders, int64_t tileTokens, Value stage,
                    int64_t at, MutableArrayRef<Value> sums);

  std::optional<WeightStages> stages;
};

void TensorEmitter::launch(GridFactor columns) {
  k.launch.blockThreads = kWarps * kWarp;
  k.launch.grid = {columns, {GridCount::Rows, static_cast<uint32_t>(tokens)}};
  // Two blocks should fit on a multiprocessor.
  stages.emplace(k, plan, operands,
                 WeightStages::Shape{
                     .tokens = tokens, .warps = kWarps, .streams = streamCount},
                 e.target.gpu.sharedBytes / 2);
}

void TensorEmitter::compute(ArrayRef<Stream> streams, Value firstGroup,
                            Value groups, Visit visit) {
  auto tile = [&](int64_t tileTokens) {
    Sources from = sourcesOf(streams, tileTokens, firstGroup, groups);
    Values sums = byFormats(streams, [&](Decoders decoders) {
      return multiply(from, decoders, tileTokens);
    });
    visitTile(streams, tileTokens, sums, visit);
  };
  if (tokens <= kSmallTile)
    return tile(tokens);
  Value rest = e.sub(k.rows(), firstRow);
  e.ifElse(
      e.less(e.index(kSmallTile), rest), [&] { tile(tokens); },
      [&] { tile(kSmallTile); });
}

//===----------------------------------------------------------------------===//
// Copies
//===----------------------------------------------------------------------===//

TensorEmitter::Sources TensorEmitter::sourcesOf(ArrayRef<Stream> streams,
                                                int64_t tileTokens,
                                                Value firstGroup,
                                                Value groups) {
  Sources from;
  from.ends = stages->groupEnds(groups);
  Value lane = stages->laneBytes();
  // Past the last block of tokens, it again.
  Value last = e.div(e.sub(k.rows(), e.index(1)), e.index(kMmaTokens));
  Value first = e.add(e.div(firstRow, e.index(kMmaTokens)), e.warp());
  for (int64_t i = 0; i < tileTokens / kMmaTokens; i += kWarps) {
    Value block = e.minI(e.add(first, e.index(i)), last);
    Value rows = k.activationRow(
        k.argument(plan.x), e.mul(block, e.index(kMmaTokens)), plan.depth());
    Value at = e.at(rows, firstGroup, groupBytes);
    from.tokens.push_back(e.opaque(e.offset(at, lane)));
  }
  for (const Stream &stream : streams)
    from.weights.push_back(e.opaque(e.offset(stream.base(place()), lane)));
  return from;
}

void TensorEmitter::copyStage(const Sources &from, Decoders decoders,
                              int64_t tileTokens, Value t) {
  e.ifThen(e.less(t, from.ends.front()), [&] {
    Value number = e.rem(t, e.constant(e.i32(), stages->count));
    Value stage = stages->at(e.extendUnsigned(number, e.i64()));
    copyTokens(from, tileTokens, t, stage);
    for (auto [i, decoder] : llvm::enumerate(decoders))
      stages->copyWarp(decoder, from.weights[i],
                       stages->slot(stage, place(), i), t, from.ends);
  });
  e.commitCopies();
}

void TensorEmitter::copyTokens(const Sources &from, int64_t tileTokens, Value t,
                               Value stage) {
  int64_t blocks = tileTokens / kMmaTokens;
  Value lane = stages->laneBytes();
  for (auto [i, rows] : llvm::enumerate(from.tokens)) {
    Value block = e.add(e.warp(), e.index(static_cast<int64_t>(i) * kWarps));
    Value source = e.at(rows, e.extendUnsigned(t, e.i64()), stages->blockBytes);
    Value target =
        e.offset(stage, e.add(e.mul(block, e.index(stages->blockBytes)), lane));
    auto copy = [&] { stages->copyTokens(source, target, t, from.ends); };
    if (static_cast<int64_t>(i + 1) * kWarps <= blocks)
      copy();
    else
      e.ifThen(e.less(block, e.index(blocks)), copy);
  }
}

//===----------------------------------------------------------------------===//
// Products
//===----------------------------------------------------------------------===//

Emitter::Values TensorEmitter::multiply(const Sources &from, Decoders decoders,
                                        int64_t tileTokens) {
  for (int64_t t = 0; t < stages->count - 1; ++t)
    copyStage(from, decoders, tileTokens, e.constant(e.i32(), t));
  Values sums(streamCount * tileTokens / 2, e.constant(e.f32(), 0.0));
  // Counters of 32 bits take half the instructions.
  return e.forLoop(e.constant(e.i32(), 0), from.ends.front(), 1, sums,
                   [&](Value i, ValueRange carried) {
                     Values next(carried);
                     Value t = e.extendUnsigned(i, e.i64());
                     Value ahead =
                         e.add(i, e.constant(e.i32(), stages->count - 1));
                     e.waitCopies(static_cast<int>(stages->count) - 2);
                     e.barrier();
                     copyStage(from, decoders, tileTokens, ahead);
                     Value stage = stages->at(e.rem(t, e.index(stages->count)));
                     for (int64_t at = 0; at < stages->blockBytes;
                          at += WeightStages::kLoadBytes)
                       multiplyLoad(decoders, tileTokens, stage, at, next);
                     return next;
                   });
}

void TensorEmitter::multiplyLoad(Decoders decoders, int64_t tileTokens,
                                 Value stage, int64_t at,
                                 MutableArrayRef<Value> sums) {
  int64_t blocks = tileTokens / kMmaTokens;
  SmallVector<WeightDecoder::Fragment> a;
  for (auto [i, decoder] : llvm::enumerate(decoders))
    a.push_back(stages->loaded(decoder, stages->slot(stage, place(), i), at));
  // Lane l points ldmatrix at row l % 8 of matrix l / 8.
  Value rows = e.offset(e.at(stage, e.lane(), kHalfBlockRowBytes), at);
  for (int64_t block = 0; block < blocks; ++block) {
    Values b = e.loadMatrices(e.offset(rows, block * stages->blockBytes),
                              /*transposed=*/false);
    for (auto [i, fragment] : llvm::enumerate(a))
      accumulate(fragment, b, sums.slice((i * blocks + block) * kSums, kSums));
  }
}

} // namespace

bool matchesTensorMatmul(Kernel &k) {
  auto plan = planMatmul(k.op);
  return plan && k.hasNumericRows(plan->x);
}

LogicalResult generateTensorMatmul(Kernel &k) {
  MatmulPlan plan = *planMatmul(k.op);
  if (failed(checkMatmul(k, plan)))
    return failure();
  if (k.tile.rows <= kMmaTokens)
    return generateSplitMatmul(k, plan);
  return TensorEmitter(k, plan).emit();
}

} // namespace quern::nvptx
