//===- MatmulKernel.cpp - Matmuls on vectors ------------------------------===//
//
// Products with packed weights, 16 outputs in a vector. Two arithmetics:
//
//   integer  x is a8 in int8 numerics: u8 codes by s8 activations, an exact
//            int32 dot per 16 columns, then fused multiply-adds in f32 (the
//            contract of section 5 of docs/architecture.md)
//   float    x is f32, or f16 or e4m3 held as f32: weights are decoded to f32,
//            one fma per product
//
// The register tile is at most `rows` x `blocks`: rows are cut in as few tiles
// as that allows, which differ by one row at most. Since every output is
// computed by the same sequence of operations, the tile does not change the
// result.
//
//===----------------------------------------------------------------------===//
#include "codegen/host/Kernel.h"
#include "codegen/host/WeightDecoder.h"
#include "codegen/kernels/MatmulPlan.h"

using namespace mlir;

namespace quern::host {
namespace {

/// Vectors that sum a register tile at most, of 16 or 32 registers.
constexpr int64_t kMaxAccumulators = 8;

/// SwiGLU works on so many groups of columns at a time: gate's row blocks, then
/// up's, each in one run, then what joins them. Long enough that the joins of
/// several groups overlap, and short enough that gate and up stay in L2 while
/// the rows of a batch pass.
constexpr int64_t kSwigluGroups = 4;
/// A row of one of the two in scratch.
constexpr int64_t kSwigluRowBytes = kSwigluGroups * kPackedGroup * 4;

/// All rows pass by so many row blocks before the next: rows come into L1 once
/// for all of them, and results are written in longer runs.
constexpr int64_t kPanelBlocks = 4;

/// Emits the loops of one kernel.
class MatmulEmitter {
public:
  MatmulEmitter(Kernel &k, MatmulPlan plan)
      : k(k), e(k.e), plan(std::move(plan)), depth(this->plan.depth()),
        integer(isActivation(this->plan.x)), x(k.argument(this->plan.x)),
        rowTiles(cutRows()) {}

  LogicalResult emitSplitN();
  LogicalResult emitSplitK();
  LogicalResult emitSwiglu();

private:
  using Values = Emitter::Values;

  /// A stream of one projection's row blocks, as this share holds them.
  struct Stream {
    Value pointer;    ///< first row block
    Value blockBytes; ///< bytes of a row block
    BlockFormat format;
  };

  Stream streamOf(const Projection &projection, Value columns);

  /// One register tile: `rows` rows from `row` by `blocks` row blocks of the
  /// stream from `block`, summed over `columns` of K from column `first` of x.
  /// Returns rows x blocks vectors.
  Values tile(const Stream &stream, Value block, int64_t blocks, Value row,
              int64_t rows, Value first, Value columns);
  struct IntegerRows;
  SmallVector<Value> partDots(WeightDecoder &w,
                              const WeightDecoder::Group &group, IntegerRows &x,
                              int part);
  void integerGroup(WeightDecoder &w, const WeightDecoder::Group &group,
                    Value firstRow, Value firstGroup,
                    MutableArrayRef<Value> acc);
  void floatGroup(WeightDecoder &w, const WeightDecoder::Group &group,
                  Value firstRow, Value firstGroup, MutableArrayRef<Value> acc);

  /// How the rows of this call are cut: `longer` tiles of `rows` + 1 rows, then
  /// `others` of `rows`.
  struct RowTiles {
    Value rows, longer, others;
  };
  RowTiles cutRows();

  /// Covers `count` row blocks with full tiles, then single blocks.
  void forBlockTiles(Value count,
                     function_ref<void(Value block, int64_t blocks)> body);
  /// Covers all rows of `count` row blocks with tiles, panel by panel.
  void forTiles(
      Value count,
      function_ref<void(Value block, int64_t blocks, Value row, int64_t rows)>
          body);
  void projectGateAndUp(Value first, Value count, Value row, int64_t rows);
  void projectToScratch(const Stream &stream, Value scratch, Value first,
                        Value count, Value row, int64_t rows);
  void joinScratch(Value begin, Value first, Value count, Value row,
                   int64_t rows);
  /// Row `row` of a tile's products with gate (0) or up (1).
  Value swigluPlace(int64_t row, int matrix) {
    return e.offset(swigluScratch, (row * 2 + matrix) * kSwigluRowBytes);
  }

  /// Covers all rows with as few tiles as there can be, each of n or n - 1
  /// rows: a row alone takes twice the time of one among eight, so that tiles
  /// of few rows beside a full one would make more streams slower.
  void forRowTiles(function_ref<void(Value row, int64_t rows)> body);

  /// Stores a tile's vectors (blocks x rows) as f32 columns from `column`.
  void storeTile(Value out, Value row, int64_t rows, Value column,
                 int64_t blocks, int64_t outputs, Value bias,
                 ArrayRef<Value> acc) {
    for (int64_t b = 0; b < blocks; ++b)
      for (int64_t r = 0; r < rows; ++r)
        storeColumns(k, out, e.add(row, e.index(r)),
                     e.add(column, e.index(b * kLanes)), outputs, bias,
                     acc[b * rows + r]);
  }

  int64_t xRowBytes() const {
    return integer ? activationRowBytes(depth) : 4 * depth;
  }
  Value xRow(Value row) { return e.at(x, row, xRowBytes()); }

  Kernel &k;
  Emitter &e;
  MatmulPlan plan;
  int64_t depth;
  bool integer;
  Value x;
  RowTiles rowTiles;
  Value swigluScratch; ///< f32 [rows][gate, up][kSwigluGroups * 32]
};

MatmulEmitter::Stream MatmulEmitter::streamOf(const Projection &projection,
                                              Value columns) {
  Stream stream{k.argument(projection.weight), {}, formatOf(projection.weight)};
  stream.blockBytes = WeightDecoder(e, stream.format).rowBlockBytes(columns);
  return stream;
}

MatmulEmitter::RowTiles MatmulEmitter::cutRows() {
  Value full =
      e.div(e.add(k.rows(), e.index(k.tile.rows - 1)), e.index(k.tile.rows));
  // No rows are one tile of none.
  Value tiles = e.select(e.equal(full, e.index(0)), e.index(1), full);
  Value longer = e.rem(k.rows(), tiles);
  return {e.div(k.rows(), tiles), longer, e.sub(tiles, longer)};
}

void MatmulEmitter::forRowTiles(function_ref<void(Value, int64_t)> body) {
  Value begin = e.index(0);
  for (int64_t rows = k.tile.rows; rows > 0; --rows) {
    Value isLonger = e.equal(rowTiles.rows, e.index(rows - 1));
    Value isOther = e.equal(rowTiles.rows, e.index(rows));
    Value count = e.select(isOther, rowTiles.others,
                           e.select(isLonger, rowTiles.longer, e.index(0)));
    Value end = e.add(begin, e.mul(count, e.index(rows)));
    e.forLoop(begin, end, rows, [&](Value row) { body(row, rows); });
    begin = end;
  }
}

void MatmulEmitter::forBlockTiles(Value count,
                                  function_ref<void(Value, int64_t)> body) {
  int64_t blocks = k.tile.blocks;
  Value full = e.sub(count, e.rem(count, e.index(blocks)));
  if (blocks > 1)
    e.forLoop(e.index(0), full, blocks,
              [&](Value block) { body(block, blocks); });
  e.forLoop(blocks > 1 ? full : e.index(0), count, 1,
            [&](Value block) { body(block, 1); });
}

void MatmulEmitter::forTiles(
    Value count, function_ref<void(Value, int64_t, Value, int64_t)> body) {
  e.forLoop(e.index(0), count, kPanelBlocks, [&](Value first) {
    Value panel = e.minU(e.index(kPanelBlocks), e.sub(count, first));
    forRowTiles([&](Value row, int64_t rows) {
      forBlockTiles(panel, [&](Value block, int64_t blocks) {
        body(e.add(first, block), blocks, row, rows);
      });
    });
  });
}

/// What `count` rows of activations from `row` have of one group: two parts of
/// 16 columns, each with a scale, and the sums of the columns under one scale
/// of the weights, one for both parts or one for each. Rows are constant
/// offsets apart, so that a loop over groups steps few addresses whatever the
/// rows.
struct MatmulEmitter::IntegerRows {
  IntegerRows(Emitter &e, Value row, int64_t count, Value group, int64_t depth,
              int subGroups)
      : e(e), count(count), rowBytes(activationRowBytes(depth)),
        codes(e.at(row, group, kPackedGroup)),
        scales(e.offset(e.at(row, group, 8), activationScaleOffset(depth))),
        sums(e.offset(e.at(row, group, 4 * subGroups),
                      subGroups == 1 ? activationPairSumOffset(depth)
                                     : activationSumOffset(depth))) {}
  /// Element `index` of 4 bytes behind `first`, one of the three below.
  Value load(Type type, Value first, int64_t row, int index) {
    return e.load(type, e.offset(first, row * rowBytes + 4 * index), 4);
  }

  Emitter &e;
  int64_t count, rowBytes;
  Value codes, scales, sums; ///< of the first row
};

/// The dots of part `part` of a group with all rows, in i32.
SmallVector<Value> MatmulEmitter::partDots(WeightDecoder &w,
                                           const WeightDecoder::Group &group,
                                           IntegerRows &x, int part) {
  constexpr int kQuads = kActivationGroup / 4;
  SmallVector<Value> dots(x.count, e.constant(e.vec(kLanes, e.i32()), 0));
  for (int quad = part * kQuads; quad < (part + 1) * kQuads; ++quad) {
    Value codes = w.codes(group, quad);
    for (auto [row, dot] : llvm::enumerate(dots))
      dot = e.dot(dot, codes, x.load(e.i32(), x.codes, row, quad), w.maxCode());
  }
  return dots;
}

/// One group of one row block for all rows: exact dots per 16 columns, then
/// what they add to `acc` (one vector a row).
void MatmulEmitter::integerGroup(WeightDecoder &w,
                                 const WeightDecoder::Group &group,
                                 Value firstRow, Value firstGroup,
                                 MutableArrayRef<Value> acc) {
  const int subGroups = w.format.subGroups();
  IntegerRows x(e, firstRow, acc.size(), e.add(group.index, firstGroup), depth,
                subGroups);
  const int parts = kPackedGroup / kActivationGroup / subGroups;
  for (int sub = 0; sub < subGroups; ++sub) {
    const int first = sub * parts, end = first + parts;
    // Products start from what the zero point adds to them.
    SmallVector<Value> sums, products;
    Value minusZero = e.constant(e.f32(), -double(w.format.zero));
    for (int64_t row = 0; row < x.count; ++row) {
      sums.push_back(x.load(e.f32(), x.sums, row, sub));
      products.push_back(e.broadcast(e.mul(sums.back(), minusZero)));
    }
    for (int part = first; part < end; ++part)
      for (auto [row, dot] : llvm::enumerate(partDots(w, group, x, part))) {
        Value &product = products[row];
        Value exact = e.toFloat(dot, e.f32());
        Value scale = e.broadcast(x.load(e.f32(), x.scales, row, part));
        bool isFirst = w.format.zero == 0 && part == first;
        product = isFirst ? e.mul(exact, scale) : e.fma(exact, scale, product);
      }
    Value scale = w.scale(group, sub);
    for (auto [a, product] : llvm::zip_equal(acc, products))
      a = e.fma(product, scale, a);
    if (!w.hasMinimum())
      continue;
    Value minimum = w.minimum(group, sub);
    for (auto [a, sum] : llvm::zip_equal(acc, sums))
      a = e.fma(minimum, e.broadcast(sum), a);
  }
}

void MatmulEmitter::floatGroup(WeightDecoder &w,
                               const WeightDecoder::Group &group,
                               Value firstRow, Value firstGroup,
                               MutableArrayRef<Value> acc) {
  Value at = e.offset(firstRow, e.mul(e.add(group.index, firstGroup),
                                      e.index(4 * kPackedGroup)));
  w.forColumns(group, [&](int column, Value values) {
    for (auto [row, sum] : llvm::enumerate(acc)) {
      Value xk =
          e.load(e.f32(), e.offset(at, row * xRowBytes() + 4 * column), 4);
      sum = e.fma(e.broadcast(xk), values, sum);
    }
  });
}

MatmulEmitter::Values MatmulEmitter::tile(const Stream &stream, Value block,
                                          int64_t blocks, Value row,
                                          int64_t rows, Value first,
                                          Value columns) {
  WeightDecoder w(e, stream.format);
  Value base = e.offset(stream.pointer, e.mul(block, stream.blockBytes));
  Value firstRow = xRow(row);
  Value firstGroup = e.div(first, e.index(kPackedGroup));
  // Kept block-major, so that one block's rows are neighbours.
  Values acc(rows * blocks, e.constant(e.vec(kLanes, e.f32()), 0.0));
  // The first rows bring the weights for the others.
  Value ahead = e.select(e.equal(row, e.index(0)),
                         e.mul(e.index(blocks - 1), stream.blockBytes),
                         e.index(-k.tile.prefetch));
  acc = w.forGroups(base, columns, acc,
                    [&](const WeightDecoder::Group &first, ValueRange carried) {
                      Values next(carried);
                      for (int64_t b = 0; b < blocks; ++b) {
                        WeightDecoder::Group group =
                            w.shifted(first, stream.blockBytes, b);
                        w.prefetch(group, ahead, k.tile.prefetch);
                        MutableArrayRef<Value> part =
                            MutableArrayRef<Value>(next).slice(b * rows, rows);
                        if (integer)
                          integerGroup(w, group, firstRow, firstGroup, part);
                        else
                          floatGroup(w, group, firstRow, firstGroup, part);
                      }
                      return next;
                    });
  return acc;
}

LogicalResult MatmulEmitter::emitSplitN() {
  Value zero = e.index(0), columns = e.index(depth);
  for (auto [i, projection] : llvm::enumerate(plan.projections)) {
    Stream stream = streamOf(projection, columns);
    Value out = k.result(i);
    Value bias = projection.bias ? k.argument(projection.bias) : Value();
    Value begin = k.rangeBegin(i);
    Value count = e.div(e.add(e.sub(k.rangeEnd(i), begin), e.index(kLanes - 1)),
                        e.index(kLanes));
    forTiles(count, [&](Value block, int64_t blocks, Value row, int64_t rows) {
      Value column = e.add(begin, e.mul(block, e.index(kLanes)));
      Values acc = tile(stream, block, blocks, row, rows, zero, columns);
      storeTile(out, row, rows, column, blocks, projection.outputs(), bias,
                acc);
    });
  }
  return success();
}

LogicalResult MatmulEmitter::emitSplitK() {
  const Projection &projection = plan.projections.front();
  Value begin = k.rangeBegin(0);
  Value columns = e.sub(k.rangeEnd(0), begin);
  Stream stream = streamOf(projection, columns);
  Value out = k.result(0);
  int64_t count = (projection.outputs() + kLanes - 1) / kLanes;
  // The first share adds the bias.
  Value bias = projection.bias ? k.argument(projection.bias) : Value();
  Value isFirst = bias ? e.equal(begin, e.index(0)) : Value();
  forTiles(e.index(count), [&](Value block, int64_t blocks, Value row,
                               int64_t rows) {
    Value column = e.mul(block, e.index(kLanes));
    Values acc = tile(stream, block, blocks, row, rows, begin, columns);
    auto put = [&](Value b) {
      storeTile(out, row, rows, column, blocks, projection.outputs(), b, acc);
    };
    if (bias)
      e.ifElse(isFirst, [&] { put(bias); }, [&] { put({}); });
    else
      put({});
  });
  return success();
}

LogicalResult MatmulEmitter::emitSwiglu() {
  int64_t width = plan.projections.front().outputs();
  if (width % kPackedGroup != 0)
    return k.emitError() << "swiglu over " << width
                         << " columns, expected a multiple of " << kPackedGroup;
  Value begin = k.rangeBegin(0);
  Value groups = e.div(e.sub(k.rangeEnd(0), begin), e.index(kPackedGroup));
  swigluScratch = k.temporary(k.tile.rows * 2 * kSwigluRowBytes);
  e.forLoop(e.index(0), groups, kSwigluGroups, [&](Value first) {
    Value count = e.minU(e.index(kSwigluGroups), e.sub(groups, first));
    forRowTiles([&](Value row, int64_t rows) {
      projectGateAndUp(first, count, row, rows);
      joinScratch(begin, first, count, row, rows);
    });
  });
  return success();
}

/// Gate's products, then up's: with the same code where their formats agree.
void MatmulEmitter::projectGateAndUp(Value first, Value count, Value row,
                                     int64_t rows) {
  Stream gate = streamOf(plan.projections[0], e.index(depth));
  Stream up = streamOf(plan.projections[1], e.index(depth));
  if (gate.format != up.format) {
    projectToScratch(gate, swigluPlace(0, 0), first, count, row, rows);
    projectToScratch(up, swigluPlace(0, 1), first, count, row, rows);
    return;
  }
  e.forLoop(e.index(0), e.index(2), 1, [&](Value matrix) {
    Stream stream = gate;
    stream.pointer =
        e.select(e.equal(matrix, e.index(0)), gate.pointer, up.pointer);
    Value scratch =
        e.offset(swigluScratch, e.mul(matrix, e.index(kSwigluRowBytes)));
    projectToScratch(stream, scratch, first, count, row, rows);
  });
}

/// `count` groups of the stream's columns from group `first` of this share, for
/// `rows` rows from `row`. `scratch` is where the first row's begin.
void MatmulEmitter::projectToScratch(const Stream &stream, Value scratch,
                                     Value first, Value count, Value row,
                                     int64_t rows) {
  Value perGroup = e.index(kPackedGroup / kLanes);
  Value firstBlock = e.mul(first, perGroup);
  forBlockTiles(e.mul(count, perGroup), [&](Value block, int64_t blocks) {
    Values acc = tile(stream, e.add(firstBlock, block), blocks, row, rows,
                      e.index(0), e.index(depth));
    for (int64_t b = 0; b < blocks; ++b)
      for (int64_t r = 0; r < rows; ++r)
        e.store(acc[b * rows + r],
                e.offset(e.offset(scratch, 2 * r * kSwigluRowBytes),
                         e.mul(e.add(block, e.index(b)), e.index(kLanes * 4))),
                64);
  });
}

/// silu(gate) * up of what projectToScratch() left.
void MatmulEmitter::joinScratch(Value begin, Value first, Value count,
                                Value row, int64_t rows) {
  int64_t width = plan.projections.front().outputs();
  bool quantize = k.hasNumericRows(k.yielded().front());
  int64_t rowBytes = quantize ? activationRowBytes(width) : 4 * width;
  Value out = k.result(0);
  Type lanes = e.vec(kLanes, e.f32());
  e.forLoop(e.index(0), count, 1, [&](Value group) {
    Value column =
        e.add(begin, e.mul(e.add(first, group), e.index(kPackedGroup)));
    Value inScratch = e.mul(group, e.index(kPackedGroup * 4));
    for (int64_t r = 0; r < rows; ++r) {
      Value halves[2];
      for (int half = 0; half < 2; ++half) {
        Value at = e.add(inScratch, e.index(half * kLanes * 4));
        Value gate = e.load(lanes, e.offset(swigluPlace(r, 0), at), 64);
        Value up = e.load(lanes, e.offset(swigluPlace(r, 1), at), 64);
        halves[half] = e.mul(e.silu(gate), up);
      }
      Value outRow = e.at(out, e.add(row, e.index(r)), rowBytes);
      if (quantize) {
        storeActivationGroup(k, outRow, width,
                             e.div(column, e.index(kPackedGroup)), halves[0],
                             halves[1]);
        continue;
      }
      Value place = e.offset(outRow, e.mul(column, e.index(4)));
      e.store(halves[0], place, 4);
      e.store(halves[1], e.offset(place, kLanes * 4), 4);
    }
  });
}

} // namespace

bool matchesMatmul(Kernel &k) {
  auto plan = planMatmul(k.op);
  return plan && isActivation(plan->x);
}

bool matchesFloatMatmul(Kernel &k) {
  auto plan = planMatmul(k.op);
  return plan && !isActivation(plan->x);
}

LogicalResult generateMatmul(Kernel &k) {
  MatmulPlan plan = *planMatmul(k.op);
  for (const Projection &projection : plan.projections) {
    const PackedFormat &format = packedFormat(formatOf(projection.weight));
    if ((format.isFloat() || format.isRowScaled()) && isActivation(plan.x))
      return k.emitError()
             << "reads int8 activations against a float weight; leave x in f32";
    int64_t unit = format.superblockColumns();
    if (plan.depth() % unit != 0)
      return k.emitError() << "sums over " << plan.depth()
                           << " columns, expected a multiple of " << unit;
  }
  if (k.tile.rows * k.tile.blocks > kMaxAccumulators)
    return k.emitError() << "expected a tile with rows * blocks of at most "
                         << kMaxAccumulators << ", got rows = " << k.tile.rows
                         << ", blocks = " << k.tile.blocks;
  MatmulEmitter emitter(k, plan);
  if (plan.epilogue != MatmulPlan::Epilogue::Store)
    return emitter.emitSwiglu();
  return plan.splitK ? emitter.emitSplitK() : emitter.emitSplitN();
}

} // namespace quern::host
