//===- SplitStates.cpp ----------------------------------------------------===//
#include "codegen/ptx/SplitStates.h"

#include <cmath>

using namespace mlir;

namespace quern::nvptx {

/// Floats of a state in the workspace before its columns: maximum, sum, none.
constexpr int64_t kStateHeader = 4;

SplitStates::SplitStates(Kernel &k, const AttentionPlan &plan,
                         const Shape &shape, Value columns, int64_t columnBytes)
    : k(k), e(k.e), plan(plan), shape(shape), columns(columns),
      columnBytes(columnBytes) {
  maxima = k.shared(shape.warps * kUnitRows * 4);
  sums = k.shared(shape.warps * kUnitRows * 4);
  isLast = k.shared(4);
}

void SplitStates::makeWorkspace() {
  int64_t shareHeads =
      k.widestRange(0, plan.heads * shape.headDim) / shape.headDim;
  stateFloats = kStateHeader + shape.headDim;
  rowStates = shareHeads * shape.mostRuns;
  workspace = k.workspace(rowStates * stateFloats * 4, shareHeads);
  firstHead = e.index(0);
  if (k.splitShares())
    firstHead = e.div(k.rangeBegin(0), e.index(shape.headDim));
}

void SplitStates::store(Value row, Value first, Value end, Value runs) {
  Value heads = e.sub(end, first), one = e.index(1);
  e.ifElse(
      e.equal(runs, one),
      [&] {
        storeResult(row, first, heads, e.index(shape.warps),
                    [&](Value i, Value head) { return ofWarp(i, head); });
      },
      [&] {
        storeRun(row, first, heads);
        Value number = e.add(e.mul(row, e.index(k.launch.countersPerRow)),
                             e.sub(first, firstHead));
        Value counter = e.at(workspace.counters, number, 4);
        e.ifThen(arriveLast(counter, runs), [&] {
          storeResult(row, first, heads, runs, [&](Value i, Value head) {
            return ofRun(row, i, e.add(first, head));
          });
          e.ifThen(e.equal(e.thread(), e.index(0)),
                   [&] { e.store(e.constant(e.i32(), 0), counter, 4); });
        });
      });
}

Value SplitStates::arriveLast(Value counter, Value runs) {
  e.fence(); // this thread's part of the state, before the count
  e.barrier();
  e.ifThen(e.equal(e.thread(), e.index(0)), [&] {
    Value before = e.atomicAdd(counter, e.constant(e.i32(), 1));
    Value last = e.sub(e.truncate(runs, e.i32()), e.constant(e.i32(), 1));
    e.store(e.extendUnsigned(e.equal(before, last), e.i32()), isLast, 4);
  });
  e.barrier();
  e.fence(); // the count, before the others' states
  return e.equal(e.load(e.i32(), isLast, 4), e.constant(e.i32(), 1));
}

SplitStates::Pointers SplitStates::ofWarp(Value warp, Value head) {
  Value number =
      e.mul(e.add(e.mul(warp, e.index(kUnitRows)), head), e.index(4));
  Value lines = e.at(columns, warp, columnBytes);
  return {e.offset(maxima, number), e.offset(sums, number),
          e.at(lines, head, shape.headDim * 4)};
}

SplitStates::Pointers SplitStates::ofRun(Value row, Value run, Value head) {
  Value number =
      e.add(e.mul(row, e.index(rowStates)),
            e.add(e.mul(e.sub(head, firstHead), e.index(shape.mostRuns)), run));
  Value state = e.at(workspace.data, number, stateFloats * 4);
  return {state, e.offset(state, 4), e.offset(state, kStateHeader * 4)};
}

void SplitStates::leave(const SoftmaxState &softmax, ValueRange output) {
  Value group = e.div(e.lane(), e.index(4)), lane = e.rem(e.lane(), e.index(4));
  for (int i = 0; i < kLaneRows; ++i) {
    Value head = e.add(group, e.index(i * kUnitRows / 2));
    Pointers to = ofWarp(e.warp(), head);
    Value sum = e.warpSum(softmax.sum[i], 4);
    e.ifThen(e.equal(lane, e.index(0)), [&] {
      e.store(softmax.maximum[i], to.maximum, 4);
      e.store(sum, to.sum, 4);
    });
    Value line = e.at(to.columns, lane, 8);
    for (int64_t tile = 0; tile < shape.headDim / kMmaColumns; ++tile)
      e.store(e.pack(output.slice(tile * kFragment + 2 * i, 2)),
              e.offset(line, tile * kMmaColumns * 4), 8);
  }
}

SplitStates::Joined SplitStates::join(Value count, Value column,
                                      function_ref<Pointers(Value)> state) {
  Value zero = e.constant(e.f32(), 0.0);
  Value factor = e.constant(e.f32(), plan.scale * M_LOG2E);
  Value best =
      e.forLoop(e.index(0), count, 1,
                {OnlineSoftmax(e, plan.scale).start().maximum[0]},
                [&](Value i, ValueRange best) {
                  return Values{e.maxF(best.front(),
                                       e.load(e.f32(), state(i).maximum, 4))};
                })
          .front();
  Values sums = e.forLoop(
      e.index(0), count, 1, {zero, zero}, [&](Value i, ValueRange carried) {
        Pointers from = state(i);
        Value weight = e.exp2Fast(
            e.mul(e.sub(e.load(e.f32(), from.maximum, 4), best), factor));
        Value at = e.at(from.columns, column, 4);
        return Values{e.fma(e.load(e.f32(), from.sum, 4), weight, carried[0]),
                      e.fma(e.load(e.f32(), at, 4), weight, carried[1])};
      });
  return {best, sums[0], sums[1]};
}

void SplitStates::forColumns(Value heads,
                             function_ref<void(Value, int64_t, Value)> body) {
  e.forLoop(e.warp(), heads, shape.warps, [&](Value head) {
    for (int64_t first = 0; first < shape.headDim; first += kWarp) {
      // Lanes past the last column repeat it.
      Value column =
          e.minI(e.add(e.lane(), e.index(first)), e.index(shape.headDim - 1));
      body(head, first, column);
    }
  });
}

void SplitStates::storeRun(Value row, Value first, Value heads) {
  forColumns(heads, [&](Value head, int64_t, Value column) {
    Joined joined = join(e.index(shape.warps), column,
                         [&](Value warp) { return ofWarp(warp, head); });
    Pointers to = ofRun(row, e.block(2), e.add(first, head));
    e.store(joined.column, e.at(to.columns, column, 4), 4);
    e.ifThen(e.equal(column, e.index(0)), [&] {
      e.store(joined.maximum, to.maximum, 4);
      e.store(joined.sum, to.sum, 4);
    });
  });
}

void SplitStates::storeResult(Value row, Value first, Value heads, Value count,
                              function_ref<Pointers(Value, Value)> state) {
  forColumns(heads, [&](Value head, int64_t firstColumn, Value column) {
    Joined joined =
        join(count, column, [&](Value i) { return state(i, head); });
    storeAttended(k, plan, shape.headDim, row, e.add(first, head), firstColumn,
                  e.div(joined.column, joined.sum));
  });
}

} // namespace quern::nvptx
