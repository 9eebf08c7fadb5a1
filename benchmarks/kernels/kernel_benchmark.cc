// Generated kernels alone: bytes and operations a second of matmuls by target, role, format, rows
// and shape, and of attention by target, role, heads and context. One thread; weights and KV pages
// are walked in a ring larger than L2, so decode figures are those of L3 or memory; a context of
// 256 tokens alone lies in L2. Data are random: zeros run faster than anything real. Decode figures
// want huge pages: GLIBC_TUNABLES=glibc.malloc.hugetlb=1.
//   kernel_benchmark --benchmark_filter=avx512-vnni/prefill
//   kernel_benchmark --benchmark_filter=avx512-vnni/attention
#include <benchmark/benchmark.h>
#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <sstream>

#include "codegen/host/Kernel.h"
#include "codegen/host/PackedLayout.h"
#include "runtime/schema/kernel_abi.h"
#include "tests/codegen/kernel_harness.h"
#include "tests/codegen/kv_page.h"

namespace quern::test {
namespace {

constexpr int64_t kRingBytes = 48 << 20;

std::string MatmulText(BlockFormat format, int64_t outputs, int64_t depth) {
  std::ostringstream x, w, y, text;
  x << "tensor<?x" << depth << "x!lm.block<a8>>";
  w << "tensor<" << outputs << "x" << depth << "x!lm.block<" << blockFormatInfo(format).name
    << ">>";
  y << "tensor<?x" << outputs << "xf32>";
  text << "rt.kernel @k(%x: " << x.str() << ", %w: " << w.str() << ") -> (" << y.str()
       << ") attributes {split = #lm<kernel_split shares>} {\n  %y = lm.quant_matmul %x, %w : ("
       << x.str() << ", " << w.str() << ") -> " << y.str() << "\n  lm.yield %y : " << y.str()
       << "\n}\n";
  return text.str();
}

/// Numeric rows of the machine's kind, with codes or bf16 that are not zero.
Buffer NumericRows(std::mt19937& random, const Machine& machine, int64_t rows, int64_t columns) {
  Buffer floats = RandomFloats(random, rows * columns);
  if (findTarget(machine.target)->numericsFor(machine.role) == Numerics::Bf16)
    return Bf16Rows(floats.as<float>(), rows, columns);
  Buffer numeric(rows * activationRowBytes(columns));
  for (int64_t m = 0; m < rows; ++m) {
    uint8_t* row = numeric.data() + m * activationRowBytes(columns);
    for (int64_t k = 0; k < columns; ++k)
      row[k] = static_cast<uint8_t>(static_cast<int8_t>(40 * floats.as<float>()[m * columns + k]));
    auto* scales = reinterpret_cast<float*>(row + activationScaleOffset(columns));
    for (int64_t g = 0; g < columns / kActivationGroup; ++g) scales[g] = 0.025f;
  }
  return numeric;
}

void Matmul(benchmark::State& state, Machine machine, BlockFormat format, int64_t rows,
            int64_t outputs, int64_t depth) {
  std::mt19937 random(1);
  auto kernel = CompiledKernel::Compile(MatmulText(format, outputs, depth), machine);
  if (!kernel) return state.SkipWithError("the kernel cannot be generated");
  Weight weight = RandomWeight(random, format, outputs, depth);
  Buffer packed = weight.Pack(0, outputs, 0, depth);
  const int64_t bytes = packed.size(),
                copies = rows == 1 ? std::max<int64_t>(1, kRingBytes / bytes) : 1;
  Buffer ring(copies * bytes);
  for (int64_t i = 0; i < copies; ++i) std::memcpy(ring.data() + i * bytes, packed.data(), bytes);
  Buffer x = NumericRows(random, machine, rows, depth), y(rows * outputs * 4);
  int64_t at = 0;
  for (auto _ : state) {
    kernel->Run({x.data(), ring.data() + at * bytes, y.data()}, {rows}, {0, outputs});
    at = (at + 1) % copies;
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * bytes);
  state.counters["GOP/s"] = benchmark::Counter(2e-9 * rows * outputs * depth * state.iterations(),
                                               benchmark::Counter::kIsRate);
}

struct Heads {
  int64_t query, kv, size;
};

std::string AttentionText(const Heads& heads) {
  std::ostringstream rows, kv, text;
  rows << "tensor<?x" << heads.query * heads.size << "xf32>";
  kv << "!lm.kv_cache<heads = " << heads.kv << ", head_dim = " << heads.size << ", page = 32, f16>";
  text << "rt.kernel @k(%q: " << rows.str() << ", %kv: " << kv.str() << ", %p: tensor<?xi32>) -> ("
       << rows.str() << ") attributes {split = #lm<kernel_split shares>} {\n"
       << "  %y = lm.online_attention %q, %kv, %p heads = " << heads.query
       << ", scale = 0.125, window = 0, key_tile = 32 : (" << rows.str() << ", " << kv.str()
       << ", tensor<?xi32>) -> " << rows.str() << "\n  lm.yield %y : " << rows.str() << "\n}\n";
  return text.str();
}

/// Random keys and values for every token of `pages` pages.
void FillLayer(std::mt19937& random, const KvPage& page, int64_t pages, int64_t heads,
               uint8_t* pool) {
  std::normal_distribution<float> normal;
  std::vector<float> numbers(page.head_dim);
  for (int64_t i = 0; i < pages * KvPage::kTokens; ++i)
    for (int64_t head = 0; head < heads; ++head)
      for (const bool value : {false, true}) {
        for (float& x : numbers) x = normal(random);
        page.Write(pool + page.HeadOffset(i / KvPage::kTokens, heads, head), value,
                   i % KvPage::kTokens, numbers);
      }
}

/// A tile of `rows` rows, the last behind `context` tokens, layer after layer of a ring of
/// `ring_bytes`.
void Attention(benchmark::State& state, Machine machine, Heads heads, int64_t rows, int64_t context,
               int64_t ring_bytes) {
  std::mt19937 random(1);
  auto kernel = CompiledKernel::Compile(AttentionText(heads), machine);
  if (!kernel) return state.SkipWithError("the kernel cannot be generated");
  const KvPage page{heads.size, /*f32=*/false, /*on_gpu=*/false};
  const int64_t page_bytes = heads.kv * page.head_bytes(), pages = context / KvPage::kTokens,
                layer_bytes = page.PoolBytes(pages, heads.kv),
                layers = std::max<int64_t>(1, ring_bytes / layer_bytes);
  Buffer pool(layers * layer_bytes);
  FillLayer(random, page, pages, heads.kv, pool.data());
  for (int64_t i = 1; i < layers; ++i)
    std::memcpy(pool.data() + i * layer_bytes, pool.data(), layer_bytes);
  Buffer q = RandomFloats(random, rows * heads.query * heads.size), y(q.size());
  std::vector<int32_t> table(pages), item(kAttentionWorkFields), slots(rows), sequences(rows);
  item[kWorkRows] = static_cast<int32_t>(rows);
  item[kWorkEndHead] = static_cast<int32_t>(heads.query);
  std::iota(table.begin(), table.end(), 0);
  std::iota(slots.begin(), slots.end(), static_cast<int32_t>(context - rows));
  int64_t at = 0;
  for (auto _ : state) {
    kernel->Run({q.data(), pool.data() + at * layer_bytes, table.data(), item.data(), slots.data(),
                 sequences.data(), nullptr, slots.data(), y.data()},
                {rows, 1, pages, page_bytes}, {0, heads.query * heads.size});
    at = (at + 1) % layers;
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * pages * page_bytes);
  state.counters["GOP/s"] =
      benchmark::Counter(4e-9 * rows * heads.query * heads.size * context * state.iterations(),
                         benchmark::Counter::kIsRate);
}

void RegisterAttention(const Machine& machine) {
  const int64_t rows = machine.role == Role::Decode ? 1 : kAttentionTileRows;
  for (const Heads& heads : {Heads{9, 3, 64}, Heads{14, 2, 64}, Heads{6, 6, 64}, Heads{32, 8, 128}})
    for (int64_t context : {256, 4096}) {
      std::ostringstream name;
      name << machine.target << "/attention/" << roleName(machine.role) << "/" << heads.query << "/"
           << heads.kv << "x" << heads.size << "/" << context;
      benchmark::RegisterBenchmark(name.str().c_str(), Attention, machine, heads, rows, context,
                                   context == 256 ? 0 : 2 * kRingBytes);
    }
}

void RegisterAll() {
  struct Shape {
    int64_t outputs, depth;
  };
  for (const Machine& machine : RunnableMachines()) RegisterAttention(machine);
  for (const Machine& machine : RunnableMachines())
    for (BlockFormat format : {BlockFormat::Q4_1, BlockFormat::Q8_0, BlockFormat::Q5_0,
                               BlockFormat::Q4_K, BlockFormat::Q6_K})
      for (Shape shape : {Shape{3072, 768}, Shape{4864, 1024}})
        for (int64_t rows : {1, 4, 16, 512}) {
          if ((machine.role == Role::Decode) == (rows > 16)) continue;
          std::ostringstream name;
          name << machine.target << "/" << roleName(machine.role) << "/"
               << blockFormatInfo(format).name << "/" << rows << "x" << shape.outputs << "x"
               << shape.depth;
          benchmark::RegisterBenchmark(name.str().c_str(), Matmul, machine, format, rows,
                                       shape.outputs, shape.depth);
        }
}

}  // namespace
}  // namespace quern::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  benchmark::Initialize(&argc, argv);
  quern::test::RegisterAll();
  benchmark::RunSpecifiedBenchmarks();
}
