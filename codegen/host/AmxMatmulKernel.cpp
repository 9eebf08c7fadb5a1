//===- AmxMatmulKernel.cpp - Matmuls on tile registers --------------------===//
//
// Products of bf16 numeric rows with packed weights of any format, on AMX tiles
// of 16 x 64 bytes. 32 output columns at a time are decoded to float32 as their
// format defines, rounded to bf16 and laid in scratch as tiles of k pairs; then
// all rows pass by in blocks of two row tiles, so that each loaded tile is used
// twice. Products are added in f32 in ascending k, whatever the number of rows.
//
// All tiles have one shape, which LLVM configures once per kernel. Rows past
// the last full tile are copied to scratch with zeros behind them, and results
// leave through scratch, where the epilogue takes the rows and columns that
// exist.
//
//===----------------------------------------------------------------------===//
#include "codegen/host/Kernel.h"
#include "codegen/host/WeightDecoder.h"
#include "codegen/kernels/MatmulPlan.h"

using namespace mlir;

namespace quern::host {
namespace {

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileRowBytes = 64;
constexpr int64_t kTileBytes = kTileRows * kTileRowBytes;
/// Output columns of a panel: two row blocks.
constexpr int64_t kPanelColumns = 2 * kPackedRows;
constexpr int64_t kResultRowBytes = kPanelColumns * 4;

class AmxMatmulEmitter {
public:
  AmxMatmulEmitter(Kernel &k, const MatmulPlan &plan)
      : k(k), e(k.e), plan(plan), depth(plan.depth()),
        rowBytes(activationRowBytes(depth)) {}

  LogicalResult emit();

private:
  /// A weight's row blocks as this share holds them, and how many.
  struct Weight {
    const Projection *projection;
    Value pointer, blocks;
  };

  void emitSplitN();
  void emitSplitK();
  void emitSwiglu();

  /// Fixes the columns [first, first + columns) of x that are multiplied.
  void prepareRows(Value first, Value columns);
  /// Decodes row blocks 2 `pair` and 2 `pair` + 1 (where it exists) into
  /// `panel`.
  void decodePanel(const Weight &weight, Value pair, Value panel);
  void decodeBlock(const Weight &weight, Value block, Value panel, int half);
  /// For every block of one or two row tiles: `body(tile, row tiles)`.
  void forRowTiles(function_ref<void(Value, int64_t)> body);
  /// result (rowTiles * 16, 32) = row tiles from `tile` times the panel.
  void multiply(Value tile, int64_t rowTiles, Value panel, Value result);
  /// For every row of the block that exists: `body(row, its offset in a
  /// result)`.
  void forResultRows(Value tile, int64_t rowTiles,
                     function_ref<void(Value, Value)> body);
  /// Multiplies a weight and stores f32 columns from `column` on.
  void storeProduct(const Weight &weight, Value out, Value column, Value bias,
                    Value isFirst);

  /// 16 columns of the result row that begins at byte `row`.
  Value loadResult(int matrix, Value row, int half) {
    return e.load(e.vec(kLanes, e.f32()),
                  e.offset(e.offset(result[matrix], row), half * kTileRowBytes),
                  64);
  }
  Value blocksOf(Value columns) {
    return e.div(e.add(columns, e.index(kPackedRows - 1)),
                 e.index(kPackedRows));
  }
  Value tileLoad(Value pointer, int64_t stride) {
    return e.intrinsic("llvm.x86.tileloadd64.internal", tileType(),
                       {tileRows(), tileColumns(), pointer, e.index(stride)});
  }
  Type tileType() { return LLVM::LLVMX86AMXType::get(e.b.getContext()); }
  Value tileRows() { return e.constant(e.i16(), kTileRows); }
  Value tileColumns() { return e.constant(e.i16(), kTileRowBytes); }

  Kernel &k;
  Emitter &e;
  const MatmulPlan &plan;
  int64_t depth, rowBytes;
  Value x;       ///< first of the columns in use, of row 0
  Value tail;    ///< the same of the rows past the last full tile, padded
  Value columns; ///< columns in use
  Value tiles;   ///< row tiles, the tail's included
  // Scratch of each matrix (gate and up, or just one) of the panel at hand.
  Value panel[2];  ///< bf16 tiles [depth / 32][2][16 k pairs][16 columns][2]
  Value result[2]; ///< f32 [32 rows][32 columns]
};

LogicalResult AmxMatmulEmitter::emit() {
  if (depth % kPackedGroup != 0)
    return k.emitError() << "expected a depth that is a multiple of "
                         << kPackedGroup << ", got " << depth;
  bool swiglu = plan.epilogue != MatmulPlan::Epilogue::Store;
  for (int matrix = 0; matrix < (swiglu ? 2 : 1); ++matrix) {
    panel[matrix] = k.temporary(depth * kPanelColumns * 2);
    result[matrix] = k.temporary(2 * kTileRows * kResultRowBytes);
  }
  if (swiglu) {
    int64_t width = plan.projections.front().outputs();
    if (width % kPanelColumns != 0)
      return k.emitError() << "swiglu over " << width
                           << " columns, expected a multiple of "
                           << kPanelColumns;
    emitSwiglu();
  } else if (plan.splitK) {
    emitSplitK();
  } else {
    emitSplitN();
  }
  return success();
}

void AmxMatmulEmitter::prepareRows(Value first, Value count) {
  columns = count;
  Value firstByte = e.mul(first, e.index(2));
  x = e.offset(k.argument(plan.x), firstByte);
  tail = k.temporary(kTileRows * rowBytes);
  Value tileRows = e.index(kTileRows);
  tiles = e.div(e.add(k.rows(), e.index(kTileRows - 1)), tileRows);
  Value left = e.rem(k.rows(), tileRows);
  Value begin = e.sub(k.rows(), left);
  Type chunk = e.vec(kLanes, e.i32());
  e.ifThen(e.less(e.index(0), left), [&] {
    e.forLoop(e.index(0), tileRows, 1, [&](Value r) {
      Value exists = e.less(r, left);
      // Row r of the tail; for rows that do not exist, one that does.
      Value row = e.add(begin, e.select(exists, r, e.index(0)));
      Value from = e.offset(x, e.mul(row, e.index(rowBytes)));
      Value to = e.offset(tail, e.mul(r, e.index(rowBytes)));
      e.forLoop(e.index(0), e.mul(columns, e.index(2)), kTileRowBytes,
                [&](Value byte) {
                  Value values = e.load(chunk, e.offset(from, byte), 64);
                  e.store(e.select(exists, values, e.constant(chunk, 0)),
                          e.offset(to, byte), 64);
                });
    });
  });
}

void AmxMatmulEmitter::decodePanel(const Weight &weight, Value pair,
                                   Value panel) {
  Value block = e.mul(pair, e.index(2));
  decodeBlock(weight, block, panel, 0);
  // Without a second block its half of the panel is stale, and so are results
  // that nobody stores.
  Value second = e.add(block, e.index(1));
  e.ifThen(e.less(second, weight.blocks),
           [&] { decodeBlock(weight, second, panel, 1); });
}

void AmxMatmulEmitter::decodeBlock(const Weight &weight, Value block,
                                   Value panel, int half) {
  WeightDecoder w(e, formatOf(weight.projection->weight));
  Value base = e.offset(weight.pointer, e.mul(block, w.rowBlockBytes(columns)));
  SmallVector<int32_t> interleaved;
  for (int32_t n = 0; n < kLanes; ++n) {
    interleaved.push_back(n);
    interleaved.push_back(n + kLanes);
  }
  w.forGroups(
      base, columns, {}, [&](const WeightDecoder::Group &group, ValueRange) {
        w.prefetch(group, e.index(0), k.tile.prefetch);
        Value tile =
            e.offset(panel, e.mul(group.index, e.index(2 * kTileBytes)));
        Value even;
        w.forColumns(group, [&](int column, Value values) {
          if (column % 2 == 0) {
            even = values;
            return;
          }
          // Rounds to nearest even; denormals become zero, as in the product.
          Value pair = e.intrinsic("llvm.x86.avx512bf16.cvtne2ps2bf16.512",
                                   e.vec(32, e.bf16()), {values, even});
          e.store(
              e.shuffle(pair, pair, interleaved),
              e.offset(tile, half * kTileBytes + column / 2 * kTileRowBytes),
              64);
        });
        return Emitter::Values();
      });
}

void AmxMatmulEmitter::forRowTiles(function_ref<void(Value, int64_t)> body) {
  Value odd = e.rem(tiles, e.index(2));
  Value even = e.sub(tiles, odd);
  e.forLoop(e.index(0), even, 2, [&](Value tile) { body(tile, 2); });
  e.ifThen(e.less(e.index(0), odd), [&] { body(even, 1); });
}

void AmxMatmulEmitter::multiply(Value tile, int64_t rowTiles, Value panel,
                                Value result) {
  SmallVector<Value> rows;
  for (int64_t i = 0; i < rowTiles; ++i) {
    Value first = e.mul(e.add(tile, e.index(i)), e.index(kTileRows));
    Value isFull = e.less(e.add(first, e.index(kTileRows - 1)), k.rows());
    rows.push_back(
        e.select(isFull, e.offset(x, e.mul(first, e.index(rowBytes))), tail));
  }
  SmallVector<Value> zeros;
  for (int64_t i = 0; i < 2 * rowTiles; ++i)
    zeros.push_back(e.intrinsic("llvm.x86.tilezero.internal", tileType(),
                                {tileRows(), tileColumns()}));
  Value groups = e.div(columns, e.index(kPackedGroup));
  Emitter::Values sums = e.forLoop(
      e.index(0), groups, 1, zeros, [&](Value group, ValueRange carried) {
        Value weights = e.offset(panel, e.mul(group, e.index(2 * kTileBytes)));
        Value columnByte = e.mul(group, e.index(kTileRowBytes));
        Value b[2];
        for (int half = 0; half < 2; ++half)
          b[half] =
              tileLoad(e.offset(weights, half * kTileBytes), kTileRowBytes);
        Emitter::Values next;
        for (int64_t i = 0; i < rowTiles; ++i) {
          Value a = tileLoad(e.offset(rows[i], columnByte), rowBytes);
          for (int half = 0; half < 2; ++half)
            next.push_back(
                e.intrinsic("llvm.x86.tdpbf16ps.internal", tileType(),
                            {tileRows(), tileColumns(), tileColumns(),
                             carried[2 * i + half], a, b[half]}));
        }
        return next;
      });
  for (int64_t i = 0; i < rowTiles; ++i)
    for (int half = 0; half < 2; ++half)
      e.intrinsic("llvm.x86.tilestored64.internal", {},
                  {tileRows(), tileColumns(),
                   e.offset(result, i * kTileRows * kResultRowBytes +
                                        half * kTileRowBytes),
                   e.index(kResultRowBytes), sums[2 * i + half]});
}

void AmxMatmulEmitter::forResultRows(Value tile, int64_t rowTiles,
                                     function_ref<void(Value, Value)> body) {
  Value first = e.mul(tile, e.index(kTileRows));
  Value count = e.minU(e.sub(k.rows(), first), e.index(rowTiles * kTileRows));
  e.forLoop(e.index(0), count, 1, [&](Value r) {
    body(e.add(first, r), e.mul(r, e.index(kResultRowBytes)));
  });
}

void AmxMatmulEmitter::storeProduct(const Weight &weight, Value out,
                                    Value firstColumn, Value bias,
                                    Value isFirst) {
  int64_t outputs = weight.projection->outputs();
  Value pairs = e.div(e.add(weight.blocks, e.index(1)), e.index(2));
  e.forLoop(e.index(0), pairs, 1, [&](Value pair) {
    decodePanel(weight, pair, panel[0]);
    Value column = e.add(firstColumn, e.mul(pair, e.index(kPanelColumns)));
    Value hasSecond =
        e.less(e.add(e.mul(pair, e.index(2)), e.index(1)), weight.blocks);
    auto store = [&](Value row, Value from, int half, Value addend) {
      storeColumns(k, out, row, e.add(column, e.index(half * kLanes)), outputs,
                   addend, loadResult(0, from, half));
    };
    auto storeRow = [&](Value row, Value from, Value addend) {
      store(row, from, 0, addend);
      e.ifThen(hasSecond, [&] { store(row, from, 1, addend); });
    };
    forRowTiles([&](Value tile, int64_t rowTiles) {
      multiply(tile, rowTiles, panel[0], result[0]);
      forResultRows(tile, rowTiles, [&](Value row, Value from) {
        if (!isFirst)
          return storeRow(row, from, bias);
        e.ifElse(
            isFirst, [&] { storeRow(row, from, bias); },
            [&] { storeRow(row, from, {}); });
      });
    });
  });
}

void AmxMatmulEmitter::emitSplitN() {
  prepareRows(e.index(0), e.index(depth));
  for (auto [i, projection] : llvm::enumerate(plan.projections)) {
    Value begin = k.rangeBegin(i);
    Weight weight = {&projection, k.argument(projection.weight),
                     blocksOf(e.sub(k.rangeEnd(i), begin))};
    Value bias = projection.bias ? k.argument(projection.bias) : Value();
    storeProduct(weight, k.result(i), begin, bias, {});
  }
}

void AmxMatmulEmitter::emitSplitK() {
  const Projection &projection = plan.projections.front();
  Value begin = k.rangeBegin(0);
  prepareRows(begin, e.sub(k.rangeEnd(0), begin));
  Weight weight = {&projection, k.argument(projection.weight),
                   blocksOf(e.index(projection.outputs()))};
  // The first share adds the bias.
  Value bias = projection.bias ? k.argument(projection.bias) : Value();
  Value isFirst = bias ? e.equal(begin, e.index(0)) : Value();
  storeProduct(weight, k.result(0), e.index(0), bias, isFirst);
}

void AmxMatmulEmitter::emitSwiglu() {
  prepareRows(e.index(0), e.index(depth));
  bool quantize = plan.epilogue == MatmulPlan::Epilogue::SwigluQuantize;
  int64_t width = plan.projections.front().outputs();
  Value begin = k.rangeBegin(0);
  Value blocks = blocksOf(e.sub(k.rangeEnd(0), begin));
  Weight weights[2];
  for (int matrix = 0; matrix < 2; ++matrix)
    weights[matrix] = {&plan.projections[matrix],
                       k.argument(plan.projections[matrix].weight), blocks};
  Value out = k.result(0);
  int64_t outBytes = quantize ? activationRowBytes(width) : 4 * width;
  e.forLoop(e.index(0), e.div(blocks, e.index(2)), 1, [&](Value pair) {
    for (int matrix = 0; matrix < 2; ++matrix)
      decodePanel(weights[matrix], pair, panel[matrix]);
    Value column = e.add(begin, e.mul(pair, e.index(kPanelColumns)));
    forRowTiles([&](Value tile, int64_t rowTiles) {
      for (int matrix = 0; matrix < 2; ++matrix)
        multiply(tile, rowTiles, panel[matrix], result[matrix]);
      forResultRows(tile, rowTiles, [&](Value row, Value from) {
        Value half[2];
        for (int h = 0; h < 2; ++h)
          half[h] =
              e.mul(e.silu(loadResult(0, from, h)), loadResult(1, from, h));
        Value outRow = e.offset(out, e.mul(row, e.index(outBytes)));
        if (quantize)
          return storeActivationGroup(k, outRow, width,
                                      e.div(column, e.index(kPackedGroup)),
                                      half[0], half[1]);
        Value place = e.offset(outRow, e.mul(column, e.index(4)));
        e.store(half[0], place, 4);
        e.store(half[1], e.offset(place, kLanes * 4), 4);
      });
    });
  });
}

} // namespace

bool matchesAmxMatmul(Kernel &k) {
  if (k.numerics != Numerics::Bf16 || !k.e.target.hasAmx)
    return false;
  auto plan = planMatmul(k.op);
  return plan && isActivation(plan->x);
}

LogicalResult generateAmxMatmul(Kernel &k) {
  MatmulPlan plan = *planMatmul(k.op);
  return AmxMatmulEmitter(k, plan).emit();
}

} // namespace quern::host
