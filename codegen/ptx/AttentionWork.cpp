//===- AttentionWork.cpp --------------------------------------------------===//
#include "codegen/ptx/AttentionWork.h"

#include "codegen/ptx/KvPages.h"

#include "mlir/Dialect/LLVMIR/NVVMDialect.h"

using namespace mlir;

namespace quern::nvptx {

AttentionWork::AttentionWork(Kernel &k, const AttentionPlan &plan)
    : layout(cast<lm::KvCacheType>(plan.kv.getType())) {
  auto type = cast<lm::KvCacheType>(plan.kv.getType());
  heads = plan.heads;
  kvHeads = type.getHeads();
  headDim = type.getHeadDim();
  groupHeads = heads / kvHeads;
  unitHeads = std::min(groupHeads, kMaxHeads);
}

GridFactor AttentionWork::gridFactor() const {
  return {GridCount::Columns, static_cast<uint32_t>(headDim * unitHeads)};
}

void AttentionWork::forUnits(
    Kernel &k, function_ref<void(Value, Value, Value)> body) const {
  Emitter &e = k.e;
  Value begin = e.index(0), end = e.index(heads);
  if (k.splitShares()) {
    begin = e.div(k.rangeBegin(0), e.index(headDim));
    end = e.div(k.rangeEnd(0), e.index(headDim));
  }
  // Units of a KV head, then those of the next.
  int64_t perKv = (groupHeads + unitHeads - 1) / unitHeads;
  Value kvBegin = e.div(begin, e.index(groupHeads));
  Value kvEnd = e.div(e.add(end, e.index(groupHeads - 1)), e.index(groupHeads));
  Value units = e.mul(e.sub(kvEnd, kvBegin), e.index(perKv));
  Value blocks =
      e.extendUnsigned(NVVM::GridDimXOp::create(e.b, e.loc, e.i32()), e.i64());
  Value turns = e.div(e.add(units, e.sub(blocks, e.index(1))), blocks);
  e.forLoop(e.index(0), turns, 1, [&](Value turn) {
    Value unit = e.add(e.mul(turn, blocks), e.block(0));
    Value kvHead = e.add(kvBegin, e.div(unit, e.index(perKv)));
    Value groupBegin = e.mul(kvHead, e.index(groupHeads));
    Value first = e.add(groupBegin,
                        e.mul(e.rem(unit, e.index(perKv)), e.index(unitHeads)));
    Value last = e.minI(e.add(first, e.index(unitHeads)),
                        e.minI(e.add(groupBegin, e.index(groupHeads)), end));
    first = e.maxI(first, begin);
    Value some = e.andI(e.less(unit, units), e.less(first, last));
    e.ifThen(some, [&] { body(kvHead, first, last); });
  });
}

Value AttentionWork::headPointer(Kernel &k, const KvArgs &kv, Value page,
                                 Value kvHead) const {
  Emitter &e = k.e;
  Value pointer = e.offset(kv.pool, e.mul(page, k.pageBytes()));
  return e.at(pointer, kvHead, layout.headBytes());
}

LogicalResult checkAttention(Kernel &k, const AttentionPlan &plan) {
  auto type = cast<lm::KvCacheType>(plan.kv.getType());
  if (failed(checkKvCache(k, type)))
    return failure();
  int64_t unit = plan.quantized ? 32 : 1;
  if (type.getHeadDim() % unit != 0)
    return k.emitError() << "expected head_dim to be a multiple of " << unit
                         << ", got " << type.getHeadDim();
  return success();
}

void storeAttended(Kernel &k, const AttentionPlan &plan, int64_t headDim,
                   Value row, Value head, int64_t column, Value value) {
  Emitter &e = k.e;
  int64_t columns = plan.heads * headDim;
  for (auto [i, result] : llvm::enumerate(k.yielded())) {
    if (result == plan.quantized) {
      Value target = k.activationRow(k.result(i), row, columns);
      Value group =
          e.add(e.mul(head, e.index(headDim / 32)), e.index(column / 32));
      storeActivation(e, target, group, e.lane(), value);
      continue;
    }
    Value at =
        e.add(e.mul(row, e.index(columns)), e.mul(head, e.index(headDim)));
    at = e.add(at, e.add(e.lane(), e.index(column)));
    auto put = [&] { e.store(value, e.at(k.result(i), at, 4), 4); };
    if (column + kWarp <= headDim)
      put();
    else
      e.ifThen(e.less(e.lane(), e.index(headDim - column)), put);
  }
}

} // namespace quern::nvptx
