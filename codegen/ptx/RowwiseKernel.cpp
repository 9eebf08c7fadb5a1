//===- RowwiseKernel.cpp - Kernels in which rows are independent ----------===//
//
// A block per row. A warp takes every kWarps-th group of 32 columns, and a
// piece is one column of it. A column stays with its thread from op to op, so
// what one wrote the next reads without a barrier; only norms join the threads.
//
//===----------------------------------------------------------------------===//
#include "codegen/kernels/RowwiseEmitter.h"
#include "codegen/ptx/Kernel.h"

using namespace mlir;

namespace quern::nvptx {
namespace {

constexpr int64_t kWarps = 8;

class GpuRowwise : public RowwiseEmitter {
public:
  explicit GpuRowwise(Kernel &k) : RowwiseEmitter(k, k.e), k(k), e(k.e) {}

private:
  Values forGroups(int64_t groups, ValueRange inits, GroupBody body) override {
    return e.forLoop(e.warp(), e.index(groups), kWarps, inits, body);
  }
  Value columnAt(Value row, Value group) {
    Value column = e.add(e.mul(group, e.index(32)), e.lane());
    return e.at(row, column, 4);
  }
  Values load(Value row, Value group) override {
    return {e.load(e.f32(), columnAt(row, group), 4)};
  }
  void store(ValueRange piece, Value row, Value group) override {
    e.store(piece[0], columnAt(row, group), 4);
  }
  Values loadActivations(Value row, Value rows, Value group) override;
  void storeActivations(ValueRange piece, Value row, Value rows,
                        Value group) override;
  Value factorOfRow(Value source, Value row, Value rows) override;
  Values zeros() override { return {e.constant(e.f32(), 0.0)}; }
  Value spread(Value scalar) override { return scalar; }
  Value total(ValueRange piece) override {
    return join(e.warpSum(piece[0]),
                [&](Value x, Value y) { return e.add(x, y); });
  }
  /// What all warps' values are together, in their order.
  Value join(Value mine, function_ref<Value(Value, Value)> combine);

  Kernel &k;
  Emitter &e;
};

Value GpuRowwise::join(Value mine, function_ref<Value(Value, Value)> combine) {
  Value values = k.shared(4 * kWarps);
  e.ifThen(e.equal(e.lane(), e.index(0)),
           [&] { e.store(mine, e.at(values, e.warp(), 4), 4); });
  e.barrier();
  Value joined = e.load(e.f32(), values, 4);
  for (int64_t warp = 1; warp < kWarps; ++warp)
    joined = combine(joined, e.load(e.f32(), e.offset(values, 4 * warp), 4));
  return joined;
}

GpuRowwise::Values GpuRowwise::loadActivations(Value row, Value rows,
                                               Value group) {
  if (!k.hasFp8Rows(rows)) {
    Value value = e.load(e.f16(), halfAt(e, row, group, e.lane()), 2);
    return {e.extend(value, e.f32())};
  }
  Value code = e.load(e.i8(), fp8At(e, row, group, e.lane()));
  Value scale = e.load(e.f32(), fp8ScaleAt(e, row, columnsOf(rows)), 4);
  return {e.mul(scale, e.e4m3ToFloat(e.extendUnsigned(code, e.i32())))};
}

void GpuRowwise::storeActivations(ValueRange piece, Value row, Value rows,
                                  Value group) {
  if (k.hasFp8Rows(rows))
    e.store(e.truncate(e.packE4m3(piece[0], piece[0]), e.i8()),
            fp8At(e, row, group, e.lane()));
  else
    storeActivation(e, row, group, e.lane(), piece[0]);
}

/// As quantizeRow() of E4M3 does it: the largest magnitude becomes 448.
Value GpuRowwise::factorOfRow(Value source, Value row, Value rows) {
  if (!k.hasFp8Rows(rows))
    return {};
  Value zero = e.constant(e.f32(), 0.0);
  auto larger = [&](Value x, Value y) { return e.maxNumber(x, y); };
  Value mine =
      forGroups(columnsOf(rows) / 32, zero, [&](Value group, ValueRange most) {
        return Values{larger(e.absF(load(source, group)[0]), most[0])};
      }).front();
  Value scale =
      e.div(join(e.warpMax(mine), larger), e.constant(e.f32(), kLargestE4m3));
  // Without a finite inverse, the row is as good as zeros.
  Value isZero = e.less(scale, e.constant(e.f32(), 0x1p-126));
  scale = e.select(isZero, zero, scale);
  e.ifThen(e.equal(e.thread(), e.index(0)),
           [&] { e.store(scale, fp8ScaleAt(e, row, columnsOf(rows)), 4); });
  return e.select(isZero, zero, e.div(e.constant(e.f32(), 1.0), scale));
}

} // namespace

bool matchesRowwise(Kernel &k) { return !k.splitShares(); }

LogicalResult generateRowwise(Kernel &k) {
  Emitter &e = k.e;
  GpuRowwise rows(k);
  k.launch.blockThreads = kWarps * kWarp;
  k.launch.grid = {{GridCount::Rows, 1}};
  Value row = e.add(k.rangeBegin(0), e.block(0));
  LogicalResult status = success();
  e.ifThen(e.less(row, k.rangeEnd(0)), [&] { status = rows.emitRow(row); });
  return status;
}

} // namespace quern::nvptx
