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

/// Groups of K in a stage, and products of 16 columns in a group.
constexpr int64_t kStageGroups = 2;
constexpr int64_t kSteps = 2;
/// A block of 8 tokens in a stage.
constexpr int64_t kStageBlockBytes = kStageGroups * kHalfGroupBytes;
/// A of one step: [2 halves of K][128 / 8] core matrices.
constexpr int64_t kHalfDepthBytes = kTensorRows / kHalfRows * kHalfBlockBytes;
constexpr int64_t kStepBytes = 2 * kHalfDepthBytes;
/// Stages, a power of two, where shared memory has the place.
constexpr int64_t kMostStages = 4;
/// Columns of sums; half of tensor memory, so that two blocks fit on an SM.
constexpr int64_t kMostColumns = 256;
/// Columns that a thread loads at a time.
constexpr int64_t kLoadedColumns = 16;

class TensorMemoryMatmulEmitter {
public:
  TensorMemoryMatmulEmitter(Kernel &k, MatmulPlan plan)
      : k(k), e(k.e), plan(std::move(plan)) {}

  void emitStore();
  void emitSwiglu();

private:
  using Values = Emitter::Values;

  /// One of the matrices that the tokens are multiplied with.
  struct Stream {
    /// It has one of these formats.
    SmallVector<FormatChoice, 2> formats;
    /// First byte of that row block which decoder `warp` has.
    std::function<Value(Value warp)> base;
  };
  /// Output (i64, of 128), row of x, what each stream has there.
  using Visit =
      function_ref<void(Value output, Value row, ArrayRef<Value> values)>;

  void setStreams(int64_t count);
  void launch(GridFactor columns);
  /// Multiplies the streams with this block's tokens over `groups` groups,
  /// group 0 being `firstGroup` of x, and visits the results.
  void compute(ArrayRef<Stream> streams, Value firstGroup, Value groups,
               Visit visit);
  /// Barriers, tensor memory, and the block knows of both.
  void prepare();
  void produce(ArrayRef<Stream> streams, Value firstGroup, Value groups);
  void copyGroups(const WeightDecoder &decoder, Value base, Value first,
                  Value count, Value to, Value filled);
  void decode(ArrayRef<Stream> streams, Value groups);
  void decodeGroup(const Stream &stream, size_t i, Value number, int64_t group);
  void issue(Value groups);
  void visitTile(Visit visit);
  /// The same of results that are 0.
  void visitZeros(Visit visit);
  /// Visits the tokens from column `first` (i64) of the tile on, whose results
  /// are [stream][kLoadedColumns].
  void visitColumns(Value first, ValueRange sums, Visit visit);

  // Stages. Step `t` (i64) of K is in stage t % stageCount.
  Value numberOf(Value t) { return e.rem(t, e.index(stageCount)); }
  /// Parity of the phase that step `t` ends.
  Value parityOf(Value t) {
    return e.truncate(e.rem(e.div(t, e.index(stageCount)), e.index(2)),
                      e.i32());
  }
  Value stagesOf(Value groups) {
    return e.div(e.add(groups, e.index(kStageGroups - 1)),
                 e.index(kStageGroups));
  }
  Value stage(Value number) {
    return e.offset(stages, e.mul(number, e.index(stageBytes)));
  }
  /// Byte of a stage where A of a step lies, and where x does.
  static int64_t stepOffset(int64_t stream, int64_t group, int64_t step) {
    return ((stream * kStageGroups + group) * kSteps + step) * kStepBytes;
  }
  int64_t rowsOffset() const { return stepOffset(streamCount, 0, 0); }
  /// The packed groups of a row block, behind which a superblock's parameters
  /// lie.
  Value slot(Value number, Value warp, size_t stream) {
    Value place = e.add(e.mul(warp, e.index(streamCount)),
                        e.index(static_cast<int64_t>(stream)));
    int64_t first = rowsOffset() + tokens / kHalfRows * kStageBlockBytes;
    return e.offset(e.offset(stage(number), first),
                    e.mul(place, e.index(slotBytes)));
  }
  /// Runs `body` if the stage of step `t` has group `group`.
  void ifPresent(Value t, int64_t group, Value groups,
                 function_ref<void()> body) {
    if (group == 0)
      return body();
    Value first = e.mul(t, e.index(kStageGroups));
    e.ifThen(e.less(e.add(first, e.index(group)), groups), body);
  }

  Kernel &k;
  Emitter &e;
  MatmulPlan plan;
  int64_t streamCount = 0;
  int64_t tokens = 0; ///< of a tile
  int64_t slotBytes = 0, stageBytes = 0, stageCount = kMostStages;
  /// shared: [stage]{[stream][group][step] A | [token block][group] x |
  /// [warp][stream] slot}, barriers, and the address of the tensor memory.
  Value stages, barriers, addressSlot;
  /// Phases: a stage is full, it is decoded, it may be written again; and one
  /// when all products are over.
  std::optional<Barriers> full, decoded, empty, done;
  Value sums;     ///< tensor memory (i32): [stream][tokens]
  Value firstRow; ///< of the tile
  Value warp;     ///< of this thread, known to be the same in all lanes
};

void TensorMemoryMatmulEmitter::setStreams(int64_t count) {
  streamCount = count;
  tokens = std::clamp<int64_t>(k.tile.rows / 32 * 32, 32,
                               kMostColumns / streamCount);
  for (const Projection &projection : plan.projections) {
    const PackedFormat &format = packedFormat(formatOf(projection.weight));
    slotBytes = std::max(slotBytes, kStageGroups * format.groupBytes() +
                                        WeightStages::superBytes(format));
  }
  stageBytes = rowsOffset() + tokens / kHalfRows * kStageBlockBytes +
               kDecoderWarps * streamCount * slotBytes;
}

void TensorMemoryMatmulEmitter::launch(GridFactor columns) {
  k.launch.blockThreads = kThreads;
  k.launch.grid = {columns, {GridCount::Rows, static_cast<uint32_t>(tokens)}};
  int64_t barrierBytes = Barriers::bytes(3 * kMostStages + 1);
  constexpr int64_t kPieces = 3, kAlignment = 128; // of Kernel::shared
  while (stageCount * stageBytes + barrierBytes + kPieces * kAlignment >
         e.target.gpu.sharedBytes)
    stageCount /= 2;
  stages = k.shared(stageCount * stageBytes);
  barriers = k.shared(barrierBytes);
  addressSlot = k.shared(4);
  firstRow = e.mul(e.block(1), e.index(tokens));
  warp = warpUniform(e, e.warp());
}

void TensorMemoryMatmulEmitter::prepare() {
  int64_t kind = Barriers::bytes(kMostStages);
  full.emplace(e, barriers);
  decoded.emplace(e, e.offset(barriers, kind));
  empty.emplace(e, e.offset(barriers, 2 * kind));
  done.emplace(e, e.offset(barriers, 3 * kind));
  e.ifThen(e.equal(e.thread(), e.index(0)), [&] {
    for (int64_t i = 0; i < stageCount; ++i) {
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

void TensorMemoryMatmulEmitter::produce(ArrayRef<Stream> streams,
                                        Value firstGroup, Value groups) {
  Value blocks =
      e.minI(e.div(e.add(e.sub(k.rows(), firstRow), e.index(kHalfRows - 1)),
                   e.index(kHalfRows)),
             e.index(tokens / kHalfRows));
  Value rows =
      e.offset(k.activationRow(k.argument(plan.x), firstRow, plan.depth()),
               e.mul(firstGroup, e.index(kHalfGroupBytes)));
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
    e.forLoop(e.index(0), stagesOf(groups), 1, [&](Value t) {
      Value number = numberOf(t), filled = full->at(number);
      Value first = e.mul(t, e.index(kStageGroups));
      Value present = e.minI(e.sub(groups, first), e.index(kStageGroups));
      Value rowBytes = e.mul(present, e.index(kHalfGroupBytes));
      Value total = e.add(e.mul(present, groupBytes), stageSuperBytes);
      empty->wait(number, e.sub(e.constant(e.i32(), 1), parityOf(t)));
      full->arriveExpecting(number, e.truncate(total, e.i32()));
      e.forLoop(e.index(0), blocks, 1, [&](Value block) {
        Value from = e.add(e.mul(block, e.index(blockStride)),
                           e.mul(first, e.index(kHalfGroupBytes)));
        Value to = e.offset(e.offset(stage(number), rowsOffset()),
                            e.mul(block, e.index(kStageBlockBytes)));
        copyBulk(e, to, e.offset(rows, from), e.truncate(rowBytes, e.i32()),
                 filled);
      });
      e.forLoop(e.index(0), e.index(kDecoderWarps), 1, [&](Value served) {
        for (auto [i, stream] : llvm::enumerate(streams))
          byFormat(e, stream.formats, [&](const WeightDecoder &decoder) {
            copyGroups(decoder, stream.base(served), first, present,
                       slot(number, served, i), filled);
            return Values();
          });
      });
    });
  });
}

void TensorMemoryMatmulEmitter::copyGroups(const WeightDecoder &decoder,
                                           Value base, Value first, Value count,
                                           Value to, Value filled) {
  const PackedFormat &format = decoder.format;
  WeightDecoder::Group group = decoder.group(base, first, e.index(0));
  Value bytes = e.mul(count, e.index(format.groupBytes()));
  copyBulk(e, to, group.pointer, e.truncate(bytes, e.i32()), filled);
  if (format.hasSuperblock())
    copyBulk(e, e.offset(to, kStageGroups * format.groupBytes()),
             e.offset(group.super, format.superScaleOffset()),
             e.constant(e.i32(), WeightStages::superBytes(format)), filled);
}

//===----------------------------------------------------------------------===//
// Decoders and issuer
//===----------------------------------------------------------------------===//

void TensorMemoryMatmulEmitter::decodeGroup(const Stream &stream, size_t i,
                                            Value number, int64_t group) {
  Value lane = e.lane(), at = slot(number, warp, i);
  // Lane l points at row l % 8 of matrix l / 8, which is outputs `half` of the
  // fragments and a half of K. Outputs lie in their own order.
  Value g = e.rem(lane, e.index(kHalfRows)), matrix = e.div(lane, e.index(8));
  Value half = e.rem(matrix, e.index(2)), depthHalf = e.div(matrix, e.index(2));
  byFormat(e, stream.formats, [&](const WeightDecoder &decoder) {
    const PackedFormat &format = decoder.format;
    WeightDecoder::Group place{e.offset(at, group * format.groupBytes()),
                               {},
                               decoder.fragmentRow(lane, 0)};
    if (format.hasSuperblock())
      place.super = e.offset(at, kStageGroups * format.groupBytes() -
                                     format.superScaleOffset());
    WeightDecoder::Fragment words =
        decoder.decodeFragment(decoder.loadFragment(place, lane), lane);
    Value output =
        e.add(e.mul(warp, e.index(kPackedRows)),
              e.add(e.mul(g, e.index(decoder.fragmentRowFirst())),
                    e.mul(half, e.index(decoder.fragmentRowStep()))));
    Value to = e.offset(stage(number),
                        e.add(e.mul(depthHalf, e.index(kHalfDepthBytes)),
                              e.mul(output, e.index(kHalfBlockRowBytes))));
    for (int64_t s = 0; s < kSteps; ++s)
      storeMatrices(e,
                    e.offset(to, stepOffset(static_cast<int64_t>(i), group, s)),
                    words[s]);
    return Values();
  });
}

void TensorMemoryMatmulEmitter::decode(ArrayRef<Stream> streams, Value groups) {
  e.forLoop(e.index(0), stagesOf(groups), 1, [&](Value t) {
    Value number = numberOf(t);
    full->wait(number, parityOf(t));
    for (int64_t group = 0; group < kStageGroups; ++group)
      ifPresent(t, group, groups, [&] {
        for (auto [i, stream] : llvm::enumerate(streams))
          decodeGroup(stream, i, number, group);
      });
    publishToTensorCores(e);
    e.warpBarrier();
    e.ifThen(e.equal(e.lane(), e.index(0)), [&] { decoded->arrive(number); });
  });
}

void TensorMemoryMatmulEmitter::issue(Value groups) {
  e.ifThen(electLane(e), [&] {
    e.forLoop(e.index(0), stagesOf(groups), 1, [&](Value t) {
      Value number = numberOf(t);
      full->wait(number, parityOf(t));
      decoded->wait(number, parityOf(t));
      fenceTensorMemory(e);
      Value start = e.add(
          sharedAddress(e, stages),
          e.mul(e.truncate(number, e.i32()), e.constant(e.i32(), stageBytes)));
      auto at = [&](int64_t offset) {
        return e.add(start, e.constant(e.i32(), offset));
      };
      for (int64_t group = 0; group < kStageGroups; ++group)
        ifPresent(t, group, groups, [&] {
          for (int64_t s = 0; s < kSteps; ++s)
            for (int64_t i = 0; i < streamCount; ++i) {
              Value a = matrixDescriptor(e, at(stepOffset(i, group, s)),
                                         kHalfDepthBytes, kHalfBlockBytes);
              Value b =
                  matrixDescriptor(e,
                                   at(rowsOffset() + group * kHalfGroupBytes +
                                      s * 2 * kHalfBlockBytes),
                                   kHalfBlockBytes, kStageBlockBytes);
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

void TensorMemoryMatmulEmitter::visitColumns(Value first, ValueRange loaded,
                                             Visit visit) {
  Value window = e.rem(warp, e.index(kGroupWarps));
  Value output = e.add(e.mul(window, e.index(kWarp)), e.lane());
  for (int64_t j = 0; j < kLoadedColumns; ++j) {
    Value row = e.add(e.add(firstRow, first), e.index(j));
    e.ifThen(e.less(row, k.rows()), [&] {
      SmallVector<Value> values;
      for (int64_t i = 0; i < streamCount; ++i)
        values.push_back(loaded[i * kLoadedColumns + j]);
      visit(output, row, values);
    });
  }
}

void TensorMemoryMatmulEmitter::visitTile(Visit visit) {
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

void TensorMemoryMatmulEmitter::visitZeros(Visit visit) {
  Values zeros(streamCount * kLoadedColumns, e.constant(e.f32(), 0.0));
  e.ifThen(e.less(warp, e.index(kGroupWarps)), [&] {
    e.forLoop(e.index(0), e.index(tokens), kLoadedColumns,
              [&](Value first) { visitColumns(first, zeros, visit); });
  });
}

void TensorMemoryMatmulEmitter::compute(ArrayRef<Stream> streams,
                                        Value firstGroup, Value groups,
                                        Visit visit) {
  prepare();
  e.ifElse(
      e.less(warp, e.index(kDecoderWarps)),
      [&] {
        decode(streams, groups);
        visitTile(visit);
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

//===----------------------------------------------------------------------===//
// Kernels
//===----------------------------------------------------------------------===//

void TensorMemoryMatmulEmitter::emitStore() {
  setStreams(1);
  OutputTiles tiles(k, plan, kDecoderWarps);
  launch(tiles.gridFactor());
  tiles.locate([&](const OutputTile &tile, ArrayRef<FormatChoice> formats) {
    Value blockBytes = byFormat(e, formats, [&](const WeightDecoder &decoder) {
                         return Values{decoder.rowBlockBytes(tile.depth)};
                       }).front();
    // Row blocks past the last are computed as the last and not stored.
    Stream stream = {SmallVector<FormatChoice, 2>(formats),
                     [&](Value warp) -> Value {
                       Value block = e.minI(e.add(tile.block, warp),
                                            e.sub(tile.blockCount, e.index(1)));
                       return e.offset(tile.weight, e.mul(block, blockBytes));
                     }};
    auto visit = [&](Value output, Value row, ArrayRef<Value> values) {
      Value column = e.add(e.mul(tile.block, e.index(kPackedRows)), output);
      tiles.store(tile, row, e.add(tile.firstColumn, column), values.front());
    };
    Value groups = e.div(tile.depth, e.index(kPackedGroup));
    auto multiply = [&] {
      compute(stream, e.div(tile.firstDepth, e.index(kPackedGroup)), groups,
              visit);
    };
    if (!plan.splitK)
      return multiply();
    // A share without columns of K still owes its partial result.
    e.ifElse(e.less(e.index(0), groups), multiply, [&] { visitZeros(visit); });
  });
}

void TensorMemoryMatmulEmitter::emitSwiglu() {
  setStreams(2);
  launch({GridCount::Columns, static_cast<uint32_t>(kTensorRows)});
  Value begin = k.rangeBegin(0);
  Value width = e.sub(k.rangeEnd(0), begin);
  Value count = e.div(width, e.index(kPackedRows));
  Value firstBlock = e.mul(e.block(0), e.index(kDecoderWarps));
  SmallVector<Stream> streams;
  for (const Projection &projection : plan.projections) {
    BlockFormat format = formatOf(projection.weight);
    Value bytes = WeightDecoder(e, format).rowBlockBytes(e.index(plan.depth()));
    Value weight = k.argument(projection.weight);
    streams.push_back(
        {{{format, Value()}}, [&, bytes, weight](Value warp) -> Value {
           Value block =
               e.minI(e.add(firstBlock, warp), e.sub(count, e.index(1)));
           return e.offset(weight, e.mul(block, bytes));
         }});
  }
  auto visit = [&](Value output, Value row, ArrayRef<Value> values) {
    Value column = e.add(e.mul(firstBlock, e.index(kPackedRows)), output);
    Value y = e.mul(e.silu(values[0]), values[1]);
    e.ifThen(e.less(column, width),
             [&] { storeSwiglu(k, plan, row, e.add(begin, column), y); });
  };
  compute(streams, e.index(0), e.index(plan.depth() / kPackedGroup), visit);
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
  TensorMemoryMatmulEmitter emitter(k, plan);
  if (plan.epilogue == MatmulPlan::Epilogue::Store)
    emitter.emitStore();
  else
    emitter.emitSwiglu();
  return success();
}

} // namespace quern::nvptx
