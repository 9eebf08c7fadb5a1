//===- SplitAttentionKernel.cpp - Decode attention on tensor cores --------===//
//
// A row at a time, the keys cut three ways (split KV): blocks take runs of
// steps of 16 keys, a block's warps its steps in turns, and a warp goes through
// its own with an online softmax. The query heads that read one KV head are the
// rows of an mma (GQA packing), so that keys and values are loaded once for
// all. A warp's steps come into a ring of its own by cp.async; ldmatrix reads
// the 8x8 blocks as they lie in the cache, keys as they are and values
// transposed; those of int8 are expanded to f16 before.
//
// The states of warps and runs are joined by SplitStates. How a row is cut
// depends on its own context alone, so its result does not depend on the rows
// beside it.
//
// Reference: T. Dao, D. Haziza, F. Massa, G. Sizov, "Flash-Decoding for
// long-context inference", 2023.
//
//===----------------------------------------------------------------------===//
#include "codegen/ptx/AttentionWork.h"
#include "codegen/ptx/KvPages.h"
#include "codegen/ptx/SplitStates.h"

#include <limits>
#include <optional>

using namespace mlir;

namespace quern::nvptx {
namespace {

/// Keys of a step: what the second mma sums over. Also the dims of the first.
constexpr int64_t kStepKeys = 16;
/// Runs of a row at most, and the steps of a run at least.
constexpr int64_t kMostRuns = 16;
constexpr int64_t kLeastSteps = 16;
/// Of a block's rings and what is expanded: several blocks share a
/// multiprocessor.
constexpr int64_t kRingBytes = 64 * 1024;
constexpr int64_t kMostStages = 4;
constexpr int64_t kCopyBytes = 16;
/// Dims of a query that a lane keeps in registers; wider ones stay in shared
/// memory, since the output takes the registers.
constexpr int64_t kMostQueryDims = 128;

class SplitAttentionEmitter {
public:
  SplitAttentionEmitter(Kernel &k, const AttentionPlan &plan)
      : k(k), e(k.e), plan(plan), work(k, plan), layout(work.layout),
        softmax(e, plan.scale),
        codeBytes(kStepKeys * layout.headDim * layout.elementBytes),
        partBytes(codeBytes + layout.scalesBytes() * kStepKeys / kWarp),
        expandedBytes(layout.isInt8 ? 2 * codeBytes : 0),
        warps(std::clamp<int64_t>(k.tile.rows, 1, 8)) {
    while (warps > 1 && warps * (4 * partBytes + expandedBytes) > kRingBytes)
      warps /= 2;
    stages = std::clamp<int64_t>(
        (kRingBytes / warps - expandedBytes) / (2 * partBytes), 2, kMostStages);
  }

  void emit();

private:
  using Values = Emitter::Values;

  /// What a lane carries from step to step.
  struct State {
    SoftmaxState softmax;
    Values output; ///< tiles of kFragment
    Values flatten() const;
    static State unflatten(ValueRange values);
  };
  void emitRow();
  void emitUnit(Value kvHead, Value first, Value end);
  void emitRun(Value kvHead, Value first, Value end);
  void loadQueries(Value first, Value end);
  bool keepsQueries() const { return layout.headDim <= kMostQueryDims; }
  /// This lane's A operand of dims [16 * d, ..) in shared memory.
  Value queryPlace(int64_t d);
  /// The A operand of these dims, 4 x i32.
  Values queryOperand(int64_t d);
  /// Begins to copy step `step`, where the run has it.
  void copyStep(Value kvHead, Value step, Value stage);
  /// The lanes copy `bytes` bytes; of what `bytesOf(piece)` says (i32) only so
  /// many of a piece's kCopyBytes are read.
  void copyPieces(Value from, Value to, int64_t bytes,
                  function_ref<Value(Value piece)> bytesOf = {});
  /// Scales of `part` of half a page.
  void copyScales(Value head, Value half, KvPart part, Value to);
  State runSteps(Value kvHead);
  void emitStep(Value step, Value stage, State &state);
  /// Where the keys or values of a stage are as blocks of f16.
  Value blocksOf(Value stage, KvPart part);
  void hide(Value step, MutableArrayRef<Value> scores);
  Value stageOf(Value turn);

  Kernel &k;
  Emitter &e;
  const AttentionPlan &plan;
  AttentionWork work;
  KvLayout layout;
  OnlineSoftmax softmax;
  /// Of the keys, or values, of a step: their elements; with their scales.
  int64_t codeBytes, partBytes;
  int64_t expandedBytes; ///< of either as f16, where pages are int8
  int64_t warps, stages;
  KvArgs kv;
  std::optional<SplitStates> states;
  Value row, slot, pages;
  Value ring;             ///< shared
  Value expanded;         ///< shared, the warp's
  Value sharedQueries;    ///< [warp][head_dim / 16][lane][4] i32
  Value runs, begin, end; ///< of the row; steps of this run
  Values queries;
};

Emitter::Values SplitAttentionEmitter::State::flatten() const {
  Values values;
  llvm::append_range(values, softmax.maximum);
  llvm::append_range(values, softmax.sum);
  llvm::append_range(values, output);
  return values;
}

SplitAttentionEmitter::State
SplitAttentionEmitter::State::unflatten(ValueRange values) {
  State state;
  state.softmax = {{values[0], values[1]}, {values[2], values[3]}};
  state.output = Values(values.drop_front(2 * kLaneRows));
  return state;
}

//===----------------------------------------------------------------------===//
// The row and its runs
//===----------------------------------------------------------------------===//

void SplitAttentionEmitter::emit() {
  kv = k.kvArgument(plan.kv);
  k.launch.blockThreads = warps * kWarp;
  GridFactor heads = work.gridFactor();
  if (!k.splitShares())
    heads = {GridCount::One, static_cast<uint32_t>(work.kvHeads)};
  constexpr uint32_t kRunPages = kLeastSteps * kStepKeys / kWarp;
  k.launch.grid = {heads, {GridCount::Rows, 1}, {GridCount::Pages, kRunPages}};
  ring = k.shared(warps * stages * 2 * partBytes);
  if (expandedBytes > 0)
    expanded = e.at(k.shared(warps * expandedBytes), e.warp(), expandedBytes);
  states.emplace(k, plan, SplitStates::Shape{layout.headDim, warps, kMostRuns},
                 ring, stages * 2 * partBytes);
  if (!keepsQueries())
    sharedQueries = k.shared(warps * kUnitRows * layout.headDim * 2);
  states->makeWorkspace();
  if (k.splitShares()) {
    row = e.block(1);
    return emitRow();
  }
  row = e.add(k.rangeBegin(0), e.block(1));
  e.ifThen(e.less(row, k.rangeEnd(0)), [&] { emitRow(); });
}

void SplitAttentionEmitter::emitRow() {
  slot = e.loadIndex(kv.slots, row);
  Value sequence = e.loadIndex(kv.sequences, row);
  pages = e.at(kv.pageTable, e.mul(sequence, k.pageTableStride()), 4);
  Value keys = e.index(kStepKeys), one = e.index(1), oldest = e.index(0);
  if (plan.window > 0)
    oldest = e.div(e.maxI(oldest, e.sub(slot, e.index(plan.window - 1))), keys);
  Value last = e.add(e.div(slot, keys), one), steps = e.sub(last, oldest);
  Value runSteps =
      e.maxI(e.index(kLeastSteps),
             e.div(e.add(steps, e.index(kMostRuns - 1)), e.index(kMostRuns)));
  runs = e.div(e.add(steps, e.sub(runSteps, one)), runSteps);
  begin = e.add(oldest, e.mul(e.block(2), runSteps));
  end = e.minI(last, e.add(begin, runSteps));
  // The grid has as many runs as a full page table may have.
  e.ifThen(e.less(e.block(2), runs), [&] {
    work.forUnits(k, [&](Value kvHead, Value first, Value last) {
      emitUnit(kvHead, first, last);
    });
  });
}

void SplitAttentionEmitter::emitUnit(Value kvHead, Value first, Value end) {
  loadQueries(first, end);
  State state = runSteps(kvHead);
  states->leave(state.softmax, state.output);
  e.barrier();
  states->store(row, first, end, runs);
  e.barrier();
}

//===----------------------------------------------------------------------===//
// The steps of a warp
//===----------------------------------------------------------------------===//

/// The unit's queries as A operands, 4 x i32 for each 16 dims. Heads past the
/// last repeat it; nobody stores what becomes of them.
void SplitAttentionEmitter::loadQueries(Value first, Value end) {
  queries.clear();
  Value source = e.at(k.argument(plan.q), e.mul(row, e.index(plan.heads)),
                      layout.headDim * 4);
  source = e.at(source, e.rem(e.lane(), e.index(4)), 8);
  std::array<Value, kLaneRows> rows;
  for (int i = 0; i < kLaneRows; ++i) {
    Value head = e.add(
        first, e.add(e.div(e.lane(), e.index(4)), e.index(i * kUnitRows / 2)));
    head = e.minI(head, e.sub(end, e.index(1)));
    rows[i] = e.at(source, head, layout.headDim * 4);
  }
  for (int64_t d = 0; d < layout.headDim; d += kStepKeys) {
    Values pairs;
    for (int64_t half = 0; half < 2; ++half)
      for (Value line : rows) {
        Value pair = e.load(e.vec(2, e.f32()),
                            e.offset(line, 4 * (d + half * kMmaColumns)), 8);
        for (int i = 0; i < 2; ++i)
          pairs.push_back(e.clampToHalf(e.extract(pair, i)));
      }
    Values words = packOperand(e, pairs);
    if (keepsQueries())
      llvm::append_range(queries, words);
    else
      e.store(e.pack(words), queryPlace(d / kStepKeys), 16);
  }
}

Value SplitAttentionEmitter::queryPlace(int64_t d) {
  int64_t turns = layout.headDim / kStepKeys;
  Value place = e.add(e.mul(e.warp(), e.index(turns * kWarp)), e.lane());
  return e.offset(e.at(sharedQueries, place, 16), d * kWarp * 16);
}

Emitter::Values SplitAttentionEmitter::queryOperand(int64_t d) {
  if (keepsQueries())
    return Values(ArrayRef(queries).slice(4 * d, 4));
  Value four = e.load(e.vec(4, e.i32()), queryPlace(d), 16);
  Values words;
  for (int64_t i = 0; i < 4; ++i)
    words.push_back(e.extract(four, i));
  return words;
}

Value SplitAttentionEmitter::stageOf(Value turn) {
  Value stage =
      e.add(e.mul(e.warp(), e.index(stages)), e.rem(turn, e.index(stages)));
  return e.at(ring, stage, 2 * partBytes);
}

void SplitAttentionEmitter::copyStep(Value kvHead, Value step, Value stage) {
  e.ifThen(e.less(step, end), [&] {
    constexpr int64_t kPageSteps = kWarp / kStepKeys;
    Value page = e.loadIndex(pages, e.div(step, e.index(kPageSteps)));
    Value head = work.headPointer(k, kv, page, kvHead);
    Value half = e.rem(step, e.index(kPageSteps));
    Value source = e.at(head, half, codeBytes);
    Value left = e.sub(slot, e.mul(step, e.index(kStepKeys)));
    // What lies behind the row's own slot may never have been written, and
    // zero probabilities do not make numbers of it. Codes always are numbers.
    auto writtenBytes = [&](Value piece) {
      // A piece is 8 dims of a key; a block of 8 keys has head_dim of them.
      Value key = e.add(
          e.mul(e.div(piece, e.index(layout.headDim)), e.index(kBlockSide)),
          e.rem(piece, e.index(kBlockSide)));
      return e.select(e.less(left, key), e.constant(e.i32(), 0),
                      e.constant(e.i32(), kCopyBytes));
    };
    for (KvPart part : {KvPart::Keys, KvPart::Values}) {
      bool isValues = part == KvPart::Values;
      Value to = e.offset(stage, isValues ? partBytes : 0);
      Value from = e.offset(source, isValues ? layout.valuesOffset() : 0);
      if (!layout.isInt8) {
        copyPieces(from, to, codeBytes, writtenBytes);
        continue;
      }
      copyPieces(from, to, codeBytes);
      copyScales(head, half, part, e.offset(to, codeBytes));
    }
  });
  e.commitCopies();
}

void SplitAttentionEmitter::copyPieces(
    Value from, Value to, int64_t bytes,
    function_ref<Value(Value piece)> bytesOf) {
  for (int64_t at = 0; at < bytes; at += kWarp * kCopyBytes) {
    Value piece = e.add(e.lane(), e.index(at / kCopyBytes));
    auto copy = [&] {
      Value place = e.mul(piece, e.index(kCopyBytes));
      e.copyAsync(e.offset(to, place), e.offset(from, place),
                  bytesOf ? bytesOf(piece) : Value());
    };
    if (at + kWarp * kCopyBytes <= bytes)
      copy();
    else
      e.ifThen(e.less(piece, e.index(bytes / kCopyBytes)), copy);
  }
}

void SplitAttentionEmitter::copyScales(Value head, Value half, KvPart part,
                                       Value to) {
  // (head_dim / 32, kWarp tokens) of a page to (head_dim / 32, kStepKeys).
  constexpr int64_t kPieces = kStepKeys * 4 / kCopyBytes; // of a row of these
  int64_t pieces = layout.headDim / KvLayout::kScaleColumns * kPieces;
  static_assert(256 / KvLayout::kScaleColumns * kPieces <= kWarp);
  e.ifThen(e.less(e.lane(), e.index(pieces)), [&] {
    Value group = e.div(e.lane(), e.index(kPieces));
    Value token = e.add(
        e.mul(half, e.index(kStepKeys)),
        e.mul(e.rem(e.lane(), e.index(kPieces)), e.index(kCopyBytes / 4)));
    e.copyAsync(e.at(to, e.lane(), kCopyBytes),
                e.offset(head, kvScaleOffset(e, layout, part, token, group)));
  });
}

SplitAttentionEmitter::State SplitAttentionEmitter::runSteps(Value kvHead) {
  State state;
  state.softmax = softmax.start();
  state.output.assign(layout.headDim / kMmaColumns * kFragment,
                      e.constant(e.f32(), 0.0));
  Value mine = e.add(begin, e.warp());
  for (int64_t ahead = 0; ahead < stages - 1; ++ahead)
    copyStep(kvHead, e.add(mine, e.index(ahead * warps)),
             stageOf(e.index(ahead)));
  Values last = e.forLoop(
      mine, end, warps, state.flatten(), [&](Value step, ValueRange carried) {
        State next = State::unflatten(carried);
        Value turn = e.div(e.sub(step, begin), e.index(warps));
        int64_t ahead = stages - 1;
        copyStep(kvHead, e.add(step, e.index(ahead * warps)),
                 stageOf(e.add(turn, e.index(ahead))));
        e.waitCopies(ahead);
        e.warpBarrier(); // the other lanes' copies
        emitStep(step, stageOf(turn), next);
        e.warpBarrier(); // nobody reads the stage any more
        return next.flatten();
      });
  e.waitCopies(0);
  return State::unflatten(last);
}

void SplitAttentionEmitter::hide(Value step, MutableArrayRef<Value> scores) {
  Value first = e.add(e.mul(step, e.index(kStepKeys)),
                      e.mul(e.rem(e.lane(), e.index(4)), e.index(2)));
  Value last = e.truncate(e.sub(slot, first), e.i32());
  Value nothing = e.constant(e.f32(), -std::numeric_limits<double>::infinity());
  for (auto [i, score] : llvm::enumerate(scores)) {
    Value key = e.constant(
        e.i32(), static_cast<int64_t>(i / kFragment * kMmaColumns + i % 2));
    Value hidden = e.less(last, key);
    if (plan.window > 0)
      hidden =
          e.orI(hidden,
                e.less(key, e.sub(last, e.constant(e.i32(), plan.window - 1))));
    score = e.select(hidden, nothing, score);
  }
}

Value SplitAttentionEmitter::blocksOf(Value stage, KvPart part) {
  bool isValues = part == KvPart::Values;
  Value at = e.offset(stage, isValues ? partBytes : 0);
  if (!layout.isInt8)
    return at;
  if (isValues)
    e.warpBarrier(); // nobody reads the keys any more
  Int8Blocks from = {at, e.offset(at, codeBytes), kStepKeys};
  expandCodes(e, layout, from, e.lane(), kWarp, expanded);
  e.warpBarrier();
  return expanded;
}

void SplitAttentionEmitter::emitStep(Value step, Value stage, State &state) {
  // ldmatrix takes four blocks: of keys two dim blocks of a key block, then of
  // the next; of values two key blocks of a dim block, then of the next.
  Value line = e.mul(e.rem(e.lane(), e.index(8)), e.index(kCopyBytes));
  Value inner = e.rem(e.div(e.lane(), e.index(8)), e.index(2));
  Value outer = e.div(e.lane(), e.index(16));
  auto place = [&](Value part, Value key, Value dim) {
    Value block = e.add(e.mul(key, e.index(layout.headDim / kBlockSide)), dim);
    return e.offset(part, e.add(line, e.mul(block, e.index(kBlockBytes))));
  };
  Value keys = place(blocksOf(stage, KvPart::Keys), outer, inner);

  auto multiply = [&](ValueRange a, Value at, bool transposed,
                      MutableArrayRef<Value> tiles) {
    Values b = e.loadMatrices(at, transposed);
    for (int i = 0; i < 2; ++i) {
      auto acc = tiles.slice(i * kFragment, kFragment);
      llvm::copy(e.mma(a, {b[2 * i], b[2 * i + 1]}, ValueRange(acc)),
                 acc.begin());
    }
  };
  Values scores(2 * kFragment, e.constant(e.f32(), 0.0));
  int64_t turns = layout.headDim / kStepKeys;
  for (int64_t d = 0; d < turns; ++d)
    multiply(queryOperand(d), e.offset(keys, d * 2 * kBlockBytes),
             /*transposed=*/false, scores);
  hide(step, scores);
  LaneRows corrections = softmax.step(state.softmax, scores);
  for (auto [i, value] : llvm::enumerate(state.output))
    value = e.mul(value, corrections[i % kFragment / 2]);
  Values probabilities = packOperand(e, scores);
  Value values = place(blocksOf(stage, KvPart::Values), inner, outer);
  for (int64_t d = 0; d < turns; ++d)
    multiply(probabilities, e.offset(values, d * 2 * kBlockBytes),
             /*transposed=*/true,
             MutableArrayRef<Value>(state.output)
                 .slice(d * 2 * kFragment, 2 * kFragment));
}

} // namespace

bool matchesSplitAttention(Kernel &k) {
  auto plan = planAttention(k.op);
  if (!plan || k.role != Role::Decode || !(plan->scale > 0))
    return false;
  auto type = cast<lm::KvCacheType>(plan->kv.getType());
  return feedsTensorCores(type) && type.getPage() == kWarp &&
         type.getHeadDim() % kStepKeys == 0 && type.getHeadDim() <= 256;
}

LogicalResult generateSplitAttention(Kernel &k) {
  AttentionPlan plan = *planAttention(k.op);
  if (failed(checkAttention(k, plan)))
    return failure();
  SplitAttentionEmitter(k, plan).emit();
  return success();
}

} // namespace quern::nvptx
