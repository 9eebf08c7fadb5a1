//===- VectorMatmulKernel.cpp - Matmuls on scalar units -------------------===//
//
// Products of f32 rows with packed weights, decoded to f32: one fma per
// product. What --precise asks for.
//
// A lane has one row of a row block (16 outputs); the two halves of a warp and
// the warps of a row block take turns at the groups of K, and their sums meet
// in a fixed order. So a result depends neither on the rows beside it nor on
// the grid.
//
//===----------------------------------------------------------------------===//
#include "codegen/kernels/MatmulPlan.h"
#include "codegen/ptx/Kernel.h"
#include "codegen/ptx/OutputTiles.h"
#include "codegen/ptx/WeightDecoder.h"

using namespace mlir;

namespace quern::nvptx {
namespace {

/// Rows that a lane sums at most.
constexpr int64_t kMaxRows = 8;
/// Warps that share a row block.
constexpr int64_t kStoreWarps = 4;
constexpr int64_t kSwigluWarps = 2;

class VectorMatmulEmitter {
public:
  VectorMatmulEmitter(Kernel &k, MatmulPlan plan)
      : k(k), e(k.e), plan(std::move(plan)), depth(this->plan.depth()),
        x(k.argument(this->plan.x)),
        tileRows(std::clamp<int64_t>(k.tile.rows, 1, kMaxRows)) {}

  void emitStore();
  void emitSwiglu();

private:
  using Values = Emitter::Values;

  /// Sums of this thread's groups of the row block at `base`, one a row from
  /// `row` on; K is `columns` wide and begins at column `first` of x.
  Values partialSums(const WeightDecoder &w, Value base, Value row,
                     int64_t rows, Value first, Value columns);
  void floatGroup(const WeightDecoder &w, const WeightDecoder::Group &group,
                  ArrayRef<Value> xRows, Value index,
                  MutableArrayRef<Value> acc);
  /// Adds both halves of a warp and leaves the sums of stream `stream` in
  /// shared memory.
  void leaveSums(Value stream, ArrayRef<Value> acc);
  /// What the warps of stream `stream` summed for `row` and `lane` (0..15).
  Value total(Value stream, Value row, Value lane);
  /// Calls `body(row, rows)` for the row tiles of this block.
  void forRowTiles(function_ref<void(Value row, int64_t rows)> body);

  Value xRow(Value row, int64_t i) {
    return e.at(x, e.add(row, e.index(i)), 4 * depth);
  }

  Kernel &k;
  Emitter &e;
  MatmulPlan plan;
  int64_t depth;
  Value x;
  int64_t tileRows;
  int64_t warps = 0; ///< that share a row block
  Value sums;        ///< shared f32 [stream][warp][tileRows][16]
};

void VectorMatmulEmitter::floatGroup(const WeightDecoder &w,
                                     const WeightDecoder::Group &group,
                                     ArrayRef<Value> xRows, Value index,
                                     MutableArrayRef<Value> acc) {
  Value at = e.mul(index, e.index(4 * kPackedGroup));
  Type four = e.vec(4, e.f32());
  for (int quad = 0; quad < 8; ++quad) {
    Value values[4];
    if (w.format.isFloat()) {
      for (int j = 0; j < 4; ++j)
        values[j] = w.floatValue(group, e.index(4 * quad + j));
    } else {
      int sub = 4 * quad / w.format.subGroup;
      Value codes = w.codes(group, quad), scale = w.scale(group, sub);
      Value minimum = w.hasMinimum() ? w.minimum(group, sub) : Value();
      for (int j = 0; j < 4; ++j)
        values[j] = w.value(codes, j, scale, minimum);
    }
    for (auto [i, xRow] : llvm::enumerate(xRows)) {
      Value xs = e.load(four, e.offset(e.offset(xRow, at), 16 * quad), 16);
      for (int j = 0; j < 4; ++j)
        acc[i] = e.fma(e.extract(xs, j), values[j], acc[i]);
    }
  }
}

Emitter::Values VectorMatmulEmitter::partialSums(const WeightDecoder &w,
                                                 Value base, Value row,
                                                 int64_t rows, Value first,
                                                 Value columns) {
  SmallVector<Value> xRows;
  for (int64_t i = 0; i < rows; ++i)
    xRows.push_back(xRow(row, i));
  Value part = e.add(e.mul(e.rem(e.warp(), e.index(warps)), e.index(2)),
                     e.div(e.lane(), e.index(kPackedRows)));
  Value lane = e.rem(e.lane(), e.index(kPackedRows));
  Value firstGroup = e.div(first, e.index(kPackedGroup));
  Values acc(rows, e.constant(e.f32(), 0.0));
  return e.forLoop(part, e.div(columns, e.index(kPackedGroup)), 2 * warps, acc,
                   [&](Value index, ValueRange carried) {
                     Values next(carried);
                     WeightDecoder::Group group = w.group(base, index, lane);
                     Value xIndex = e.add(index, firstGroup);
                     floatGroup(w, group, xRows, xIndex, next);
                     return next;
                   });
}

void VectorMatmulEmitter::leaveSums(Value stream, ArrayRef<Value> acc) {
  Value warp =
      e.add(e.mul(stream, e.index(warps)), e.rem(e.warp(), e.index(warps)));
  Value at = e.at(sums, warp, tileRows * kPackedRows * 4);
  Value lane = e.rem(e.lane(), e.index(kPackedRows));
  at = e.at(at, lane, 4);
  for (auto [i, value] : llvm::enumerate(acc)) {
    Value both = e.add(value, e.shuffleXor(value, kPackedRows));
    e.ifThen(e.less(e.lane(), e.index(kPackedRows)),
             [&] { e.store(both, e.offset(at, i * kPackedRows * 4), 4); });
  }
}

Value VectorMatmulEmitter::total(Value stream, Value row, Value lane) {
  Value place =
      e.add(e.mul(e.add(e.mul(stream, e.index(warps * tileRows)), row),
                  e.index(kPackedRows)),
            lane);
  Value at = e.at(sums, place, 4);
  Value total = e.load(e.f32(), at, 4);
  for (int64_t warp = 1; warp < warps; ++warp)
    total = e.add(
        total,
        e.load(e.f32(), e.offset(at, warp * tileRows * kPackedRows * 4), 4));
  return total;
}

void VectorMatmulEmitter::forRowTiles(function_ref<void(Value, int64_t)> body) {
  Value first = e.mul(e.block(1), e.index(tileRows));
  Value end = e.minI(e.add(first, e.index(tileRows)), k.rows());
  if (tileRows == 1)
    return body(first, 1);
  Value full = e.equal(e.sub(end, first), e.index(tileRows));
  e.ifElse(
      full, [&] { body(first, tileRows); },
      [&] { e.forLoop(first, end, 1, [&](Value row) { body(row, 1); }); });
}

void VectorMatmulEmitter::emitStore() {
  warps = kStoreWarps;
  int64_t blocks = std::clamp<int64_t>(k.tile.blocks, 1, 4);
  OutputTiles tiles(k, plan, blocks);
  sums = k.shared(blocks * warps * tileRows * kPackedRows * 4);
  k.launch.blockThreads = blocks * warps * kWarp;
  k.launch.grid = {tiles.gridFactor(),
                   {GridCount::Rows, static_cast<uint32_t>(tileRows)}};
  Value stream = e.div(e.warp(), e.index(warps));
  tiles.locate([&](const OutputTile &tile, ArrayRef<FormatChoice> formats) {
    // Row blocks past the last one are summed as the last and not stored.
    Value mine =
        e.minI(e.add(tile.block, stream), e.sub(tile.blockCount, e.index(1)));
    Value blockBytes = byFormat(e, formats, [&](const WeightDecoder &decoder) {
                         return Values{decoder.rowBlockBytes(tile.depth)};
                       }).front();
    Value base = e.offset(tile.weight, e.mul(mine, blockBytes));
    forRowTiles([&](Value row, int64_t rows) {
      leaveSums(stream, byFormat(e, formats, [&](const WeightDecoder &decoder) {
                  return partialSums(decoder, base, row, rows, tile.firstDepth,
                                     tile.depth);
                }));
      e.barrier();
      e.forLoop(
          e.thread(), e.index(rows * blocks * kPackedRows),
          k.launch.blockThreads, [&](Value item) {
            Value lane = e.rem(item, e.index(kPackedRows));
            Value rest = e.div(item, e.index(kPackedRows));
            Value source = e.div(rest, e.index(rows)),
                  i = e.rem(rest, e.index(rows));
            Value column = e.add(
                tile.firstColumn,
                e.add(e.mul(e.add(tile.block, source), e.index(kPackedRows)),
                      lane));
            tiles.store(tile, e.add(row, i), column, total(source, i, lane));
          });
      e.barrier();
    });
  });
}

void VectorMatmulEmitter::emitSwiglu() {
  // 32 columns a block: two row blocks of gate, two of up.
  warps = kSwigluWarps;
  sums = k.shared(4 * warps * tileRows * kPackedRows * 4);
  k.launch.blockThreads = 4 * warps * kWarp;
  k.launch.grid = {{GridCount::Columns, static_cast<uint32_t>(kPackedGroup)},
                   {GridCount::Rows, static_cast<uint32_t>(tileRows)}};
  Value pair = e.block(0), columns = e.index(depth), zero = e.index(0);
  Value stream = e.div(e.warp(), e.index(warps)); // matrix * 2 + half
  Value block = e.add(e.mul(pair, e.index(2)), e.rem(stream, e.index(2)));
  Value group = e.add(e.div(k.rangeBegin(0), e.index(kPackedGroup)), pair);
  auto baseOf = [&](const Projection &projection) {
    Value bytes =
        WeightDecoder(e, formatOf(projection.weight)).rowBlockBytes(columns);
    return e.offset(k.argument(projection.weight), e.mul(block, bytes));
  };
  const Projection &gate = plan.projections[0], &up = plan.projections[1];
  bool oneFormat = formatOf(gate.weight) == formatOf(up.weight);
  Value isGate = e.less(stream, e.index(2));
  forRowTiles([&](Value row, int64_t rows) {
    auto sum = [&](BlockFormat format, Value base) {
      leaveSums(stream, partialSums(WeightDecoder(e, format), base, row, rows,
                                    zero, columns));
    };
    if (oneFormat)
      sum(formatOf(gate.weight), e.select(isGate, baseOf(gate), baseOf(up)));
    else
      e.ifElse(
          isGate, [&] { sum(formatOf(gate.weight), baseOf(gate)); },
          [&] { sum(formatOf(up.weight), baseOf(up)); });
    e.barrier();
    // A warp a row, a lane a column.
    e.forLoop(e.warp(), e.index(rows), 4 * warps, [&](Value i) {
      Value half = e.div(e.lane(), e.index(kPackedRows));
      Value lane = e.rem(e.lane(), e.index(kPackedRows));
      Value sums[2];
      for (int matrix = 0; matrix < 2; ++matrix)
        sums[matrix] = total(e.add(half, e.index(2 * matrix)), i, lane);
      Value y = e.mul(e.silu(sums[0]), sums[1]);
      Value column = e.add(e.mul(group, e.index(kPackedGroup)), e.lane());
      storeSwiglu(k, plan, e.add(row, i), column, y);
    });
    e.barrier();
  });
}

} // namespace

bool matchesVectorMatmul(Kernel &k) {
  auto plan = planMatmul(k.op);
  return plan && !k.hasNumericRows(plan->x);
}

LogicalResult generateVectorMatmul(Kernel &k) {
  MatmulPlan plan = *planMatmul(k.op);
  if (failed(checkMatmul(k, plan)))
    return failure();
  VectorMatmulEmitter emitter(k, plan);
  if (plan.epilogue == MatmulPlan::Epilogue::Store)
    emitter.emitStore();
  else
    emitter.emitSwiglu();
  return success();
}

} // namespace quern::nvptx
