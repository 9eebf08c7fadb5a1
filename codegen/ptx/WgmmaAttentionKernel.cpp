//===- WgmmaAttentionKernel.cpp - Prompt attention of sm_90a --------------===//
//
// A block of the grid is three warpgroups:
//
//   producer   brings the keys and values of a step with bulk copies, page by
//              page as they lie in the cache: 8x8 blocks, as wgmma takes them,
//              keys as a K-major operand and values as an MN-major one
//   consumers  two of them, 64 query vectors each. While the tensor cores
//              multiply a step's probabilities with its values, the consumer
//              turns the next step's scores into probabilities.
//
// A vector's steps and their order depend on its own context alone, and so does
// its result.
//
// Reference: J. Shah, G. Bikshandi, Y. Zhang, V. Thakkar, P. Ramani, T. Dao,
// "FlashAttention-3: Fast and Accurate Attention with Asynchrony and
// Low-precision", 2024.
//
//===----------------------------------------------------------------------===//
#include "codegen/ptx/AttentionTile.h"
#include "codegen/ptx/AttentionWork.h"
#include "codegen/ptx/Hopper.h"
#include "codegen/ptx/KvPages.h"
#include "codegen/ptx/OnlineSoftmax.h"

#include <limits>
#include <optional>

using namespace mlir;

namespace quern::nvptx {
namespace {

/// Rows of a wgmma, which are a consumer's query vectors, and of its warps.
constexpr int64_t kGroupRows = 64;
constexpr int64_t kWarpRows = 16;
/// Columns of A, which a wgmma sums over.
constexpr int64_t kDepth = 16;
/// Neighbouring columns of the result of which a lane has two in each row.
constexpr int64_t kColumns = 8;

constexpr int64_t kConsumers = 2;
constexpr int64_t kThreads = (1 + kConsumers) * kGroupWarps * kWarp;
constexpr int64_t kVectors = kConsumers * kGroupRows;
/// Registers a thread once the producer gave most of its own away. All are
/// 65536: 128 * 40 + 256 * 232 fit, as 384 * 168 do before.
constexpr int64_t kProducerRegisters = 40;
constexpr int64_t kConsumerRegisters = 232;
/// Steps that are in shared memory at once.
constexpr int64_t kStages = 2;

/// Keys of a step: scores, probabilities and results of a vector have a lane's
/// registers together.
int64_t stepKeys(const Kernel &k, const KvLayout &layout) {
  int64_t most = layout.headDim <= 128 ? 128 : 64;
  return std::clamp(k.tile.keys / layout.page * layout.page, layout.page, most);
}

class WgmmaAttentionEmitter {
public:
  WgmmaAttentionEmitter(Kernel &k, const AttentionPlan &plan)
      : k(k), e(k.e), plan(plan),
        layout(cast<lm::KvCacheType>(plan.kv.getType())),
        keys(stepKeys(k, layout)), tile(k, plan, kVectors, keys),
        softmax(e, plan.scale) {}

  void emit();

private:
  using Values = Emitter::Values;
  using Fragment = MutableArrayRef<Value>;

  /// A ring of stages for the keys, or for the values, of steps.
  struct Ring {
    KvPart part;
    Value stages; ///< shared, [stage][token block][dim block]
    /// Phases: a stage is full, it may be written again.
    std::optional<Barriers> full, empty;
  };
  void setUp(Ring &ring, KvPart part, Value barriers);
  int64_t stageBytes() const { return 2 * keys * layout.headDim; }
  int64_t tokenBlockBytes() const {
    return layout.headDim / kBlockSide * kBlockBytes;
  }

  // Step `step` (i32) is in stage (step - begin) % kStages.
  Value turn(Value step) { return e.sub(step, steps.begin); }
  Value stageOf(Value step) {
    return e.extendUnsigned(e.rem(turn(step), number(kStages)), e.i64());
  }
  /// Parity of the phase that the step ends.
  Value parityOf(Value step) {
    return e.rem(e.div(turn(step), number(kStages)), number(2));
  }
  Value number(int64_t value) { return e.constant(e.i32(), value); }

  void emitBlock();
  void produce();
  void copyStep(Ring &ring, Value step, ValueRange poolPages);

  /// What a consumer's lane carries from step to step.
  struct State {
    SoftmaxState softmax;
    Values output;        ///< (head_dim / 8, kFragment)
    Values probabilities; ///< of the step before: A fragments, (keys / 16, 4)
    Values flatten() const;
    void unflatten(ValueRange values);
  };
  void consume();
  /// Steps [begin, end); keys that a vector does not see are hidden only where
  /// `masked`.
  void run(Value begin, Value end, bool masked, State &state);
  void emitStep(Value step, bool masked, State &state);
  void waitFull(Ring &ring, Value step) {
    ring.full->wait(stageOf(step), parityOf(step));
  }
  void release(Ring &ring, Value step);
  /// The shared address of the step's stage (i32).
  Value stageAddress(Ring &ring, Value step);
  /// Starts queries times the step's keys, (keys / 8, kFragment).
  Values startScores(Value step);
  /// Starts adding probabilities times the step's values.
  void startOutput(Value step, State &state);
  /// Hides the keys that a vector does not see.
  void hide(Value step, Fragment scores);
  void pack(ArrayRef<Value> scores, State &state);
  void store(const State &state);
  /// Row `row` of this lane.
  AttentionTile::Vector vectorOf(int row);
  Value consumer() {
    return e.sub(e.div(warp, e.index(kGroupWarps)), e.index(1));
  }

  Kernel &k;
  Emitter &e;
  const AttentionPlan &plan;
  KvLayout layout;
  int64_t keys; ///< of a step
  AttentionTile tile;
  OnlineSoftmax softmax;
  Value queries; ///< shared
  Ring keyRing, valueRing;
  Value warp; ///< of this thread, known to be the same in all lanes
  AttentionTile::Steps steps;
};

Emitter::Values WgmmaAttentionEmitter::State::flatten() const {
  Values all;
  llvm::append_range(all, softmax.maximum);
  llvm::append_range(all, softmax.sum);
  llvm::append_range(all, output);
  llvm::append_range(all, probabilities);
  return all;
}

void WgmmaAttentionEmitter::State::unflatten(ValueRange all) {
  softmax = {{all[0], all[1]}, {all[2], all[3]}};
  all = all.drop_front(2 * kLaneRows);
  output = Values(all.take_front(output.size()));
  probabilities = Values(all.drop_front(output.size()));
}

//===----------------------------------------------------------------------===//
// The block
//===----------------------------------------------------------------------===//

void WgmmaAttentionEmitter::setUp(Ring &ring, KvPart part, Value barriers) {
  ring.part = part;
  ring.stages = k.shared(kStages * stageBytes());
  ring.full.emplace(e, barriers);
  ring.empty.emplace(e, e.offset(barriers, Barriers::bytes(kStages)));
}

void WgmmaAttentionEmitter::emit() {
  k.launch.blockThreads = kThreads;
  queries = k.shared(2 * kVectors * layout.headDim);
  Value barriers = k.shared(4 * Barriers::bytes(kStages));
  setUp(keyRing, KvPart::Keys, barriers);
  setUp(valueRing, KvPart::Values,
        e.offset(barriers, 2 * Barriers::bytes(kStages)));
  warp = warpUniform(e, e.warp());
  tile.forWork([&] { emitBlock(); });
}

void WgmmaAttentionEmitter::emitBlock() {
  steps = tile.steps();
  for (Value *edge :
       {&steps.begin, &steps.fullBegin, &steps.fullEnd, &steps.end})
    *edge = warpUniform(e, *edge);
  e.ifThen(e.equal(e.thread(), e.index(0)), [&] {
    for (Ring *ring : {&keyRing, &valueRing})
      for (int64_t i = 0; i < kStages; ++i) {
        ring->full->init(i, 1);
        ring->empty->init(i, kConsumers * kGroupWarps);
      }
    publishBarriers(e);
  });
  tile.loadQueries(queries);
  publishShared(e);
  e.barrier();
  e.ifElse(
      e.less(warp, e.index(kGroupWarps)),
      [&] {
        setRegisters(e, kProducerRegisters, /*increase=*/false);
        e.ifThen(e.equal(warp, e.index(0)),
                 [&] { e.ifThen(electLane(e), [&] { produce(); }); });
      },
      [&] {
        setRegisters(e, kConsumerRegisters, /*increase=*/true);
        consume();
      });
}

void WgmmaAttentionEmitter::produce() {
  e.forLoop(steps.begin, steps.end, 1, [&](Value step) {
    Values poolPages = tile.poolPages(step);
    copyStep(keyRing, step, poolPages);
    copyStep(valueRing, step, poolPages);
  });
}

void WgmmaAttentionEmitter::copyStep(Ring &ring, Value step,
                                     ValueRange poolPages) {
  Value stage = stageOf(step);
  int64_t partBytes = layout.valuesOffset(); // of either part of a page
  ring.empty->wait(stage, e.sub(number(1), parityOf(step)));
  ring.full->arriveExpecting(stage, number(stageBytes()));
  Value to = e.at(ring.stages, stage, stageBytes());
  Value from = e.index(ring.part == KvPart::Values ? partBytes : 0);
  for (auto [i, page] : llvm::enumerate(poolPages))
    copyBulk(e, e.offset(to, i * partBytes), tile.headPointer(page, from),
             number(partBytes), ring.full->at(stage));
}

//===----------------------------------------------------------------------===//
// Consumers
//===----------------------------------------------------------------------===//

void WgmmaAttentionEmitter::release(Ring &ring, Value step) {
  e.ifThen(e.equal(e.lane(), e.index(0)),
           [&] { ring.empty->arrive(stageOf(step)); });
}

Value WgmmaAttentionEmitter::stageAddress(Ring &ring, Value step) {
  Value stage = e.rem(turn(step), number(kStages));
  return e.add(sharedAddress(e, ring.stages),
               e.mul(stage, number(stageBytes())));
}

Emitter::Values WgmmaAttentionEmitter::startScores(Value step) {
  Value first = e.truncate(
      e.mul(consumer(), e.index(kGroupRows / kBlockSide * tokenBlockBytes())),
      e.i32());
  Value a = matrixDescriptor(e, e.add(sharedAddress(e, queries), first),
                             kBlockBytes, tokenBlockBytes());
  Value b = matrixDescriptor(e, stageAddress(keyRing, step), kBlockBytes,
                             tokenBlockBytes());
  SmallVector<WgmmaStep> products;
  for (int64_t d = 0; d < layout.headDim / kDepth; ++d) {
    // The start address is in units of 16 bytes.
    Value at = number(d * kDepth / kBlockSide * kBlockBytes / 16);
    products.push_back({{advance(e, a, at)}, advance(e, b, at)});
  }
  return startProducts(e, keys, products, {});
}

void WgmmaAttentionEmitter::startOutput(Value step, State &state) {
  // Values are (tokens, dims), of which tokens are summed over: MN-major.
  Value b = matrixDescriptor(e, stageAddress(valueRing, step),
                             tokenBlockBytes(), kBlockBytes);
  SmallVector<WgmmaStep> products;
  for (int64_t i = 0; i < keys / kDepth; ++i) {
    auto a = ArrayRef(state.probabilities).slice(4 * i, 4);
    Value at = number(i * kDepth / kBlockSide * tokenBlockBytes() / 16);
    products.push_back({SmallVector<Value, 4>(a), advance(e, b, at), 0,
                        /*rowMajorB=*/true});
  }
  state.output = startProducts(e, layout.headDim, products, state.output);
}

AttentionTile::Vector WgmmaAttentionEmitter::vectorOf(int row) {
  Value first = e.mul(e.sub(warp, e.index(kGroupWarps)), e.index(kWarpRows));
  Value i = e.add(e.add(first, e.div(e.lane(), e.index(4))),
                  e.index(row * kWarpRows / kLaneRows));
  return tile.vector(e.truncate(i, e.i32()));
}

void WgmmaAttentionEmitter::hide(Value step, Fragment scores) {
  Value column = e.truncate(e.rem(e.lane(), e.index(4)), e.i32());
  Value first = e.add(e.mul(step, number(keys)), e.mul(column, number(2)));
  Value nothing = e.constant(e.f32(), -std::numeric_limits<double>::infinity());
  LaneRows last;
  for (int row = 0; row < kLaneRows; ++row)
    last[row] = e.sub(vectorOf(row).slot, first);
  for (auto [i, score] : llvm::enumerate(scores)) {
    Value key = number(i / kFragment * kColumns + i % 2);
    Value mine = last[i % kFragment / 2];
    Value hidden = e.less(mine, key);
    if (plan.window > 0)
      hidden = e.orI(hidden, e.less(key, e.sub(mine, number(plan.window - 1))));
    score = e.select(hidden, nothing, score);
  }
}

void WgmmaAttentionEmitter::pack(ArrayRef<Value> scores, State &state) {
  state.probabilities.clear();
  for (size_t i = 0; i < scores.size(); i += 2 * kFragment)
    llvm::append_range(state.probabilities,
                       packOperand(e, scores.slice(i, 2 * kFragment)));
}

void WgmmaAttentionEmitter::emitStep(Value step, bool masked, State &state) {
  Value before = e.sub(step, number(1));
  waitFull(keyRing, step);
  Values scores = startScores(step);
  waitFull(valueRing, before);
  startOutput(before, state);
  scores = finishProducts(e, scores, /*pending=*/1);
  release(keyRing, step);
  if (masked)
    hide(step, scores);
  LaneRows corrections = softmax.step(state.softmax, scores);
  // Without this ptxas waits for the products first.
  Value zero = e.constant(e.f32(), 0.0);
  Value never = e.orI(e.less(state.softmax.sum[0], zero),
                      e.less(state.softmax.sum[1], zero));
  meetWith(e, e.add(e.truncate(consumer(), e.i32()), number(1)),
           kGroupWarps * kWarp, never);
  state.output = finishProducts(e, state.output);
  release(valueRing, before);
  for (auto [i, value] : llvm::enumerate(state.output))
    value = e.mul(value, corrections[i % kFragment / 2]);
  pack(scores, state);
}

void WgmmaAttentionEmitter::run(Value begin, Value end, bool masked,
                                State &state) {
  runSteps(e, begin, end, state,
           [&](Value step, State &next) { emitStep(step, masked, next); });
}

void WgmmaAttentionEmitter::consume() {
  State state;
  state.softmax = softmax.start();
  state.output.assign(layout.headDim / 2, e.constant(e.f32(), 0.0));
  waitFull(keyRing, steps.begin);
  Values scores = finishProducts(e, startScores(steps.begin));
  release(keyRing, steps.begin);
  hide(steps.begin, scores);
  softmax.step(state.softmax, scores);
  pack(scores, state);
  Value second = e.add(steps.begin, number(1));
  Value full = second;
  if (plan.window > 0) {
    run(second, steps.fullBegin, /*masked=*/true, state);
    full = e.maxI(second, steps.fullBegin);
  }
  run(full, steps.fullEnd, /*masked=*/false, state);
  run(e.maxI(full, steps.fullEnd), steps.end, /*masked=*/true, state);
  Value final = e.sub(steps.end, number(1));
  waitFull(valueRing, final);
  startOutput(final, state);
  state.output = finishProducts(e, state.output);
  store(state);
}

void WgmmaAttentionEmitter::store(const State &state) {
  LaneRows inverse = softmax.inverseSums(state.softmax);
  for (int row = 0; row < kLaneRows; ++row) {
    Values line;
    for (int64_t d = 0; d < layout.headDim / kColumns; ++d)
      for (int j = 0; j < 2; ++j)
        line.push_back(
            e.mul(state.output[d * kFragment + 2 * row + j], inverse[row]));
    tile.store(vectorOf(row), line);
  }
}

} // namespace

bool matchesWgmmaAttention(Kernel &k) {
  // int8 pages are TensorAttentionKernel's.
  return k.e.target.gpu.hasWgmma && matchesTensorAttention(k) &&
         !KvLayout(cast<lm::KvCacheType>(planAttention(k.op)->kv.getType()))
              .isInt8;
}

LogicalResult generateWgmmaAttention(Kernel &k) {
  AttentionPlan plan = *planAttention(k.op);
  if (failed(checkAttention(k, plan)))
    return failure();
  WgmmaAttentionEmitter(k, plan).emit();
  return success();
}

} // namespace quern::nvptx
