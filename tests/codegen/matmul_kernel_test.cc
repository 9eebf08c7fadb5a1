// Matmul kernels on every ISA against sums in double over the same dequantised numbers.
//
// Bound. Integer dots are exact, so a kernel differs from the true sum only by float rounding: at
// most 4 operations a group, each within 2^-24 of what has been added so far, over K / 16 groups.
// The bound below is that sum of magnitudes times (K / 16) * 4 * 2^-24; float kernels add K terms.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <sstream>

#include "codegen/host/Kernel.h"
#include "codegen/host/PackedLayout.h"
#include "runtime/schema/kernel_abi.h"
#include "tests/codegen/kernel_harness.h"

namespace quern::test {
namespace {

constexpr float kEpsilon = 5.9604645e-8f;  // 2^-24

/// Float rows and the same rows as int8 numeric rows, with what these mean.
struct Activations {
  Buffer floats, numeric;
  std::vector<float> values;  // of the numeric rows, (rows, columns)
};

Activations MakeActivations(std::mt19937& random, int64_t rows, int64_t columns) {
  Activations x = {RandomFloats(random, rows * columns), Buffer(rows * activationRowBytes(columns)),
                   std::vector<float>(rows * columns)};
  for (int64_t m = 0; m < rows; ++m) {
    uint8_t* row = x.numeric.data() + m * activationRowBytes(columns);
    int codes = 0;  // of the group, added up
    for (int64_t k = 0; k < columns; ++k) {
      const int64_t group = k / kActivationGroup;
      auto* scale = reinterpret_cast<float*>(row + activationScaleOffset(columns)) + group;
      auto* sum = reinterpret_cast<float*>(row + activationSumOffset(columns)) + group;
      if (k % kActivationGroup == 0) {
        float amax = 0;
        for (int64_t i = k; i < k + kActivationGroup; ++i)
          amax = std::max(amax, std::fabs(x.floats.as<float>()[m * columns + i]));
        *scale = amax / 127;
        codes = 0;
      }
      const auto code =
          static_cast<int8_t>(std::nearbyint(x.floats.as<float>()[m * columns + k] / *scale));
      reinterpret_cast<int8_t*>(row)[k] = code;
      codes += code;
      *sum = *scale * static_cast<float>(codes);
      if (group % 2 == 1)
        reinterpret_cast<float*>(row + activationPairSumOffset(columns))[group / 2] =
            sum[-1] + sum[0];
      x.values[m * columns + k] = *scale * static_cast<float>(code);
    }
  }
  return x;
}

struct Case {
  BlockFormat format;
  int64_t rows, outputs, depth;
};

std::string WeightType(BlockFormat format, int64_t outputs, int64_t depth) {
  const std::string name(blockFormatInfo(format).name);
  std::ostringstream type;
  type << "tensor<" << outputs << "x" << depth << "x"
       << (blockFormatInfo(format).isFloat() ? name : "!lm.block<" + name + ">") << ">";
  return type.str();
}

std::string MatmulText(const Case& c, const std::string& element, int64_t shares,
                       const std::string& split) {
  std::ostringstream text;
  const std::string x = "tensor<?x" + std::to_string(c.depth) + "x" + element + ">";
  const std::string w = WeightType(c.format, c.outputs, c.depth);
  const std::string y = "tensor<" + (shares > 1 ? std::to_string(shares) + "x" : std::string()) +
                        "?x" + std::to_string(c.outputs) + "xf32>";
  text << "rt.kernel @k(%x: " << x << ", %w: " << w << ") -> (" << y
       << ") attributes {split = #lm<kernel_split shares>} {\n  %y = lm.quant_matmul %x, %w "
       << split << " : (" << x << ", " << w << ") -> " << y << "\n  lm.yield %y : " << y << "\n}\n";
  return text.str();
}

/// |got - sum_k x w| within the bound of the file's comment.
void ExpectProduct(const float* got, const float* x, const float* w, int64_t k_begin, int64_t k_end,
                   double terms_per_k, const std::string& where) {
  double sum = 0, magnitude = 0;
  for (int64_t k = k_begin; k < k_end; ++k) {
    sum += static_cast<double>(x[k]) * w[k];
    magnitude += std::fabs(static_cast<double>(x[k]) * w[k]);
  }
  const double bound = kEpsilon * magnitude * (terms_per_k * (k_end - k_begin) + 8) + 1e-30;
  ASSERT_NEAR(*got, sum, bound) << where;
}

class MatmulKernel : public testing::TestWithParam<Machine> {
 protected:
  /// 16-bit float numerics have their own generators and tests.
  bool IsInteger() const { return numerics() == Numerics::Int8; }
  Numerics numerics() const { return findTarget(GetParam().target)->numericsFor(GetParam().role); }
};

TEST_P(MatmulKernel, IntegerDotsOfEveryFormat) {
  if (!IsInteger()) GTEST_SKIP() << "prefill computes in 16-bit floats";
  std::mt19937 random(1);
  for (int f = 0; f < kBlockFormatCount; ++f) {
    const auto format = static_cast<BlockFormat>(f);
    const BlockFormatInfo& info = blockFormatInfo(format);
    if (format == BlockFormat::A8 || info.isFloat() || info.isRowScaled()) continue;
    const int64_t unit = packedFormat(format).superblockColumns();
    for (const Case& c :
         {Case{format, 1, 16, unit}, Case{format, 7, 48, 3 * unit}, Case{format, 17, 40, 1536}}) {
      auto kernel = CompiledKernel::Compile(MatmulText(c, "!lm.block<a8>", 1, ""), GetParam());
      ASSERT_TRUE(kernel);
      Weight weight = RandomWeight(random, format, c.outputs, c.depth);
      Activations x = MakeActivations(random, c.rows, c.depth);
      Buffer packed = weight.Pack(0, c.outputs, 0, c.depth);
      Buffer y(c.rows * c.outputs * 4);
      kernel->Run({x.numeric.data(), packed.data(), y.data()}, {c.rows}, {0, c.outputs});
      EXPECT_TRUE(y.IsIntact());
      for (int64_t m = 0; m < c.rows; ++m)
        for (int64_t n = 0; n < c.outputs; ++n)
          ExpectProduct(y.as<float>() + m * c.outputs + n, x.values.data() + m * c.depth,
                        weight.values.data() + n * c.depth, 0, c.depth, 0.25,
                        std::string(blockFormatInfo(format).name) + " row " + std::to_string(m) +
                            " output " + std::to_string(n));
    }
  }
}

TEST_P(MatmulKernel, FloatActivationsWithEveryFormat) {
  std::mt19937 random(2);
  for (int f = 0; f < kBlockFormatCount; ++f) {
    const auto format = static_cast<BlockFormat>(f);
    if (format == BlockFormat::A8) continue;
    const Case c = {format, 5, 24, 768};
    Weight weight = RandomWeight(random, format, c.outputs, c.depth);
    Buffer x = RandomFloats(random, c.rows * c.depth);
    Buffer packed = weight.Pack(0, c.outputs, 0, c.depth);
    Buffer y(c.rows * c.outputs * 4), of_halves(c.rows * c.outputs * 4);
    // A host holds rows of f16 and e4m3 as f32; those of GPUs are tensor_matmul_kernel_test's.
    const char* numeric = format == BlockFormat::E4M3 ? "!lm.block<e4m3>" : "f16";
    for (const auto& [element, result] : {std::pair{numeric, &of_halves}, {"f32", &y}}) {
      if (result == &of_halves && IsGpu(GetParam())) continue;
      auto kernel = CompiledKernel::Compile(MatmulText(c, element, 1, ""), GetParam());
      ASSERT_TRUE(kernel);
      kernel->Note("format", std::string(blockFormatInfo(format).name));
      kernel->Run({x.data(), packed.data(), result->data()}, {c.rows}, {0, c.outputs});
      EXPECT_TRUE(result->IsIntact());
    }
    if (!IsGpu(GetParam()))
      EXPECT_EQ(0, std::memcmp(y.data(), of_halves.data(), c.rows * c.outputs * 4));
    for (int64_t m = 0; m < c.rows; ++m)
      for (int64_t n = 0; n < c.outputs; ++n)
        ExpectProduct(y.as<float>() + m * c.outputs + n, x.as<float>() + m * c.depth,
                      weight.values.data() + n * c.depth, 0, c.depth, 1,
                      std::string(blockFormatInfo(format).name));
  }
}

TEST_P(MatmulKernel, SharesAlongKWriteTheirOwnPartials) {
  if (!IsInteger()) GTEST_SKIP() << "prefill computes in 16-bit floats";
  std::mt19937 random(3);
  const Case c = {BlockFormat::Q4_1, 5, 576, 576};
  auto kernel = CompiledKernel::Compile(
      MatmulText(c, "!lm.block<a8>", 2, "split = k {ranges = #lm.ranges<[0:256], [256:576]>}"),
      GetParam());
  ASSERT_TRUE(kernel);
  Weight weight = RandomWeight(random, c.format, c.outputs, c.depth);
  Activations x = MakeActivations(random, c.rows, c.depth);
  for (auto [begin, end] : {std::pair<int64_t, int64_t>{0, 256}, {256, 576}}) {
    Buffer packed = weight.Pack(0, c.outputs, begin, end);
    Buffer y(c.rows * c.outputs * 4);
    kernel->Run({x.numeric.data(), packed.data(), y.data()}, {c.rows}, {begin, end});
    EXPECT_TRUE(y.IsIntact());
    for (int64_t m = 0; m < c.rows; ++m)
      for (int64_t n = 0; n < c.outputs; ++n)
        ExpectProduct(y.as<float>() + m * c.outputs + n, x.values.data() + m * c.depth,
                      weight.values.data() + n * c.depth, begin, end, 0.25, "split k");
  }
}

TEST_P(MatmulKernel, ARowDoesNotDependOnItsNeighbours) {
  if (numerics() == Numerics::F16) GTEST_SKIP() << "tensor_matmul_kernel_test does it";
  std::mt19937 random(4);
  const Case c = {BlockFormat::Q6_K, 19, 48, 512};
  auto kernel = CompiledKernel::Compile(MatmulText(c, "!lm.block<a8>", 1, ""), GetParam());
  ASSERT_TRUE(kernel);
  Weight weight = RandomWeight(random, c.format, c.outputs, c.depth);
  Buffer floats = RandomFloats(random, c.rows * c.depth);
  Activations x = MakeActivations(random, c.rows, c.depth);
  Buffer bf16 = Bf16Rows(floats.as<float>(), c.rows, c.depth);
  const Buffer& rows = IsInteger() ? x.numeric : bf16;
  Buffer packed = weight.Pack(0, c.outputs, 0, c.depth);
  Buffer all(c.rows * c.outputs * 4), one(c.outputs * 4);
  std::vector<float> alone;  // (rows, outputs)
  for (int64_t m = 0; m < c.rows; ++m) {
    kernel->Run({rows.data() + m * activationRowBytes(c.depth), packed.data(), one.data()}, {1},
                {0, c.outputs});
    alone.insert(alone.end(), one.as<float>(), one.as<float>() + c.outputs);
  }
  for (int64_t count = 0; count <= c.rows; ++count) {
    std::fill_n(all.as<float>(), c.rows * c.outputs, -1.0F);
    kernel->Run({rows.data(), packed.data(), all.data()}, {count}, {0, c.outputs});
    for (int64_t m = 0; m < c.rows; ++m)
      if (m < count)
        ASSERT_EQ(
            0, std::memcmp(&alone[m * c.outputs], all.as<float>() + m * c.outputs, c.outputs * 4))
            << "row " << m << " of " << count;
      else
        ASSERT_EQ(-1.0F, all.as<float>()[m * c.outputs]) << "row " << m << " of " << count;
  }
}

TEST_P(MatmulKernel, QkvOfMixedFormatsWithBiasesAndAShareOfEach) {
  if (!IsInteger()) GTEST_SKIP() << "prefill computes in 16-bit floats";
  std::mt19937 random(5);
  const int64_t rows = 3, depth = 896, outputs[3] = {896, 128, 128};
  const BlockFormat formats[3] = {BlockFormat::Q5_0, BlockFormat::Q5_0, BlockFormat::Q8_0};
  std::ostringstream text;
  const std::string x_type = "tensor<?x896x!lm.block<a8>>";
  std::string types, names, biases, bias_types;
  text << "rt.kernel @k(%x: " << x_type;
  for (int i = 0; i < 3; ++i)
    text << ", %w" << i << ": " << WeightType(formats[i], outputs[i], depth);
  for (int i = 0; i < 3; ++i) text << ", %b" << i << ": tensor<" << outputs[i] << "xf32>";
  const std::string y = "tensor<?x896xf32>, tensor<?x128xf32>, tensor<?x128xf32>";
  text << ") -> (" << y << ") attributes {split = #lm<kernel_split shares>} {\n"
       << "  %q, %k, %v = lm.qkv_proj %x, %w0, %w1, %w2 bias %b0, %b1, %b2 : (" << x_type;
  for (int i = 0; i < 3; ++i) text << ", " << WeightType(formats[i], outputs[i], depth);
  for (int i = 0; i < 3; ++i) text << ", tensor<" << outputs[i] << "xf32>";
  text << ") -> (" << y << ")\n  lm.yield %q, %k, %v : " << y << "\n}\n";
  auto kernel = CompiledKernel::Compile(text.str(), GetParam());
  ASSERT_TRUE(kernel);

  Activations x = MakeActivations(random, rows, depth);
  const int64_t ranges[3][2] = {{448, 896}, {64, 128}, {64, 128}};  // the second of two shares
  std::vector<Weight> weights;
  std::vector<Buffer> packed, bias, result;
  for (int i = 0; i < 3; ++i) {
    weights.push_back(RandomWeight(random, formats[i], outputs[i], depth));
    packed.push_back(weights[i].Pack(ranges[i][0], ranges[i][1], 0, depth));
    bias.push_back(RandomFloats(random, outputs[i]));
    result.emplace_back(rows * outputs[i] * 4);
  }
  kernel->Run(
      {x.numeric.data(), packed[0].data(), packed[1].data(), packed[2].data(), bias[0].data(),
       bias[1].data(), bias[2].data(), result[0].data(), result[1].data(), result[2].data()},
      {rows}, {448, 896, 64, 128, 64, 128});
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(result[i].IsIntact());
    for (int64_t m = 0; m < rows; ++m)
      for (int64_t n = 0; n < outputs[i]; ++n) {
        const float got = result[i].as<float>()[m * outputs[i] + n];
        if (n < ranges[i][0]) {
          ASSERT_EQ(got, 0) << "column " << n << " belongs to another share";
          continue;
        }
        const float without = got - bias[i].as<float>()[n];
        ExpectProduct(&without, x.values.data() + m * depth, weights[i].values.data() + n * depth,
                      0, depth, 1, "qkv");
      }
  }
}

/// Swiglu of gate, in Q4_1, and up, over columns 32 to 96.
void ExpectSwiglu(const Machine& machine, BlockFormat up_format) {
  std::mt19937 random(6);
  const int64_t depth = 576, width = 96;
  const std::string x = "tensor<?x576x!lm.block<a8>>",
                    gate_type = WeightType(BlockFormat::Q4_1, width, depth),
                    up_type = WeightType(up_format, width, depth), f = "tensor<?x96xf32>",
                    q = "tensor<?x96x!lm.block<a8>>";
  const std::string text =
      "rt.kernel @k(%x: " + x + ", %g: " + gate_type + ", %u: " + up_type + ") -> (" + q +
      ") attributes {split = #lm<kernel_split shares>} {\n"
      "  %a = lm.quant_matmul %x, %g : (" +
      x + ", " + gate_type + ") -> " + f + "\n  %b = lm.quant_matmul %x, %u : (" + x + ", " +
      up_type + ") -> " + f + "\n  %h = lm.swiglu %a, %b : " + f +
      "\n  %y = lm.quantize %h : " + f + " -> " + q + "\n  lm.yield %y : " + q + "\n}\n";
  auto kernel = CompiledKernel::Compile(text, machine);
  ASSERT_TRUE(kernel);
  Weight gate = RandomWeight(random, BlockFormat::Q4_1, width, depth);
  Weight up = RandomWeight(random, up_format, width, depth);
  Buffer gates = gate.Pack(32, 96, 0, depth), ups = up.Pack(32, 96, 0, depth);
  for (int64_t rows : {1, 9}) {
    Activations input = MakeActivations(random, rows, depth);
    Buffer y(rows * activationRowBytes(width));
    kernel->Run({input.numeric.data(), gates.data(), ups.data(), y.data()}, {rows}, {32, 96});
    EXPECT_TRUE(y.IsIntact());
    for (int64_t m = 0; m < rows; ++m) {
      const uint8_t* row = y.data() + m * activationRowBytes(width);
      const auto* scales = reinterpret_cast<const float*>(row + activationScaleOffset(width));
      const auto* sums = reinterpret_cast<const float*>(row + activationSumOffset(width));
      int32_t sum = 0;
      for (int64_t n = 32; n < 96; ++n) {
        double g = 0, u = 0;
        for (int64_t k = 0; k < depth; ++k) {
          g += static_cast<double>(input.values[m * depth + k]) * gate.values[n * depth + k];
          u += static_cast<double>(input.values[m * depth + k]) * up.values[n * depth + k];
        }
        const double want = g / (1 + std::exp(-g)) * u;
        const int8_t code = static_cast<int8_t>(row[n]);
        // Half a step of quantization, and the rounding of the sums before it.
        ASSERT_NEAR(scales[n / 16] * code, want, 0.5001 * scales[n / 16] + 1e-4 * std::fabs(want))
            << "row " << m << " column " << n;
        sum = n % 16 == 0 ? code : sum + code;
        if (n % 16 == 15) {
          ASSERT_EQ(sums[n / 16], scales[n / 16] * static_cast<float>(sum));
        }
      }
    }
  }
}

TEST_P(MatmulKernel, SwigluQuantizesWhatGateAndUpGive) {
  if (!IsInteger()) GTEST_SKIP() << "prefill computes in 16-bit floats";
  ExpectSwiglu(GetParam(), BlockFormat::Q4_1);
  ExpectSwiglu(GetParam(), BlockFormat::Q8_0);
}

/// The contract of int8 numerics: the same bits on every ISA.
TEST(MatmulKernelAcrossIsas, IntegerNumericsGiveTheSameBits) {
  for (BlockFormat format :
       {BlockFormat::Q4_1, BlockFormat::Q8_0, BlockFormat::Q6_K, BlockFormat::Q2_K}) {
    const Case c = {format, 7, 48, 768};
    std::vector<float> first;
    for (const Machine& machine : RunnableMachines()) {
      if (findTarget(machine.target)->numericsFor(machine.role) != Numerics::Int8) continue;
      std::mt19937 random(7);
      Weight weight = RandomWeight(random, format, c.outputs, c.depth);
      Activations x = MakeActivations(random, c.rows, c.depth);
      Buffer packed = weight.Pack(0, c.outputs, 0, c.depth), y(c.rows * c.outputs * 4);
      auto kernel = CompiledKernel::Compile(MatmulText(c, "!lm.block<a8>", 1, ""), machine);
      ASSERT_TRUE(kernel);
      kernel->Run({x.numeric.data(), packed.data(), y.data()}, {c.rows}, {0, c.outputs});
      std::vector<float> result(y.as<float>(), y.as<float>() + c.rows * c.outputs);
      if (first.empty()) first = result;
      ASSERT_EQ(0, std::memcmp(first.data(), result.data(), first.size() * 4))
          << blockFormatInfo(format).name << " on " << MachineName(machine);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, MatmulKernel, testing::ValuesIn(RunnableMachines()),
                         [](const auto& info) { return MachineName(info.param); });
INSTANTIATE_TEST_SUITE_P(Ptx, MatmulKernel, testing::ValuesIn(EmulatedMachines()),
                         [](const auto& info) { return MachineName(info.param); });

}  // namespace
}  // namespace quern::test
