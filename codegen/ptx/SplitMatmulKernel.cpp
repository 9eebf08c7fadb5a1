//===- SplitMatmulKernel.cpp - Matmuls of few tokens on tensor cores ------===//
//
// Products of at most 8 rows of f16 with packed weights by mma.m16n8k16. The
// warps of a block share a row block, each taking every kWarps-th group of K;
// their sums are added in their order. Weights and activations go straight into
// registers, weights a group ahead of their use.
//
//===----------------------------------------------------------------------===//
#include "codegen/ptx/TensorProducts.h"

using namespace mlir;

namespace quern::nvptx {
namespace {

constexpr int64_t kWarps = 8;
/// Accumulators of an mma.
constexpr int64_t kSums = 4;

class SplitEmitter : public TensorProducts {
public:
  SplitEmitter(Kernel &k, const MatmulPlan &plan)
      : TensorProducts(
            k, plan, {.rowUnit = kMmaTokens, .warps = 1, .sums = kMmaTokens}) {}

private:
  using Decoders = ArrayRef<WeightDecoder>;

  void launch(GridFactor columns) override;
  void compute(ArrayRef<Stream> streams, Value firstGroup, Value groups,
               Visit visit) override;
  void visitZeros(ArrayRef<Stream> streams, Visit visit) override {
    visitSums(streams, Values(streamCount * kSums, e.constant(e.f32(), 0.0)),
              visit);
  }
  Value place() override { return e.index(0); }

  /// This warp's sums, [stream][kSums].
  Values multiply(ArrayRef<Value> bases, Decoders decoders, Value firstGroup,
                  Value groups);
  /// All streams' fragments of group `index`, flat; past the last group, it
  /// again.
  Values load(ArrayRef<Value> bases, Decoders decoders, Value index,
              Value groups);
  /// Adds all warps' sums and visits them.
  void visitSums(ArrayRef<Stream> streams, ValueRange sums, Visit visit);

  Value partials; ///< shared f32 [warp][stream][kSums][lane]
};

void SplitEmitter::launch(GridFactor columns) {
  k.launch.blockThreads = kWarps * kWarp;
  k.launch.grid = {columns, {GridCount::Rows, static_cast<uint32_t>(tokens)}};
  partials = k.shared(kWarps * streamCount * kSums * kWarp * 4);
}

void SplitEmitter::compute(ArrayRef<Stream> streams, Value firstGroup,
                           Value groups, Visit visit) {
  SmallVector<Value> bases;
  for (const Stream &stream : streams)
    bases.push_back(stream.base(place()));
  Values sums = byFormats(streams, [&](Decoders decoders) {
    return multiply(bases, decoders, firstGroup, groups);
  });
  visitSums(streams, sums, visit);
}

Emitter::Values SplitEmitter::load(ArrayRef<Value> bases, Decoders decoders,
                                   Value index, Value groups) {
  Values loaded;
  Value at = e.minI(index, e.sub(groups, e.index(1)));
  for (auto [base, decoder] : llvm::zip_equal(bases, decoders)) {
    Value row = decoder.fragmentRow(e.lane(), 0);
    llvm::append_range(
        loaded, decoder.loadFragment(decoder.group(base, at, row), e.lane()));
  }
  return loaded;
}

Emitter::Values SplitEmitter::multiply(ArrayRef<Value> bases, Decoders decoders,
                                       Value firstGroup, Value groups) {
  int64_t sumCount = streamCount * kSums;
  Values carried(sumCount, e.constant(e.f32(), 0.0));
  llvm::append_range(carried, load(bases, decoders, e.warp(), groups));
  Value rows =
      e.offset(k.activationRow(k.argument(plan.x), firstRow, plan.depth()),
               e.mul(e.lane(), e.index(4)));
  Values result = e.forLoop(
      e.warp(), groups, kWarps, carried, [&](Value index, ValueRange state) {
        Values next(state.take_front(sumCount)), b;
        Value at = e.offset(
            rows, e.mul(e.add(index, firstGroup), e.index(kHalfGroupBytes)));
        for (int64_t i = 0; i < 4; ++i)
          b.push_back(e.load(e.i32(), e.offset(at, i * kHalfBlockBytes), 4));
        Values ahead =
            load(bases, decoders, e.add(index, e.index(kWarps)), groups);
        ValueRange loaded = state.drop_front(sumCount);
        for (auto [i, decoder] : llvm::enumerate(decoders)) {
          unsigned size = decoder.fragmentSize();
          accumulate(decoder.decodeFragment(loaded.take_front(size), e.lane()),
                     b, MutableArrayRef(next).slice(i * kSums, kSums));
          loaded = loaded.drop_front(size);
        }
        llvm::append_range(next, ahead);
        return next;
      });
  result.truncate(sumCount);
  return result;
}

void SplitEmitter::visitSums(ArrayRef<Stream> streams, ValueRange sums,
                             Visit visit) {
  int64_t warpBytes = streamCount * kSums * kWarp * 4;
  Value mine = e.offset(partials, e.add(e.mul(e.warp(), e.index(warpBytes)),
                                        e.mul(e.lane(), e.index(4))));
  for (auto [i, sum] : llvm::enumerate(sums))
    e.store(sum, e.offset(mine, i * kWarp * 4), 4);
  e.barrier();
  // A thread has an output of a token, neighbours of it neighbouring outputs.
  e.forLoop(
      e.thread(), e.index(kMmaTokens * kPackedRows), kWarps * kWarp,
      [&](Value item) {
        Value output = e.rem(item, e.index(kPackedRows)),
              token = e.div(item, e.index(kPackedRows));
        Value row = e.add(firstRow, token);
        e.ifThen(e.less(row, k.rows()), [&] {
          // Which half of which lane quad has the output.
          Values held = byFormat(
              e, streams.front().formats, [&](const WeightDecoder &decoder) {
                Value first = e.index(decoder.fragmentRowFirst()),
                      step = e.index(decoder.fragmentRowStep());
                return decoder.format.isFloat()
                           ? Values{e.div(output, step), e.rem(output, step)}
                           : Values{e.rem(output, first), e.div(output, first)};
              });
          Value lane =
              e.add(e.mul(held[1], e.index(4)), e.div(token, e.index(2)));
          Value sum =
              e.add(e.mul(held[0], e.index(2)), e.rem(token, e.index(2)));
          Value at =
              e.offset(partials, e.mul(e.add(e.mul(sum, e.index(kWarp)), lane),
                                       e.index(4)));
          SmallVector<Value> values;
          for (int64_t i = 0; i < streamCount; ++i) {
            Value total;
            for (int64_t warp = 0; warp < kWarps; ++warp) {
              Value part = e.load(
                  e.f32(),
                  e.offset(at, warp * warpBytes + i * kSums * kWarp * 4), 4);
              total = total ? e.add(total, part) : part;
            }
            values.push_back(total);
          }
          visit(place(), output, row, values);
        });
      });
}

} // namespace

LogicalResult generateSplitMatmul(Kernel &k, const MatmulPlan &plan) {
  return SplitEmitter(k, plan).emit();
}

} // namespace quern::nvptx
