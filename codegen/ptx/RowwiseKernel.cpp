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
    return e.offset(row, e.mul(column, e.index(4)));
  }
  Values load(Value row, Value group) override {
    return {e.load(e.f32(), columnAt(row, group), 4)};
  }
  void store(ValueRange piece, Value row, Value group) override {
    e.store(piece[0], columnAt(row, group), 4);
  }
  Values loadActivations(Value row, int64_t, Value group) override {
    Value value = e.load(e.f16(), halfAt(e, row, group, e.lane()), 2);
    return {e.extend(value, e.f32())};
  }
  void storeActivations(ValueRange piece, Value row, int64_t,
                        Value group) override {
    storeActivation(e, row, group, e.lane(), piece[0]);
  }
  Values zeros() override { return {e.constant(e.f32(), 0.0)}; }
  Value spread(Value scalar) override { return scalar; }
  Value total(ValueRange piece) override;

  Kernel &k;
  Emitter &e;
};

Value GpuRowwise::total(ValueRange piece) {
  Value sums = k.shared(4 * kWarps);
  Value sum = e.warpSum(piece[0]);
  e.ifThen(e.equal(e.lane(), e.index(0)), [&] {
    e.store(sum, e.offset(sums, e.mul(e.warp(), e.index(4))), 4);
  });
  e.barrier();
  Value total = e.load(e.f32(), sums, 4);
  for (int64_t warp = 1; warp < kWarps; ++warp)
    total = e.add(total, e.load(e.f32(), e.offset(sums, 4 * warp), 4));
  return total;
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
