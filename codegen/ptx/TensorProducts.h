//===- TensorProducts.h - What matmuls on tensor cores share ----*- C++ -*-===//
//
// Which row blocks a warp multiplies, and what becomes of its sums; and, for
// steps of many tokens, the stages in which tokens and packed weights come
// through shared memory.
//
// A token is a column of its own and K is summed in an order that depends on
// nothing but K: a row's result depends neither on the rows beside it nor on
// the grid.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_PTX_TENSORPRODUCTS_H
#define QUERN_CODEGEN_PTX_TENSORPRODUCTS_H

#include "codegen/ptx/Hopper.h"
#include "codegen/ptx/OutputTiles.h"
#include "codegen/ptx/WeightDecoder.h"

namespace quern::nvptx {

/// Tokens of an mma, and of a block of numeric rows.
inline constexpr int64_t kMmaTokens = kHalfRows;

/// The tiles that a generator has registers for.
struct TileLimits {
  int64_t rowUnit; ///< tokens are a multiple of it
  int64_t warps;   ///< with row blocks of their own: one or two each
  int64_t sums;    ///< tokens times row blocks of a warp at most
};

class TensorProducts {
public:
  virtual ~TensorProducts() = default;

  /// Emits the kernel; refuses a tile beyond the limits.
  mlir::LogicalResult emit();

protected:
  using Value = mlir::Value;
  using Values = Emitter::Values;

  /// One of the row blocks that every warp with row blocks of its own
  /// multiplies.
  struct Stream {
    /// It has one of these formats. Where there are several, all streams have
    /// the same ones.
    llvm::SmallVector<FormatChoice, 2> formats;
    /// First byte of that of warp `warp`.
    std::function<Value(Value warp)> base;
  };
  /// Output (i64, 0..15) of the row blocks of the warp at `place`, row of x,
  /// what each stream has there.
  using Visit = llvm::function_ref<void(Value place, Value output, Value row,
                                        llvm::ArrayRef<Value> values)>;

  TensorProducts(Kernel &k, const MatmulPlan &plan, const TileLimits &limits)
      : k(k), e(k.e), plan(plan), limits(limits),
        operands(k.hasFp8Rows(plan.x) ? Operands::E4M3 : Operands::F16),
        groupBytes(groupBytesOf(operands)) {}

  /// Sets threads and grid, allocates shared memory.
  virtual void launch(GridFactor columns) = 0;
  /// Multiplies the streams with this block's tokens over `groups` groups,
  /// group 0 being `firstGroup` of x, and visits the sums.
  virtual void compute(llvm::ArrayRef<Stream> streams, Value firstGroup,
                       Value groups, Visit visit) = 0;
  virtual void visitZeros(llvm::ArrayRef<Stream> streams, Visit visit) = 0;
  /// Number of this warp among those with row blocks of their own (i64).
  virtual Value place() = 0;

  /// Visits the sums of a tile of `count` tokens, [stream][block of 8 tokens]
  /// [4], as mma.m16n8k16 leaves them.
  void visitTile(llvm::ArrayRef<Stream> streams, int64_t count,
                 mlir::ValueRange sums, Visit visit);
  /// What `make` gives for the formats that the streams have.
  Values
  byFormats(llvm::ArrayRef<Stream> streams,
            llvm::function_ref<Values(llvm::ArrayRef<WeightDecoder>)> make);
  /// sums (4) += A * B of the steps of `a`: `b` has two words of each.
  void accumulate(const WeightDecoder::Fragment &a, mlir::ValueRange b,
                  llvm::MutableArrayRef<Value> sums);

  Kernel &k;
  Emitter &e;
  const MatmulPlan &plan;
  TileLimits limits;
  Operands operands;
  int64_t groupBytes;      ///< of 8 rows of x
  int64_t streamCount = 0; ///< row blocks of a warp
  int64_t tokens = 0;      ///< of a block of the grid
  Value firstRow;          ///< of the block's tokens

private:
  void emitStore();
  void emitSwiglu();
  /// The sum `value` of products with row `output` of the row block at `base`
  /// and row `row` of x, by their scales, where they have some.
  Value scaled(Value value, llvm::ArrayRef<FormatChoice> formats, Value base,
               Value output, Value row);
};

/// Stages in shared memory, each of some groups of K, `groupBytes` a block of 8
/// tokens: [stage]{front | [block of 8 tokens][group] | [warp][stream] slot}. A
/// slot has the groups of a row block, packed, and behind them a superblock's
/// parameters; the front is the generator's own. Step t of K is in stage t %
/// count of its ring; ring r has the stages from number r * count on.
class WeightStages {
public:
  using Values = Emitter::Values;

  /// Groups of a stage of many tokens.
  static constexpr int64_t kGroups = 2;
  static constexpr int64_t kMost = 4;
  /// Bytes of an asynchronous copy of a lane.
  static constexpr int64_t kCopyBytes = 16;
  /// Bytes that one ldmatrix brings.
  static constexpr int64_t kLoadBytes = 4 * kHalfBlockBytes;

  struct Shape {
    int64_t tokens;
    int64_t warps;   ///< with row blocks of their own
    int64_t streams; ///< row blocks of a warp
    int64_t groups = kGroups;
    int64_t frontBytes = 0;
    int64_t rings = 1;
  };

  /// As many stages a ring as `bytes` have the place for, a power of two of 2
  /// to kMost.
  WeightStages(Kernel &k, const MatmulPlan &plan, Operands operands,
               const Shape &shape, int64_t bytes);

  /// Stages that `groups` (i64) take.
  mlir::Value stagesOf(mlir::Value groups);
  mlir::Value numberOf(mlir::Value t);
  /// Parity of the phase of its stage's barriers that step `t` ends.
  mlir::Value parityOf(mlir::Value t);
  /// Where stage `number` (i64) is.
  mlir::Value at(mlir::Value number);
  /// Where the tokens of the stage at `stage` are.
  mlir::Value tokens(mlir::Value stage) { return e.offset(stage, frontBytes); }
  /// The slot of stream `stream` of warp `warp` in the stage at `stage`.
  mlir::Value slot(mlir::Value stage, mlir::Value warp, size_t stream);
  /// The A fragment of group `group` of the slot at `slot`.
  WeightDecoder::Fragment fragment(const WeightDecoder &decoder,
                                   mlir::Value slot, int64_t group);
  /// Those of the groups that lie in kLoadBytes from byte `at` of every block
  /// of tokens on: one of f16, two of e4m3.
  WeightDecoder::Fragment loaded(const WeightDecoder &decoder, mlir::Value slot,
                                 int64_t at);
  /// Lanes' places in what copyWarp copies (bytes).
  mlir::Value laneBytes() { return e.mul(e.lane(), e.index(kCopyBytes)); }
  /// For each group of a stage, how many stages (i32) from the first on have it
  /// where K has `groups` (i64) groups.
  Values groupEnds(mlir::Value groups);
  /// The lanes of a warp copy the tokens of a block of 8 of stage `t` (i32);
  /// `from` and `to` are the lane's places. Groups that end at or before `t`
  /// become zeros and are not read.
  void copyTokens(mlir::Value from, mlir::Value to, mlir::Value t,
                  mlir::ValueRange groupEnds);
  /// The lanes of a warp copy stage `t` (i32) of a row block to the slot at
  /// `slot` in the same way; `base` is the lane's place in the row block.
  void copyWarp(const WeightDecoder &decoder, mlir::Value base,
                mlir::Value slot, mlir::Value t, mlir::ValueRange groupEnds);
  /// Starts bulk copies of `count` groups of the row block at `base`, from
  /// group `first` on, to the slot at `slot`; `filled` gets the bytes.
  void copyGroups(const WeightDecoder &decoder, mlir::Value base,
                  mlir::Value first, mlir::Value count, mlir::Value slot,
                  mlir::Value filled);

  /// Bytes of the parameters behind a superblock's groups, if there are any.
  static int64_t superBytes(const PackedFormat &format) {
    return format.superblockBytes() - format.superScaleOffset();
  }

  int64_t groups; ///< of a stage
  int64_t count, stageBytes;
  int64_t blockBytes; ///< of a block of 8 tokens
  mlir::Value base;

private:
  /// Bytes (i32) of a lane's copy in stage `t`, lane 0's being at byte `at` of
  /// groups of `groupBytes`.
  mlir::Value copyBytes(mlir::Value t, int64_t at, int64_t groupBytes,
                        mlir::ValueRange groupEnds);

  Emitter &e;
  Operands operands;
  int64_t frontBytes, tokenBytes, slotBytes, streams;
  int64_t groupsTogether; ///< so many of a stage end together
};

} // namespace quern::nvptx

#endif // QUERN_CODEGEN_PTX_TENSORPRODUCTS_H
