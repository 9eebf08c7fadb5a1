// Block formats against numbers that another implementation decoded (tests/golden/block_formats).
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "dialects/lm/BlockFormat.h"

namespace quern {
namespace {

struct Golden {
  std::string name;
  std::vector<uint8_t> bytes;
  std::vector<uint32_t> decoded;  // float32 bits
};

std::vector<uint8_t> FromHex(const std::string& hex) {
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes.push_back(static_cast<uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

std::vector<Golden> LoadGolden() {
  std::ifstream file(QUERN_SOURCE_DIR "/tests/golden/block_formats/block_formats.txt");
  std::vector<Golden> all;
  std::string name, bytes, decoded;
  while (file >> name >> bytes >> decoded) {
    std::vector<uint8_t> raw = FromHex(decoded);
    std::vector<uint32_t> bits(raw.size() / 4);
    std::memcpy(bits.data(), raw.data(), raw.size());
    all.push_back({name, FromHex(bytes), bits});
  }
  return all;
}

std::vector<float> RandomRow(int64_t n, uint32_t seed, float spread) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> row(n);
  for (float& value : row) value = normal(random);
  return row;
}

std::vector<float> RoundTrip(BlockFormat format, const std::vector<float>& row) {
  std::vector<uint8_t> bytes(blockFormatInfo(format).rowBytes(row.size()));
  quantizeRow(format, row.data(), bytes.data(), row.size());
  std::vector<float> decoded(row.size());
  dequantizeRow(format, bytes.data(), decoded.data(), row.size());
  return decoded;
}

TEST(BlockFormat, TableIsConsistent) {
  for (const BlockFormatInfo& info : blockFormats()) {
    EXPECT_EQ(parseBlockFormat(info.name), info.format);
    EXPECT_EQ(info.blockElements % info.subGroup, 0) << info.name;
    if (info.ggufType >= 0) {
      EXPECT_EQ(blockFormatFromGguf(info.ggufType), info.format) << info.name;
    }
  }
  EXPECT_EQ(parseBlockFormat("q9_9"), std::nullopt);
  EXPECT_EQ(blockFormatFromGguf(4), std::nullopt) << "removed from GGUF";
  EXPECT_EQ(blockFormatFromGguf(0xffffffffu), std::nullopt) << "a8 is not GGUF's";
}

TEST(BlockFormat, DecodesAsTheGoldenVectors) {
  std::vector<Golden> goldens = LoadGolden();
  EXPECT_EQ(goldens.size(), 13u);
  for (const Golden& golden : goldens) {
    std::optional<BlockFormat> format = parseBlockFormat(golden.name);
    ASSERT_TRUE(format) << golden.name;
    int64_t n = golden.decoded.size();
    ASSERT_EQ(blockFormatInfo(*format).rowBytes(n), static_cast<int64_t>(golden.bytes.size()));
    std::vector<float> decoded(n);
    dequantizeRow(*format, golden.bytes.data(), decoded.data(), n);
    for (int64_t i = 0; i < n; ++i)
      ASSERT_EQ(std::bit_cast<uint32_t>(decoded[i]), golden.decoded[i])
          << golden.name << " element " << i;
  }
}

TEST(BlockFormat, HalfConversionRoundTripsEveryHalf) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    float value = f16ToF32(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(f16ToF32(f32ToF16(value))));
      continue;
    }
    ASSERT_EQ(f32ToF16(value), bits);
  }
}

TEST(BlockFormat, HalfConversionRoundsToNearestEven) {
  EXPECT_EQ(f32ToF16(1.0f + 0x1p-11f), 0x3c00) << "a tie goes to the even mantissa";
  EXPECT_EQ(f32ToF16(1.0f + 3 * 0x1p-11f), 0x3c02);
  EXPECT_EQ(f32ToF16(65519.0f), 0x7bff);
  EXPECT_EQ(f32ToF16(65520.0f), 0x7c00) << "halfway to 65536 is infinity";
  EXPECT_EQ(f32ToF16(0x1p-25f), 0x0000) << "a tie with zero";
  EXPECT_EQ(f32ToF16(0x1.8p-25f), 0x0001);
  EXPECT_EQ(f32ToF16(-0x1.ff8p-15f), 0x83ff) << "the largest negative subnormal";
  EXPECT_EQ(f32ToF16(0x1.ffep-15f), 0x0400) << "rounds up to a normal number";
  EXPECT_EQ(f32ToBf16(1.0f + 0x1p-8f), 0x3f80);
  EXPECT_EQ(f32ToBf16(1.0f + 3 * 0x1p-8f), 0x3f82);
  EXPECT_TRUE(std::isnan(bf16ToF32(f32ToBf16(std::bit_cast<float>(0x7f800001u)))));
}

// No other code of the stored scale may be nearer to the element than the one chosen.
TEST(BlockFormat, QuantizesToTheNearestCode) {
  for (BlockFormat format : {BlockFormat::Q4_0, BlockFormat::Q4_1, BlockFormat::Q8_0}) {
    const BlockFormatInfo& info = blockFormatInfo(format);
    std::vector<float> row = RandomRow(96, 3, 0.7f);
    std::vector<float> decoded = RoundTrip(format, row);
    UnpackedBlockRow parts;
    std::vector<uint8_t> bytes(info.rowBytes(96));
    quantizeRow(format, row.data(), bytes.data(), 96);
    unpackBlockRow(format, bytes.data(), 0, 96, parts);
    for (int i = 0; i < 96; ++i) {
      float step = std::fabs(f16ToF32(parts.scales[i / 32]));
      bool isEnd = parts.codes[i] == 0 || parts.codes[i] == (1 << info.codeBits) - 1;
      // At the ends of the range the scale's own rounding adds 2^-11 of the range.
      float bound = isEnd ? step * (0.5f + 0.07f + (format == BlockFormat::Q4_0 ? 0.5f : 0.0f))
                          : step * 0.5001f;
      EXPECT_LE(std::fabs(decoded[i] - row[i]), bound) << info.name << " element " << i;
    }
  }
}

TEST(BlockFormat, FloatFormatsRoundTrip) {
  std::vector<float> row = RandomRow(37, 5, 3.0f);
  EXPECT_EQ(RoundTrip(BlockFormat::F32, row), row);
  std::vector<float> half = RoundTrip(BlockFormat::F16, row);
  std::vector<float> brain = RoundTrip(BlockFormat::BF16, row);
  for (size_t i = 0; i < row.size(); ++i) {
    EXPECT_LE(std::fabs(half[i] - row[i]), std::fabs(row[i]) * 0x1p-11f + 0x1p-25f);
    EXPECT_LE(std::fabs(brain[i] - row[i]), std::fabs(row[i]) * 0x1p-8f);
  }
}

TEST(BlockFormat, ActivationsRoundToNearestEven) {
  std::vector<float> row(48, 0.0f);
  // Scale 1: amax is 127, so that halves are ties.
  row[0] = 127.0f, row[1] = 0.5f, row[2] = 1.5f, row[3] = -2.5f, row[4] = -127.0f, row[5] = 1e-3f;
  row[16] = 1e-3f;  // no part of the first block
  std::vector<uint8_t> bytes(blockFormatInfo(BlockFormat::A8).rowBytes(48));
  quantizeRow(BlockFormat::A8, row.data(), bytes.data(), 48);
  float scale;
  std::memcpy(&scale, bytes.data(), 4);
  EXPECT_EQ(scale, 1.0f);
  auto code = [&](int i) { return static_cast<int8_t>(bytes[4 + i]); };
  EXPECT_EQ(code(0), 127);
  EXPECT_EQ(code(1), 0);
  EXPECT_EQ(code(2), 2);
  EXPECT_EQ(code(3), -2);
  EXPECT_EQ(code(4), -127);
  EXPECT_EQ(code(5), 0);
  EXPECT_EQ(static_cast<int8_t>(bytes[20 + 4]), 127) << "a scale for every 16";
  std::memcpy(&scale, bytes.data() + 40, 4);
  EXPECT_EQ(scale, 0.0f) << "a zero group has scale 0";
}

TEST(BlockFormat, EveryE4m3RoundTrips) {
  EXPECT_EQ(e4m3ToF32(0x38), 1.0f);
  EXPECT_EQ(e4m3ToF32(0x7e), 448.0f) << "the largest";
  EXPECT_EQ(e4m3ToF32(0x01), 0x1p-9f) << "the least";
  EXPECT_EQ(e4m3ToF32(0x88), -0x1p-6f) << "the least normal one, negative";
  float below = -1;
  for (int code = 0; code < 0x7f; ++code) {
    float value = e4m3ToF32(static_cast<uint8_t>(code));
    EXPECT_GT(value, below) << "code " << code;
    EXPECT_EQ(f32ToE4m3(value), code);
    EXPECT_EQ(f32ToE4m3(-value), code | 0x80);
    if (code > 0) {
      float middle = (below + value) / 2;
      EXPECT_EQ(f32ToE4m3(std::nextafter(middle, 0.0f)), code - 1);
      EXPECT_EQ(f32ToE4m3(middle), code % 2 == 0 ? code : code - 1)
          << "a tie goes to the even code";
      EXPECT_EQ(f32ToE4m3(std::nextafter(middle, 1000.0f)), code);
    }
    below = value;
  }
  for (float value : {449.0f, 1e30f, std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(f32ToE4m3(value), 0x7e);
    EXPECT_EQ(f32ToE4m3(-value), 0xfe);
  }
  EXPECT_TRUE(isE4m3Nan(f32ToE4m3(NAN)));
  EXPECT_TRUE(std::isnan(e4m3ToF32(0x7f)) && std::isnan(e4m3ToF32(0xff)));
}

// The scale is the row's: the largest magnitude becomes 448, and a piece is of the same scale.
TEST(BlockFormat, RowsOfE4m3ShareAScale) {
  constexpr BlockFormat kFormat = BlockFormat::E4M3;
  EXPECT_EQ(blockFormatInfo(kFormat).rowBytes(96), 4 + 96);
  std::vector<float> row = RandomRow(96, 7, 0.02f);
  row[70] = -0.224f;
  std::vector<uint8_t> bytes(blockFormatInfo(kFormat).rowBytes(96));
  quantizeRow(kFormat, row.data(), bytes.data(), 96);
  UnpackedBlockRow parts;
  unpackBlockRow(kFormat, bytes.data(), 64, 32, parts);
  EXPECT_EQ(parts.rowScale, 0.224f / 448);
  ASSERT_EQ(parts.codes.size(), 32u);
  EXPECT_EQ(parts.codes[6], 0xfe) << "-448";
  std::vector<float> decoded = RoundTrip(kFormat, row);
  for (int i = 0; i < 96; ++i)
    EXPECT_LE(std::fabs(decoded[i] - row[i]),
              std::max(std::fabs(row[i]) * 0x1.001p-4f, parts.rowScale * 0x1.001p-10f))
        << "element " << i;
}

TEST(BlockFormat, TinyAndHugeRowsStayFinite) {
  for (const BlockFormatInfo& info : blockFormats()) {
    if (!canQuantize(info.format) || info.isFloat()) continue;
    for (float magnitude : {0.0f, 1e-44f, 1e-38f, 1e-7f, 1e30f}) {
      std::vector<float> row(32, magnitude);
      row[7] = -magnitude;
      for (float value : RoundTrip(info.format, row))
        EXPECT_TRUE(std::isfinite(value)) << info.name << " of " << magnitude;
    }
  }
}

TEST(BlockFormat, UnpackedPartsHaveTheDocumentedSizes) {
  UnpackedBlockRow row;
  for (const BlockFormatInfo& info : blockFormats()) {
    if (info.isFloat() || info.format == BlockFormat::A8) continue;
    int64_t n = 3 * info.blockElements;
    std::vector<uint8_t> bytes(info.rowBytes(n), 0xff);
    unpackBlockRow(info.format, bytes.data(), 0, n, row);
    EXPECT_EQ(static_cast<int64_t>(row.codes.size()), n);
    EXPECT_EQ(row.scales.size(), info.isRowScaled() ? 0u : 3u) << info.name;
    EXPECT_EQ(row.mins.size(), info.hasMin() ? 3u : 0u) << info.name;
    size_t subGroups = info.isTwoLevel() ? n / info.subGroup : 0;
    EXPECT_EQ(row.subScales.size(), subGroups) << info.name;
    EXPECT_EQ(row.subMins.size(), info.hasMin() ? subGroups : 0) << info.name;
    for (uint8_t code : row.codes) EXPECT_LT(code, 1 << info.codeBits) << info.name;
  }
}

}  // namespace
}  // namespace quern
