// Matmuls on tensor cores in the PTX emulator, against sums in double precision of the numbers
// before any rounding to f16.
//
// Bound: twice the error of plain f16, which rounds both operands to f16 and adds products in
// double. Compared are root mean squares over the outputs of a product, and the largest error.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <sstream>

#include "codegen/host/PackedLayout.h"
#include "tests/codegen/kernel_harness.h"
#include "tests/codegen/product_errors.h"

namespace quern::test {
namespace {

std::string FloatRows(int64_t columns, const std::string& copies = "") {
  return "tensor<" + copies + "?x" + std::to_string(columns) + "xf32>";
}
std::string CodeRows(int64_t columns) {
  return "tensor<?x" + std::to_string(columns) + "x!lm.block<a8>>";
}
/// Activations as matmuls read them beside a weight of `format`.
std::string NumericRows(BlockFormat format, int64_t columns) {
  return blockFormatInfo(format).isFloat() ? "tensor<?x" + std::to_string(columns) + "xf16>"
                                           : CodeRows(columns);
}
std::string Matrix(BlockFormat format, int64_t rows, int64_t columns) {
  const BlockFormatInfo& info = blockFormatInfo(format);
  const std::string element =
      info.isFloat() ? std::string(info.name) : "!lm.block<" + std::string(info.name) + ">";
  return "tensor<" + std::to_string(rows) + "x" + std::to_string(columns) + "x" + element + ">";
}
std::string Vector(int64_t count) { return "tensor<" + std::to_string(count) + "xf32>"; }

class TensorMatmulKernel : public testing::TestWithParam<Machine> {
 protected:
  std::unique_ptr<CompiledKernel> Compile(const std::string& text) {
    return CompiledKernel::Compile(text, GetParam());
  }
  std::mt19937 random_{1};
};

std::string ProductText(BlockFormat format, int64_t outputs, int64_t depth, bool bias) {
  const std::string x = NumericRows(format, depth), w = Matrix(format, outputs, depth),
                    b = Vector(outputs), y = FloatRows(outputs);
  return "rt.kernel @k(%x: " + x + ", %w: " + w + (bias ? ", %b: " + b : "") + ") -> (" + y +
         ") attributes {split = #lm<kernel_split shares>} {\n  %y = lm.quant_matmul %x, %w" +
         (bias ? " bias %b" : "") + " : (" + x + ", " + w + (bias ? ", " + b : "") + ") -> " + y +
         "\n  lm.yield %y : " + y + "\n}\n";
}

TEST_P(TensorMatmulKernel, ProductsOfEveryFormat) {
  for (int f = 0; f < kBlockFormatCount; ++f) {
    const auto format = static_cast<BlockFormat>(f);
    if (format == BlockFormat::A8 || blockFormatInfo(format).isFloat()) continue;
    const std::string name(blockFormatInfo(format).name);
    const int64_t outputs = 40, depth = 3 * 256, cut = 32;
    const auto kernel = Compile(ProductText(format, outputs, depth, true));
    ASSERT_TRUE(kernel) << name;
    kernel->Note("format", name);
    const Weight weight = RandomWeight(random_, format, outputs, depth);
    const Buffer bias = RandomFloats(random_, outputs);
    for (int64_t rows : {3, 17}) {
      const Buffer x = RandomFloats(random_, rows * depth);
      const Buffer numeric = HalfRows(x.as<float>(), rows, depth), y(rows * outputs * 4);
      for (auto [begin, end] : {std::pair<int64_t, int64_t>{0, cut}, {cut, outputs}}) {
        const Buffer piece = weight.Pack(begin, end, 0, depth);
        kernel->Run({numeric.data(), piece.data(), bias.data(), y.data()}, {rows}, {begin, end});
      }
      EXPECT_TRUE(y.IsIntact());
      Errors errors;
      for (int64_t m = 0; m < rows; ++m)
        for (int64_t n = 0; n < outputs; ++n)
          errors.Add(y.as<float>()[m * outputs + n], x.as<float>() + m * depth,
                     weight.values.data() + n * depth, 0, depth, bias.as<float>()[n]);
      errors.Check(name + ", " + std::to_string(rows) + " rows");
    }
  }
}

/// Stages of two groups, the last of them half full.
TEST_P(TensorMatmulKernel, ProductsWithFloatWeights) {
  const int64_t outputs = 136, depth = 608, rows = 65;
  for (BlockFormat format : {BlockFormat::F16, BlockFormat::BF16, BlockFormat::F32}) {
    const std::string name(blockFormatInfo(format).name);
    const auto kernel = Compile(ProductText(format, outputs, depth, true));
    ASSERT_TRUE(kernel) << name;
    kernel->Note("format", name);
    kernel->Note("depth", depth);
    const Weight weight = RandomWeight(random_, format, outputs, depth);
    const Buffer piece = weight.Pack(0, outputs, 0, depth);
    const Buffer bias = RandomFloats(random_, outputs), x = RandomFloats(random_, rows * depth);
    const Buffer numeric = HalfRows(x.as<float>(), rows, depth), y(rows * outputs * 4);
    kernel->Run({numeric.data(), piece.data(), bias.data(), y.data()}, {rows}, {0, outputs});
    EXPECT_TRUE(y.IsIntact());
    Errors errors;
    for (int64_t m = 0; m < rows; ++m)
      for (int64_t n = 0; n < outputs; ++n)
        errors.Add(y.as<float>()[m * outputs + n], x.as<float>() + m * depth,
                   weight.values.data() + n * depth, 0, depth, bias.as<float>()[n]);
    errors.Check(name);
  }
}

/// What f16 cannot hold becomes its largest number, and what is too small for it 0.
TEST_P(TensorMatmulKernel, FloatWeightsOutOfRange) {
  const int64_t outputs = 16, depth = 32;
  for (BlockFormat format : {BlockFormat::BF16, BlockFormat::F32}) {
    const auto kernel = Compile(ProductText(format, outputs, depth, false));
    ASSERT_TRUE(kernel);
    Weight weight = RandomWeight(random_, format, outputs, depth);
    std::vector<float> values(outputs * depth, 0);
    for (int64_t n = 0; n < outputs; ++n) values[n * depth + n] = n % 2 == 0 ? 1e30f : -0x1p17f;
    values[5 * depth + 5] = 1e-30f;
    quantizeRow(format, values.data(), weight.encoded.data(), outputs * depth);
    const Buffer piece = weight.Pack(0, outputs, 0, depth), y(outputs * 4);
    const std::vector<float> ones(depth, 1.0f);
    kernel->Run({HalfRows(ones.data(), 1, depth).data(), piece.data(), y.data()}, {1},
                {0, outputs});
    for (int64_t n = 0; n < outputs; ++n)
      EXPECT_EQ(y.as<float>()[n], n == 5 ? 0 : n % 2 == 0 ? 65504 : -65504) << n;
  }
}

TEST_P(TensorMatmulKernel, ProductsOfRaggedShapes) {
  struct Shape {
    int64_t rows, outputs, depth;
  };
  for (const Shape& s : {Shape{1, 16, 32}, Shape{7, 144, 576}, Shape{63, 50, 896},
                         Shape{65, 272, 96}, Shape{129, 33, 64}, Shape{8, 8, 1536}}) {
    const std::string what = std::to_string(s.rows) + " x " + std::to_string(s.outputs) + " x " +
                             std::to_string(s.depth);
    const auto kernel = Compile(ProductText(BlockFormat::Q4_1, s.outputs, s.depth, false));
    ASSERT_TRUE(kernel) << what;
    kernel->Note("outputs", s.outputs);
    kernel->Note("depth", s.depth);
    const Weight weight = RandomWeight(random_, BlockFormat::Q4_1, s.outputs, s.depth);
    const Buffer piece = weight.Pack(0, s.outputs, 0, s.depth);
    const Buffer x = RandomFloats(random_, s.rows * s.depth);
    const Buffer numeric = HalfRows(x.as<float>(), s.rows, s.depth), y(s.rows * s.outputs * 4);
    kernel->Run({numeric.data(), piece.data(), y.data()}, {s.rows}, {0, s.outputs});
    EXPECT_TRUE(y.IsIntact());
    Errors errors;
    for (int64_t m = 0; m < s.rows; ++m)
      for (int64_t n = 0; n < s.outputs; ++n)
        errors.Add(y.as<float>()[m * s.outputs + n], x.as<float>() + m * s.depth,
                   weight.values.data() + n * s.depth, 0, s.depth);
    errors.Check(what);
  }
}

TEST_P(TensorMatmulKernel, SharesAlongKWriteTheirOwnPartials) {
  const int64_t outputs = 80, depth = 1536, rows = 19;
  const std::string x = CodeRows(depth), w = Matrix(BlockFormat::Q4_K, outputs, depth),
                    b = Vector(outputs), y = FloatRows(outputs, "3x");
  const auto kernel =
      Compile("rt.kernel @k(%x: " + x + ", %w: " + w + ", %b: " + b + ") -> (" + y +
              ") attributes {split = #lm<kernel_split shares>} {\n  %y = lm.quant_matmul %x, %w "
              "bias %b split = k {ranges = #lm.ranges<[0:512], [512:1536], [1536:1536]>} : (" +
              x + ", " + w + ", " + b + ") -> " + y + "\n  lm.yield %y : " + y + "\n}\n");
  ASSERT_TRUE(kernel);
  const Weight weight = RandomWeight(random_, BlockFormat::Q4_K, outputs, depth);
  const Buffer values = RandomFloats(random_, rows * depth), bias = RandomFloats(random_, outputs);
  const Buffer numeric = HalfRows(values.as<float>(), rows, depth);
  for (auto [begin, end] : {std::pair<int64_t, int64_t>{0, 512}, {512, 1536}, {1536, 1536}}) {
    const Buffer piece = weight.Pack(0, outputs, begin, end), partial(rows * outputs * 4);
    std::memset(partial.data(), 0xff, partial.size());
    kernel->Run({numeric.data(), piece.data(), bias.data(), partial.data()}, {rows}, {begin, end});
    EXPECT_TRUE(partial.IsIntact());
    Errors errors;
    for (int64_t m = 0; m < rows; ++m)
      for (int64_t n = 0; n < outputs; ++n)
        errors.Add(partial.as<float>()[m * outputs + n], values.as<float>() + m * depth,
                   weight.values.data() + n * depth, begin, end,
                   begin == 0 ? bias.as<float>()[n] : 0);
    errors.Check("from " + std::to_string(begin));
  }
}

TEST_P(TensorMatmulKernel, QkvOfMixedFormatsWithBiasesAndAShareOfEach) {
  const int64_t depth = 896, rows = 18, outputs[3] = {896, 128, 128};
  const BlockFormat formats[3] = {BlockFormat::Q5_0, BlockFormat::Q8_0, BlockFormat::Q5_0};
  std::ostringstream text;
  std::string inputs = CodeRows(depth);
  text << "rt.kernel @k(%x: " << inputs;
  for (int i = 0; i < 3; ++i) {
    text << ", %w" << i << ": " << Matrix(formats[i], outputs[i], depth);
    inputs += ", " + Matrix(formats[i], outputs[i], depth);
  }
  for (int i = 0; i < 3; ++i) {
    text << ", %b" << i << ": " << Vector(outputs[i]);
    inputs += ", " + Vector(outputs[i]);
  }
  const std::string results = FloatRows(896) + ", " + FloatRows(128) + ", " + FloatRows(128);
  text << ") -> (" << results << ") attributes {split = #lm<kernel_split shares>} {\n"
       << "  %q, %k, %v = lm.qkv_proj %x, %w0, %w1, %w2 bias %b0, %b1, %b2 : (" << inputs
       << ") -> (" << results << ")\n  lm.yield %q, %k, %v : " << results << "\n}\n";
  const auto kernel = Compile(text.str());
  ASSERT_TRUE(kernel);
  const Buffer values = RandomFloats(random_, rows * depth);
  const Buffer numeric = HalfRows(values.as<float>(), rows, depth);
  const int64_t ranges[3][2] = {{448, 896}, {64, 128}, {64, 128}};  // the second of two shares
  std::vector<Weight> weights;
  std::vector<Buffer> pieces, bias, result;
  for (int i = 0; i < 3; ++i) {
    weights.push_back(RandomWeight(random_, formats[i], outputs[i], depth));
    pieces.push_back(weights[i].Pack(ranges[i][0], ranges[i][1], 0, depth));
    bias.push_back(RandomFloats(random_, outputs[i]));
    result.emplace_back(rows * outputs[i] * 4);
  }
  kernel->Run(
      {numeric.data(), pieces[0].data(), pieces[1].data(), pieces[2].data(), bias[0].data(),
       bias[1].data(), bias[2].data(), result[0].data(), result[1].data(), result[2].data()},
      {rows}, {448, 896, 64, 128, 64, 128});
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(result[i].IsIntact());
    Errors errors;
    for (int64_t m = 0; m < rows; ++m)
      for (int64_t n = 0; n < outputs[i]; ++n) {
        const float got = result[i].as<float>()[m * outputs[i] + n];
        if (n < ranges[i][0])
          ASSERT_EQ(got, 0) << "column " << n << " belongs to another share";
        else
          errors.Add(got, values.as<float>() + m * depth, weights[i].values.data() + n * depth, 0,
                     depth, bias[i].as<float>()[n]);
      }
    errors.Check("projection " + std::to_string(i));
  }
}

TEST_P(TensorMatmulKernel, JoinsGateAndUp) {
  const int64_t width = 160, depth = 576, cut = 96;
  const std::string x = CodeRows(depth), g = Matrix(BlockFormat::Q4_1, width, depth),
                    u = Matrix(BlockFormat::Q8_0, width, depth), f = FloatRows(width);
  const Weight gate = RandomWeight(random_, BlockFormat::Q4_1, width, depth);
  const Weight up = RandomWeight(random_, BlockFormat::Q8_0, width, depth);
  for (bool quantize : {false, true}) {
    const std::string z = quantize ? CodeRows(width) : f;
    const auto kernel = Compile(
        "rt.kernel @k(%x: " + x + ", %g: " + g + ", %u: " + u + ") -> (" + z +
        ") attributes {split = #lm<kernel_split shares>} {\n  %a = lm.quant_matmul %x, %g : (" + x +
        ", " + g + ") -> " + f + "\n  %b = lm.quant_matmul %x, %u : (" + x + ", " + u + ") -> " +
        f + "\n  %y = lm.swiglu %a, %b : " + f + "\n" +
        (quantize ? "  %z = lm.quantize %y : " + f + " -> " + z + "\n  lm.yield %z : "
                  : "  lm.yield %y : ") +
        z + "\n}\n");
    ASSERT_TRUE(kernel);
    for (int64_t rows : {1, 9, 33}) {
      const Buffer values = RandomFloats(random_, rows * depth);
      const Buffer numeric = HalfRows(values.as<float>(), rows, depth);
      const Buffer out(quantize ? HalfRowsBytes(rows, width) : rows * width * 4);
      for (auto [begin, end] : {std::pair<int64_t, int64_t>{0, cut}, {cut, width}}) {
        const Buffer gates = gate.Pack(begin, end, 0, depth), ups = up.Pack(begin, end, 0, depth);
        kernel->Run({numeric.data(), gates.data(), ups.data(), out.data()}, {rows}, {begin, end});
      }
      EXPECT_TRUE(out.IsIntact());
      Errors errors;
      for (int64_t m = 0; m < rows; ++m)
        for (int64_t n = 0; n < width; ++n) {
          double sums[2] = {0, 0}, plain[2] = {0, 0};
          for (int64_t k = 0; k < depth; ++k)
            for (int i = 0; i < 2; ++i) {
              const double w = (i == 0 ? gate : up).values[n * depth + k];
              const double x = values.as<float>()[m * depth + k];
              sums[i] += w * x;
              plain[i] += AsHalf(w) * AsHalf(x);
            }
          const auto join = [](const double s[2]) { return s[0] / (1 + std::exp(-s[0])) * s[1]; };
          float got = 0;
          if (quantize) {
            uint16_t bits;
            std::memcpy(&bits, out.data() + HalfOffset(width, m, n), 2);
            got = f16ToF32(bits);
          } else {
            got = out.as<float>()[m * width + n];
          }
          const double want = quantize ? AsHalf(join(plain)) : join(plain);
          errors.Count(got - join(sums), want - join(sums));
        }
      errors.Check(std::to_string(rows) + (quantize ? " rows, quantized" : " rows"));
    }
  }
}

TEST_P(TensorMatmulKernel, ARowDoesNotDependOnItsNeighbours) {
  const int64_t outputs = 48, depth = 512, rows = 35;
  const auto kernel = Compile(ProductText(BlockFormat::Q6_K, outputs, depth, false));
  ASSERT_TRUE(kernel);
  const Weight weight = RandomWeight(random_, BlockFormat::Q6_K, outputs, depth);
  const Buffer piece = weight.Pack(0, outputs, 0, depth);
  const Buffer x = RandomFloats(random_, rows * depth);
  const Buffer numeric = HalfRows(x.as<float>(), rows, depth), all(rows * outputs * 4);
  kernel->Run({numeric.data(), piece.data(), all.data()}, {rows}, {0, outputs});
  for (int64_t m = 0; m < rows; ++m) {
    const Buffer alone = HalfRows(x.as<float>() + m * depth, 1, depth), one(outputs * 4);
    kernel->Run({alone.data(), piece.data(), one.data()}, {1}, {0, outputs});
    ASSERT_EQ(0, std::memcmp(one.data(), all.as<float>() + m * outputs, outputs * 4)) << m;
  }
}

INSTANTIATE_TEST_SUITE_P(, TensorMatmulKernel, testing::ValuesIn(EmulatedMatmulMachines()),
                         [](const auto& info) { return MachineName(info.param); });

}  // namespace
}  // namespace quern::test
