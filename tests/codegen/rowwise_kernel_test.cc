// Row-wise, lookup, rope and append kernels on every ISA against plain loops in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "codegen/host/Kernel.h"
#include "codegen/host/PackedLayout.h"
#include "runtime/schema/kernel_abi.h"
#include "tests/codegen/kernel_harness.h"
#include "tests/codegen/kv_page.h"

namespace quern::test {
namespace {

class RowwiseKernel : public testing::TestWithParam<Machine> {
 protected:
  Numerics numerics() const { return findTarget(GetParam().target)->numericsFor(GetParam().role); }
  bool IsInteger() const { return numerics() == Numerics::Int8; }
  std::unique_ptr<CompiledKernel> Compile(const std::string& text) {
    return CompiledKernel::Compile(text, GetParam());
  }
};

/// The number at `column` of row `m` of numeric rows.
double NumericAt(const uint8_t* rows, int64_t columns, int64_t m, int64_t column,
                 Numerics numerics) {
  if (numerics == Numerics::F16)
    return f16ToF32(*reinterpret_cast<const uint16_t*>(rows + HalfOffset(columns, m, column)));
  const uint8_t* row = rows + m * activationRowBytes(columns);
  if (numerics == Numerics::Bf16) {
    const uint32_t bits = static_cast<uint32_t>(reinterpret_cast<const uint16_t*>(row)[column])
                          << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
  }
  const auto* scales = reinterpret_cast<const float*>(row + activationScaleOffset(columns));
  return static_cast<double>(scales[column / kActivationGroup]) *
         reinterpret_cast<const int8_t*>(row)[column];
}

TEST_P(RowwiseKernel, AddRmsNormQuantizeSumsSharesInOrder) {
  auto kernel = Compile(R"(
    rt.kernel @k(%x: tensor<?x96xf32>, %d: tensor<2x?x96xf32>, %w: tensor<96xf32>)
        -> (tensor<?x96xf32>, tensor<?x96x!lm.block<a8>>) attributes {split = #lm<kernel_split rows>} {
      %s, %n = lm.add_rms_norm %x, %d, %w eps = 1.0e-05
          : (tensor<?x96xf32>, tensor<2x?x96xf32>, tensor<96xf32>) -> (tensor<?x96xf32>, tensor<?x96xf32>)
      %q = lm.quantize %n : tensor<?x96xf32> -> tensor<?x96x!lm.block<a8>>
      lm.yield %s, %q : tensor<?x96xf32>, tensor<?x96x!lm.block<a8>>
    })");
  ASSERT_TRUE(kernel);
  std::mt19937 random(1);
  const int64_t rows = 5, columns = 96;
  Buffer x = RandomFloats(random, rows * columns), delta = RandomFloats(random, 2 * rows * columns);
  Buffer w = RandomFloats(random, columns);
  Buffer sum(rows * columns * 4), numeric(HalfRowsBytes(rows, columns));
  // Two threads' halves.
  kernel->Run({x.data(), delta.data(), w.data(), sum.data(), numeric.data()}, {rows}, {0, 2});
  kernel->Run({x.data(), delta.data(), w.data(), sum.data(), numeric.data()}, {rows}, {2, rows});
  EXPECT_TRUE(sum.IsIntact());
  EXPECT_TRUE(numeric.IsIntact());
  for (int64_t m = 0; m < rows; ++m) {
    double squares = 0;
    for (int64_t k = 0; k < columns; ++k) {
      const int64_t at = m * columns + k;
      const float d = delta.as<float>()[at] + delta.as<float>()[rows * columns + at];
      const float want = x.as<float>()[at] + d;
      ASSERT_EQ(sum.as<float>()[at], want) << "the order of the sum is promised";
      squares += static_cast<double>(want) * want;
    }
    const double scale = 1 / std::sqrt(squares / columns + 1e-5);
    const uint8_t* row = numeric.data() + m * activationRowBytes(columns);
    for (int64_t k = 0; k < columns; ++k) {
      const double want = sum.as<float>()[m * columns + k] * scale * w.as<float>()[k];
      double step = std::fabs(want) / 256;  // half a bf16 step
      if (IsInteger())
        step = 0.501 * reinterpret_cast<const float*>(
                           row + activationScaleOffset(columns))[k / kActivationGroup];
      ASSERT_NEAR(NumericAt(numeric.data(), columns, m, k, numerics()), want, step + 1e-6);
    }
  }
}

TEST_P(RowwiseKernel, ZeroAndTinyRowsQuantizeToZero) {
  if (!IsInteger()) GTEST_SKIP() << "float rows have no scale";
  auto kernel = Compile(R"(
    rt.kernel @k(%x: tensor<?x32xf32>) -> (tensor<?x32x!lm.block<a8>>)
        attributes {split = #lm<kernel_split rows>} {
      %q = lm.quantize %x : tensor<?x32xf32> -> tensor<?x32x!lm.block<a8>>
      lm.yield %q : tensor<?x32x!lm.block<a8>>
    })");
  ASSERT_TRUE(kernel);
  Buffer x(2 * 32 * 4), numeric(2 * activationRowBytes(32));
  x.as<float>()[32] = 1e-40f;
  kernel->Run({x.data(), numeric.data()}, {2}, {0, 2});
  for (int64_t m = 0; m < 2; ++m)
    for (int64_t k = 0; k < 32; ++k)
      ASSERT_NEAR(NumericAt(numeric.data(), 32, m, k, Numerics::Int8), 0, 1e-38);
}

/// Rows of 96 columns that are hard to round, and some that are not.
Buffer HardRows(std::mt19937& random) {
  Buffer x = RandomFloats(random, 7 * 96);
  float* row = x.as<float>();
  row[15] = -1000.0f;                     // an outlier, beside small neighbours in column 16
  std::fill_n(row + 96 + 16, 16, 0.0f);   // zeros between two others
  std::fill_n(row + 2 * 96, 16, 1e-40f);  // denormals
  std::fill_n(row + 2 * 96 + 16, 16, -2.5e-38f);  // 127 / max is just finite
  for (int i = 0; i < 96; ++i) {
    row[3 * 96 + i] = 63.5f - static_cast<float>(i);                 // ties, where max is 63.5
    row[4 * 96 + i] = i % 3 == 0 ? 3e38f : -1e30f;                   // near the largest float
    row[5 * 96 + i] = std::ldexp(row[5 * 96 + i], i % 16 * 3 - 20);  // of all sizes
  }
  return x;
}

TEST_P(RowwiseKernel, QuantizesToTheCodesOfTheFormat) {
  if (!IsInteger()) GTEST_SKIP() << "float rows have no codes";
  auto kernel = Compile(R"(
    rt.kernel @k(%x: tensor<?x96xf32>) -> (tensor<?x96x!lm.block<a8>>)
        attributes {split = #lm<kernel_split rows>} {
      %q = lm.quantize %x : tensor<?x96xf32> -> tensor<?x96x!lm.block<a8>>
      lm.yield %q : tensor<?x96x!lm.block<a8>>
    })");
  ASSERT_TRUE(kernel);
  std::mt19937 random(6);
  const int64_t rows = 7, columns = 96, groups = columns / kActivationGroup;
  Buffer x = HardRows(random), numeric(rows * activationRowBytes(columns));
  kernel->Run({x.data(), numeric.data()}, {rows}, {0, rows});
  EXPECT_TRUE(numeric.IsIntact());
  const BlockFormatInfo& info = blockFormatInfo(BlockFormat::A8);
  std::vector<uint8_t> want(info.rowBytes(columns));
  for (int64_t m = 0; m < rows; ++m) {
    quantizeRow(BlockFormat::A8, x.as<float>() + m * columns, want.data(), columns);
    const uint8_t* row = numeric.data() + m * activationRowBytes(columns);
    for (int64_t g = 0; g < groups; ++g) {
      SCOPED_TRACE("row " + std::to_string(m) + ", group " + std::to_string(g));
      const uint8_t* block = want.data() + g * info.blockBytes;
      ASSERT_EQ(0, std::memcmp(row + g * kActivationGroup, block + 4, kActivationGroup));
      const auto* codes = reinterpret_cast<const int8_t*>(block + 4);
      const int sum = std::accumulate(codes, codes + kActivationGroup, 0);
      float want_scale, scale, got_sum;
      std::memcpy(&want_scale, block, 4);
      std::memcpy(&scale, row + activationScaleOffset(columns) + 4 * g, 4);
      std::memcpy(&got_sum, row + activationSumOffset(columns) + 4 * g, 4);
      // What is too small to be told from zero may keep a scale: its codes are 0.
      if (want_scale != 0) ASSERT_EQ(scale, want_scale);
      ASSERT_EQ(got_sum, scale * static_cast<float>(sum));
      if (g % 2 == 0) continue;
      float before, both;
      std::memcpy(&before, row + activationSumOffset(columns) + 4 * (g - 1), 4);
      std::memcpy(&both, row + activationPairSumOffset(columns) + 4 * (g / 2), 4);
      ASSERT_EQ(both, before + got_sum);
    }
  }
}

TEST_P(RowwiseKernel, SiluMulAndSwigluAgree) {
  auto apart = Compile(R"(
    rt.kernel @k(%g: tensor<?x64xf32>, %u: tensor<?x64xf32>) -> (tensor<?x64xf32>)
        attributes {split = #lm<kernel_split rows>} {
      %s = lm.silu %g : tensor<?x64xf32>
      %y = lm.mul %s, %u : tensor<?x64xf32>
      lm.yield %y : tensor<?x64xf32>
    })");
  auto fused = Compile(R"(
    rt.kernel @k(%g: tensor<?x64xf32>, %u: tensor<?x64xf32>) -> (tensor<?x64xf32>)
        attributes {split = #lm<kernel_split rows>} {
      %y = lm.swiglu %g, %u : tensor<?x64xf32>
      lm.yield %y : tensor<?x64xf32>
    })");
  ASSERT_TRUE(apart && fused);
  std::mt19937 random(2);
  Buffer g = RandomFloats(random, 3 * 64, 8), u = RandomFloats(random, 3 * 64);
  g.as<float>()[0] = 200;   // exp(-200) is 0
  g.as<float>()[1] = -200;  // exp(200) is clamped, the result is 0
  Buffer a(3 * 64 * 4), b(3 * 64 * 4);
  apart->Run({g.data(), u.data(), a.data()}, {3}, {0, 3});
  fused->Run({g.data(), u.data(), b.data()}, {3}, {0, 3});
  EXPECT_EQ(0, std::memcmp(a.data(), b.data(), a.size()));
  for (int i = 0; i < 3 * 64; ++i) {
    const double gate = g.as<float>()[i];
    const double want = gate / (1 + std::exp(-gate)) * u.as<float>()[i];
    ASSERT_NEAR(a.as<float>()[i], want, 4e-7 * std::fabs(want) + 1e-30) << "gate " << gate;
  }
}

TEST_P(RowwiseKernel, EmbeddingReadsOneLaneOfEveryFormat) {
  std::mt19937 random(3);
  for (int f = 0; f < kBlockFormatCount; ++f) {
    const auto format = static_cast<BlockFormat>(f);
    if (format == BlockFormat::A8) continue;
    const std::string name(blockFormatInfo(format).name);
    const std::string table =
        "tensor<40x512x" + (blockFormatInfo(format).isFloat() ? name : "!lm.block<" + name + ">") +
        ">";
    auto kernel =
        Compile("rt.kernel @k(%t: " + table +
                ", %i: tensor<?xi32>) -> (tensor<?x512xf32>) "
                "attributes {split = #lm<kernel_split rows>} {\n  %y = lm.embedding %t, %i : (" +
                table +
                ", tensor<?xi32>) -> tensor<?x512xf32>\n"
                "  lm.yield %y : tensor<?x512xf32>\n}\n");
    ASSERT_TRUE(kernel);
    Weight weight = RandomWeight(random, format, 40, 512);
    Buffer packed = weight.Pack(0, 40, 0, 512), y(4 * 512 * 4), tokens(16);
    const int32_t ids[4] = {0, 17, 39, 17};
    std::memcpy(tokens.data(), ids, sizeof ids);
    kernel->Run({packed.data(), tokens.data(), y.data()}, {4}, {0, 4});
    EXPECT_TRUE(y.IsIntact());
    for (int m = 0; m < 4; ++m)
      ASSERT_EQ(0,
                std::memcmp(y.as<float>() + m * 512, weight.values.data() + ids[m] * 512, 512 * 4))
          << name << " token " << ids[m] << ": the format's own numbers, bit for bit";
  }
}

TEST_P(RowwiseKernel, SelectRowsCopies) {
  auto kernel = Compile(R"(
    rt.kernel @k(%x: tensor<?x48xf32>, %r: tensor<?xi32>) -> (tensor<?x48xf32>)
        attributes {split = #lm<kernel_split rows>} {
      %y = lm.select_rows %x, %r : (tensor<?x48xf32>, tensor<?xi32>) -> tensor<?x48xf32>
      lm.yield %y : tensor<?x48xf32>
    })");
  ASSERT_TRUE(kernel);
  std::mt19937 random(4);
  Buffer x = RandomFloats(random, 7 * 48), y(2 * 48 * 4), rows(8);
  rows.as<int32_t>()[0] = 6;
  rows.as<int32_t>()[1] = 2;
  kernel->Run({x.data(), rows.data(), y.data()}, {2}, {0, 2});
  EXPECT_EQ(0, std::memcmp(y.data(), x.as<float>() + 6 * 48, 48 * 4));
  EXPECT_EQ(0, std::memcmp(y.as<float>() + 48, x.as<float>() + 2 * 48, 48 * 4));
  EXPECT_TRUE(y.IsIntact());
}

struct RopeCase {
  const char* mode;
  int64_t rotary;
};

TEST_P(RowwiseKernel, RopeTurnsPairsAndAppendsToPages) {
  for (const RopeCase& c :
       {RopeCase{"interleaved", 64}, RopeCase{"half", 64}, RopeCase{"half", 32}}) {
    const std::string rope = ", head_dim = 64, rotary_dim = " + std::to_string(c.rotary) +
                             ", base = 1.0e+04, mode = " + c.mode;
    const std::string kv = "!lm.kv_cache<heads = 2, head_dim = 64, page = 32, f16>";
    auto kernel = Compile(
        "rt.kernel @k(%q: tensor<?x192xf32>, %p: tensor<?xi32>, %k: tensor<?x128xf32>, %kv: " + kv +
        ", %v: tensor<?x128xf32>) -> (tensor<?x192xf32>, " + kv +
        ") attributes {split = #lm<kernel_split shares>} {\n"
        "  %a = lm.rope %q, %p heads = 3" +
        rope +
        " : (tensor<?x192xf32>, tensor<?xi32>) -> tensor<?x192xf32>\n"
        "  %b = lm.rope %k, %p heads = 2" +
        rope +
        " : (tensor<?x128xf32>, tensor<?xi32>) -> tensor<?x128xf32>\n"
        "  %c = lm.kv_append %kv, %b, %v : (" +
        kv + ", tensor<?x128xf32>, tensor<?x128xf32>) -> " + kv +
        "\n  lm.yield %a, %c : tensor<?x192xf32>, " + kv + "\n}\n");
    ASSERT_TRUE(kernel);
    std::mt19937 random(5);
    const int64_t rows = 3;
    Buffer q = RandomFloats(random, rows * 192), k = RandomFloats(random, rows * 128),
           v = RandomFloats(random, rows * 128), turned(rows * 192 * 4), positions(12), slots(12),
           sequences(12), pages(2 * 4 * 4), tiles(16);
    // The cache of a GPU holds finite numbers.
    if (IsGpu(GetParam())) {
      v.as<float>()[64] = 1e9f, v.as<float>()[127] = -std::numeric_limits<float>::infinity();
    }
    const int32_t position[3] = {31, 100000, 5}, slot[3] = {31, 32, 5}, sequence[3] = {0, 0, 1};
    const int32_t table[8] = {3, 1, 0, 0, 2, 0, 0, 0};
    std::memcpy(positions.data(), position, 12);
    std::memcpy(slots.data(), slot, 12);
    std::memcpy(sequences.data(), sequence, 12);
    std::memcpy(pages.data(), table, 32);
    const KvPage layout = {64, /*f32=*/false, IsGpu(GetParam())};
    const int64_t page_bytes = 2 * layout.head_bytes();
    Buffer pool(layout.PoolBytes(4, 2));
    std::vector<int64_t> dims(kDimCount);
    dims[0] = rows, dims[1] = 0, dims[2] = 4, dims[3] = page_bytes;
    // The second of two shares: q heads 1 and 2, KV head 1.
    kernel->Run({q.data(), positions.data(), k.data(), pool.data(), pages.data(), tiles.data(),
                 slots.data(), sequences.data(), tiles.data(), v.data(), turned.data()},
                dims, {64, 192, 64, 128, 64, 128});
    EXPECT_TRUE(turned.IsIntact());
    EXPECT_TRUE(pool.IsIntact());
    auto turn = [&](const float* head, int64_t i, int32_t at) {
      if (i >= c.rotary) return static_cast<double>(head[i]);
      const bool halves = std::string(c.mode) == "half";
      const int64_t pair = halves ? i % (c.rotary / 2) : i / 2;
      const bool second = halves ? i >= c.rotary / 2 : i % 2 == 1;
      const double x1 = head[halves ? pair : 2 * pair];
      const double x2 = head[halves ? pair + c.rotary / 2 : 2 * pair + 1];
      const auto frequency = static_cast<float>(std::pow(1e4, -2.0 * pair / c.rotary));
      const double angle = static_cast<float>(at) * frequency;  // a product in float
      return second ? x2 * std::cos(angle) + x1 * std::sin(angle)
                    : x1 * std::cos(angle) - x2 * std::sin(angle);
    };
    for (int64_t m = 0; m < rows; ++m) {
      for (int64_t i = 64; i < 192; ++i)
        ASSERT_NEAR(turned.as<float>()[m * 192 + i],
                    turn(q.as<float>() + m * 192 + i / 64 * 64, i % 64, position[m]), 1e-6)
            << c.mode << " row " << m << " column " << i;
      const int32_t page = table[sequence[m] * 4 + slot[m] / 32];
      const uint8_t* head = pool.data() + layout.HeadOffset(page, 2, 1);
      const std::vector<float> key = layout.Read(head, false, slot[m] % 32),
                               value = layout.Read(head, true, slot[m] % 32);
      // fixed_cache_kernel_test says how near to the definition hosts' pages are.
      const double tolerance = layout.is_fixed() ? 1e-4 * 8 : 1e-6;
      for (int64_t i = 0; i < 64; ++i) {
        const double want = turn(k.as<float>() + m * 128 + 64, i, position[m]);
        ASSERT_NEAR(key[i], want, std::fabs(want) / 2000 + tolerance);
        const float from = v.as<float>()[m * 128 + 64 + i];
        if (IsGpu(GetParam()))
          ASSERT_EQ(value[i], f16ToF32(f32ToF16(std::clamp(from, -65504.0f, 65504.0f))));
        else
          ASSERT_NEAR(value[i], from, tolerance);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, RowwiseKernel, testing::ValuesIn(RunnableMachines()),
                         [](const auto& info) { return MachineName(info.param); });
/// LLVM makes other code of embeddings for sm_120a than for sm_80.
const std::vector<Machine> kMore = {{"sm_120a", Role::Decode}};
INSTANTIATE_TEST_SUITE_P(Ptx, RowwiseKernel, testing::ValuesIn(EmulatedMachines(kMore)),
                         [](const auto& info) { return MachineName(info.param); });

}  // namespace
}  // namespace quern::test
