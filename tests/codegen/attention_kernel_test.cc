// Attention kernels against the definition in double precision, over scrambled pages whose unused
// parts hold NaN, on every target that this machine can run.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <numeric>
#include <optional>

#include "runtime/schema/kernel_abi.h"
#include "tests/codegen/kernel_harness.h"
#include "tests/codegen/kv_page.h"

namespace quern::test {
namespace {

constexpr int64_t kPage = KvPage::kTokens;

struct Shape {
  int64_t heads, kv_heads, head_dim;
  int64_t window = 0;
  int64_t columns() const { return heads * head_dim; }
  int64_t group() const { return heads / kv_heads; }
};

/// A step: for every sequence, the context after it and how many rows it brings.
struct Sequence {
  int64_t context, rows;
};
const std::vector<Sequence> kMixedStep = {{1, 1}, {31, 3}, {32, 32}, {33, 17}, {100, 33}, {100, 1}};

/// What machines differ in.
struct Layout {
  KvPage page;
  int64_t tile_rows;
  uint8_t unwritten;  ///< The bytes of what no token wrote.
};

class Step {
 public:
  Step(const Shape& shape, std::vector<Sequence> sequences, const Layout& layout, unsigned seed)
      : shape(shape), page(layout.page), layout_(layout), random_(seed) {
    for (const Sequence& sequence : sequences)
      table_stride_ = std::max(table_stride_, (sequence.context + kPage - 1) / kPage);
    for (size_t s = 0; s < sequences.size(); ++s)
      AddSequence(static_cast<int32_t>(s), sequences[s]);
    page_bytes = shape.kv_heads * page.head_bytes();
    AllocatePages(sequences);
    q = std::make_unique<Buffer>(RandomFloats(random_, rows() * shape.columns()));
  }

  int64_t rows() const { return static_cast<int64_t>(slots.size()); }
  /// Attention of heads [begin, end) of the tiles' rows, of rows [first, last) in a kernel that is
  /// split over rows.
  void Attend(const CompiledKernel& kernel, const Buffer& result, int64_t begin, int64_t end,
              std::optional<std::array<int64_t, 2>> only_rows = std::nullopt) const {
    TrackedInts work;
    for (const Tile& tile : tiles) {
      work.insert(work.end(), {tile.first_row, tile.rows, tile.sequence});
      if (page.on_gpu)
        work.push_back(0);
      else
        work.insert(work.end(), {static_cast<int32_t>(begin), static_cast<int32_t>(end), 0, 0,
                                 kAttentionWhole});
    }
    const std::array<int64_t, 2> heads = {begin * shape.head_dim, end * shape.head_dim};
    const auto& range = only_rows ? *only_rows : heads;
    kernel.Run({q->data(), pool->data(), page_table.data(), work.data(), slots.data(),
                row_sequence.data(), slots.data(), slots.data(), result.data()},
               {rows(), static_cast<int64_t>(tiles.size()), table_stride_, page_bytes},
               {range[0], range[1]});
  }

  /// Attention of `row` and `head` by the definition, with queries, keys, values, probabilities and
  /// results rounded to `Number`. (head_dim)
  template <typename Number>
  std::vector<double> Expected(int64_t row, int64_t head, double scale) const {
    const float* query = q->as<float>() + row * shape.columns() + head * shape.head_dim;
    const int64_t slot = slots[row];
    const int64_t first = shape.window > 0 ? std::max<int64_t>(0, slot - shape.window + 1) : 0;
    std::vector<double> scores;
    for (int64_t t = first; t <= slot; ++t) {
      double sum = 0;
      const float* key = Token(row_sequence[row], t, head / shape.group(), false);
      for (int64_t d = 0; d < shape.head_dim; ++d)
        sum += Number::Round(query[d]) * Number::Round(key[d]);
      scores.push_back(sum * scale);
    }
    const double best = *std::max_element(scores.begin(), scores.end());
    double total = 0;
    for (double& score : scores) total += score = Number::Round(std::exp(score - best));
    std::vector<double> out(shape.head_dim);
    for (int64_t t = first; t <= slot; ++t) {
      const float* value = Token(row_sequence[row], t, head / shape.group(), true);
      for (int64_t d = 0; d < shape.head_dim; ++d)
        out[d] += scores[t - first] / total * Number::Round(value[d]);
    }
    for (double& x : out) x = Number::Round(x);
    return out;
  }

  Shape shape;
  KvPage page;
  int64_t page_bytes = 0;
  struct Tile {
    int32_t first_row, rows, sequence;
  };
  std::vector<Tile> tiles;
  TrackedInts slots, row_sequence, page_table;
  std::unique_ptr<Buffer> q, pool;

 private:
  void AddSequence(int32_t sequence, const Sequence& from) {
    for (int64_t i = 0; i < from.rows; ++i) {
      if (i % layout_.tile_rows == 0)
        tiles.push_back({static_cast<int32_t>(slots.size()),
                         static_cast<int32_t>(std::min(layout_.tile_rows, from.rows - i)),
                         sequence});
      slots.push_back(static_cast<int32_t>(from.context - from.rows + i));
      row_sequence.push_back(sequence);
    }
  }

  // Gives every sequence its pages in random order.
  void AllocatePages(const std::vector<Sequence>& sequences) {
    std::vector<int32_t> order(sequences.size() * table_stride_);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random_);
    page_table.assign(order.begin(), order.end());
    pool = std::make_unique<Buffer>(
        page.PoolBytes(static_cast<int64_t>(order.size()), shape.kv_heads));
    std::memset(pool->data(), layout_.unwritten, pool->size());
    tokens_.resize(sequences.size() * table_stride_ * kPage * shape.columns() / shape.group() * 2);
    std::normal_distribution<float> normal;
    for (size_t s = 0; s < sequences.size(); ++s)
      for (int64_t t = 0; t < sequences[s].context; ++t)
        for (int64_t g = 0; g < shape.kv_heads; ++g)
          for (bool value : {false, true}) {
            std::vector<float> numbers(shape.head_dim);
            for (float& x : numbers) x = normal(random_);
            Write(static_cast<int32_t>(s), t, g, value, numbers);
          }
  }

  // Writes the key or value of a token, and keeps what the page holds then.
  void Write(int32_t sequence, int64_t t, int64_t g, bool value,
             const std::vector<float>& numbers) {
    const int64_t number = page_table[sequence * table_stride_ + t / kPage];
    uint8_t* head = pool->data() + page.HeadOffset(number, shape.kv_heads, g);
    page.Write(head, value, t % kPage, numbers);
    const std::vector<float> held = page.Read(head, value, t % kPage);
    std::copy(held.begin(), held.end(), const_cast<float*>(Token(sequence, t, g, value)));
  }

  /// Key or value of a token as the cache holds it. (head_dim)
  const float* Token(int32_t sequence, int64_t t, int64_t g, bool value) const {
    return tokens_.data() +
           (((sequence * table_stride_ * kPage + t) * shape.kv_heads + g) * 2 + value) *
               shape.head_dim;
  }

  Layout layout_;
  int64_t table_stride_ = 1;
  std::vector<float> tokens_;  // (sequences, context in pages, kv_heads, 2, head_dim)
  std::mt19937 random_;
};

enum class Output { kFloat, kQuantized };

struct Variant {
  bool online = true;
  int key_tile = 32;
  bool f32_cache = false;
  bool int8_cache = false;
  Output output = Output::kFloat;
  const char* split = "shares";
};

std::string KernelText(const Shape& shape, const Variant& variant) {
  const std::string rows = "tensor<?x" + std::to_string(shape.columns()) + "xf32>";
  const std::string codes = "tensor<?x" + std::to_string(shape.columns()) + "x!lm.block<a8>>";
  const std::string kv = "!lm.kv_cache<heads = " + std::to_string(shape.kv_heads) +
                         ", head_dim = " + std::to_string(shape.head_dim) + ", page = 32, " +
                         (variant.int8_cache  ? "!lm.block<a8>"
                          : variant.f32_cache ? "f32"
                                              : "f16") +
                         ">";
  const bool quantized = variant.output == Output::kQuantized;
  std::string text = "rt.kernel @attention_" + std::to_string(shape.head_dim) +
                     (shape.window > 0 ? "_window" : "") + "(%q: " + rows + ", %kv: " + kv +
                     ", %p: tensor<?xi32>) -> (" + (quantized ? codes : rows) +
                     ") attributes {split = #lm<kernel_split " + variant.split + ">} {\n";
  text += std::string("  %y = lm.") + (variant.online ? "online_attention" : "attention") +
          " %q, %kv, %p heads = " + std::to_string(shape.heads) +
          ", scale = 0.125, window = " + std::to_string(shape.window) +
          (variant.online ? ", key_tile = " + std::to_string(variant.key_tile) : "") + " : (" +
          rows + ", " + kv + ", tensor<?xi32>) -> " + rows + "\n";
  if (quantized) text += "  %z = lm.quantize %y : " + rows + " -> " + codes + "\n";
  return text + "  lm.yield " + (quantized ? "%z : " + codes : "%y : " + rows) + "\n}\n";
}

// All heads, in two shares that cut a kv head's group where it can.
void RunShares(const CompiledKernel& kernel, const Step& step, const Buffer& result) {
  const int64_t cut = step.shape.heads / 2;
  step.Attend(kernel, result, 0, cut);
  step.Attend(kernel, result, cut, step.shape.heads);
}

struct Exact {
  static double Round(double x) { return x; }
};
struct Half {
  static double Round(double x) { return f16ToF32(f32ToF16(static_cast<float>(x))); }
};

/// Kernels in f16 may be wrong by twice what the definition in f16 is wrong by.
void ExpectCorrect(const Step& step, const float* got, bool in_half) {
  double worst = 0, worst_of_half = 0;
  for (int64_t row = 0; row < step.rows(); ++row)
    for (int64_t head = 0; head < step.shape.heads; ++head) {
      const std::vector<double> want = step.Expected<Exact>(row, head, 0.125);
      const std::vector<double> half = step.Expected<Half>(row, head, 0.125);
      for (int64_t d = 0; d < step.shape.head_dim; ++d) {
        const double error =
            std::abs(got[row * step.shape.columns() + head * step.shape.head_dim + d] - want[d]);
        // A NaN must not pass for a small error.
        worst =
            std::isnan(error) ? std::numeric_limits<double>::infinity() : std::max(worst, error);
        worst_of_half = std::max(worst_of_half, std::abs(half[d] - want[d]));
      }
    }
  EXPECT_LT(worst, (in_half ? 2 * worst_of_half : 0) + 3e-6);
}

class AttentionKernel : public testing::TestWithParam<Machine> {
 protected:
  static KvPage PageOf(const Shape& shape, const Variant& variant) {
    return {shape.head_dim, variant.f32_cache, IsGpu(GetParam()), variant.int8_cache};
  }
  /// Whether queries and probabilities are rounded: to f16, or to fixed-point numbers no worse.
  static bool InHalf(const Variant& variant) {
    if (PageOf({}, variant).is_fixed()) return true;
    const bool decode = IsGpu(GetParam()) && GetParam().role == Role::Decode;
    return OnTensorCores(variant) || (decode && !variant.f32_cache);
  }
  /// A prompt's kernels on tensor cores read whole pages, of which the executor promises finite
  /// numbers (so do those of fixed-point pages); any bytes are, as int8.
  static bool OnTensorCores(const Variant& variant) {
    return IsGpu(GetParam()) && GetParam().role == Role::Prefill && !variant.f32_cache &&
           std::string_view(variant.split) == "shares";
  }
  static Layout LayoutOf(const Shape& shape, const Variant& variant) {
    const KvPage page = PageOf(shape, variant);
    const bool finite = page.is_fixed() || (OnTensorCores(variant) && !variant.int8_cache);
    return {page, findTarget(GetParam().target)->attentionTileRows,
            static_cast<uint8_t>(finite ? 0x7b : 0xff)};
  }
  void CheckVariant(const Shape& shape, const Variant& variant, unsigned seed,
                    const std::vector<Sequence>& sequences = kMixedStep) {
    const auto kernel =
        CompiledKernel::Compile(KernelText(shape, variant), GetParam());
    ASSERT_TRUE(kernel);
    kernel->Note("queries a key", shape.group());
    kernel->Note("head size", shape.head_dim);
    kernel->Note("window", shape.window);
    kernel->Note("cache", variant.int8_cache ? "int8" : variant.f32_cache ? "f32" : "f16");
    for (const Sequence& sequence : sequences) kernel->Note("context", sequence.context);
    const Step step(shape, sequences, LayoutOf(shape, variant), seed);
    const Buffer result(step.rows() * shape.columns() * 4);
    RunShares(*kernel, step, result);
    ExpectCorrect(step, result.as<float>(), InHalf(variant));
    EXPECT_TRUE(result.IsIntact());
  }
};

const Shape kShapes[] = {{3, 3, 64}, {9, 3, 64}, {14, 2, 64}, {6, 2, 128}, {2, 1, 96}};

TEST_P(AttentionKernel, MatchesTheDefinition) {
  for (const Shape& shape : kShapes) {
    SCOPED_TRACE(testing::Message()
                 << shape.heads << "/" << shape.kv_heads << "x" << shape.head_dim);
    CheckVariant(shape, {}, 1);
  }
}

TEST_P(AttentionKernel, VariantsMatchTheDefinition) {
  for (const Shape& shape : {kShapes[1], kShapes[3]}) {
    SCOPED_TRACE(testing::Message()
                 << shape.heads << "/" << shape.kv_heads << "x" << shape.head_dim);
    CheckVariant(shape, {.f32_cache = true}, 2);
    CheckVariant(shape, {.online = false}, 2);
    CheckVariant(shape, {.key_tile = 16}, 2);
  }
}

TEST_P(AttentionKernel, LooksBackNoFurtherThanTheWindow) {
  for (int64_t window : {1, 31, 32, 40}) {
    SCOPED_TRACE(window);
    CheckVariant({3, 1, 64, window}, {}, 3);
    CheckVariant({3, 1, 64, window}, {.online = false}, 3);
  }
}

class HalfAttention : public AttentionKernel {
 protected:
  /// Rows of a sequence: a decoded one takes a block of its own.
  static int64_t Rows(int64_t prompt, int64_t decoded) {
    return GetParam().role == Role::Prefill ? prompt : decoded;
  }
};

TEST_P(HalfAttention, TakesHeadsOfManySizesAndGroups) {
  for (const Shape& shape : {Shape{4, 2, 32}, Shape{8, 1, 64}, Shape{3, 1, 80}, Shape{8, 2, 96},
                             Shape{2, 2, 128}, Shape{3, 1, 256}}) {
    SCOPED_TRACE(testing::Message()
                 << shape.heads << "/" << shape.kv_heads << "x" << shape.head_dim);
    CheckVariant(shape, {}, 6, {{1, 1}, {63, Rows(63, 3)}, {140, Rows(130, 2)}});
  }
}

TEST_P(HalfAttention, ReadsPagesOfInt8) {
  for (const Shape& shape : {Shape{3, 1, 64, 40}, Shape{8, 2, 96}, Shape{2, 1, 256}}) {
    SCOPED_TRACE(testing::Message() << shape.heads << "/" << shape.kv_heads << "x" << shape.head_dim
                                    << " window " << shape.window);
    CheckVariant(shape, {.int8_cache = true}, 8, {{1, 1}, {63, Rows(9, 2)}, {140, Rows(70, 2)}});
  }
  CheckVariant({3, 1, 64}, {.int8_cache = true}, 8, {{600, 1}});
}

TEST_P(HalfAttention, ReadsALongContext) {
  CheckVariant({3, 1, 64}, {}, 7, {{4097, Rows(5, 2)}, {300, 1}});
  CheckVariant({3, 1, 64, 1000}, {}, 7, {{4097, Rows(70, 2)}});
}

/// Groups x head sizes x windows, each at three contexts.
TEST_P(HalfAttention, TheWholeMatrix) {
  if (!std::getenv("QUERN_FULL_MATRIX")) GTEST_SKIP() << "QUERN_FULL_MATRIX is not set";
  for (const int64_t group : {1, 3, 8})
    for (const int64_t head_dim : {64, 96, 128, 256})
      for (const int64_t window : {0, 1000}) {
        SCOPED_TRACE(testing::Message() << group << "x" << head_dim << ", window " << window);
        CheckVariant({group, 1, head_dim, window}, {}, 8,
                     {{1, 1}, {63, Rows(40, 2)}, {4097, Rows(3, 1)}});
      }
}

TEST_P(AttentionKernel, ARowsBitsDoNotDependOnItsCompany) {
  for (const bool online : {true, false}) {
    const Shape shape = {9, 3, 64};
    const auto kernel =
        CompiledKernel::Compile(KernelText(shape, {.online = online}), GetParam());
    ASSERT_TRUE(kernel);
    Step step(shape, kMixedStep, LayoutOf(shape, {}), 3);
    const Buffer together(step.rows() * shape.columns() * 4), alone(together.size());
    RunShares(*kernel, step, together);
    step.tiles.clear();
    for (int32_t row = 0; row < step.rows(); ++row)
      step.tiles.push_back({row, 1, step.row_sequence[row]});
    for (int64_t head = 0; head < shape.heads; ++head) step.Attend(*kernel, alone, head, head + 1);
    EXPECT_EQ(std::memcmp(together.data(), alone.data(), alone.size()), 0);
  }
}

TEST_P(AttentionKernel, SplitsOverRows) {
  const Shape shape = {9, 3, 64};
  const Variant variant = {.split = "rows"};
  const auto kernel = CompiledKernel::Compile(KernelText(shape, variant), GetParam());
  ASSERT_TRUE(kernel);
  const Step step(shape, kMixedStep, LayoutOf(shape, variant), 4);
  const Buffer result(step.rows() * shape.columns() * 4);
  for (int64_t row = 0; row < step.rows(); row += 20)
    step.Attend(*kernel, result, 0, shape.heads, {{row, std::min(row + 20, step.rows())}});
  ExpectCorrect(step, result.as<float>(), InHalf(variant));
}

TEST_P(AttentionKernel, QuantizesItsResult) {
  const Shape shape = {9, 3, 64};
  const auto plain = CompiledKernel::Compile(KernelText(shape, {}), GetParam());
  const auto quantizing = CompiledKernel::Compile(KernelText(shape, {.output = Output::kQuantized}),
                                                  GetParam());
  ASSERT_TRUE(plain && quantizing);
  const Step step(shape, kMixedStep, LayoutOf(shape, {}), 5);
  const int64_t columns = shape.columns(), row_bytes = NumericRowBytes(columns);
  const Buffer floats(step.rows() * columns * 4), codes(HalfRowsBytes(step.rows(), columns));
  RunShares(*plain, step, floats);
  RunShares(*quantizing, step, codes);
  EXPECT_TRUE(codes.IsIntact());
  const Numerics numerics = findTarget(GetParam().target)->numericsFor(GetParam().role);
  for (int64_t row = 0; row < step.rows(); ++row) {
    const float* x = floats.as<float>() + row * columns;
    const uint8_t* got = codes.data() + row * row_bytes;
    const auto* scales = reinterpret_cast<const float*>(got + ScaleOffset(columns));
    const auto* sums = reinterpret_cast<const float*>(got + SumOffset(columns));
    for (int64_t k = 0; k < columns; ++k) {
      if (numerics == Numerics::Bf16) {
        ASSERT_EQ(reinterpret_cast<const uint16_t*>(got)[k], f32ToBf16(x[k]));
        continue;
      }
      if (numerics == Numerics::F16) {
        const uint8_t* element = codes.data() + HalfOffset(columns, row, k);
        ASSERT_EQ(*reinterpret_cast<const uint16_t*>(element), f32ToF16(x[k]));
        continue;
      }
      const float scale = scales[k / 16];
      const int code = static_cast<int8_t>(got[k]);
      ASSERT_LE(std::abs(code * scale - x[k]), scale * 0.5001f) << row << ", " << k;
      if (k % 16 == 0)
        ASSERT_EQ(sums[k / 16], scale * static_cast<float>(std::accumulate(
                                            reinterpret_cast<const int8_t*>(got) + k,
                                            reinterpret_cast<const int8_t*>(got) + k + 16, 0)));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, AttentionKernel, testing::ValuesIn(RunnableMachines()),
                         [](const auto& info) { return MachineName(info.param); });
/// What LLVM makes of attention for sm_120a differs from sm_80's.
const std::vector<Machine> kMore = {{"sm_120a", Role::Decode}, {"sm_120a", Role::Prefill}};
INSTANTIATE_TEST_SUITE_P(Ptx, HalfAttention, testing::ValuesIn(EmulatedMachines(kMore)),
                         [](const auto& info) { return MachineName(info.param); });
INSTANTIATE_TEST_SUITE_P(Ptx, AttentionKernel, testing::ValuesIn(EmulatedMachines()),
                         [](const auto& info) { return MachineName(info.param); });

}  // namespace
}  // namespace quern::test
