// Keys and values in int8 on GPUs: what the append kernel writes, byte by byte. Attention over such
// pages is attention_kernel_test's.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/codegen/kernel_harness.h"
#include "tests/codegen/kv_page.h"

namespace quern::test {
namespace {

constexpr int64_t kKvHeads = 2, kTokens = KvPage::kTokens, kGroup = KvPage::kGroup;

/// One sequence of `context` tokens over pages in another order, appended token by token.
class Int8Cache : public testing::TestWithParam<Machine> {
 protected:
  std::string CacheType(int64_t head_dim) const {
    return "!lm.kv_cache<heads = 2, head_dim = " + std::to_string(head_dim) +
           ", page = 32, !lm.block<a8>>";
  }
  static std::string Rows(int64_t columns) {
    return "tensor<?x" + std::to_string(columns) + "xf32>";
  }

  /// Appends `context` rows of k and v as one step.
  void Append(const KvPage& page, int64_t context, const Buffer& k, const Buffer& v,
              const Buffer& pool, const std::vector<const void*>& step) {
    const int64_t columns = kKvHeads * page.head_dim;
    const std::string kv = CacheType(page.head_dim), x = Rows(columns);
    const auto kernel = CompiledKernel::Compile(
        "rt.kernel @k(%kv: " + kv + ", %k: " + x + ", %v: " + x + ") -> (" + kv +
            ") attributes {split = #lm<kernel_split shares>} {\n  %c = lm.kv_append %kv, %k, %v : "
            "(" +
            kv + ", " + x + ", " + x + ") -> " + kv + "\n  lm.yield %c : " + kv + "\n}\n",
        GetParam());
    ASSERT_TRUE(kernel);
    std::vector<const void*> args = {pool.data()};
    args.insert(args.end(), step.begin(), step.end());
    args.push_back(k.data());
    args.push_back(v.data());
    const int64_t stride = (context + kTokens - 1) / kTokens;
    kernel->Run(args, {context, 0, stride, kKvHeads * page.head_bytes()}, {0, columns, 0, columns});
  }
};

TEST_P(Int8Cache, HoldsRoundedKeysAndValues) {
  for (const auto& [head_dim, context] : {std::pair<int64_t, int64_t>{64, 63}, {96, 34}}) {
    SCOPED_TRACE(head_dim);
    const KvPage page = {head_dim, /*f32=*/false, /*on_gpu=*/true, /*int8=*/true};
    const int64_t columns = kKvHeads * head_dim, pages = (context + kTokens - 1) / kTokens;
    std::mt19937 random(3);
    Buffer k = RandomFloats(random, context * columns), v = RandomFloats(random, context * columns);
    for (int64_t d = 0; d < kGroup; ++d) {
      k.as<float>()[d] = 0;                     // no scale
      v.as<float>()[d] = d == 5 ? 1e9f : 1.0f;  // more than an f16 holds
    }
    Buffer pool(pages * kKvHeads * page.head_bytes());
    std::memset(pool.data(), 0xff, pool.size());
    TrackedInts table, slots, sequences(context), tiles;
    for (int64_t p = 0; p < pages; ++p) table.push_back(static_cast<int32_t>(pages - 1 - p));
    for (int64_t t = 0; t < context; ++t) slots.push_back(static_cast<int32_t>(t));
    tiles.assign(4, 0);
    const std::vector<const void*> step = {table.data(), tiles.data(), slots.data(),
                                           sequences.data(), tiles.data()};
    Append(page, context, k, v, pool, step);
    ASSERT_TRUE(pool.IsIntact());

    for (const bool value : {false, true})
      for (int64_t t = 0; t < context; ++t)
        for (int64_t c = 0; c < columns; ++c) {
          const uint8_t* head = pool.data() + table[t / kTokens] * kKvHeads * page.head_bytes() +
                                c / head_dim * page.head_bytes();
          const int64_t d = c % head_dim, first = c / kGroup * kGroup;
          float scale, largest = 0;
          std::memcpy(&scale, head + page.OffsetOfScale(value, t % kTokens, d / kGroup), 4);
          const float* from = (value ? v : k).as<float>() + t * columns;
          const auto finite = [&](int64_t i) { return std::min(from[i], 65504.0f); };
          for (int64_t i = first; i < first + kGroup; ++i)
            largest = std::max(largest, std::fabs(finite(i)));
          const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
          const auto code = static_cast<int8_t>(head[page.Offset(value, t % kTokens, d)]);
          ASSERT_EQ(scale, largest / 127.0f) << value << " " << t << " " << c;
          ASSERT_EQ(code, static_cast<int>(std::nearbyint(finite(c) * inverse)))
              << value << " " << t << " " << c;
        }
  }
}

INSTANTIATE_TEST_SUITE_P(, Int8Cache, testing::ValuesIn(EmulatedMachines()),
                         [](const auto& info) { return MachineName(info.param); });

}  // namespace
}  // namespace quern::test
