//===- TensorAttentionKernel.cpp - Prefill attention on tensor cores ------===//
//
// FlashAttention-2: a warp goes with its query vectors through the keys in
// steps, with an online softmax; its probabilities stay in registers as the A
// operand of the second product. Queries, keys and values lie in shared memory
// in 8x8 blocks, which ldmatrix reads free of bank conflicts, values
// transposed. Pages come by cp.async as they lie in the cache: the values of a
// step while its scores are computed, the next keys during its second product.
// Those of int8 come to a place of their own, from which they are expanded to
// f16.
//
// Reference: T. Dao, "FlashAttention-2: Faster Attention with Better
// Parallelism and Work Partitioning", 2023.
//
//===----------------------------------------------------------------------===//
#include "codegen/ptx/AttentionTile.h"
#include "codegen/ptx/AttentionWork.h"
#include "codegen/ptx/KvPages.h"
#include "codegen/ptx/OnlineSoftmax.h"

#include <limits>

using namespace mlir;

namespace quern::nvptx {
namespace {

/// Rows of an mma: query vectors.
constexpr int64_t kRows = 16;
/// Columns of A, which an mma sums over.
constexpr int64_t kDepth = 16;
/// Columns of an mma's result.
constexpr int64_t kColumns = 8;
constexpr int64_t kWarps = 4;
constexpr int64_t kCopyBytes = 16;

/// What fits in the registers of a lane and the shared memory of a block.
struct Sizes {
  int64_t tiles; ///< mma rows of a warp
  int64_t keys;  ///< of a step

  int64_t queryBytes(const KvLayout &layout) const {
    return 2 * kWarps * tiles * kRows * layout.headDim;
  }
  /// Of a step's keys, and as many of its values.
  int64_t partBytes(const KvLayout &layout) const {
    return 2 * keys * layout.headDim;
  }
  int64_t codeBytes(const KvLayout &layout) const {
    return layout.isInt8 ? keys / layout.page *
                               (layout.valuesOffset() + layout.scalesBytes())
                         : 0;
  }
  int64_t sharedBytes(const KvLayout &layout) const {
    return queryBytes(layout) + 2 * partBytes(layout) + codeBytes(layout);
  }
};

Sizes sizesOf(const Kernel &k, const KvLayout &layout) {
  // Expanding int8 takes registers beside the scores and results.
  Sizes most = {layout.headDim <= (layout.isInt8 ? 64 : 128) ? 2 : 1, 64};
  most.tiles =
      std::clamp<int64_t>(k.tile.rows / (kWarps * kRows), 1, most.tiles);
  most.keys = std::clamp(k.tile.keys / layout.page * layout.page, layout.page,
                         most.keys);
  while (most.keys > layout.page &&
         most.sharedBytes(layout) > k.e.target.gpu.sharedBytes)
    most.keys -= layout.page;
  return most;
}

class TensorAttentionEmitter {
public:
  TensorAttentionEmitter(Kernel &k, const AttentionPlan &plan)
      : k(k), e(k.e), plan(plan),
        layout(cast<lm::KvCacheType>(plan.kv.getType())),
        sizes(sizesOf(k, layout)),
        tile(k, plan, kWarps * sizes.tiles * kRows, sizes.keys),
        softmax(e, plan.scale) {}

  void emit();

private:
  using Values = Emitter::Values;
  using Fragment = MutableArrayRef<Value>;

  void emitBlock();
  /// Begins to copy keys or values of a step.
  void copyPages(ValueRange poolPages, KvPart part);
  /// The block copies `bytes` bytes from byte `from` of a page's KV head on.
  void copyPiece(Value to, Value poolPage, int64_t from, int64_t bytes);
  /// Waits for the copies of a step's keys or values; nobody reads what was
  /// read before.
  void awaitPages(KvPart part);
  Value partIn(KvPart part) { return part == KvPart::Keys ? keys : values; }

  /// What a lane carries from step to step.
  struct State {
    SmallVector<SoftmaxState> softmax; ///< (tiles)
    Values output;                     ///< (tiles, head_dim / 8, kFragment)
    Values pages;                      ///< of the step, in the pool
    Values flatten() const;
    void unflatten(ValueRange values);
  };
  /// Steps [begin, end); keys that a vector does not see are hidden only where
  /// `masked`.
  void run(Value begin, Value end, bool masked, State &state);
  void emitStep(Value step, bool masked, State &state);
  /// A operand of queries [16 * tile, ..) and dims [16 * d, ..).
  Values loadQuery(int64_t tile, int64_t d);
  /// Four blocks of a page's keys or values, from token and dim on.
  Values loadBlocks(KvPart part, int64_t token, int64_t dim);
  /// Queries times keys: (tiles, keys / 8, kFragment).
  Values scores();
  void hide(Value step, Fragment scores);
  void addValues(ArrayRef<Value> probabilities, Fragment output);
  void store(const State &state);
  /// The vector of row `row` of this lane's in mma rows `tile`. Not kept over
  /// steps, to save registers.
  AttentionTile::Vector vectorOf(int64_t tile, int row);

  Kernel &k;
  Emitter &e;
  const AttentionPlan &plan;
  KvLayout layout;
  Sizes sizes;
  AttentionTile tile;
  OnlineSoftmax softmax;
  Value queries, keys, values; ///< shared
  Value codes; ///< shared, of int8 pages: [page]{codes, scales} of a part
  /// What a lane points ldmatrix at, in bytes from the first of four blocks:
  /// two tokens by two dims, dims or tokens first.
  Value dimsFirst, tokensFirst;
  AttentionTile::Steps steps;
};

Emitter::Values TensorAttentionEmitter::State::flatten() const {
  Values all;
  for (const SoftmaxState &rows : softmax) {
    llvm::append_range(all, rows.maximum);
    llvm::append_range(all, rows.sum);
  }
  llvm::append_range(all, output);
  llvm::append_range(all, pages);
  return all;
}

void TensorAttentionEmitter::State::unflatten(ValueRange all) {
  for (SoftmaxState &rows : softmax) {
    rows = {{all[0], all[1]}, {all[2], all[3]}};
    all = all.drop_front(2 * kLaneRows);
  }
  output = Values(all.take_front(output.size()));
  pages = Values(all.drop_front(output.size()));
}

void TensorAttentionEmitter::emit() {
  k.launch.blockThreads = kWarps * kWarp;
  queries = k.shared(sizes.queryBytes(layout));
  keys = k.shared(sizes.partBytes(layout));
  values = k.shared(sizes.partBytes(layout));
  if (layout.isInt8)
    codes = k.shared(sizes.codeBytes(layout));
  Value lane = e.lane();
  Value row = e.mul(e.rem(lane, e.index(kBlockSide)), e.index(2 * kBlockSide));
  auto place = [&](int64_t dims, int64_t tokens) {
    auto bit = [&](int64_t of, int64_t bytes) {
      return e.mul(e.rem(e.div(lane, e.index(of)), e.index(2)), e.index(bytes));
    };
    int64_t lineBytes = layout.headDim / kBlockSide * kBlockBytes;
    return e.add(row, e.add(bit(dims, kBlockBytes), bit(tokens, lineBytes)));
  };
  dimsFirst = place(8, 16);
  tokensFirst = place(16, 8);
  tile.forWork([&] { emitBlock(); });
}

void TensorAttentionEmitter::emitBlock() {
  steps = tile.steps();
  State state;
  state.pages = tile.poolPages(steps.begin);
  copyPages(state.pages, KvPart::Keys);
  tile.loadQueries(queries);
  state.softmax.assign(sizes.tiles, softmax.start());
  state.output.assign(sizes.tiles * layout.headDim / kColumns * kFragment,
                      e.constant(e.f32(), 0.0));
  if (plan.window > 0)
    run(steps.begin, steps.fullBegin, /*masked=*/true, state);
  run(steps.fullBegin, steps.fullEnd, /*masked=*/false, state);
  run(steps.fullEnd, steps.end, /*masked=*/true, state);
  store(state);
}

void TensorAttentionEmitter::copyPages(ValueRange poolPages, KvPart part) {
  bool isValues = part == KvPart::Values;
  int64_t bytes = layout.valuesOffset(); // of either part
  for (auto [i, page] : llvm::enumerate(poolPages)) {
    if (!layout.isInt8) {
      copyPiece(e.offset(partIn(part), i * bytes), page, isValues ? bytes : 0,
                bytes);
      continue;
    }
    Value to = e.offset(codes, i * (bytes + layout.scalesBytes()));
    copyPiece(to, page, isValues ? bytes : 0, bytes);
    copyPiece(e.offset(to, bytes), page,
              layout.scalesOffset() + (isValues ? layout.scalesBytes() : 0),
              layout.scalesBytes());
  }
  e.commitCopies();
}

void TensorAttentionEmitter::copyPiece(Value to, Value poolPage, int64_t from,
                                       int64_t bytes) {
  int64_t turnBytes = k.launch.blockThreads * kCopyBytes;
  Value mine = e.mul(e.thread(), e.index(kCopyBytes));
  Value source = e.offset(tile.headPointer(poolPage, mine), from);
  Value target = e.offset(to, mine);
  for (int64_t at = 0; at < bytes; at += turnBytes) {
    auto copy = [&] {
      e.copyAsync(e.offset(target, at), e.offset(source, at));
    };
    if (at + turnBytes <= bytes)
      copy();
    else
      e.ifThen(e.less(mine, e.index(bytes - at)), copy);
  }
}

void TensorAttentionEmitter::awaitPages(KvPart part) {
  e.waitCopies(0);
  e.barrier();
  if (!layout.isInt8)
    return;
  int64_t bytes = layout.valuesOffset();
  for (int64_t i = 0; i < sizes.keys / layout.page; ++i) {
    Value from = e.offset(codes, i * (bytes + layout.scalesBytes()));
    Int8Blocks blocks = {from, e.offset(from, bytes), layout.page};
    Value to = e.offset(partIn(part), i * 2 * bytes);
    expandCodes(e, layout, blocks, e.thread(), k.launch.blockThreads, to);
  }
  e.barrier();
}

void TensorAttentionEmitter::run(Value begin, Value end, bool masked,
                                 State &state) {
  runSteps(e, begin, end, state, [&](Value step, State &next) {
    emitStep(step, masked, next);
  });
}

void TensorAttentionEmitter::emitStep(Value step, bool masked, State &state) {
  Value next = e.add(step, e.constant(e.i32(), 1));
  awaitPages(KvPart::Keys); // and nobody reads the values before them
  copyPages(state.pages, KvPart::Values);
  state.pages = tile.poolPages(next);
  Values s = scores();
  awaitPages(KvPart::Values); // and nobody reads the keys
  e.ifThen(e.less(next, steps.end),
           [&] { copyPages(state.pages, KvPart::Keys); });
  if (masked)
    hide(step, s);
  size_t tileScores = s.size() / sizes.tiles;
  size_t tileOutput = state.output.size() / sizes.tiles;
  for (int64_t i = 0; i < sizes.tiles; ++i) {
    LaneRows corrections = softmax.step(
        state.softmax[i], Fragment(s).slice(i * tileScores, tileScores));
    Fragment output = Fragment(state.output).slice(i * tileOutput, tileOutput);
    for (auto [j, value] : llvm::enumerate(output))
      value = e.mul(value, corrections[j % kFragment / 2]);
  }
  addValues(s, state.output);
}

Emitter::Values TensorAttentionEmitter::loadQuery(int64_t tile, int64_t d) {
  int64_t blocks = layout.headDim / kBlockSide;
  Value warp = e.mul(e.warp(), e.index(sizes.tiles * kRows / kBlockSide *
                                       blocks * kBlockBytes));
  Value at = e.offset(e.offset(queries, warp), tokensFirst);
  int64_t block = tile * kRows / kBlockSide * blocks + d * kDepth / kBlockSide;
  return e.loadMatrices(e.offset(at, block * kBlockBytes),
                        /*transposed=*/false);
}

Emitter::Values TensorAttentionEmitter::loadBlocks(KvPart part, int64_t token,
                                                   int64_t dim) {
  bool isKeys = part == KvPart::Keys;
  int64_t blocks = layout.headDim / kBlockSide;
  int64_t block = token / kBlockSide * blocks + dim / kBlockSide;
  Value lane = e.offset(partIn(part), isKeys ? dimsFirst : tokensFirst);
  return e.loadMatrices(e.offset(lane, block * kBlockBytes),
                        /*transposed=*/!isKeys);
}

Emitter::Values TensorAttentionEmitter::scores() {
  int64_t columns = sizes.keys / kColumns;
  Values result(sizes.tiles * columns * kFragment, e.constant(e.f32(), 0.0));
  for (int64_t d = 0; d < layout.headDim / kDepth; ++d) {
    SmallVector<Values> a;
    for (int64_t i = 0; i < sizes.tiles; ++i)
      a.push_back(loadQuery(i, d));
    for (int64_t key = 0; key < sizes.keys; key += 2 * kColumns) {
      Values b = loadBlocks(KvPart::Keys, key, d * kDepth);
      for (int64_t i = 0; i < sizes.tiles * 2; ++i) {
        int64_t column = key / kColumns + i % 2;
        e.mmaInto(Fragment(result).slice((i / 2 * columns + column) * kFragment,
                                         kFragment),
                  a[i / 2], ValueRange(b).slice(i % 2 * 2, 2));
      }
    }
  }
  return result;
}

AttentionTile::Vector TensorAttentionEmitter::vectorOf(int64_t i, int row) {
  Value first = e.mul(e.warp(), e.index(sizes.tiles * kRows));
  first = e.add(first, e.div(e.lane(), e.index(4)));
  return tile.vector(e.add(e.truncate(first, e.i32()),
                           e.constant(e.i32(), i * kRows + 8 * row)));
}

void TensorAttentionEmitter::hide(Value step, Fragment scores) {
  auto number = [&](int64_t value) { return e.constant(e.i32(), value); };
  Value column = e.truncate(e.rem(e.lane(), e.index(4)), e.i32());
  Value firstKey =
      e.add(e.mul(step, number(sizes.keys)), e.mul(column, number(2)));
  Value nothing = e.constant(e.f32(), -std::numeric_limits<double>::infinity());
  int64_t tileScores = sizes.keys / kColumns * kFragment;
  SmallVector<LaneRows> slots(sizes.tiles);
  for (int64_t i = 0; i < sizes.tiles; ++i)
    for (int row = 0; row < kLaneRows; ++row)
      slots[i][row] = vectorOf(i, row).slot;
  for (auto [i, score] : llvm::enumerate(scores)) {
    Value key = number(i % tileScores / kFragment * kColumns + i % 2);
    Value last = e.sub(slots[i / tileScores][i % kFragment / 2], firstKey);
    Value hidden = e.less(last, key);
    if (plan.window > 0)
      hidden = e.orI(hidden, e.less(key, e.sub(last, number(plan.window - 1))));
    score = e.select(hidden, nothing, score);
  }
}

void TensorAttentionEmitter::addValues(ArrayRef<Value> probabilities,
                                       Fragment output) {
  int64_t columns = layout.headDim / kColumns;
  int64_t tileScores = sizes.keys / kColumns * kFragment;
  for (int64_t key = 0; key < sizes.keys; key += kDepth) {
    SmallVector<Values> a;
    for (int64_t i = 0; i < sizes.tiles; ++i)
      a.push_back(packOperand(
          e, probabilities.slice(i * tileScores + key / kColumns * kFragment,
                                 2 * kFragment)));
    for (int64_t d = 0; d < columns; d += 2) {
      Values b = loadBlocks(KvPart::Values, key, d * kColumns);
      for (int64_t i = 0; i < sizes.tiles * 2; ++i)
        e.mmaInto(
            output.slice((i / 2 * columns + d + i % 2) * kFragment, kFragment),
            a[i / 2], ValueRange(b).slice(i % 2 * 2, 2));
    }
  }
}

void TensorAttentionEmitter::store(const State &state) {
  int64_t columns = layout.headDim / kColumns;
  for (int64_t i = 0; i < sizes.tiles; ++i) {
    LaneRows inverse = softmax.inverseSums(state.softmax[i]);
    for (int row = 0; row < kLaneRows; ++row) {
      Values line;
      for (int64_t d = 0; d < columns; ++d)
        for (int j = 0; j < 2; ++j)
          line.push_back(
              e.mul(state.output[(i * columns + d) * kFragment + 2 * row + j],
                    inverse[row]));
      tile.store(vectorOf(i, row), line);
    }
  }
}

} // namespace

bool matchesTensorAttention(Kernel &k) {
  auto plan = planAttention(k.op);
  if (!plan || k.role != Role::Prefill || !k.splitShares())
    return false;
  auto type = cast<lm::KvCacheType>(plan->kv.getType());
  return feedsTensorCores(type) && plan->scale > 0 &&
         type.getHeadDim() % kDepth == 0 && type.getHeadDim() <= 256;
}

LogicalResult generateTensorAttention(Kernel &k) {
  AttentionPlan plan = *planAttention(k.op);
  if (failed(checkAttention(k, plan)))
    return failure();
  TensorAttentionEmitter(k, plan).emit();
  return success();
}

} // namespace quern::nvptx
