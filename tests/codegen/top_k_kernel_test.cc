// lm.top_k against a sort, on every GPU target that tests emulate. Hosts sample from their own
// memory and have no such kernel.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "tests/codegen/kernel_harness.h"

namespace quern::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::string KernelText(int64_t columns, int64_t k) {
  auto rows = [](int64_t width, const char* element) {
    return "tensor<?x" + std::to_string(width) + "x" + element + ">";
  };
  const std::string x = rows(columns, "f32"), values = rows(k, "f32"), places = rows(k, "i32");
  return "rt.kernel @top(%x: " + x + ") -> (" + values + ", " + places +
         ") attributes {split = #lm<kernel_split rows>} {\n  %v, %c = lm.top_k %x k = " +
         std::to_string(k) + " : " + x + " -> " + values + ", " + places +
         "\n  lm.yield %v, %c : " + values + ", " + places + "\n}\n";
}

/// Columns of a row, the best first.
std::vector<int32_t> Order(const float* row, int64_t columns) {
  std::vector<int32_t> order(columns);
  std::iota(order.begin(), order.end(), 0);
  auto larger = [&](int32_t a, int32_t b) {
    return std::isnan(row[a]) ? !std::isnan(row[b]) : row[a] > row[b];
  };
  std::sort(order.begin(), order.end(),
            [&](int32_t a, int32_t b) { return larger(a, b) || (!larger(b, a) && a < b); });
  return order;
}

class TopKKernel : public testing::TestWithParam<Machine> {
 protected:
  void Check(const std::vector<std::vector<float>>& rows, int64_t k) {
    const auto columns = static_cast<int64_t>(rows.front().size());
    const auto count = static_cast<int64_t>(rows.size());
    const auto kernel = CompiledKernel::Compile(KernelText(columns, k), GetParam());
    ASSERT_TRUE(kernel);
    const Buffer x(count * columns * 4), values(count * k * 4), places(count * k * 4);
    for (int64_t m = 0; m < count; ++m)
      std::memcpy(x.as<float>() + m * columns, rows[m].data(), columns * 4);
    kernel->Run({x.data(), values.data(), places.data()}, {count}, {0, count});
    EXPECT_TRUE(values.IsIntact() && places.IsIntact());
    for (int64_t m = 0; m < count; ++m) {
      const std::vector<int32_t> order = Order(rows[m].data(), columns);
      for (int64_t i = 0; i < k; ++i) {
        ASSERT_EQ(places.as<int32_t>()[m * k + i], order[i]) << "row " << m << " place " << i;
        ASSERT_EQ(std::memcmp(values.as<float>() + m * k + i, &rows[m][order[i]], 4), 0);
      }
    }
  }
};

std::vector<float> Normal(int64_t columns, unsigned seed, float step = 0) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 4);
  std::vector<float> row(columns);
  for (float& x : row) x = step > 0 ? std::round(normal(random) / step) * step : normal(random);
  return row;
}

TEST_P(TopKKernel, MatchesASort) {
  for (const int64_t columns : {1, 31, 300, 1024, 5003})
    for (const int64_t k : {1, 8, 256})
      if (k <= columns) {
        SCOPED_TRACE(testing::Message() << k << " of " << columns);
        Check({Normal(columns, 1), Normal(columns, 2, 0.5f), Normal(columns, 3)}, k);
      }
}

TEST_P(TopKKernel, OrdersStrangeNumbers) {
  std::vector<float> row(300, -1);
  row[7] = row[9] = kNan, row[3] = row[250] = kInfinity, row[100] = -kInfinity;
  row[20] = -0.0f, row[30] = 0.0f, row[40] = -0.0f;
  row[50] = std::numeric_limits<float>::denorm_min(), row[51] = -row[50];
  row[60] = std::numeric_limits<float>::max(), row[61] = -row[60];
  for (const int64_t k : {1, 12, 256})
    Check({row, std::vector<float>(300, -kInfinity), std::vector<float>(300, kNan)}, k);
}

TEST_P(TopKKernel, ManyKeysReachTheFirstThreshold) {
  // 255 of the 1024 stripes of columns hold nothing but large elements: what the best of the other
  // stripes bounds does not fit shared memory.
  std::vector<float> row = Normal(12000, 4);
  for (size_t i = 0; i < row.size(); ++i)
    if (i % 1024 < 255) row[i] += 100;
  Check({row, Normal(12000, 5), std::vector<float>(12000, 2.5f)}, 256);
}

TEST_P(TopKKernel, TakesAVocabulary) { Check({Normal(49152, 6)}, 256); }

std::vector<Machine> Decoding() {
  std::vector<Machine> machines = EmulatedMachines();
  std::erase_if(machines, [](const Machine& machine) { return machine.role != Role::Decode; });
  return machines;
}
INSTANTIATE_TEST_SUITE_P(Ptx, TopKKernel, testing::ValuesIn(Decoding()),
                         [](const auto& info) { return MachineName(info.param); });

}  // namespace
}  // namespace quern::test
