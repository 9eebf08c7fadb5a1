//===- WeightStream.h - Which piece of which weight goes where --*- C++ -*-===//
//
// The weights segment as a list of pieces, and the bytes of each. A piece is a
// contiguous run: some row blocks of a matrix over a range of its columns, or a
// whole vector. WeightLayout.h decides on the pieces and their order; how a row
// block looks is PackedLayout's. Free of MLIR.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_ARTIFACT_WEIGHTSTREAM_H
#define QUERN_CODEGEN_ARTIFACT_WEIGHTSTREAM_H

#include "dialects/lm/BlockFormat.h"
#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/Support/Error.h"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace quern {

/// A weight in the model file: rows of `columns` numbers, one row for a vector.
struct WeightSource {
  std::string name;
  BlockFormat format;
  int64_t rows;
  int64_t columns;
  /// All rows as the file encodes them; mapped, so that only the rows at hand
  /// need memory.
  std::span<const uint8_t> data;

  const uint8_t *row(int64_t index) const {
    return data.data() + index * blockFormatInfo(format).rowBytes(columns);
  }
};

/// One run of bytes in the segment: rows [rowBegin, rowEnd) and columns
/// [columnBegin, columnEnd) of a weight. Row blocks count from rowBegin;
/// columns are multiples of the packed layout's unit. A vector is one row.
struct WeightPiece {
  const WeightSource *source;
  /// The format in the artifact. Where the source's differs, rows are
  /// quantized (round to nearest) while they are packed.
  BlockFormat format;
  /// A 1-D weight: a plain float32 array.
  bool vector;
  int64_t rowBegin, rowEnd;
  int64_t columnBegin, columnEnd;
  /// From the start of the segment, a multiple of kBufferAlignment.
  uint64_t offset;

  /// Bytes of the piece.
  uint64_t size() const;
};

/// The pieces of a segment, in order and without overlap.
struct WeightPlan {
  std::vector<WeightPiece> pieces;
  /// Bytes of the segment.
  uint64_t size = 0;

  /// Appends a piece at the next aligned offset (piece.offset is set) and
  /// returns that offset.
  uint64_t append(WeightPiece piece);
};

/// Receives the bytes of the segment in order.
using ByteSink = llvm::function_ref<llvm::Error(std::span<const uint8_t>)>;

/// Writes the whole segment of `plan`, padding included. Error: Malformed, for
/// weights that are NaN or infinite; the sink's. Holds a few row blocks
/// at a time, whatever the size of a weight; packs on two threads, which does
/// not change the bytes.
llvm::Error streamWeights(const WeightPlan &plan, ByteSink sink);

} // namespace quern

#endif // QUERN_CODEGEN_ARTIFACT_WEIGHTSTREAM_H
