//===- AmxMatmulKernel.cpp - Matmuls on tile registers --------------------===//
//
// Products of bf16 numeric rows with packed weights of any format, on AMX tiles
// of 16 x 64 bytes. A panel of `blocks` row blocks is decoded to float32 as its
// format defines, rounded to bf16 and laid in scratch as tiles of k pairs; then
// all rows pass by, `rows` at a time, so that a loaded tile of weights is used
// rows / 16 times and one of rows `blocks` times. Products are added in f32 in
// ascending k, so neither the tile nor the number of rows changes a bit.
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
constexpr int64_t kTileRegisters = 8;

class AmxMatmulEmitter {
public:
  AmxMatmulEmitter(Kernel &k, const MatmulPlan &plan)
      : k(k), e(k.e), plan(plan), rowTiles(k.tile.rows / kTileRows),
        blocks(k.tile.blocks), depth(plan.depth()),
        rowBytes(activationRowBytes(depth)) {}

  LogicalResult emit();

private:
  /// A weight's row blocks as this share holds them, and how many.
  struct Weight {
    const Projection *projection;
    Value pointer, blocks;
  };

  LogicalResult checkTile();
  void emitSplitN();
  void emitSplitK();
  void emitSwiglu();

  /// Fixes the columns [first, first + columns) of x that are multiplied.
  void prepareRows(Value first, Value columns);
  /// For every panel of `count` row blocks: `body(first block)`.
  void forPanels(Value count, function_ref<void(Value)> body);
  /// For every row block of the panel from `first` that exists among `count`:
  /// `body(its place in the panel)`.
  void forPanelBlocks(Value first, Value count,
                      function_ref<void(int64_t)> body);
  /// Decodes the row blocks from `first` that exist into `panel`.
  void decodePanel(const Weight &weight, Value first, Value panel);
  void decodeBlock(const Weight &weight, Value block, Value panel,
                   int64_t place);
  /// Covers the row tiles with `rowTiles` at a time, then single ones:
  /// `body(first tile, tiles)`.
  void forRowTiles(function_ref<void(Value, int64_t)> body);
  /// result (count * 16, blocks * 16) = `count` row tiles from `tile` times the
  /// panel.
  void multiply(Value tile, int64_t count, Value panel, Value result);
  /// For every row of the `count` row tiles that exists: `body(row, its offset
  /// in a result)`.
  void forResultRows(Value tile, int64_t count,
                     function_ref<void(Value, Value)> body);
  /// Multiplies a weight and stores f32 columns from `column` on.
  void storeProduct(const Weight &weight, Value out, Value column, Value bias,
                    Value isFirst);

  /// The 16 columns of block `place` in the result row that begins at byte
  /// `row`.
  Value loadResult(int matrix, Value row, int64_t place) {
    return e.load(
        e.vec(kLanes, e.f32()),
        e.offset(e.offset(result[matrix], row), place * kTileRowBytes), 64);
  }
  int64_t resultRowBytes() const { return blocks * kTileRowBytes; }
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
  int64_t rowTiles; ///< row tiles that pass by together
  int64_t blocks;   ///< row blocks of a panel
  int64_t depth, rowBytes;
  Value x;       ///< first of the columns in use, of row 0
  Value tail;    ///< the same of the rows past the last full tile, padded
  Value columns; ///< columns in use
  Value tiles;   ///< row tiles, the tail's included
  // Scratch of each matrix (gate and up, or just one) of the panel at hand.
  Value panel[2];  ///< bf16 [depth / 32][blocks][16 k pairs][16 columns][2]
  Value result[2]; ///< f32 [rowTiles * 16][blocks * 16]
};

/// The one place that says which tiles AMX takes: whole row tiles, as many as
/// leave a register for each accumulator, each block of weights and the rows.
LogicalResult AmxMatmulEmitter::checkTile() {
  int64_t registers = (rowTiles + 1) * blocks + 1;
  if (k.tile.rows % kTileRows == 0 && registers <= kTileRegisters)
    return success();
  return k.emitError() << "expected a tile with rows a multiple of "
                       << kTileRows << " and (rows / " << kTileRows
                       << " + 1) * blocks + 1 of at most " << kTileRegisters
                       << " tile registers, got rows = " << k.tile.rows
                       << ", blocks = " << blocks;
}

LogicalResult AmxMatmulEmitter::emit() {
  if (depth % kPackedGroup != 0)
    return k.emitError() << "expected a depth that is a multiple of "
                         << kPackedGroup << ", got " << depth;
  if (failed(checkTile()))
    return failure();
  bool swiglu = plan.epilogue != MatmulPlan::Epilogue::Store;
  for (int matrix = 0; matrix < (swiglu ? 2 : 1); ++matrix) {
    panel[matrix] = k.temporary(depth * blocks * kPackedRows * 2);
    result[matrix] = k.temporary(rowTiles * kTileRows * resultRowBytes());
  }
  if (swiglu) {
    int64_t width = plan.projections.front().outputs();
    if (width % kPackedRows != 0)
      return k.emitError() << "swiglu over " << width
                           << " columns, expected a multiple of "
                           << kPackedRows;
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
      Value from = e.at(x, row, rowBytes);
      Value to = e.at(tail, r, rowBytes);
      e.forLoop(e.index(0), e.mul(columns, e.index(2)), kTileRowBytes,
                [&](Value byte) {
                  Value values = e.load(chunk, e.offset(from, byte), 64);
                  e.store(e.select(exists, values, e.constant(chunk, 0)),
                          e.offset(to, byte), 64);
                });
    });
  });
}

void AmxMatmulEmitter::forPanels(Value count, function_ref<void(Value)> body) {
  e.forLoop(e.index(0), count, blocks, body);
}

void AmxMatmulEmitter::forPanelBlocks(Value first, Value count,
                                      function_ref<void(int64_t)> body) {
  body(0);
  for (int64_t place = 1; place < blocks; ++place)
    e.ifThen(e.less(e.add(first, e.index(place)), count), [&] { body(place); });
}

void AmxMatmulEmitter::decodePanel(const Weight &weight, Value first,
                                   Value panel) {
  // The places of blocks that do not exist are stale, and so are results that
  // nobody stores.
  forPanelBlocks(first, weight.blocks, [&](int64_t place) {
    decodeBlock(weight, e.add(first, e.index(place)), panel, place);
  });
}

void AmxMatmulEmitter::decodeBlock(const Weight &weight, Value block,
                                   Value panel, int64_t place) {
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
        Value tile = e.at(panel, group.index, blocks * kTileBytes);
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
              e.offset(tile, place * kTileBytes + column / 2 * kTileRowBytes),
              64);
        });
        return Emitter::Values();
      });
}

void AmxMatmulEmitter::forRowTiles(function_ref<void(Value, int64_t)> body) {
  Value full = e.sub(tiles, e.rem(tiles, e.index(rowTiles)));
  e.forLoop(e.index(0), full, rowTiles,
            [&](Value tile) { body(tile, rowTiles); });
  if (rowTiles > 1)
    e.forLoop(full, tiles, 1, [&](Value tile) { body(tile, 1); });
}

void AmxMatmulEmitter::multiply(Value tile, int64_t count, Value panel,
                                Value result) {
  SmallVector<Value> rows;
  for (int64_t i = 0; i < count; ++i) {
    Value first = e.mul(e.add(tile, e.index(i)), e.index(kTileRows));
    Value isFull = e.less(e.add(first, e.index(kTileRows - 1)), k.rows());
    rows.push_back(e.select(isFull, e.at(x, first, rowBytes), tail));
  }
  SmallVector<Value> zeros;
  for (int64_t i = 0; i < count * blocks; ++i)
    zeros.push_back(e.intrinsic("llvm.x86.tilezero.internal", tileType(),
                                {tileRows(), tileColumns()}));
  Value groups = e.div(columns, e.index(kPackedGroup));
  Emitter::Values sums = e.forLoop(
      e.index(0), groups, 1, zeros, [&](Value group, ValueRange carried) {
        Value weights = e.at(panel, group, blocks * kTileBytes);
        Value columnByte = e.mul(group, e.index(kTileRowBytes));
        SmallVector<Value> b;
        for (int64_t place = 0; place < blocks; ++place)
          b.push_back(
              tileLoad(e.offset(weights, place * kTileBytes), kTileRowBytes));
        Emitter::Values next;
        for (int64_t i = 0; i < count; ++i) {
          Value a = tileLoad(e.offset(rows[i], columnByte), rowBytes);
          for (int64_t place = 0; place < blocks; ++place)
            next.push_back(
                e.intrinsic("llvm.x86.tdpbf16ps.internal", tileType(),
                            {tileRows(), tileColumns(), tileColumns(),
                             carried[blocks * i + place], a, b[place]}));
        }
        return next;
      });
  for (int64_t i = 0; i < count; ++i)
    for (int64_t place = 0; place < blocks; ++place)
      e.intrinsic("llvm.x86.tilestored64.internal", {},
                  {tileRows(), tileColumns(),
                   e.offset(result, i * kTileRows * resultRowBytes() +
                                        place * kTileRowBytes),
                   e.index(resultRowBytes()), sums[blocks * i + place]});
}

void AmxMatmulEmitter::forResultRows(Value tile, int64_t count,
                                     function_ref<void(Value, Value)> body) {
  Value first = e.mul(tile, e.index(kTileRows));
  Value rows = e.minU(e.sub(k.rows(), first), e.index(count * kTileRows));
  e.forLoop(e.index(0), rows, 1, [&](Value r) {
    body(e.add(first, r), e.mul(r, e.index(resultRowBytes())));
  });
}

void AmxMatmulEmitter::storeProduct(const Weight &weight, Value out,
                                    Value firstColumn, Value bias,
                                    Value isFirst) {
  int64_t outputs = weight.projection->outputs();
  forPanels(weight.blocks, [&](Value first) {
    decodePanel(weight, first, panel[0]);
    Value column = e.add(firstColumn, e.mul(first, e.index(kPackedRows)));
    auto storeRow = [&](Value row, Value from, Value addend) {
      forPanelBlocks(first, weight.blocks, [&](int64_t place) {
        storeColumns(k, out, row, e.add(column, e.index(place * kPackedRows)),
                     outputs, addend, loadResult(0, from, place));
      });
    };
    forRowTiles([&](Value tile, int64_t count) {
      multiply(tile, count, panel[0], result[0]);
      forResultRows(tile, count, [&](Value row, Value from) {
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
  bool quantize = k.hasNumericRows(k.yielded().front());
  int64_t width = plan.projections.front().outputs();
  Value begin = k.rangeBegin(0);
  Value count = blocksOf(e.sub(k.rangeEnd(0), begin));
  Weight weights[2];
  for (int matrix = 0; matrix < 2; ++matrix)
    weights[matrix] = {&plan.projections[matrix],
                       k.argument(plan.projections[matrix].weight), count};
  Value out = k.result(0);
  int64_t outBytes = quantize ? activationRowBytes(width) : 4 * width;
  forPanels(count, [&](Value first) {
    for (int matrix = 0; matrix < 2; ++matrix)
      decodePanel(weights[matrix], first, panel[matrix]);
    Value column = e.add(begin, e.mul(first, e.index(kPackedRows)));
    forRowTiles([&](Value tile, int64_t rowTiles) {
      for (int matrix = 0; matrix < 2; ++matrix)
        multiply(tile, rowTiles, panel[matrix], result[matrix]);
      forResultRows(tile, rowTiles, [&](Value row, Value from) {
        Value outRow = e.at(out, row, outBytes);
        forPanelBlocks(first, count, [&](int64_t place) {
          Value values = e.mul(e.silu(loadResult(0, from, place)),
                               loadResult(1, from, place));
          Value at = e.add(column, e.index(place * kPackedRows));
          if (quantize)
            e.store(e.roundToBf16Bits(values), e.at(outRow, at, 2));
          else
            e.store(values, e.at(outRow, at, 4), 4);
        });
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
