//===- RopeAppendPlan.cpp -------------------------------------------------===//
#include "codegen/kernels/RopeAppendPlan.h"

#include <cmath>

using namespace mlir;

namespace quern {

static bool sameAngles(lm::RopeOp a, lm::RopeOp b) {
  return a.getRotaryDim() == b.getRotaryDim() && a.getBase() == b.getBase() &&
         a.getFactors() == b.getFactors() &&
         a.getPositions() == b.getPositions();
}

std::optional<RopeAppendPlan> planRopeAppend(rt::KernelOp kernel) {
  RopeAppendPlan plan;
  llvm::DenseMap<Value, unsigned> segments;
  lm::RopeOp before;
  unsigned next = 0;
  for (Operation &op : kernel.getBody().front().without_terminator()) {
    if (auto rope = dyn_cast<lm::RopeOp>(op)) {
      segments[rope.getResult()] = next;
      plan.steps.push_back(
          {rope, {}, next++, !before || !sameAngles(rope, before)});
      plan.angles = std::max<int64_t>(plan.angles, rope.getRotaryDim() / 2);
      before = rope;
      continue;
    }
    auto append = dyn_cast<lm::KvAppendOp>(op);
    if (!append)
      return std::nullopt;
    auto known = segments.find(append.getK());
    unsigned segment = known == segments.end() ? next : known->second;
    plan.steps.push_back({{}, append, segment, false});
  }
  return plan;
}

std::pair<Value, Value> sinCos(IrEmitter &e, Value angle) {
  Type type = angle.getType();
  auto c = [&](double value) { return e.constant(type, value); };
  Value n = e.roundEven(e.mul(angle, c(M_2_PI)));
  Value r = e.fma(n, c(-M_PI_2), angle);
  r = e.fma(n, c(-6.123233995736766e-17), r);
  Value r2 = e.mul(r, r);
  auto series = [&](ArrayRef<double> coefficients) {
    Value p = c(coefficients.front());
    for (double coefficient : coefficients.drop_front())
      p = e.fma(p, r2, c(coefficient));
    return p;
  };
  Value sine = e.mul(r, series({-1.0 / 39916800, 1.0 / 362880, -1.0 / 5040,
                                1.0 / 120, -1.0 / 6, 1.0}));
  Value cosine = series({1.0 / 479001600, -1.0 / 3628800, 1.0 / 40320,
                         -1.0 / 720, 1.0 / 24, -0.5, 1.0});
  Value quadrant = e.toInt(n, e.i32());
  Type ints = quadrant.getType();
  auto bit = [&](Value value, int mask) {
    Value set = e.andI(value, e.constant(ints, mask));
    return e.equal(set, e.constant(ints, mask));
  };
  Value odd = bit(quadrant, 1);
  Value s = e.select(odd, cosine, sine), co = e.select(odd, sine, cosine);
  Value minus = c(-1.0);
  s = e.select(bit(quadrant, 2), e.mul(s, minus), s);
  co = e.select(bit(e.add(quadrant, e.constant(ints, 1)), 2), e.mul(co, minus),
                co);
  return {s, co};
}

} // namespace quern
