// Keys and values in int8 on GPUs: what the append kernel writes, byte by byte, and attention over
// it, against sums in double precision of the numbers that the pages hold.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/codegen/kernel_harness.h"

namespace quern::test {
namespace {

constexpr int64_t kHeads = 6, kKvHeads = 2, kTokens = 32;  // tokens of a page
constexpr int64_t kGroup = 32;                             // columns of a scale

/// A page: a KV head's codes of K, then V, in blocks of 8 tokens x 8 columns, then the scales of K,
/// then V, (head_dim / 32, tokens).
struct Int8Page {
  int64_t head_dim;
  int64_t part_bytes() const { return head_dim * kTokens; }
  int64_t scales_bytes() const { return head_dim / kGroup * kTokens * 4; }
  int64_t head_bytes() const { return 2 * (part_bytes() + scales_bytes()); }
  int64_t Code(bool value, int64_t token, int64_t d) const {
    return (value ? part_bytes() : 0) + (token / 8 * (head_dim / 8) + d / 8) * 64 + token % 8 * 8 +
           d % 8;
  }
  int64_t Scale(bool value, int64_t token, int64_t group) const {
    return 2 * part_bytes() + (value ? scales_bytes() : 0) + (group * kTokens + token) * 4;
  }
};

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
  void Append(const Int8Page& page, int64_t context, const Buffer& k, const Buffer& v,
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

TEST_P(Int8Cache, HoldsRoundedKeysAndValuesThatAttentionReads) {
  for (const auto& [head_dim, context] : {std::pair<int64_t, int64_t>{64, 63}, {96, 34}}) {
    SCOPED_TRACE(head_dim);
    const Int8Page page = {head_dim};
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
                                           sequences.data()};
    Append(page, context, k, v, pool, step);
    ASSERT_TRUE(pool.IsIntact());

    // What the pages hold: (2, context, columns).
    std::vector<float> held[2];
    for (const bool value : {false, true})
      for (int64_t t = 0; t < context; ++t)
        for (int64_t c = 0; c < columns; ++c) {
          const uint8_t* head = pool.data() + table[t / kTokens] * kKvHeads * page.head_bytes() +
                                c / head_dim * page.head_bytes();
          const int64_t d = c % head_dim, first = c / kGroup * kGroup;
          float scale, largest = 0;
          std::memcpy(&scale, head + page.Scale(value, t % kTokens, d / kGroup), 4);
          const float* from = (value ? v : k).as<float>() + t * columns;
          const auto finite = [&](int64_t i) { return std::min(from[i], 65504.0f); };
          for (int64_t i = first; i < first + kGroup; ++i)
            largest = std::max(largest, std::fabs(finite(i)));
          const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
          const auto code = static_cast<int8_t>(head[page.Code(value, t % kTokens, d)]);
          ASSERT_EQ(scale, largest / 127.0f) << value << " " << t << " " << c;
          ASSERT_EQ(code, static_cast<int>(std::nearbyint(finite(c) * inverse)))
              << value << " " << t << " " << c;
          held[value].push_back(static_cast<float>(code) * scale);
        }

    // The last two tokens ask.
    const int64_t asked = 2, q_columns = kHeads * head_dim;
    const std::string x = Rows(q_columns), kv = CacheType(head_dim);
    const auto attention = CompiledKernel::Compile(
        "rt.kernel @k(%q: " + x + ", %kv: " + kv + ", %p: tensor<?xi32>) -> (" + x +
            ") attributes {split = #lm<kernel_split shares>} {\n  %y = lm.online_attention %q, "
            "%kv, %p heads = 6, scale = 0.125, window = 0, key_tile = 32 : (" +
            x + ", " + kv + ", tensor<?xi32>) -> " + x + "\n  lm.yield %y : " + x + "\n}\n",
        GetParam());
    ASSERT_TRUE(attention);
    const Buffer q = RandomFloats(random, asked * q_columns), y(asked * q_columns * 4);
    TrackedInts last = {static_cast<int32_t>(context - 2), static_cast<int32_t>(context - 1)};
    TrackedInts of = {0, 0}, rows_tile = {0, 2, 0, 0};
    attention->Run({q.data(), pool.data(), table.data(), rows_tile.data(), last.data(), of.data(),
                    last.data(), y.data()},
                   {asked, 1, pages, kKvHeads * page.head_bytes()}, {0, q_columns});
    EXPECT_TRUE(y.IsIntact());
    for (int64_t row = 0; row < asked; ++row)
      for (int64_t head = 0; head < kHeads; ++head) {
        const int64_t at = head / (kHeads / kKvHeads) * head_dim;
        std::vector<double> weights;
        double best = -1e30, sum = 0;
        for (int64_t t = 0; t <= last[row]; ++t) {
          double dot = 0;
          for (int64_t d = 0; d < head_dim; ++d)
            dot += static_cast<double>(q.as<float>()[row * q_columns + head * head_dim + d]) *
                   held[0][t * columns + at + d];
          weights.push_back(dot * 0.125);
          best = std::max(best, weights.back());
        }
        for (double& weight : weights) sum += weight = std::exp(weight - best);
        for (int64_t d = 0; d < head_dim; ++d) {
          double want = 0, size = 0;
          for (int64_t t = 0; t <= last[row]; ++t) {
            const double term = weights[t] / sum * held[1][t * columns + at + d];
            want += term, size += std::fabs(term);
          }
          ASSERT_NEAR(y.as<float>()[row * q_columns + head * head_dim + d], want,
                      2e-6 + 2e-6 * size)
              << row << " " << head << " " << d;
        }
      }
  }
}

INSTANTIATE_TEST_SUITE_P(, Int8Cache, testing::ValuesIn(EmulatedMachines()),
                         [](const auto& info) { return MachineName(info.param); });

}  // namespace
}  // namespace quern::test
