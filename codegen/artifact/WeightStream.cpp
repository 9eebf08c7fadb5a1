#include "codegen/artifact/WeightStream.h"

#include "codegen/artifact/CompileError.h"
#include "codegen/host/PackedLayout.h"
#include "runtime/schema/kernel_abi.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <cstring>
#include <thread>

using namespace quern;

/// Bytes that are packed before they are handed on: enough work for two
/// threads, little enough for the cache behind them.
static constexpr int64_t kBandBytes = 4 << 20;

static int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

uint64_t WeightPiece::size() const {
  const int64_t columns = columnEnd - columnBegin;
  if (vector)
    return static_cast<uint64_t>(columns) * sizeof(float);
  return static_cast<uint64_t>(
      packedFormat(format).matrixBytes(rowEnd - rowBegin, columns));
}

uint64_t WeightPlan::append(WeightPiece piece) {
  piece.offset =
      (size + kBufferAlignment - 1) / kBufferAlignment * kBufferAlignment;
  size = piece.offset + piece.size();
  pieces.push_back(piece);
  return piece.offset;
}

static bool allFinite(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(),
                     [](float value) { return std::isfinite(value); });
}

namespace {
/// Packs row blocks of one piece. One object a thread: its buffers are reused.
class BlockPacker {
public:
  explicit BlockPacker(const WeightPiece &piece)
      : piece(piece), source(*piece.source),
        blockBytes(packedFormat(piece.format)
                       .rowBlockBytes(piece.columnEnd - piece.columnBegin)) {}

  /// Packs blocks [begin, end) of the piece to `dst`, where block `begin`
  /// starts.
  void pack(int64_t begin, int64_t end, uint8_t *dst) {
    for (int64_t block = begin; block < end; ++block, dst += blockBytes)
      packBlock(piece.rowBegin + block * kPackedRows, dst);
  }

  /// The first row seen with something that is not finite, or -1.
  int64_t notFiniteRow() const { return badRow; }

private:
  void packBlock(int64_t firstRow, uint8_t *dst) {
    std::array<const uint8_t *, kPackedRows> rows{};
    const int64_t count = std::min(kPackedRows, piece.rowEnd - firstRow);
    for (int64_t r = 0; r < count; ++r)
      rows[r] = encodedRow(firstRow + r, r);
    const int bad = packRowBlock(piece.format, rows, piece.columnBegin,
                                 piece.columnEnd, dst);
    if (bad >= 0)
      markBad(firstRow + bad);
  }

  void markBad(int64_t row) { badRow = badRow < 0 ? row : badRow; }

  /// The row in the piece's format; `slot` is its place in the row block.
  const uint8_t *encodedRow(int64_t row, int64_t slot) {
    if (source.format == piece.format)
      return source.row(row);
    const int64_t columns = source.columns;
    const int64_t bytes = blockFormatInfo(piece.format).rowBytes(columns);
    floats.resize(columns);
    encoded.resize(kPackedRows * bytes);
    dequantizeRow(source.format, source.row(row), floats.data(), columns);
    if (!allFinite(floats))
      markBad(row);
    uint8_t *dst = encoded.data() + slot * bytes;
    quantizeRow(piece.format, floats.data(), dst, columns);
    return dst;
  }

  const WeightPiece &piece;
  const WeightSource &source;
  const int64_t blockBytes;
  std::vector<float> floats;
  std::vector<uint8_t> encoded;
  int64_t badRow = -1;
};
} // namespace

static llvm::Error notFinite(const WeightSource &source, int64_t row) {
  const int64_t rowBytes =
      blockFormatInfo(source.format).rowBytes(source.columns);
  return compileError(ExitCode::Malformed,
                      "tensor \"" + source.name +
                          "\" has a number or a scale "
                          "that is NaN or infinite in row " +
                          llvm::Twine(row) + ", bytes " +
                          llvm::Twine(row * rowBytes) + " to " +
                          llvm::Twine((row + 1) * rowBytes - 1) +
                          " of its data; the file is damaged, fetch it again");
}

/// A vector as float32.
static llvm::Error writeVector(const WeightPiece &piece, ByteSink sink) {
  const WeightSource &source = *piece.source;
  std::vector<float> values(source.columns);
  dequantizeRow(source.format, source.row(0), values.data(), source.columns);
  if (!allFinite(values))
    return notFinite(source, 0);
  const auto *bytes =
      reinterpret_cast<const uint8_t *>(values.data() + piece.columnBegin);
  return sink({bytes, piece.size()});
}

static llvm::Error writeMatrix(const WeightPiece &piece,
                               std::vector<uint8_t> &band, ByteSink sink) {
  const int64_t blockBytes =
      packedFormat(piece.format)
          .rowBlockBytes(piece.columnEnd - piece.columnBegin);
  const int64_t blocks = ceilDiv(piece.rowEnd - piece.rowBegin, kPackedRows);
  const int64_t bandBlocks =
      blockBytes ? std::max<int64_t>(2, kBandBytes / blockBytes) : blocks;
  BlockPacker packer(piece), helper(piece);
  for (int64_t begin = 0; begin < blocks; begin += bandBlocks) {
    const int64_t end = std::min(blocks, begin + bandBlocks);
    const int64_t middle = begin + (end - begin) / 2;
    band.resize(static_cast<size_t>((end - begin) * blockBytes));
    // A thread costs about 20 us: not worth it for a small piece.
    if (static_cast<int64_t>(band.size()) < kBandBytes / 16) {
      packer.pack(begin, end, band.data());
    } else {
      std::thread thread([&] {
        helper.pack(middle, end, band.data() + (middle - begin) * blockBytes);
      });
      packer.pack(begin, middle, band.data());
      thread.join();
    }
    for (const BlockPacker *each : {&packer, &helper})
      if (each->notFiniteRow() >= 0)
        return notFinite(*piece.source, each->notFiniteRow());
    if (llvm::Error error = sink(band))
      return error;
  }
  return llvm::Error::success();
}

llvm::Error quern::streamWeights(const WeightPlan &plan, ByteSink sink) {
  std::vector<uint8_t> band;
  uint64_t position = 0;
  for (const WeightPiece &piece : plan.pieces) {
    assert(piece.offset >= position && "pieces overlap");
    const std::array<uint8_t, kBufferAlignment> zeros{};
    if (llvm::Error error =
            sink(std::span(zeros).first(piece.offset - position)))
      return error;
    if (llvm::Error error = piece.vector ? writeVector(piece, sink)
                                         : writeMatrix(piece, band, sink))
      return error;
    position = piece.offset + piece.size();
  }
  const std::vector<uint8_t> tail(plan.size - position);
  return sink(tail);
}
