//===- OutputTiles.h - Which outputs a block computes -----------*- C++ -*-===//
//
// How a block of the grid finds its row blocks among all projections of a
// matmul: segments of split n follow one another as the share's ranges cut
// them, each in whole blocks of the grid; split k has all outputs over a range
// of K.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_PTX_OUTPUTTILES_H
#define QUERN_CODEGEN_PTX_OUTPUTTILES_H

#include "codegen/kernels/MatmulPlan.h"
#include "codegen/ptx/Kernel.h"
#include "codegen/ptx/WeightDecoder.h"

namespace quern::nvptx {

/// A place in one projection. All Values but pointers are i64.
struct OutputTile {
  mlir::Value weight;      ///< the share's piece
  mlir::Value out;         ///< f32 rows
  mlir::Value outputs;     ///< columns of a row of `out`
  mlir::Value bias;        ///< or null
  mlir::Value addBias;     ///< i1: this share adds it, or null: always
  mlir::Value firstColumn; ///< of the share
  mlir::Value endColumn;
  mlir::Value block;      ///< row block in the share's piece
  mlir::Value blockCount; ///< of the share's piece
  mlir::Value firstDepth; ///< first column of x
  mlir::Value depth;      ///< columns of K in the share's piece
};

/// A format that the weight at a place may have.
struct FormatChoice {
  BlockFormat format;
  mlir::Value here; ///< i1: it has
};

/// What `make` gives for the format that holds here; the values have the same
/// types for all.
Emitter::Values
byFormat(Emitter &e, llvm::ArrayRef<FormatChoice> formats,
         llvm::function_ref<Emitter::Values(const WeightDecoder &)> make);

class OutputTiles {
public:
  /// A block of the grid takes up to `blocks` row blocks of one segment.
  OutputTiles(Kernel &k, const MatmulPlan &plan, int64_t blocks)
      : k(k), e(k.e), plan(plan), blocks(blocks) {}

  GridFactor gridFactor();
  /// Calls `body` once, under the condition that this block has a segment, with
  /// the formats that it may have. The tile's `block` is the first row block.
  /// Either all projections have a bias or none has.
  void locate(
      llvm::function_ref<void(const OutputTile &, llvm::ArrayRef<FormatChoice>)>
          body);
  /// Stores one output, bias added, unless it lies past the share's columns.
  void store(const OutputTile &tile, mlir::Value row, mlir::Value column,
             mlir::Value value);

private:
  /// A segment, and whether this block lies in it.
  struct Candidate {
    OutputTile tile;
    BlockFormat format;
    mlir::Value inside;
  };
  OutputTile segmentTile(unsigned segment);
  llvm::SmallVector<Candidate> candidates();
  /// Makes `merged` a place in `other`, where this block lies in that.
  void merge(Candidate &merged, const Candidate &other);

  Kernel &k;
  Emitter &e;
  const MatmulPlan &plan;
  int64_t blocks;
};

/// Stores `y`, column `column` of row `row` of what gate and up were joined to:
/// as the plan's epilogue says in a numeric row or as f32.
void storeSwiglu(Kernel &k, const MatmulPlan &plan, mlir::Value row,
                 mlir::Value column, mlir::Value y);

/// Checks what every matmul generator takes for granted.
mlir::LogicalResult checkMatmul(Kernel &k, const MatmulPlan &plan);

} // namespace quern::nvptx

#endif // QUERN_CODEGEN_PTX_OUTPUTTILES_H
