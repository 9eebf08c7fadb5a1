//===- RowwiseKernel.cpp - Kernels in which rows are independent ----------===//
//
// A piece is two vectors, all 32 columns of a group. What only later ops of the
// body read stays in a row of scratch, in L1.
//
//===----------------------------------------------------------------------===//
#include "codegen/host/Kernel.h"
#include "codegen/kernels/RowwiseEmitter.h"

using namespace mlir;

namespace quern::host {
namespace {

class HostRowwise : public RowwiseEmitter {
public:
  explicit HostRowwise(Kernel &k)
      : RowwiseEmitter(k, k.e), k(k), e(k.e), lanes(e.vec(kLanes, e.f32())) {}

private:
  Values forGroups(int64_t groups, ValueRange inits, GroupBody body) override {
    return e.forLoop(e.index(0), e.index(groups), 1, inits, body);
  }
  Values load(Value row, Value group) override {
    Value at = e.at(row, group, 128);
    return {e.load(lanes, at, 4), e.load(lanes, e.offset(at, 64), 4)};
  }
  void store(ValueRange piece, Value row, Value group) override {
    Value at = e.at(row, group, 128);
    e.store(piece[0], at, 4);
    e.store(piece[1], e.offset(at, 64), 4);
  }
  Values loadActivations(Value row, Value rows, Value group) override;
  void storeActivations(ValueRange piece, Value row, Value rows,
                        Value group) override {
    storeActivationGroup(k, row, columnsOf(rows), group, piece[0], piece[1]);
  }
  Values zeros() override {
    Value zero = e.constant(lanes, 0.0);
    return {zero, zero};
  }
  Value spread(Value scalar) override { return e.broadcast(scalar); }
  Value total(ValueRange piece) override {
    return e.reduceAdd(e.add(piece[0], piece[1]));
  }

  Kernel &k;
  Emitter &e;
  Type lanes;
};

HostRowwise::Values HostRowwise::loadActivations(Value row, Value rows,
                                                 Value group) {
  Values piece;
  for (int half = 0; half < 2; ++half) {
    if (k.numerics == Numerics::Bf16) {
      Value at = e.offset(e.at(row, group, 64), 32 * half);
      piece.push_back(
          e.extend(e.load(e.vec(kLanes, e.bf16()), at, 2), e.f32()));
      continue;
    }
    Value at = e.offset(e.at(row, group, 32), 16 * half);
    Value codes = e.extend(e.load(e.vec(kLanes, e.i8()), at), e.i32());
    Value scales = e.offset(row, activationScaleOffset(columnsOf(rows)));
    Value at8 = e.add(e.mul(group, e.index(8)), e.index(4 * half));
    Value scale = e.load(e.f32(), e.offset(scales, at8), 4);
    piece.push_back(e.mul(e.toFloat(codes, e.f32()), e.broadcast(scale)));
  }
  return piece;
}

} // namespace

bool matchesRowwise(Kernel &k) { return !k.splitShares(); }

LogicalResult generateRowwise(Kernel &k) {
  Emitter &e = k.e;
  HostRowwise rows(k);
  LogicalResult status = success();
  e.forLoop(k.rangeBegin(0), k.rangeEnd(0), 1,
            [&](Value row) { status = rows.emitRow(row); });
  return status;
}

} // namespace quern::host
