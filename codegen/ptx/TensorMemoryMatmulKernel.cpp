//===- TensorMemoryMatmulKernel.cpp - Prompt matmuls of sm_100a -----------===//
//
// Products of f16 numeric rows with packed weights by tcgen05, for steps of
// many tokens. A block of the grid has 128 outputs of a tile of tokens; its
// sums lie in tensor memory, an output a lane and a token a column. Ten warps:
//
//   producer   one: brings stages of two groups of K (64 columns) with bulk
//              copies, the activations, which lie in core matrices as tensor
//              cores want B, and the weights of the row blocks, packed
//   decoders   eight, a row block of 16 outputs each (of gate and of up, where
//              these are joined): decode it to f16 core matrices in shared
//              memory, A
//   issuer     one, of which one thread starts the products of a stage as soon
//              as it is decoded; when they are over, the stage is free
//
// In the end the decoders read the sums and store them. A token is a column of
// its own and K is summed in ascending order: a row's result depends neither on
// the rows beside it nor on the grid.
//
//===----------------------------------------------------------------------===//
#include "codegen/kernels/MatmulPlan.h"
#include "codegen/ptx/Blackwell.h"
#include "codegen/ptx/Kernel.h"
#include "codegen/ptx/OutputTiles.h"
#include "codegen/ptx/TensorProducts.h"

#include <optional>

using namespace mlir;

namespace quern::nvptx {
namespace {

constexpr int64_t kDecoderWarps = kTensorRows / kPackedRows;
constexpr int64_t kProducerWarp = kDecoderWarps;
constexpr int64_t kIssuerWarp = kDecoderWarps + 1;
constexpr int64_t kThreads = (kDecoderWarps + 2) * kWarp;

/// Products of 16 columns in a group.
constexpr int64_t kSteps = 2;
/// A of one step: [2 halves of K][128 / 8] core matrices.
constexpr int64_t kHalfDepthBytes = kTensorRows / kHalfRows * kHalfBlockBytes;
constexpr int64_t kStepBytes = 2 * kHalfDepthBytes;
/// Columns of sums; half of tensor memory, so that two blocks fit on an SM.
constexpr int64_t kMostColumns = 256;
/// Columns that a thread loads at a time.
constexpr int64_t kLoadedColumns = 16;

class TensorMemoryEmitter : public TensorProducts {
public:
  TensorMemoryEmitter(Kernel &k, const MatmulPlan &plan)
      : TensorProducts(
            k, plan,
            {.rowUnit = 32, .warps = kDecoderWarps, .sums = kMostColumns}) {}

private:
  void launch(GridFactor columns) override;
  void compute(ArrayRef<Stream> streams, Value firstGroup, Value groups,
               Visit visit) override;
  void visitZeros(ArrayRef<Stream> streams, Visit visit) override;
  Value place() override { return warp; }

  /// Barriers, tensor memory, and the block knows of both.
  void prepare();
  void produce(ArrayRef<Stream> streams, Value firstGroup, Value groups);
  void decode(ArrayRef<Stream> streams, Value groups);
  void decodeGroup(const Stream &stream, size_t i, Value number, int64_t group);
  void issue(Value groups);
  void visitSums(Visit visit);
  /// Visits the tokens from column `first` (i64) of the tile on, whose results
  /// are [stream][kLoadedColumns].
  void visitColumns(Value first, ValueRange sums, Visit visit);

  /// Byte of a stage where A of a step lies.
  static int64_t stepOffset(int64_t stream, int64_t group, int64_t step) {
    return ((stream * WeightStages::kGroups + group) * kSteps + step) *
           kStepBytes;
  }
  int64_t rowsOffset() const { return stepOffset(streamCount, 0, 0); }
  /// Runs `body` if the stage of step `t` has group `group`.
  void ifPresent(Value t, int64_t group, Value groups,
                 function_ref<void()> body) {
    if (group == 0)
      return body();
    Value first = e.mul(t, e.index(WeightStages::kGroups));
    e.ifThen(e.less(e.add(first, e.index(group)), groups), body);
  }

  /// In front of a stage's tokens is A: [stream][group][step].
  std::optional<WeightStages> stages;
  /// In shared memory, the second of the address of the tensor memory.
  Value barriers, addressSlot;
  /// Phases: a stage is full, it is decoded, it may be written again; and one
  /// when all products are over.
  std::optional<Barriers> full, decoded, empty, done;
  Value sums; ///< tensor memory (i32): [stream][tokens]
  Value warp; ///< of this thread, known to be the same in all lanes
};

void TensorMemoryEmitter::launch(GridFactor columns) {
  k.launch.blockThreads = kThreads;
  k.launch.grid = {columns, {GridCount::Rows, static_cast<uint32_t>(tokens)}};
  int64_t barrierBytes = Barriers::bytes(3 * WeightStages::kMost + 1);
  constexpr int64_t kPieces = 3, kAlignment = 128; // of Kernel::shared
  stages.emplace(k, plan, operands,
                 WeightStages::Shape{.tokens = tokens,
                                     .warps = kDecoderWarps,
                                     .streams = streamCount,
                                     .frontBytes = rowsOffset()},
                 e.target.gpu.sharedBytes - barrierBytes -
                     kPieces * kAlignment);
  barriers = k.shared(barrierBytes);
  addressSlot = k.shared(4);
  warp = warpUniform(e, e.warp());
}

void TensorMemoryEmitter::prepare() {
  int64_t kind = Barriers::bytes(WeightStages::kMost);
  full.emplace(e, barriers);
  decoded.emplace(e, e.offset(barriers, kind));
  empty.emplace(e, e.offset(barriers, 2 * kind));
  done.emplace(e, e.offset(barriers, 3 * kind));
  e.ifThen(e.equal(e.thread(), e.index(0)), [&] {
    for (int64_t i = 0; i < stages->count; ++i) {
      full->init(i, 1);
      decoded->init(i, kDecoderWarps);
      empty->init(i, 1);
    }
    done->init(0, 1);
    publishBarriers(e);
  });
  e.ifThen(e.equal(warp, e.index(kIssuerWarp)), [&] {
    allocateTensorMemory(e, addressSlot,
                         tensorAllocation(streamCount * tokens));
  });
  e.barrier();
  fenceTensorMemory(e);
  sums = e.load(e.i32(), addressSlot, 4);
}

//===----------------------------------------------------------------------===//
// Producer
//===----------------------------------------------------------------------===//

void TensorMemoryEmitter::produce(ArrayRef<Stream> streams, Value firstGroup,
                                  Value groups) {
  Value blocks =
      e.minI(e.div(e.add(e.sub(k.rows(), firstRow), e.index(kHalfRows - 1)),
                   e.index(kHalfRows)),
             e.index(tokens / kHalfRows));
  Value rows = e.at(k.activationRow(k.argument(plan.x), firstRow, plan.depth()),
                    firstGroup, kHalfGroupBytes);
  int64_t blockStride = kHalfRows * activationRowBytes(plan.depth());
  // Bytes of a group, and of what comes once a stage, over all row blocks.
  Value groupBytes = e.mul(blocks, e.index(kHalfGroupBytes));
  Value stageSuperBytes = e.index(0);
  for (const Stream &stream : streams) {
    Values sizes =
        byFormat(e, stream.formats, [&](const WeightDecoder &decoder) {
          return Values{e.index(kDecoderWarps * decoder.format.groupBytes()),
                        e.index(kDecoderWarps *
                                WeightStages::superBytes(decoder.format))};
        });
    groupBytes = e.add(groupBytes, sizes[0]);
    stageSuperBytes = e.add(stageSuperBytes, sizes[1]);
  }

  e.ifThen(electLane(e), [&] {
    e.forLoop(e.index(0), stages->stagesOf(groups), 1, [&](Value t) {
      Value number = stages->numberOf(t), filled = full->at(number);
      Value first = e.mul(t, e.index(WeightStages::kGroups));
      Value present =
          e.minI(e.sub(groups, first), e.index(WeightStages::kGroups));
      Value rowBytes = e.mul(present, e.index(kHalfGroupBytes));
      Value total = e.add(e.mul(present, groupBytes), stageSuperBytes);
      empty->wait(number, e.sub(e.constant(e.i32(), 1), stages->parityOf(t)));
      full->arriveExpecting(number, e.truncate(total, e.i32()));
      e.forLoop(e.index(0), blocks, 1, [&](Value block) {
        Value from = e.add(e.mul(block, e.index(blockStride)),
                           e.mul(first, e.index(kHalfGroupBytes)));
        Value to =
            e.at(stages->tokens(stages->at(number)), block, stages->blockBytes);
        copyBulk(e, to, e.offset(rows, from), e.truncate(rowBytes, e.i32()),
                 filled);
      });
      e.forLoop(e.index(0), e.index(kDecoderWarps), 1, [&](Value served) {
        for (auto [i, stream] : llvm::enumerate(streams))
          byFormat(e, stream.formats, [&](const WeightDecoder &decoder) {
            stages->copyGroups(decoder, stream.base(served), first, present,
                               stages->slot(stages->at(number), served, i),
                               filled);
            return Values();
          });
      });
    });
  });
}

//===----------------------------------------------------------------------===//
// Decoders and issuer
//===----------------------------------------------------------------------===//

void TensorMemoryEmitter::decodeGroup(const Stream &stream, size_t i,
                                      Value number, int64_t group) {
  Value lane = e.lane(), stage = stages->at(number);
  // Lane l points at row l % 8 of matrix l / 8, which is outputs `half` of the
  // fragments and a half of K. Outputs lie in their own order.
  Value g = e.rem(lane, e.index(kHalfRows)), matrix = e.div(lane, e.index(8));
  Value half = e.rem(matrix, e.index(2)), depthHalf = e.div(matrix, e.index(2));
  byFormat(e, stream.formats, [&](const WeightDecoder &decoder) {
    WeightDecoder::Fragment words =
        stages->fragment(decoder, stages->slot(stage, warp, i), group);
    Value output =
        e.add(e.mul(warp, e.index(kPackedRows)),
              e.add(e.mul(g, e.index(decoder.fragmentRowFirst())),
                    e.mul(half, e.index(decoder.fragmentRowStep()))));
    Value to =
        e.offset(stage, e.add(e.mul(depthHalf, e.index(kHalfDepthBytes)),
                              e.mul(output, e.index(kHalfBlockRowBytes))));
    for (int64_t s = 0; s < kSteps; ++s)
      storeMatrices(e,
                    e.offset(to, stepOffset(static_cast<int64_t>(i), group, s)),
                    words[s]);
    return Values();
  });
}

void TensorMemoryEmitter::decode(ArrayRef<Stream> streams, Value groups) {
  e.forLoop(e.index(0), stages->stagesOf(groups), 1, [&](Value t) {
    Value number = stages->numberOf(t);
    full->wait(number, stages->parityOf(t));
    for (int64_t group = 0; group < WeightStages::kGroups; ++group)
      ifPresent(t, group, groups, [&] {
        for (auto [i, stream] : llvm::enumerate(streams))
          decodeGroup(stream, i, number, group);
      });
    publishToTensorCores(e);
    e.warpBarrier();
    e.ifThen(e.equal(e.lane(), e.index(0)), [&] { decoded->arrive(number); });
  });
}

void TensorMemoryEmitter::issue(Value groups) {
  e.ifThen(electLane(e), [&] {
    e.forLoop(e.index(0), stages->stagesOf(groups), 1, [&](Value t) {
      Value number = stages->numberOf(t);
      full->wait(number, stages->parityOf(t));
      decoded->wait(number, stages->parityOf(t));
      fenceTensorMemory(e);
      Value start = e.add(sharedAddress(e, stages->base),
                          e.mul(e.truncate(number, e.i32()),
                                e.constant(e.i32(), stages->stageBytes)));
      auto at = [&](int64_t offset) {
        return e.add(start, e.constant(e.i32(), offset));
      };
      for (int64_t group = 0; group < WeightStages::kGroups; ++group)
        ifPresent(t, group, groups, [&] {
          for (int64_t s = 0; s < kSteps; ++s)
            for (int64_t i = 0; i < streamCount; ++i) {
              Value a = matrixDescriptor(e, at(stepOffset(i, group, s)),
                                         kHalfDepthBytes, kHalfBlockBytes);
              Value b =
                  matrixDescriptor(e,
                                   at(rowsOffset() + group * kHalfGroupBytes +
                                      s * 2 * kHalfBlockBytes),
                                   kHalfBlockBytes, stages->blockBytes);
              Value isFirst = group + s > 0 ? e.index(0) : e.index(1);
              startTensorProduct(
                  e, e.add(sums, e.constant(e.i32(), i * tokens)), tokens, a, b,
                  e.less(isFirst, e.add(t, e.index(1))));
            }
        });
      commitTensorProducts(e, empty->at(number));
    });
    commitTensorProducts(e, done->at(e.index(0)));
  });
}

//===----------------------------------------------------------------------===//
// Results
//===----------------------------------------------------------------------===//

void TensorMemoryEmitter::visitColumns(Value first, ValueRange loaded,
                                       Visit visit) {
  Value window = e.rem(warp, e.index(kGroupWarps));
  Value output = e.add(e.mul(window, e.index(kWarp)), e.lane());
  Value place = e.div(output, e.index(kPackedRows));
  output = e.rem(output, e.index(kPackedRows));
  for (int64_t j = 0; j < kLoadedColumns; ++j) {
    Value row = e.add(e.add(firstRow, first), e.index(j));
    e.ifThen(e.less(row, k.rows()), [&] {
      SmallVector<Value> values;
      for (int64_t i = 0; i < streamCount; ++i)
        values.push_back(loaded[i * kLoadedColumns + j]);
      visit(place, output, row, values);
    });
  }
}

void TensorMemoryEmitter::visitSums(Visit visit) {
  done->wait(e.index(0), e.constant(e.i32(), 0));
  fenceTensorMemory(e);
  // A warp may read the lanes of its place among four; two warps share them.
  Value window = e.rem(warp, e.index(kGroupWarps));
  Value lanes =
      e.add(sums, e.truncate(e.mul(window, e.index(kWarp << 16)), e.i32()));
  constexpr int64_t kSharers = kDecoderWarps / kGroupWarps;
  Value begin =
      e.mul(e.div(warp, e.index(kGroupWarps)), e.index(kLoadedColumns));
  e.forLoop(
      begin, e.index(tokens), kSharers * kLoadedColumns, [&](Value first) {
        Values addresses;
        for (int64_t i = 0; i < streamCount; ++i)
          addresses.push_back(e.add(
              lanes, e.truncate(e.add(first, e.index(i * tokens)), e.i32())));
        visitColumns(first, loadTensorMemory(e, addresses, kLoadedColumns),
                     visit);
      });
}

void TensorMemoryEmitter::visitZeros(ArrayRef<Stream> streams, Visit visit) {
  Values zeros(streamCount * kLoadedColumns, e.constant(e.f32(), 0.0));
  e.ifThen(e.less(warp, e.index(kGroupWarps)), [&] {
    e.forLoop(e.index(0), e.index(tokens), kLoadedColumns,
              [&](Value first) { visitColumns(first, zeros, visit); });
  });
}

void TensorMemoryEmitter::compute(ArrayRef<Stream> streams, Value firstGroup,
                                  Value groups, Visit visit) {
  prepare();
  e.ifElse(
      e.less(warp, e.index(kDecoderWarps)),
      [&] {
        decode(streams, groups);
        visitSums(visit);
      },
      [&] {
        e.ifElse(
            e.equal(warp, e.index(kProducerWarp)),
            [&] { produce(streams, firstGroup, groups); },
            [&] { issue(groups); });
      });
  e.barrier();
  e.ifThen(e.equal(warp, e.index(kIssuerWarp)), [&] {
    freeTensorMemory(e, sums, tensorAllocation(streamCount * tokens));
  });
}

} // namespace

bool matchesTensorMemoryMatmul(Kernel &k) {
  std::optional<MatmulPlan> plan = planMatmul(k.op);
  return k.target.gpu.hasTensorMemory && k.role == Role::Prefill && plan &&
         k.hasNumericRows(plan->x);
}

LogicalResult generateTensorMemoryMatmul(Kernel &k) {
  MatmulPlan plan = *planMatmul(k.op);
  if (failed(checkMatmul(k, plan)))
    return failure();
  return TensorMemoryEmitter(k, plan).emit();
}

} // namespace quern::nvptx
