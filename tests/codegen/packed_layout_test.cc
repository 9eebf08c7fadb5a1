// The packed layout: nothing is lost, and every byte is where the layout's definition puts it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "codegen/host/PackedLayout.h"

namespace quern {
namespace {

std::vector<BlockFormat> WeightFormats() {
  std::vector<BlockFormat> formats;
  for (const BlockFormatInfo& info : blockFormats())
    if (info.format != BlockFormat::A8) formats.push_back(info.format);
  return formats;
}

/// Random rows of `format`, (rows, columns), without NaN.
std::vector<std::vector<uint8_t>> RandomRows(BlockFormat format, int rows, int64_t columns) {
  std::mt19937 random(static_cast<unsigned>(format) + 1);
  const BlockFormatInfo& info = blockFormatInfo(format);
  std::vector<std::vector<uint8_t>> all(rows);
  for (std::vector<uint8_t>& row : all) {
    row.resize(info.rowBytes(columns));
    if (info.isRowScaled()) {
      std::vector<float> values(columns);
      for (float& value : values) value = static_cast<float>(random() % 1000) - 500;
      quantizeRow(format, values.data(), row.data(), columns);
      continue;
    }
    std::vector<float> decoded(info.blockElements);
    for (int64_t block = 0; block < columns / info.blockElements; ++block) {
      uint8_t* bytes = row.data() + block * info.blockBytes;
      do {
        for (int i = 0; i < info.blockBytes; ++i) bytes[i] = static_cast<uint8_t>(random());
        dequantizeRow(format, bytes, decoded.data(), info.blockElements);
      } while ([&] {
        for (float value : decoded)
          if (!std::isfinite(value)) return true;
        return false;
      }());
    }
  }
  return all;
}

std::vector<const uint8_t*> Pointers(const std::vector<std::vector<uint8_t>>& rows) {
  std::vector<const uint8_t*> pointers;
  for (const std::vector<uint8_t>& row : rows) pointers.push_back(row.data());
  return pointers;
}

class PackedLayoutTest : public testing::TestWithParam<BlockFormat> {};

TEST_P(PackedLayoutTest, UnpackOfPackEqualsDequantize) {
  BlockFormat format = GetParam();
  const PackedFormat& packed = packedFormat(format);
  constexpr int64_t kColumns = 768;
  for (int count : {16, 11, 1}) {
    std::vector<std::vector<uint8_t>> rows = RandomRows(format, count, kColumns);
    std::vector<const uint8_t*> pointers = Pointers(rows);
    if (count == 11) pointers[4] = nullptr;
    for (auto [begin, end] : {std::pair<int64_t, int64_t>{0, kColumns}, {256, 512}, {512, 512}}) {
      int64_t columns = end - begin;
      int64_t size = packed.rowBlockBytes(columns);
      std::vector<uint8_t> bytes(size + 1, 0xa5);
      packRowBlock(format, pointers, begin, end, bytes.data());
      EXPECT_EQ(bytes[size], 0xa5) << "a byte past the row block was written";
      std::vector<float> unpacked(kPackedRows * columns, NAN), wanted(kColumns);
      unpackRowBlockToFloat(format, bytes.data(), columns, unpacked.data());
      for (int r = 0; r < kPackedRows; ++r) {
        bool isPadding = r >= count || !pointers[r];
        if (!isPadding) dequantizeRow(format, pointers[r], wanted.data(), kColumns);
        for (int64_t k = 0; k < columns; ++k) {
          float value = unpacked[r * columns + k];
          if (isPadding)
            ASSERT_EQ(value, 0.0f) << "padding row " << r;
          else
            ASSERT_EQ(std::bit_cast<uint32_t>(value), std::bit_cast<uint32_t>(wanted[begin + k]))
                << "row " << r << " column " << begin + k;
        }
      }
    }
  }
}

TEST_P(PackedLayoutTest, EveryByteOfTheRowBlockIsWritten) {
  BlockFormat format = GetParam();
  std::vector<std::vector<uint8_t>> rows = RandomRows(format, 16, 512);
  std::vector<const uint8_t*> pointers = Pointers(rows);
  int64_t size = packedFormat(format).rowBlockBytes(512);
  std::vector<uint8_t> zeros(size, 0), ones(size, 0xff);
  packRowBlock(format, pointers, 0, 512, zeros.data());
  packRowBlock(format, pointers, 0, 512, ones.data());
  EXPECT_EQ(zeros, ones);
}

TEST_P(PackedLayoutTest, PiecesOfKAreRunsOfTheWhole) {
  BlockFormat format = GetParam();
  std::vector<std::vector<uint8_t>> rows = RandomRows(format, 16, 512);
  std::vector<const uint8_t*> pointers = Pointers(rows);
  const PackedFormat& packed = packedFormat(format);
  int64_t half = packed.rowBlockBytes(256), front = packed.frontBytes();
  std::vector<uint8_t> whole(packed.rowBlockBytes(512)), first(half), second(half);
  packRowBlock(format, pointers, 0, 512, whole.data());
  packRowBlock(format, pointers, 0, 256, first.data());
  packRowBlock(format, pointers, 256, 512, second.data());
  EXPECT_TRUE(std::equal(first.begin(), first.end(), whole.begin()));
  EXPECT_TRUE(std::equal(second.begin(), second.begin() + front, whole.begin()))
      << "row scales are in every piece";
  EXPECT_TRUE(std::equal(second.begin() + front, second.end(), whole.begin() + half));
}

TEST_P(PackedLayoutTest, PacksInTheFormatsOwnSize) {
  const BlockFormatInfo& info = blockFormatInfo(GetParam());
  const PackedFormat& packed = packedFormat(GetParam());
  int64_t ggufBytes = kPackedRows * info.rowBytes(768);
  // Six-bit scales become bytes in the packed layout; nothing else may grow.
  int64_t grown = info.format == BlockFormat::Q2_K   ? kPackedRows * 16 * 3
                  : info.format == BlockFormat::Q3_K ? kPackedRows * 4 * 3
                  : info.format == BlockFormat::Q4_K || info.format == BlockFormat::Q5_K
                      ? kPackedRows * 4 * 3
                      : 0;
  EXPECT_EQ(packed.rowBlockBytes(768), ggufBytes + grown);
  EXPECT_EQ(packed.matrixBytes(33, 768), 3 * packed.rowBlockBytes(768));
}

// What lets a head be cut in pieces that follow one another (passes/tiling/SplitShares).
TEST_P(PackedLayoutTest, TwoRowBlocksAreWholeCacheLines) {
  const PackedFormat& format = packedFormat(GetParam());
  for (int64_t units : {1, 2, 3, 7})
    EXPECT_EQ(2 * format.rowBlockBytes(units * format.superblockColumns()) % 64, 0) << units;
}

INSTANTIATE_TEST_SUITE_P(Formats, PackedLayoutTest, testing::ValuesIn(WeightFormats()),
                         [](const auto& param) {
                           return std::string(blockFormatInfo(param.param).name);
                         });

// The definition itself, written out for one format with two planes and one group.
TEST(PackedLayout, PlanesLieWhereTheHeaderSays) {
  constexpr BlockFormat kFormat = BlockFormat::Q5_1;
  std::vector<std::vector<uint8_t>> rows = RandomRows(kFormat, 16, 32);
  std::vector<uint8_t> packed(packedFormat(kFormat).rowBlockBytes(32));
  packRowBlock(kFormat, Pointers(rows), 0, 32, packed.data());
  ASSERT_EQ(packed.size(), 4u * 64 + 64 + 32 + 32);
  UnpackedBlockRow parts;
  for (int r = 0; r < 16; ++r) {
    unpackBlockRow(kFormat, rows[r].data(), 0, 32, parts);
    for (int k = 0; k < 32; ++k) {
      int quad = k / 4, byte = 4 * r + k % 4;
      int low = packed[quad / 2 * 64 + byte] >> (quad % 2 * 4) & 15;
      int high = packed[256 + byte] >> quad & 1;
      ASSERT_EQ(low | high << 4, parts.codes[k]) << "row " << r << " column " << k;
    }
    uint16_t scale, min;
    std::memcpy(&scale, packed.data() + 320 + 2 * r, 2);
    std::memcpy(&min, packed.data() + 352 + 2 * r, 2);
    EXPECT_EQ(scale, parts.scales[0]);
    EXPECT_EQ(min, parts.mins[0]);
  }
}

TEST(PackedLayout, OffsetsOfEveryKindOfFormat) {
  const PackedFormat& q4 = packedFormat(BlockFormat::Q4_0);
  EXPECT_EQ(q4.scaleOffset(), 256);
  EXPECT_EQ(q4.groupBytes(), 288);
  EXPECT_EQ(q4.superblockBytes(), 288);
  const PackedFormat& q8 = packedFormat(BlockFormat::Q8_0);
  EXPECT_EQ(q8.scaleOffset(), 512);
  EXPECT_EQ(q8.groupBytes(), 544);
  const PackedFormat& q4k = packedFormat(BlockFormat::Q4_K);
  EXPECT_EQ(q4k.minOffset(), 272);
  EXPECT_EQ(q4k.groupBytes(), 288);
  EXPECT_EQ(q4k.superScaleOffset(), 2304);
  EXPECT_EQ(q4k.superMinOffset(), 2336);
  EXPECT_EQ(q4k.superblockBytes(), 2368);
  const PackedFormat& q6k = packedFormat(BlockFormat::Q6_K);
  EXPECT_EQ(q6k.planeOffset(1), 256);
  EXPECT_EQ(q6k.scaleOffset(1), 400);
  EXPECT_EQ(q6k.groupBytes(), 416);
  EXPECT_EQ(q6k.superblockBytes(), 3360);
  const PackedFormat& q3k = packedFormat(BlockFormat::Q3_K);
  EXPECT_EQ(q3k.planes[1].bits, 1);
  EXPECT_EQ(q3k.planes[1].shift, 2);
  EXPECT_TRUE(q3k.scaleSigned);
  const PackedFormat& e4m3 = packedFormat(BlockFormat::E4M3);
  EXPECT_EQ(e4m3.frontBytes(), 64);
  EXPECT_EQ(e4m3.groupBytes(), 512);
  EXPECT_EQ(e4m3.rowBlockBytes(96), 64 + 3 * 512);
  EXPECT_EQ(packedFormat(BlockFormat::BF16).groupBytes(), 1024);
  EXPECT_EQ(packedFormat(BlockFormat::F32).groupBytes(), 2048);
}

}  // namespace
}  // namespace quern
