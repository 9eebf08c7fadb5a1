// bf16 matmuls on AMX tiles, run on hardware or by the emulator, against sums in double precision
// of the same bf16 operands.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/codegen/kernel_harness.h"
#include "tests/support/amx_emulator/amx_emulator.h"

namespace quern::test {
namespace {

constexpr Machine kMachine = {"amx", Role::Prefill};

std::string FloatRows(int64_t columns, const char* copies = "") {
  return std::string("tensor<") + copies + "?x" + std::to_string(columns) + "xf32>";
}
std::string CodeRows(int64_t columns) {
  return "tensor<?x" + std::to_string(columns) + "x!lm.block<a8>>";
}
std::string Matrix(BlockFormat format, int64_t rows, int64_t columns) {
  const BlockFormatInfo& info = blockFormatInfo(format);
  const std::string element =
      info.isFloat() ? std::string(info.name) : "!lm.block<" + std::string(info.name) + ">";
  return "tensor<" + std::to_string(rows) + "x" + std::to_string(columns) + "x" + element + ">";
}

float RoundToBf16(float x) { return bf16ToF32(f32ToBf16(x)); }

/// sum_k over [k_begin, k_end) of bf16(x) * bf16(w), and the sum of magnitudes for error bounds.
struct Dot {
  double sum = 0, magnitude = 0;
};
Dot DotOf(const float* x, const float* w, int64_t k_begin, int64_t k_end) {
  Dot dot;
  for (int64_t k = k_begin; k < k_end; ++k) {
    const double product = double(RoundToBf16(x[k])) * RoundToBf16(w[k]);
    dot.sum += product;
    dot.magnitude += std::abs(product);
  }
  return dot;
}

class AmxMatmulKernel : public testing::Test {
 protected:
  void SetUp() override {
    for (const Machine& machine : RunnableMachines())
      if (machine.target == kMachine.target) return;
    GTEST_SKIP() << "needs AVX512-VNNI and AVX512-BF16, which are not emulated";
  }
  void TearDown() override {
    if (!IsSkipped() && !HasHardwareAmx()) EXPECT_GT(EmulatedAmxInstructions(), before_);
  }

  std::mt19937 random_{1};
  uint64_t before_ = EmulatedAmxInstructions();
};

struct Product {
  int64_t outputs, depth;
  BlockFormat format;
};
const Product kProducts[] = {
    {576, 896, BlockFormat::Q4_1}, {144, 576, BlockFormat::Q8_0}, {50, 576, BlockFormat::Q5_0},
    {96, 1536, BlockFormat::Q4_K}, {80, 768, BlockFormat::Q6_K},  {64, 1536, BlockFormat::Q4_0},
    {48, 896, BlockFormat::Q5_1},
};
const int64_t kRowCounts[] = {1, 3, 16, 17, 33};

std::string SplitNText(const Product& p, bool bias) {
  const std::string x = CodeRows(p.depth), w = Matrix(p.format, p.outputs, p.depth),
                    b = "tensor<" + std::to_string(p.outputs) + "xf32>", y = FloatRows(p.outputs);
  return "rt.kernel @matmul(%x: " + x + ", %w: " + w + (bias ? ", %b: " + b : "") + ") -> (" + y +
         ") attributes {split = #lm<kernel_split shares>} {\n  %y = lm.quant_matmul %x, %w" +
         (bias ? " bias %b" : "") + " : (" + x + ", " + w + (bias ? ", " + b : "") + ") -> " + y +
         "\n  lm.yield %y : " + y + "\n}\n";
}

TEST_F(AmxMatmulKernel, ProductsSplitOverOutputsMatchAtEveryShape) {
  for (const Product& p : kProducts) {
    SCOPED_TRACE(testing::Message()
                 << blockFormatInfo(p.format).name << " " << p.outputs << "x" << p.depth);
    const Weight weight = RandomWeight(random_, p.format, p.outputs, p.depth);
    const Buffer bias = RandomFloats(random_, p.outputs);
    const int64_t cut = (p.outputs / 2 + 15) / 16 * 16;  // an odd number of row blocks, for some
    for (bool with_bias : {false, true}) {
      const auto kernel = CompiledKernel::Compile(SplitNText(p, with_bias), kMachine);
      ASSERT_TRUE(kernel);
      for (int64_t rows : kRowCounts) {
        const Buffer x = RandomFloats(random_, rows * p.depth);
        const Buffer x_rows = Bf16Rows(x.as<float>(), rows, p.depth);
        const Buffer y(rows * p.outputs * 4);
        for (auto [begin, end] : {std::pair<int64_t, int64_t>{0, cut}, {cut, p.outputs}}) {
          const Buffer piece = weight.Pack(begin, end, 0, p.depth);
          std::vector<const void*> args = {x_rows.data(), piece.data()};
          if (with_bias) args.push_back(bias.data());
          args.push_back(y.data());
          kernel->Run(args, {rows}, {begin, end});
        }
        EXPECT_TRUE(y.IsIntact());
        for (int64_t m = 0; m < rows; ++m)
          for (int64_t n = 0; n < p.outputs; ++n) {
            const Dot dot =
                DotOf(x.as<float>() + m * p.depth, weight.values.data() + n * p.depth, 0, p.depth);
            const double want = dot.sum + (with_bias ? bias.as<float>()[n] : 0);
            ASSERT_NEAR(y.as<float>()[m * p.outputs + n], want, 2e-6 * (dot.magnitude + 1))
                << rows << " rows, " << m << ", " << n;
          }
      }
    }
  }
}

/// The kernel with this tile on amx, in place of the default.
std::string WithTile(std::string text, int64_t rows, int64_t blocks) {
  const std::string place = "attributes {";
  return text.insert(text.find(place) + place.size(),
                     "tiles = {\"amx/prefill\" = #lm.tile<rows = " + std::to_string(rows) +
                         ", blocks = " + std::to_string(blocks) + ">}, ");
}

constexpr std::pair<int64_t, int64_t> kTiles[] = {{16, 1}, {16, 2}, {16, 3}, {32, 1},
                                                  {48, 1}, {64, 1}, {96, 1}};

TEST_F(AmxMatmulKernel, EveryTileGivesTheSameBits) {
  const Product p = {50, 192, BlockFormat::Q5_0};  // four row blocks, the last one of two rows
  const Weight weight = RandomWeight(random_, p.format, p.outputs, p.depth);
  const Buffer piece = weight.Pack(0, p.outputs, 0, p.depth);
  const Buffer bias = RandomFloats(random_, p.outputs);
  const std::string text = SplitNText(p, true);
  const auto usual = CompiledKernel::Compile(text, kMachine);
  ASSERT_TRUE(usual);
  for (auto [tile_rows, blocks] : kTiles) {
    const auto kernel = CompiledKernel::Compile(WithTile(text, tile_rows, blocks), kMachine);
    ASSERT_TRUE(kernel) << tile_rows << " x " << blocks;
    for (int64_t rows : {1, 16, 17, 33, 50, 96}) {
      const Buffer x = RandomFloats(random_, rows * p.depth);
      const Buffer x_rows = Bf16Rows(x.as<float>(), rows, p.depth);
      const Buffer want(rows * p.outputs * 4), got(rows * p.outputs * 4);
      usual->Run({x_rows.data(), piece.data(), bias.data(), want.data()}, {rows}, {0, p.outputs});
      kernel->Run({x_rows.data(), piece.data(), bias.data(), got.data()}, {rows}, {0, p.outputs});
      EXPECT_TRUE(got.IsIntact());
      EXPECT_EQ(std::memcmp(got.data(), want.data(), got.size()), 0)
          << tile_rows << " x " << blocks << ", " << rows << " rows";
    }
  }
}

TEST_F(AmxMatmulKernel, PartialProductsSplitOverDepthAddUp) {
  const int64_t outputs = 80, depth = 1536, rows = 19;
  for (BlockFormat format : {BlockFormat::Q4_1, BlockFormat::Q4_K}) {
    const int64_t cut = format == BlockFormat::Q4_1 ? 736 : 512;
    const Weight weight = RandomWeight(random_, format, outputs, depth);
    const std::string x = CodeRows(depth), w = Matrix(format, outputs, depth), b = "tensor<80xf32>",
                      y = FloatRows(outputs, "2x");
    const auto kernel = CompiledKernel::Compile(
        "rt.kernel @down(%x: " + x + ", %w: " + w + ", %b: " + b + ") -> (" + y +
            ") attributes {split = #lm<kernel_split shares>} {\n"
            "  %y = lm.quant_matmul %x, %w bias %b split = k {ranges = #lm.ranges<[0:" +
            std::to_string(cut) + "], [" + std::to_string(cut) + ":1536]>} : (" + x + ", " + w +
            ", " + b + ") -> " + y + "\n  lm.yield %y : " + y + "\n}\n",
        kMachine);
    ASSERT_TRUE(kernel);
    const Buffer values = RandomFloats(random_, rows * depth);
    const Buffer x_rows = Bf16Rows(values.as<float>(), rows, depth);
    const Buffer bias = RandomFloats(random_, outputs);
    for (auto [begin, end] : {std::pair<int64_t, int64_t>{0, cut}, {cut, depth}}) {
      const Buffer piece = weight.Pack(0, outputs, begin, end);
      const Buffer partial(rows * outputs * 4);
      kernel->Run({x_rows.data(), piece.data(), bias.data(), partial.data()}, {rows}, {begin, end});
      EXPECT_TRUE(partial.IsIntact());
      for (int64_t m = 0; m < rows; ++m)
        for (int64_t n = 0; n < outputs; ++n) {
          const Dot dot =
              DotOf(values.as<float>() + m * depth, weight.values.data() + n * depth, begin, end);
          const double want = dot.sum + (begin == 0 ? bias.as<float>()[n] : 0);
          ASSERT_NEAR(partial.as<float>()[m * outputs + n], want, 2e-6 * (dot.magnitude + 1));
        }
    }
  }
}

TEST_F(AmxMatmulKernel, ProjectsQueriesKeysAndValuesOfDifferentFormats) {
  const int64_t depth = 576, rows = 17;
  const std::string x = CodeRows(depth);
  const Weight weights[] = {RandomWeight(random_, BlockFormat::Q4_1, 576, depth),
                            RandomWeight(random_, BlockFormat::Q4_1, 192, depth),
                            RandomWeight(random_, BlockFormat::Q8_0, 192, depth)};
  const std::string inputs = x + ", " + Matrix(BlockFormat::Q4_1, 576, depth) + ", " +
                             Matrix(BlockFormat::Q4_1, 192, depth) + ", " +
                             Matrix(BlockFormat::Q8_0, 192, depth);
  const std::string results = FloatRows(576) + ", " + FloatRows(192) + ", " + FloatRows(192);
  const auto kernel = CompiledKernel::Compile(
      "rt.kernel @qkv(%x: " + x + ", %q: " + Matrix(BlockFormat::Q4_1, 576, depth) +
          ", %k: " + Matrix(BlockFormat::Q4_1, 192, depth) +
          ", %v: " + Matrix(BlockFormat::Q8_0, 192, depth) + ") -> (" + results +
          ") attributes {split = #lm<kernel_split shares>} {\n"
          "  %a, %b, %c = lm.qkv_proj %x, %q, %k, %v : (" +
          inputs + ") -> (" + results +
          ")\n"
          "  lm.yield %a, %b, %c : " +
          results + "\n}\n",
      kMachine);
  ASSERT_TRUE(kernel);
  const Buffer values = RandomFloats(random_, rows * depth);
  const Buffer x_rows = Bf16Rows(values.as<float>(), rows, depth);
  std::vector<Buffer> out;
  for (const Weight& weight : weights) out.emplace_back(rows * weight.rows * 4);
  // As shares of 9 heads over 3 kv heads: 4 + 5 heads, 2 + 1 kv heads.
  for (const std::vector<int64_t>& ranges : {std::vector<int64_t>{0, 256, 0, 128, 0, 128},
                                             std::vector<int64_t>{256, 576, 128, 192, 128, 192}}) {
    std::vector<Buffer> pieces;
    for (int i = 0; i < 3; ++i)
      pieces.push_back(weights[i].Pack(ranges[2 * i], ranges[2 * i + 1], 0, depth));
    kernel->Run({x_rows.data(), pieces[0].data(), pieces[1].data(), pieces[2].data(), out[0].data(),
                 out[1].data(), out[2].data()},
                {rows}, ranges);
  }
  for (int i = 0; i < 3; ++i)
    for (int64_t m = 0; m < rows; ++m)
      for (int64_t n = 0; n < weights[i].rows; ++n) {
        const Dot dot =
            DotOf(values.as<float>() + m * depth, weights[i].values.data() + n * depth, 0, depth);
        ASSERT_NEAR(out[i].as<float>()[m * weights[i].rows + n], dot.sum,
                    2e-6 * (dot.magnitude + 1));
      }
}

TEST_F(AmxMatmulKernel, JoinsGateAndUpIntoBf16Rows) {
  const int64_t width = 96, depth = 576, rows = 33, cut = 32;
  const std::string x = CodeRows(depth), w = Matrix(BlockFormat::Q4_1, width, depth),
                    f = FloatRows(width), z = CodeRows(width);
  const std::string text =
      "rt.kernel @gate_up(%x: " + x + ", %g: " + w + ", %u: " + w + ") -> (" + z +
      ") attributes {split = #lm<kernel_split shares>} {\n  %a = lm.quant_matmul %x, %g : (" + x +
      ", " + w + ") -> " + f + "\n  %b = lm.quant_matmul %x, %u : (" + x + ", " + w + ") -> " + f +
      "\n  %y = lm.swiglu %a, %b : " + f + "\n  %z = lm.quantize %y : " + f + " -> " + z +
      "\n  lm.yield %z : " + z + "\n}\n";
  const Weight gate = RandomWeight(random_, BlockFormat::Q4_1, width, depth);
  const Weight up = RandomWeight(random_, BlockFormat::Q4_1, width, depth);
  const Buffer values = RandomFloats(random_, rows * depth);
  const Buffer x_rows = Bf16Rows(values.as<float>(), rows, depth);
  const Buffer out(rows * NumericRowBytes(width));
  const auto run = [&](const std::string& kernel_text, const Buffer& result) {
    const auto kernel = CompiledKernel::Compile(kernel_text, kMachine);
    ASSERT_TRUE(kernel);
    for (auto [begin, end] : {std::pair<int64_t, int64_t>{0, cut}, {cut, width}}) {
      const Buffer gate_piece = gate.Pack(begin, end, 0, depth),
                   up_piece = up.Pack(begin, end, 0, depth);
      kernel->Run({x_rows.data(), gate_piece.data(), up_piece.data(), result.data()}, {rows},
                  {begin, end});
    }
    EXPECT_TRUE(result.IsIntact());
  };
  run(text, out);
  for (int64_t m = 0; m < rows; ++m)
    for (int64_t n = 0; n < width; ++n) {
      const float* row = values.as<float>() + m * depth;
      const double g = DotOf(row, gate.values.data() + n * depth, 0, depth).sum;
      const double u = DotOf(row, up.values.data() + n * depth, 0, depth).sum;
      const double want = g / (1 + std::exp(-g)) * u;
      uint16_t bits;
      std::memcpy(&bits, out.data() + m * NumericRowBytes(width) + 2 * n, 2);
      ASSERT_NEAR(bf16ToF32(bits), want, std::abs(want) / 250 + 1e-5) << m << ", " << n;
    }
  for (auto [tile_rows, blocks] : kTiles) {
    const Buffer again(rows * NumericRowBytes(width));
    run(WithTile(text, tile_rows, blocks), again);
    for (int64_t m = 0; m < rows; ++m)
      EXPECT_EQ(std::memcmp(again.data() + m * NumericRowBytes(width),
                            out.data() + m * NumericRowBytes(width), 2 * width),
                0)
          << tile_rows << " x " << blocks << ", row " << m;
  }
}

TEST_F(AmxMatmulKernel, ARowsBitsDoNotDependOnItsCompany) {
  const Product p = {48, 576, BlockFormat::Q4_1};
  const auto kernel = CompiledKernel::Compile(SplitNText(p, false), kMachine);
  ASSERT_TRUE(kernel);
  const Weight weight = RandomWeight(random_, p.format, p.outputs, p.depth);
  const Buffer piece = weight.Pack(0, p.outputs, 0, p.depth);
  const int64_t rows = 50;
  const Buffer x = RandomFloats(random_, rows * p.depth);
  const Buffer x_rows = Bf16Rows(x.as<float>(), rows, p.depth);
  const Buffer together(rows * p.outputs * 4);
  kernel->Run({x_rows.data(), piece.data(), together.data()}, {rows}, {0, p.outputs});
  for (int64_t m = 0; m < rows; ++m) {
    const Buffer alone(p.outputs * 4);
    kernel->Run({x_rows.data() + m * NumericRowBytes(p.depth), piece.data(), alone.data()}, {1},
                {0, p.outputs});
    EXPECT_EQ(std::memcmp(alone.data(), together.data() + m * p.outputs * 4, alone.size()), 0) << m;
  }
}

}  // namespace
}  // namespace quern::test
