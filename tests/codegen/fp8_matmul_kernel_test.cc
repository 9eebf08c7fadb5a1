// Matmuls with weights of e4m3 in the PTX emulator.
//
// Where tensor cores multiply e4m3 (sm_89, sm_90a), a token is rounded to e4m3 under a scale of its
// own. Bound: twice the error of a plain product of the rounded numbers in float32, and, since all
// products are exact, what float32 sums of so many numbers may differ in. Elsewhere weights are
// decoded to f16, which holds every e4m3 number, and the bound is twice the error of plain f16.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "codegen/target/Target.h"
#include "tests/codegen/kernel_harness.h"
#include "tests/codegen/product_errors.h"

namespace quern::test {
namespace {

constexpr BlockFormat kFormat = BlockFormat::E4M3;

std::string Rows(int64_t columns, const std::string& element, const std::string& copies = "") {
  return "tensor<" + copies + "?x" + std::to_string(columns) + "x" + element + ">";
}
std::string FloatRows(int64_t columns) { return Rows(columns, "f32"); }
std::string Fp8(int64_t columns) { return Rows(columns, "!lm.block<e4m3>"); }
std::string Matrix(int64_t rows, int64_t columns) {
  return "tensor<" + std::to_string(rows) + "x" + std::to_string(columns) + "x!lm.block<e4m3>>";
}
std::string Vector(int64_t count) { return "tensor<" + std::to_string(count) + "xf32>"; }

/// Where column `column` of an e4m3 row lies (docs/architecture.md, section 8), and its scale.
int64_t Fp8Offset(int64_t columns, int64_t row, int64_t column) {
  const int64_t k = column % 32, block = 2 * (column / 32) + k / 4 % 2;
  return row / 8 * 8 * NumericRowBytes(columns) + 128 * block + 16 * (row % 8) + 4 * (k / 8) +
         k % 4;
}
int64_t Fp8ScaleOffset(int64_t columns, int64_t row) {
  return row / 8 * 8 * NumericRowBytes(columns) + 8 * columns + 16 * (row % 8);
}

/// Rows (rows, columns) as e4m3 numeric rows; rows that fill up the last block are NaN.
Buffer Fp8Rows(const float* values, int64_t rows, int64_t columns) {
  Buffer buffer(HalfRowsBytes(rows, columns));
  std::memset(buffer.data(), 0xff, buffer.size());
  std::vector<uint8_t> encoded(blockFormatInfo(kFormat).rowBytes(columns));
  for (int64_t m = 0; m < rows; ++m) {
    quantizeRow(kFormat, values + m * columns, encoded.data(), columns);
    std::memcpy(buffer.data() + Fp8ScaleOffset(columns, m), encoded.data(), 4);
    for (int64_t k = 0; k < columns; ++k) buffer.data()[Fp8Offset(columns, m, k)] = encoded[4 + k];
  }
  return buffer;
}

/// What e4m3 rows of the floats mean.
std::vector<float> Rounded(const float* values, int64_t rows, int64_t columns) {
  std::vector<uint8_t> encoded(blockFormatInfo(kFormat).rowBytes(columns));
  std::vector<float> rounded(rows * columns);
  for (int64_t m = 0; m < rows; ++m) {
    quantizeRow(kFormat, values + m * columns, encoded.data(), columns);
    dequantizeRow(kFormat, encoded.data(), rounded.data() + m * columns, columns);
  }
  return rounded;
}

class Fp8MatmulKernel : public testing::TestWithParam<Machine> {
 protected:
  std::unique_ptr<CompiledKernel> Compile(const std::string& text) {
    return CompiledKernel::Compile(text, GetParam());
  }
  bool HasFp8() const { return findTarget(GetParam().target)->gpu.hasFp8; }

  /// Tokens as this machine wants them, and the numbers that its products are of.
  struct Tokens {
    Buffer numeric;
    std::vector<float> values, used;
  };
  Tokens RandomTokens(int64_t rows, int64_t columns) {
    const Buffer x = RandomFloats(random_, rows * columns);
    std::vector<float> values(x.as<float>(), x.as<float>() + rows * columns);
    // Tokens of one step differ in size, and so do their scales.
    for (int64_t i = 0; i < rows * columns; ++i)
      values[i] *= std::exp2(static_cast<float>(i / columns % 5) - 2);
    std::vector<float> used = values;
    if (HasFp8())
      used = Rounded(values.data(), rows, columns);
    else
      for (float& value : used) value = static_cast<float>(AsHalf(value));
    Buffer numeric =
        HasFp8() ? Fp8Rows(values.data(), rows, columns) : HalfRows(values.data(), rows, columns);
    return {std::move(numeric), std::move(values), std::move(used)};
  }

  /// `got` stands for the product of row m of the tokens with row n of the weight over columns
  /// [begin, end), + `added`.
  void Expect(Errors& errors, double got, const Tokens& x, const Weight& w, int64_t m, int64_t n,
              int64_t begin, int64_t end, double added, const std::string& what) {
    double exact = added, used = added, magnitude = std::fabs(added);
    float plain = 0;
    for (int64_t k = begin; k < end; ++k) {
      const double weight = w.values[n * w.columns + k];
      exact += x.values[m * w.columns + k] * weight;
      const double product = x.used[m * w.columns + k] * weight;
      used += product, magnitude += std::fabs(product);
      plain += static_cast<float>(product);
    }
    errors.Count(got - exact, plain + added - exact);
    ASSERT_NEAR(got, used, magnitude * static_cast<double>(end - begin + 8) * 0x1p-24 + 1e-30)
        << what << ", token " << m << ", output " << n;
  }

  std::mt19937 random_{1};
};

std::string ProductText(int64_t outputs, int64_t depth, bool bias) {
  const std::string x = Fp8(depth), w = Matrix(outputs, depth), b = Vector(outputs),
                    y = FloatRows(outputs);
  return "rt.kernel @k(%x: " + x + ", %w: " + w + (bias ? ", %b: " + b : "") + ") -> (" + y +
         ") attributes {split = #lm<kernel_split shares>} {\n  %y = lm.quant_matmul %x, %w" +
         (bias ? " bias %b" : "") + " : (" + x + ", " + w + (bias ? ", " + b : "") + ") -> " + y +
         "\n  lm.yield %y : " + y + "\n}\n";
}

TEST_P(Fp8MatmulKernel, ProductsOfRaggedShapes) {
  struct Shape {
    int64_t rows, outputs, depth;
  };
  for (const Shape& s : {Shape{1, 16, 32}, Shape{7, 144, 544}, Shape{17, 40, 96},
                         Shape{65, 272, 160}, Shape{257, 33, 64}, Shape{8, 8, 1536}}) {
    if (GetParam().role == Role::Decode && s.rows > 17) continue;
    const std::string what = std::to_string(s.rows) + " x " + std::to_string(s.outputs) + " x " +
                             std::to_string(s.depth);
    const auto kernel = Compile(ProductText(s.outputs, s.depth, true));
    ASSERT_TRUE(kernel) << what;
    const Weight weight = RandomWeight(random_, kFormat, s.outputs, s.depth);
    const Buffer bias = RandomFloats(random_, s.outputs), y(s.rows * s.outputs * 4);
    const Tokens x = RandomTokens(s.rows, s.depth);
    // Two shares of the outputs, the first of 16.
    for (auto [begin, end] : {std::pair<int64_t, int64_t>{0, std::min<int64_t>(16, s.outputs)},
                              {std::min<int64_t>(16, s.outputs), s.outputs}}) {
      const Buffer piece = weight.Pack(begin, end, 0, s.depth);
      kernel->Run({x.numeric.data(), piece.data(), bias.data(), y.data()}, {s.rows}, {begin, end});
    }
    EXPECT_TRUE(y.IsIntact());
    Errors errors;
    for (int64_t m = 0; m < s.rows; ++m)
      for (int64_t n = 0; n < s.outputs; ++n)
        Expect(errors, y.as<float>()[m * s.outputs + n], x, weight, m, n, 0, s.depth,
               bias.as<float>()[n], what);
    errors.Check(what);
  }
}

/// Every piece of K has the scales of its rows, also that of a share without columns.
TEST_P(Fp8MatmulKernel, SharesAlongKWriteTheirOwnPartials) {
  const int64_t outputs = 80, depth = 1056, rows = 19;
  const std::string x = Fp8(depth), w = Matrix(outputs, depth), y = Rows(outputs, "f32", "3x");
  const auto kernel =
      Compile("rt.kernel @k(%x: " + x + ", %w: " + w + ") -> (" + y +
              ") attributes {split = #lm<kernel_split shares>} {\n  %y = lm.quant_matmul %x, %w "
              "split = k {ranges = #lm.ranges<[0:512], [512:1056], [1056:1056]>} : (" +
              x + ", " + w + ") -> " + y + "\n  lm.yield %y : " + y + "\n}\n");
  ASSERT_TRUE(kernel);
  const Weight weight = RandomWeight(random_, kFormat, outputs, depth);
  const Tokens tokens = RandomTokens(rows, depth);
  for (auto [begin, end] : {std::pair<int64_t, int64_t>{0, 512}, {512, 1056}, {1056, 1056}}) {
    const Buffer piece = weight.Pack(0, outputs, begin, end), partial(rows * outputs * 4);
    std::memset(partial.data(), 0xff, partial.size());
    kernel->Run({tokens.numeric.data(), piece.data(), partial.data()}, {rows}, {begin, end});
    EXPECT_TRUE(partial.IsIntact());
    Errors errors;
    for (int64_t m = 0; m < rows; ++m)
      for (int64_t n = 0; n < outputs; ++n)
        Expect(errors, partial.as<float>()[m * outputs + n], tokens, weight, m, n, begin, end, 0,
               "from " + std::to_string(begin));
    errors.Check("from " + std::to_string(begin));
  }
}

TEST_P(Fp8MatmulKernel, JoinsGateAndUp) {
  const int64_t width = 96, depth = 160;
  const std::string x = Fp8(depth), w = Matrix(width, depth), f = FloatRows(width);
  const auto kernel = Compile(
      "rt.kernel @k(%x: " + x + ", %g: " + w + ", %u: " + w + ") -> (" + f +
      ") attributes {split = #lm<kernel_split shares>} {\n  %a = lm.quant_matmul %x, %g : (" + x +
      ", " + w + ") -> " + f + "\n  %b = lm.quant_matmul %x, %u : (" + x + ", " + w + ") -> " + f +
      "\n  %y = lm.swiglu %a, %b : " + f + "\n  lm.yield %y : " + f + "\n}\n");
  ASSERT_TRUE(kernel);
  const Weight gate = RandomWeight(random_, kFormat, width, depth);
  const Weight up = RandomWeight(random_, kFormat, width, depth);
  const Buffer gates = gate.Pack(0, width, 0, depth), ups = up.Pack(0, width, 0, depth);
  for (int64_t rows : {1, 9, 33}) {
    const Tokens tokens = RandomTokens(rows, depth);
    const Buffer out(rows * width * 4);
    kernel->Run({tokens.numeric.data(), gates.data(), ups.data(), out.data()}, {rows}, {0, width});
    EXPECT_TRUE(out.IsIntact());
    for (int64_t m = 0; m < rows; ++m)
      for (int64_t n = 0; n < width; ++n) {
        double sums[2] = {0, 0};
        for (int64_t k = 0; k < depth; ++k)
          for (int i = 0; i < 2; ++i)
            sums[i] += (i == 0 ? gate : up).values[n * depth + k] * tokens.used[m * depth + k];
        const double want = sums[0] / (1 + std::exp(-sums[0])) * sums[1];
        ASSERT_NEAR(out.as<float>()[m * width + n], want, 1e-5 * (1 + std::fabs(want)))
            << rows << " rows, token " << m << ", column " << n;
      }
  }
}

TEST_P(Fp8MatmulKernel, ARowDoesNotDependOnItsNeighbours) {
  const int64_t outputs = 48, depth = 480, rows = 19;
  const auto kernel = Compile(ProductText(outputs, depth, false));
  ASSERT_TRUE(kernel);
  const Weight weight = RandomWeight(random_, kFormat, outputs, depth);
  const Buffer piece = weight.Pack(0, outputs, 0, depth), all(rows * outputs * 4);
  const Tokens x = RandomTokens(rows, depth);
  kernel->Run({x.numeric.data(), piece.data(), all.data()}, {rows}, {0, outputs});
  for (int64_t m = 0; m < rows; ++m) {
    const float* values = x.values.data() + m * depth;
    const Buffer alone = HasFp8() ? Fp8Rows(values, 1, depth) : HalfRows(values, 1, depth);
    const Buffer one(outputs * 4);
    kernel->Run({alone.data(), piece.data(), one.data()}, {1}, {0, outputs});
    ASSERT_EQ(0, std::memcmp(one.data(), all.as<float>() + m * outputs, outputs * 4)) << m;
  }
}

/// Codes and scales are those of quantizeRow(), bit for bit, and are read back as such.
TEST_P(Fp8MatmulKernel, RoundsTokensUnderAScaleOfTheirOwn) {
  if (!HasFp8()) GTEST_SKIP() << "rowwise_kernel_test has rows of f16";
  const int64_t columns = 544, rows = 11;
  const std::string f = FloatRows(columns), q = Fp8(columns);
  const std::string head = ") attributes {split = #lm<kernel_split rows>} {\n";
  const auto quantize =
      Compile("rt.kernel @k(%x: " + f + ") -> (" + q + head + "  %y = lm.quantize %x : " + f +
              " -> " + q + "\n  lm.yield %y : " + q + "\n}\n");
  const auto dequantize =
      Compile("rt.kernel @k(%x: " + q + ") -> (" + f + head + "  %y = lm.dequantize %x : " + q +
              " -> " + f + "\n  lm.yield %y : " + f + "\n}\n");
  ASSERT_TRUE(quantize && dequantize);
  const Buffer x = RandomFloats(random_, rows * columns);
  for (int64_t k = 0; k < columns; ++k) {
    x.as<float>()[3 * columns + k] = 0;
    x.as<float>()[4 * columns + k] *= 1e-42f;
    x.as<float>()[5 * columns + k] *= 1e30f;
  }
  const Buffer want = Fp8Rows(x.as<float>(), rows, columns), got(HalfRowsBytes(rows, columns));
  std::memset(got.data(), 0xff, got.size());
  quantize->Run({x.data(), got.data()}, {rows}, {0, rows});
  EXPECT_TRUE(got.IsIntact());
  const Buffer back(rows * columns * 4);
  dequantize->Run({got.data(), back.data()}, {rows}, {0, rows});
  const std::vector<float> rounded = Rounded(x.as<float>(), rows, columns);
  for (int64_t m = 0; m < rows; ++m) {
    EXPECT_EQ(0, std::memcmp(got.data() + Fp8ScaleOffset(columns, m),
                             want.data() + Fp8ScaleOffset(columns, m), 4))
        << "scale of row " << m;
    for (int64_t k = 0; k < columns; ++k) {
      const int64_t at = Fp8Offset(columns, m, k);
      ASSERT_EQ(got.data()[at], want.data()[at]) << "row " << m << ", column " << k;
      ASSERT_EQ(back.as<float>()[m * columns + k], rounded[m * columns + k]);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, Fp8MatmulKernel, testing::ValuesIn(EmulatedMatmulMachines()),
                         [](const auto& info) { return MachineName(info.param); });

}  // namespace
}  // namespace quern::test
