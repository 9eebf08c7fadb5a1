//===- AttentionTile.cpp --------------------------------------------------===//
#include "codegen/ptx/AttentionTile.h"

#include "codegen/ptx/KvPages.h"
#include "runtime/schema/kernel_abi.h"

using namespace mlir;

namespace quern::nvptx {

AttentionTile::AttentionTile(Kernel &k, const AttentionPlan &plan,
                             int64_t blockVectors, int64_t stepKeys)
    : layout(cast<lm::KvCacheType>(plan.kv.getType())), k(k), e(k.e),
      plan(plan), kvHeads(cast<lm::KvCacheType>(plan.kv.getType()).getHeads()),
      groupHeads(plan.heads / kvHeads), blockVectors(blockVectors),
      stepKeys(stepKeys), kv(k.kvArgument(plan.kv)) {}

void AttentionTile::forWork(function_ref<void()> body) {
  int64_t most = e.target.attentionTileRows * groupHeads;
  uint32_t parts = (most + blockVectors - 1) / blockVectors;
  k.launch.grid = {{GridCount::One, static_cast<uint32_t>(kvHeads)},
                   {GridCount::AttentionTiles, 1},
                   {GridCount::One, parts}};
  // Later tiles see more keys, so they begin first.
  Value tile = e.sub(e.sub(k.attentionTiles(), e.index(1)), e.block(1));
  Value entry = e.mul(tile, e.index(kAttentionTileFields));
  auto field = [&](int i) {
    return e.loadIndex(kv.tiles, e.add(entry, e.index(i)));
  };
  Value row = field(0), rows = narrow(field(1)), sequence = field(2);
  firstRow = narrow(row);
  firstSlot = narrow(e.loadIndex(kv.slots, row));
  lastSlot = e.add(firstSlot, e.sub(rows, number(1)));
  pages = e.at(kv.pageTable, e.mul(sequence, k.pageTableStride()), 4);
  // The share's heads of the group; there may be none.
  Value kvHead = e.block(0), group = e.index(groupHeads);
  Value begin = e.div(k.rangeBegin(0), e.index(layout.headDim));
  Value end = e.div(k.rangeEnd(0), e.index(layout.headDim));
  Value first = e.mul(kvHead, group);
  end = e.minI(e.add(first, group), end);
  first = e.maxI(first, begin);
  headPool = e.at(kv.pool, kvHead, layout.headBytes());
  firstHead = narrow(first);
  heads = narrow(e.sub(end, first));
  vectors = e.mul(rows, heads);
  firstVector = e.mul(narrow(e.block(2)), number(blockVectors));
  // Divided only inside, where there are heads.
  Value some = e.less(first, end);
  e.ifThen(e.andI(some, e.less(firstVector, vectors)), body);
}

AttentionTile::Vector AttentionTile::vector(Value i) {
  Value all = e.add(firstVector, i);
  Value inside = e.less(all, vectors);
  Value clamped = e.minI(all, e.sub(vectors, number(1)));
  Value row = e.div(clamped, heads);
  Value head = e.sub(clamped, e.mul(row, heads));
  return {e.add(firstRow, row), e.add(firstHead, head), e.add(firstSlot, row),
          inside};
}

Value AttentionTile::pointer(Value tensor, const Vector &vector) {
  Value head =
      e.add(e.mul(wide(vector.row), e.index(plan.heads)), wide(vector.head));
  return e.at(tensor, head, 4 * layout.headDim);
}

void AttentionTile::loadQueries(Value shared) {
  // Neighbouring threads write neighbouring 16 bytes: vector, then dims.
  int64_t blocks = layout.headDim / kBlockSide;
  Value side = number(kBlockSide);
  e.forLoop(
      narrow(e.thread()), number(blockVectors * blocks), k.launch.blockThreads,
      [&](Value i) {
        Value block = e.div(i, side);
        Value v =
            e.add(e.mul(e.div(block, number(blocks)), side), e.rem(i, side));
        Value from = e.offset(
            pointer(k.argument(plan.q), vector(v)),
            wide(e.mul(e.rem(block, number(blocks)), number(4 * kBlockSide))));
        Emitter::Values halves;
        for (int64_t half = 0; half < 2; ++half) {
          Value four = e.load(e.vec(4, e.f32()), e.offset(from, 16 * half), 16);
          for (int64_t j = 0; j < 4; ++j)
            halves.push_back(e.clampToHalf(e.extract(four, j)));
        }
        Value to = e.offset(shared, wide(e.mul(i, number(2 * kBlockSide))));
        e.store(e.truncate(e.pack(halves), e.f16()), to, 16);
      });
}

void AttentionTile::store(const Vector &vector, ArrayRef<Value> columns) {
  for (auto [i, result] : llvm::enumerate(k.yielded()))
    if (result == plan.quantized)
      storeNumericRow(k.result(i), vector, columns);
    else
      storeFloats(k.result(i), vector, columns);
}

void AttentionTile::storeFloats(Value tensor, const Vector &vector,
                                ArrayRef<Value> columns) {
  e.ifThen(vector.inside, [&] {
    Value first = e.mul(e.rem(e.lane(), e.index(4)), e.index(8));
    Value line = e.offset(pointer(tensor, vector), first);
    for (size_t i = 0; i < columns.size(); i += 2)
      e.store(e.pack(columns.slice(i, 2)),
              e.offset(line, 4 * kBlockSide * (i / 2)), 8);
  });
}

void AttentionTile::storeNumericRow(Value buffer, const Vector &vector,
                                    ArrayRef<Value> columns) {
  // Of a group of 32 columns a lane has 8 c + 2 q and the next, c < 4, q =
  // lane % 4. Lanes 2 s and 2 s + 1 have the 16 columns of the row in blocks
  // 2 s (the even ones) and 2 s + 1 (the odd ones); each takes one of both.
  Value lane = e.lane(), two = e.index(2);
  Value odd = e.equal(e.rem(lane, two), e.index(1));
  Value row =
      k.activationRow(buffer, wide(vector.row), plan.heads * layout.headDim);
  Value group = e.mul(wide(vector.head), e.index(layout.headDim / 32));
  Value pairOfLanes = e.rem(e.div(lane, two), two);
  Value column = e.add(e.mul(pairOfLanes, e.index(4)), e.rem(lane, two));
  Value line = halfAt(e, row, group, column);
  constexpr size_t kGroupColumns = 8; // of a lane
  for (size_t i = 0; i < columns.size(); i += kGroupColumns) {
    Emitter::Values halves;
    for (size_t c = i; c < i + kGroupColumns; c += 2) {
      Value keep = e.select(odd, columns[c + 1], columns[c]);
      Value give = e.select(odd, columns[c], columns[c + 1]);
      Value got = e.shuffleXor(give, 1);
      halves.push_back(e.clampToHalf(e.select(odd, got, keep)));
      halves.push_back(e.clampToHalf(e.select(odd, keep, got)));
    }
    e.ifThen(vector.inside, [&] {
      Value to = e.offset(line, i / kGroupColumns * kHalfGroupBytes);
      e.store(e.truncate(e.pack(halves), e.f16()), to, kHalfBlockRowBytes);
    });
  }
}

AttentionTile::Steps AttentionTile::steps() {
  Value zero = number(0), one = number(1), keys = number(stepKeys);
  Value count = e.minI(e.add(firstVector, number(blockVectors)), vectors);
  Value low = e.add(firstSlot, e.div(firstVector, heads));
  Value high = e.add(firstSlot, e.div(e.sub(count, one), heads));
  Steps steps;
  steps.begin = zero;
  steps.fullBegin = zero;
  steps.end = e.add(e.div(high, keys), one);
  if (plan.window > 0) {
    auto oldest = [&](Value slot) {
      return e.maxI(zero, e.sub(slot, number(plan.window - 1)));
    };
    steps.begin = e.div(oldest(low), keys);
    Value full = e.div(e.add(oldest(high), number(stepKeys - 1)), keys);
    steps.fullBegin = e.minI(full, steps.end);
  }
  steps.fullEnd = e.maxI(steps.fullBegin, e.div(e.add(low, one), keys));
  return steps;
}

Emitter::Values AttentionTile::poolPages(Value step) {
  Emitter::Values result;
  Value last = e.div(lastSlot, number(layout.page));
  for (int64_t i = 0; i < stepPages(); ++i) {
    Value page = e.add(e.mul(step, number(stepPages())), number(i));
    Value at = e.mul(wide(e.minI(page, last)), e.index(4));
    result.push_back(e.load(e.i32(), e.offset(pages, at), 4));
  }
  return result;
}

Value AttentionTile::headPointer(Value poolPage, Value byte) {
  // A page has less than 4 GiB: a product of two 32-bit numbers.
  Value pageBytes = wide(narrow(k.pageBytes()));
  // What no step changes comes first, so that it stays outside of the loop.
  return e.offset(e.offset(headPool, byte), e.mul(wide(poolPage), pageBytes));
}

} // namespace quern::nvptx
