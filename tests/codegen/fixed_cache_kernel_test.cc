// 16-bit keys and values of hosts: what the append kernel writes, against the definition of
// runtime/schema/fixed_kv.h. Attention over such pages is attention_kernel_test's.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>

#include "tests/codegen/kernel_harness.h"
#include "tests/codegen/kv_page.h"

namespace quern::test {
namespace {

constexpr int64_t kKvHeads = 2, kTokens = KvPage::kTokens;
constexpr uint8_t kUntouched = 0xa5;

/// One sequence of `context` tokens over pages in another order.
struct Cache {
  Cache(int64_t head_dim, int64_t context)
      : page{head_dim, /*f32=*/false, /*on_gpu=*/false},
        context(context),
        pages((context + kTokens - 1) / kTokens),
        pool(page.PoolBytes(pages, kKvHeads)),
        sequences(context),
        tiles(4) {
    std::memset(pool.data(), kUntouched, pool.size());
    for (int64_t p = 0; p < pages; ++p) table.push_back(static_cast<int32_t>(pages - 1 - p));
    for (int64_t t = 0; t < context; ++t) slots.push_back(static_cast<int32_t>(t));
  }

  int64_t columns() const { return kKvHeads * page.head_dim; }
  uint8_t* Head(int64_t token, int64_t head) const {
    return pool.data() + page.HeadOffset(table[token / kTokens], kKvHeads, head);
  }

  KvPage page;
  int64_t context, pages;
  Buffer pool;
  TrackedInts table, slots, sequences, tiles;
};

std::unique_ptr<CompiledKernel> Compile(const Machine& machine, int64_t head_dim,
                                        const std::string& split) {
  const std::string kv =
      "!lm.kv_cache<heads = 2, head_dim = " + std::to_string(head_dim) + ", page = 32, f16>";
  const std::string x = "tensor<?x" + std::to_string(kKvHeads * head_dim) + "xf32>";
  return CompiledKernel::Compile("rt.kernel @k(%kv: " + kv + ", %k: " + x + ", %v: " + x +
                                     ") -> (" + kv + ") attributes {split = #lm<kernel_split " +
                                     split + ">} {\n  %c = lm.kv_append %kv, %k, %v : (" + kv +
                                     ", " + x + ", " + x + ") -> " + kv +
                                     "\n  lm.yield %c : " + kv + "\n}\n",
                                 machine);
}

/// Appends `rows` rows of `k` and `v` from row `first` on, which is also their token.
void Append(const CompiledKernel& kernel, const Cache& cache, const Buffer& k, const Buffer& v,
            int64_t first, int64_t rows, const std::vector<int64_t>& ranges) {
  const int64_t row_bytes = cache.columns() * 4;
  kernel.Run({cache.pool.data(), cache.table.data(), cache.tiles.data(), cache.slots.data() + first,
              cache.sequences.data(), nullptr, k.data() + first * row_bytes, v.data() + first * row_bytes},
             {rows, 0, cache.pages, kKvHeads * cache.page.head_bytes()}, ranges);
  EXPECT_TRUE(cache.pool.IsIntact());
}

/// Random rows, the first of them unusual.
Buffer Rows(std::mt19937& random, int64_t rows, int64_t head_dim) {
  Buffer buffer = RandomFloats(random, rows * kKvHeads * head_dim);
  auto row = [&](int64_t t) {
    return std::span(buffer.as<float>() + t * kKvHeads * head_dim, kKvHeads * head_dim);
  };
  auto scale = [&](int64_t t, float factor) {
    for (float& x : row(t)) x *= factor;
  };
  std::fill(row(0).begin(), row(0).end(), 0.0f);
  scale(1, 1e30f);
  scale(2, 1e-30f);
  scale(3, 1e-36f);                      // counts as zero
  row(4)[3] = row(4)[head_dim] = -1e6f;  // what is beside them is rounded away
  std::fill(row(5).begin(), row(5).end(), std::nextafter(2.0f, 1.0f));  // the greatest mantissa
  std::fill(row(6).begin(), row(6).end(), -1.4427f);  // where the bound of the logarithm is tight
  row(7)[0] = std::numeric_limits<float>::max() / 1e6f;
  return buffer;
}

template <typename T>
T Load(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

/// The key (or value) of `token` is near `from` (head_dim), and its codes are in range.
void ExpectHolds(const Cache& cache, bool value, int64_t token, int64_t head, const float* from) {
  const KvPage& page = cache.page;
  const uint8_t* at = cache.Head(token, head);
  const int64_t t = token % kTokens;
  const std::vector<float> held = page.Read(at, value, t);
  double error = 0, norm = 0, largest = 0, worst = 0, code_norm = 0;
  for (int64_t d = 0; d < page.head_dim; ++d) {
    const double x = from[d], off = held[d] - x;
    const double code = Load<int16_t>(at + page.Offset(value, t, d));
    norm += x * x, error += off * off, code_norm += code * code;
    largest = std::max(largest, std::fabs(x));
    worst = std::max(worst, std::fabs(off));
    if (value) EXPECT_LE(std::fabs(code), kFixedValueMax);
  }
  if (value) {
    EXPECT_LE(worst, std::max(largest, 1e-30) / kFixedValueMax);
    const double log = Load<float>(at + page.OffsetOfScale(FixedKvScale::kValueLog2, t));
    const double inverse = Load<float>(at + page.OffsetOfScale(FixedKvScale::kValueInverse, t));
    const double least = std::log2(std::max(largest, 1e-30) / kFixedValueMax);
    EXPECT_GE(log, least);
    EXPECT_LE(log, least + 0.09);
    EXPECT_NEAR(inverse * std::exp2(log), 1, 1e-5);  // log is an f32 of up to 115
    return;
  }
  // Every code is wrong by 1/2 at most: 1.3e-4 of the norm at 64 columns, half of it on average.
  const double rounding = std::sqrt(page.head_dim) / 2;
  EXPECT_LE(std::sqrt(error), std::max(1.001 * rounding / kFixedKeyNorm * std::sqrt(norm), 1e-30));
  EXPECT_LE(std::sqrt(code_norm), kFixedKeyNorm + rounding + 0.1);
}

class FixedCache : public testing::TestWithParam<Machine> {};

TEST_P(FixedCache, HoldsKeysAndValues) {
  for (const int64_t head_dim : {64, 80, 96, 128, 256}) {
    SCOPED_TRACE(head_dim);
    std::mt19937 random(3);
    Cache cache(head_dim, 45);
    const int64_t columns = cache.columns();
    const Buffer k = Rows(random, 45, head_dim), v = Rows(random, 45, head_dim);
    const auto kernel = Compile(GetParam(), head_dim, "shares");
    ASSERT_TRUE(kernel);
    // A prompt that ends between two tokens of a word, then the other of them; a share a head.
    for (const auto& [first, rows] : {std::pair<int64_t, int64_t>{0, 33}, {33, 1}, {34, 11}})
      for (int64_t begin = 0; begin < columns; begin += head_dim)
        Append(*kernel, cache, k, v, first, rows,
               {begin, begin + head_dim, begin, begin + head_dim});
    for (int64_t t = 0; t < cache.context; ++t)
      for (int64_t head = 0; head < kKvHeads; ++head)
        for (const bool value : {false, true}) {
          SCOPED_TRACE(testing::Message() << "token " << t << " head " << head << " " << value);
          ExpectHolds(cache, value, t, head,
                      (value ? v : k).as<float>() + t * columns + head * head_dim);
        }
  }
}

TEST_P(FixedCache, WritesNothingButTheTokensOwnBytes) {
  const int64_t head_dim = 80;
  std::mt19937 random(4);
  Cache cache(head_dim, 64);
  const Buffer k = RandomFloats(random, 64 * cache.columns()),
               v = RandomFloats(random, 64 * cache.columns());
  const auto kernel = Compile(GetParam(), head_dim, "shares");
  ASSERT_TRUE(kernel);
  const int64_t token = 37;  // the odd one of a word, on the second page, of the second head
  Append(*kernel, cache, k, v, token, 1, {head_dim, 2 * head_dim, head_dim, 2 * head_dim});
  std::vector<bool> own(cache.pool.size());
  auto take = [&](int64_t offset, int64_t bytes) {
    const int64_t first = cache.Head(token, 1) - cache.pool.data() + offset;
    std::fill_n(own.begin() + first, bytes, true);
  };
  for (const bool value : {false, true})
    for (int64_t d = 0; d < head_dim; ++d) take(cache.page.Offset(value, token % kTokens, d), 2);
  for (int64_t scale = 0; scale < kFixedKvScales; ++scale)
    take(cache.page.OffsetOfScale(static_cast<FixedKvScale>(scale), token % kTokens), 4);
  for (size_t i = 0; i < own.size(); ++i)
    if (!own[i]) ASSERT_EQ(cache.pool.data()[i], kUntouched) << i;
  ExpectHolds(cache, false, token, 1, k.as<float>() + token * cache.columns() + head_dim);
  ExpectHolds(cache, true, token, 1, v.as<float>() + token * cache.columns() + head_dim);
}

TEST_P(FixedCache, TakesWhatIsNoNumber) {
  const float infinity = std::numeric_limits<float>::infinity();
  Cache cache(64, 3);
  std::mt19937 random(5);
  Buffer k = RandomFloats(random, 3 * cache.columns()),
         v = RandomFloats(random, 3 * cache.columns());
  for (const Buffer* rows : {&k, &v}) {
    rows->as<float>()[5] = std::numeric_limits<float>::quiet_NaN();
    rows->as<float>()[cache.columns() + 7] = -infinity;
  }
  const auto kernel = Compile(GetParam(), 64, "shares");
  ASSERT_TRUE(kernel);
  Append(*kernel, cache, k, v, 0, 3, {0, 128, 0, 128});
  for (const bool value : {false, true})
    ExpectHolds(cache, value, 2, 1, (value ? v : k).as<float>() + 2 * cache.columns() + 64);
}

/// Pages have the same bytes whichever machine wrote them, and however the work was cut.
TEST(FixedCacheBytes, AreTheSameOnEveryMachine) {
  for (const int64_t head_dim : {64, 96}) {
    std::vector<uint8_t> first;
    for (const Machine& machine : RunnableMachines())
      for (const bool by_rows : {false, true}) {
        SCOPED_TRACE(MachineName(machine));
        std::mt19937 random(6);
        Cache cache(head_dim, 45);
        const Buffer k = Rows(random, 45, head_dim), v = Rows(random, 45, head_dim);
        const auto kernel = Compile(machine, head_dim, by_rows ? "rows" : "shares");
        ASSERT_TRUE(kernel);
        const int64_t columns = cache.columns();
        if (by_rows) {
          Append(*kernel, cache, k, v, 0, 45, {7, 45});
          Append(*kernel, cache, k, v, 0, 45, {0, 7});
        } else {
          Append(*kernel, cache, k, v, 0, 45, {0, columns, 0, columns});
        }
        const std::span<const uint8_t> bytes(cache.pool.data(), cache.pool.size());
        if (first.empty()) first.assign(bytes.begin(), bytes.end());
        EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), first.begin()));
      }
  }
}

INSTANTIATE_TEST_SUITE_P(, FixedCache, testing::ValuesIn(RunnableMachines()),
                         [](const auto& info) { return MachineName(info.param); });

}  // namespace
}  // namespace quern::test
