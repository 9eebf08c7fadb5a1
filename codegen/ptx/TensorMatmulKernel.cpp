//===- TensorMatmulKernel.cpp - Matmuls on tensor cores -------------------===//
//
// Products of f16 numeric rows with packed weights by mma.m16n8k16. The weights
// are the A operand: a warp loads its row blocks straight into registers, a
// group ahead of their use, and decodes them to f16 there. The activations are
// the B operand, as they lie in their buffer. Two ways to share the work of a
// block:
//
//   tile   many tokens: a warp has row blocks of its own; a tile of tokens goes
//          through shared memory, copied kStages groups deep, and serves all
//   split  at most 8 tokens: the warps share a row block, each taking every
//          kSplitWarps-th group, and their sums are added in their order
//
// Either way products are added in f32 in an order that depends on nothing but
// K, and a token is a column of its own: a row's result depends neither on the
// rows beside it nor on the grid.
//
//===----------------------------------------------------------------------===//
#include "codegen/kernels/MatmulPlan.h"
#include "codegen/ptx/Kernel.h"
#include "codegen/ptx/OutputTiles.h"
#include "codegen/ptx/WeightDecoder.h"

using namespace mlir;

namespace quern::nvptx {
namespace {

constexpr int64_t kTileWarps = 4;
constexpr int64_t kSplitWarps = 8;
constexpr int64_t kStages = 4;
/// Tokens of an mma, and of a block of numeric rows.
constexpr int64_t kTokens = kHalfRows;
/// A tile with no more tokens than this takes less work.
constexpr int64_t kSmallTile = 16;
/// Tokens of a tile at most: the sums of two row blocks take a register a
/// token, and those of 128 leave too few to decode weights without spilling.
constexpr int64_t kMostTokens = 64;
/// Accumulators of an mma.
constexpr int64_t kSums = 4;

class TensorMatmulEmitter {
public:
  TensorMatmulEmitter(Kernel &k, MatmulPlan plan)
      : k(k), e(k.e), plan(std::move(plan)),
        tokens(std::clamp<int64_t>(k.tile.rows / kTokens * kTokens, kTokens,
                                   kMostTokens)),
        split(tokens == kTokens) {}

  void emitStore();
  void emitSwiglu();

private:
  using Values = Emitter::Values;

  /// A row block that a warp multiplies.
  struct Stream {
    WeightDecoder decoder;
    Value base;
  };
  /// Output (i64, 0..15) of a row block, row of x, what each stream has there.
  using Visit =
      function_ref<void(Value output, Value row, ArrayRef<Value> values)>;

  /// Grid and shared memory, `streams` row blocks a warp.
  void launch(GridFactor columns, int64_t streams);
  /// This warp's first row block among those of its block of the grid.
  Value warpBlock(int64_t streams) {
    return split ? e.index(0) : e.mul(e.warp(), e.index(streams));
  }
  int64_t blocksOf(int64_t streams) const {
    return split ? streams : streams * kTileWarps;
  }

  /// Multiplies the streams with this block's tokens over `groups` groups,
  /// group 0 being `firstGroup` of x, and visits the results.
  void compute(ArrayRef<Stream> streams, Value firstGroup, Value groups,
               Visit visit);
  /// Visits zeros.
  void visitZeros(size_t streams, const WeightDecoder &decoder, Visit visit);

  // Sums are [stream][block of tokens][kSums].
  Values multiplyTile(ArrayRef<Stream> streams, int64_t tileTokens,
                      Value firstGroup, Value groups);
  Values multiplySplit(ArrayRef<Stream> streams, Value firstGroup,
                       Value groups);
  void visitTile(size_t streams, const WeightDecoder &decoder,
                 int64_t tileTokens, ValueRange sums, Visit visit);
  void visitSplit(size_t streams, const WeightDecoder &decoder, ValueRange sums,
                  Visit visit);

  /// All streams' fragments of group `index`, flat; past the last group, it
  /// again.
  Values loadFragments(ArrayRef<Stream> streams, Value index, Value groups);
  SmallVector<WeightDecoder::Fragment> decodeFragments(ArrayRef<Stream> streams,
                                                       ValueRange loaded);
  void copyGroup(int64_t tileTokens, Value index, Value firstGroup,
                 Value groups);
  /// Group `group` of the numeric rows of block `block` of this tile's tokens;
  /// past the last block, it again.
  Value tokenGroup(Value block, Value group);
  /// sums += A * B for both steps of a group.
  void accumulate(const WeightDecoder::Fragment &a, ValueRange b,
                  MutableArrayRef<Value> sums);

  Kernel &k;
  Emitter &e;
  MatmulPlan plan;
  int64_t tokens; ///< of a block of the grid
  bool split;
  Value stages;   ///< shared: (kStages, tokens / 8, kHalfGroupBytes), or sums
  Value firstRow; ///< of the tile
};

void TensorMatmulEmitter::launch(GridFactor columns, int64_t streams) {
  k.launch.blockThreads = (split ? kSplitWarps : kTileWarps) * kWarp;
  k.launch.grid = {columns, {GridCount::Rows, static_cast<uint32_t>(tokens)}};
  stages = k.shared(split ? kSplitWarps * streams * kSums * kWarp * 4
                          : kStages * tokens / kTokens * kHalfGroupBytes);
  firstRow = e.mul(e.block(1), e.index(tokens));
}

//===----------------------------------------------------------------------===//
// Operands
//===----------------------------------------------------------------------===//

Value TensorMatmulEmitter::tokenGroup(Value block, Value group) {
  Value last = e.div(e.sub(k.rows(), e.index(1)), e.index(kTokens));
  Value place = e.minI(e.add(e.div(firstRow, e.index(kTokens)), block), last);
  Value rows = k.activationRow(k.argument(plan.x),
                               e.mul(place, e.index(kTokens)), plan.depth());
  return e.offset(rows, e.mul(group, e.index(kHalfGroupBytes)));
}

Emitter::Values TensorMatmulEmitter::loadFragments(ArrayRef<Stream> streams,
                                                   Value index, Value groups) {
  Values loaded;
  Value place = e.minI(index, e.sub(groups, e.index(1)));
  for (const Stream &stream : streams) {
    Value row = stream.decoder.fragmentRow(e.lane(), 0);
    WeightDecoder::Group group = stream.decoder.group(stream.base, place, row);
    llvm::append_range(loaded, stream.decoder.loadFragment(group, e.lane()));
  }
  return loaded;
}

SmallVector<WeightDecoder::Fragment>
TensorMatmulEmitter::decodeFragments(ArrayRef<Stream> streams,
                                     ValueRange loaded) {
  SmallVector<WeightDecoder::Fragment> fragments;
  for (const Stream &stream : streams) {
    unsigned size = stream.decoder.fragmentSize();
    fragments.push_back(
        stream.decoder.decodeFragment(loaded.take_front(size), e.lane()));
    loaded = loaded.drop_front(size);
  }
  return fragments;
}

void TensorMatmulEmitter::accumulate(const WeightDecoder::Fragment &a,
                                     ValueRange b,
                                     MutableArrayRef<Value> sums) {
  for (int step = 0; step < 2; ++step)
    llvm::copy(e.mma(a[step], b.slice(2 * step, 2), ValueRange(sums)),
               sums.begin());
}

//===----------------------------------------------------------------------===//
// Tile
//===----------------------------------------------------------------------===//

/// Starts the copy of group `index` of all tokens, a warp a block of tokens.
void TensorMatmulEmitter::copyGroup(int64_t tileTokens, Value index,
                                    Value firstGroup, Value groups) {
  int64_t blocks = tileTokens / kTokens;
  Value stage =
      e.mul(e.rem(index, e.index(kStages)), e.index(blocks * kHalfGroupBytes));
  e.ifThen(e.less(index, groups), [&] {
    for (int64_t i = 0; i < blocks; i += kTileWarps) {
      Value block = e.add(e.warp(), e.index(i));
      Value lane = e.mul(e.lane(), e.index(16));
      auto copy = [&] {
        Value source =
            e.offset(tokenGroup(block, e.add(index, firstGroup)), lane);
        Value target =
            e.add(stage, e.add(e.mul(block, e.index(kHalfGroupBytes)), lane));
        e.copyAsync(e.offset(stages, target), source);
      };
      if (i + kTileWarps <= blocks)
        copy();
      else
        e.ifThen(e.less(block, e.index(blocks)), copy);
    }
  });
  e.commitCopies();
}

Emitter::Values TensorMatmulEmitter::multiplyTile(ArrayRef<Stream> streams,
                                                  int64_t tileTokens,
                                                  Value firstGroup,
                                                  Value groups) {
  int64_t blocks = tileTokens / kTokens;
  int64_t sumCount = streams.size() * blocks * kSums;
  Values carried(sumCount, e.constant(e.f32(), 0.0));
  for (int64_t stage = 0; stage < kStages - 1; ++stage)
    copyGroup(tileTokens, e.index(stage), firstGroup, groups);
  llvm::append_range(carried, loadFragments(streams, e.index(0), groups));
  Values result = e.forLoop(
      e.index(0), groups, 1, carried, [&](Value index, ValueRange state) {
        Values next(state.take_front(sumCount));
        Values ahead = loadFragments(streams, e.add(index, e.index(1)), groups);
        e.waitCopies(kStages - 2);
        e.barrier();
        copyGroup(tileTokens, e.add(index, e.index(kStages - 1)), firstGroup,
                  groups);
        auto a = decodeFragments(streams, state.drop_front(sumCount));
        // Lane l points ldmatrix at row l % 8 of matrix l / 8 of a group.
        Value stage =
            e.offset(stages, e.mul(e.rem(index, e.index(kStages)),
                                   e.index(blocks * kHalfGroupBytes)));
        stage = e.offset(stage, e.mul(e.lane(), e.index(kHalfBlockRowBytes)));
        for (int64_t block = 0; block < blocks; ++block) {
          Values b = e.loadMatrices(e.offset(stage, block * kHalfGroupBytes),
                                    /*transposed=*/false);
          for (size_t i = 0; i < streams.size(); ++i)
            accumulate(a[i], b,
                       MutableArrayRef<Value>(next).slice(
                           (i * blocks + block) * kSums, kSums));
        }
        llvm::append_range(next, ahead);
        return next;
      });
  result.truncate(sumCount);
  return result;
}

void TensorMatmulEmitter::visitTile(size_t streams,
                                    const WeightDecoder &decoder,
                                    int64_t tileTokens, ValueRange sums,
                                    Visit visit) {
  Value lane = e.lane();
  Value pair = e.mul(e.rem(lane, e.index(4)), e.index(2));
  int64_t blocks = tileTokens / kTokens;
  for (int64_t block = 0; block < blocks; ++block)
    for (int64_t j = 0; j < 2; ++j) {
      Value row = e.add(firstRow, e.add(pair, e.index(block * kTokens + j)));
      e.ifThen(e.less(row, k.rows()), [&] {
        for (int half = 0; half < 2; ++half) {
          SmallVector<Value> values;
          for (size_t i = 0; i < streams; ++i)
            values.push_back(sums[(i * blocks + block) * kSums + 2 * half + j]);
          visit(decoder.fragmentRow(lane, half), row, values);
        }
      });
    }
}

//===----------------------------------------------------------------------===//
// Split
//===----------------------------------------------------------------------===//

Emitter::Values TensorMatmulEmitter::multiplySplit(ArrayRef<Stream> streams,
                                                   Value firstGroup,
                                                   Value groups) {
  int64_t sumCount = streams.size() * kSums;
  Values carried(sumCount, e.constant(e.f32(), 0.0));
  llvm::append_range(carried, loadFragments(streams, e.warp(), groups));
  Value lane = e.mul(e.lane(), e.index(4));
  Values result = e.forLoop(
      e.warp(), groups, kSplitWarps, carried,
      [&](Value index, ValueRange state) {
        Values next(state.take_front(sumCount));
        Values b;
        Value at =
            e.offset(tokenGroup(e.index(0), e.add(index, firstGroup)), lane);
        for (int64_t i = 0; i < 4; ++i)
          b.push_back(e.load(e.i32(), e.offset(at, i * kHalfBlockBytes), 4));
        Values ahead =
            loadFragments(streams, e.add(index, e.index(kSplitWarps)), groups);
        auto a = decodeFragments(streams, state.drop_front(sumCount));
        for (size_t i = 0; i < streams.size(); ++i)
          accumulate(a[i], b,
                     MutableArrayRef<Value>(next).slice(i * kSums, kSums));
        llvm::append_range(next, ahead);
        return next;
      });
  result.truncate(sumCount);
  return result;
}

void TensorMatmulEmitter::visitSplit(size_t streams,
                                     const WeightDecoder &decoder,
                                     ValueRange sums, Visit visit) {
  // Sums of all warps: [warp][stream][kSums][lane].
  int64_t warpBytes = streams * kSums * kWarp * 4;
  Value mine = e.offset(stages, e.add(e.mul(e.warp(), e.index(warpBytes)),
                                      e.mul(e.lane(), e.index(4))));
  for (auto [i, sum] : llvm::enumerate(sums))
    e.store(sum, e.offset(mine, i * kWarp * 4), 4);
  e.barrier();
  // A thread has an output of a token, neighbours of it neighbouring outputs.
  e.forLoop(
      e.thread(), e.index(kTokens * kPackedRows), kSplitWarps * kWarp,
      [&](Value item) {
        Value output = e.rem(item, e.index(kPackedRows)),
              token = e.div(item, e.index(kPackedRows));
        Value row = e.add(firstRow, token);
        e.ifThen(e.less(row, k.rows()), [&] {
          int64_t step = decoder.fragmentRowStep(),
                  first = decoder.fragmentRowFirst();
          Value half = step == 1 ? e.rem(output, e.index(2))
                                 : e.div(output, e.index(step));
          Value g = step == 1 ? e.div(output, e.index(first))
                              : e.rem(output, e.index(step));
          Value lane = e.add(e.mul(g, e.index(4)), e.div(token, e.index(2)));
          Value sum = e.add(e.mul(half, e.index(2)), e.rem(token, e.index(2)));
          Value at =
              e.offset(stages, e.mul(e.add(e.mul(sum, e.index(kWarp)), lane),
                                     e.index(4)));
          SmallVector<Value> values;
          for (size_t i = 0; i < streams; ++i) {
            Value total;
            for (int64_t warp = 0; warp < kSplitWarps; ++warp) {
              Value part = e.load(
                  e.f32(),
                  e.offset(at, warp * warpBytes + i * kSums * kWarp * 4), 4);
              total = total ? e.add(total, part) : part;
            }
            values.push_back(total);
          }
          visit(output, row, values);
        });
      });
}

//===----------------------------------------------------------------------===//
// Kernels
//===----------------------------------------------------------------------===//

void TensorMatmulEmitter::compute(ArrayRef<Stream> streams, Value firstGroup,
                                  Value groups, Visit visit) {
  const WeightDecoder &decoder = streams.front().decoder;
  if (split)
    return visitSplit(streams.size(), decoder,
                      multiplySplit(streams, firstGroup, groups), visit);
  auto tile = [&](int64_t tileTokens) {
    visitTile(streams.size(), decoder, tileTokens,
              multiplyTile(streams, tileTokens, firstGroup, groups), visit);
  };
  if (tokens <= kSmallTile)
    return tile(tokens);
  Value rest = e.sub(k.rows(), firstRow);
  e.ifElse(
      e.less(e.index(kSmallTile), rest), [&] { tile(tokens); },
      [&] { tile(kSmallTile); });
}

void TensorMatmulEmitter::emitStore() {
  int64_t streams =
      split ? 1 : std::clamp<int64_t>(k.tile.blocks / kTileWarps, 1, 4);
  OutputTiles tiles(k, plan, blocksOf(streams));
  launch(tiles.gridFactor(), streams);
  tiles.select([&](const OutputTile &tile) {
    WeightDecoder decoder(e, tile.format);
    Value first = e.add(tile.block, warpBlock(streams));
    auto visit = [&](Value output, Value row, ArrayRef<Value> values) {
      for (auto [i, value] : llvm::enumerate(values)) {
        Value block = e.add(first, e.index(static_cast<int64_t>(i)));
        Value column = e.add(e.mul(block, e.index(kPackedRows)), output);
        tiles.store(tile, row, e.add(tile.firstColumn, column), value);
      }
    };
    Value groups = e.div(tile.depth, e.index(kPackedGroup));
    auto multiply = [&] {
      // Row blocks past the last are computed as the last and not stored.
      SmallVector<Stream> mine;
      Value blockBytes = decoder.rowBlockBytes(tile.depth);
      for (int64_t i = 0; i < streams; ++i) {
        Value block = e.minI(e.add(first, e.index(i)),
                             e.sub(tile.blockCount, e.index(1)));
        mine.push_back(
            {decoder, e.offset(tile.weight, e.mul(block, blockBytes))});
      }
      compute(mine, e.div(tile.firstDepth, e.index(kPackedGroup)), groups,
              visit);
    };
    if (!plan.splitK)
      return multiply();
    // A share without columns of K still owes its partial result.
    e.ifElse(e.less(e.index(0), groups), multiply,
             [&] { visitZeros(streams, decoder, visit); });
  });
}

void TensorMatmulEmitter::visitZeros(size_t streams,
                                     const WeightDecoder &decoder,
                                     Visit visit) {
  Values zeros(streams * tokens / kTokens * kSums, e.constant(e.f32(), 0.0));
  if (split)
    return visitSplit(streams, decoder, zeros, visit);
  visitTile(streams, decoder, tokens, zeros, visit);
}

void TensorMatmulEmitter::emitSwiglu() {
  // A warp has a row block of gate and the same of up, so that both numbers of
  // an element are in one lane.
  int64_t blocks = blocksOf(1);
  launch({GridCount::Columns, static_cast<uint32_t>(blocks * kPackedRows)}, 2);
  Value begin = k.rangeBegin(0);
  Value count = e.div(e.sub(k.rangeEnd(0), begin), e.index(kPackedRows));
  Value block = e.add(e.mul(e.block(0), e.index(blocks)), warpBlock(1));
  Value mine = e.minI(block, e.sub(count, e.index(1)));
  SmallVector<Stream> streams;
  for (const Projection &projection : plan.projections) {
    WeightDecoder decoder(e, formatOf(projection.weight));
    Value bytes = decoder.rowBlockBytes(e.index(plan.depth()));
    streams.push_back(
        {decoder, e.offset(k.argument(projection.weight), e.mul(mine, bytes))});
  }
  auto visit = [&](Value output, Value row, ArrayRef<Value> values) {
    Value column =
        e.add(e.add(begin, e.mul(block, e.index(kPackedRows))), output);
    Value y = e.mul(e.silu(values[0]), values[1]);
    e.ifThen(e.less(block, count),
             [&] { storeSwiglu(k, plan, row, column, y); });
  };
  compute(streams, e.index(0), e.index(plan.depth() / kPackedGroup), visit);
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
  TensorMatmulEmitter emitter(k, plan);
  if (plan.epilogue == MatmulPlan::Epilogue::Store)
    emitter.emitStore();
  else
    emitter.emitSwiglu();
  return success();
}

} // namespace quern::nvptx
