#include "runtime/tools/machine_limits.h"

#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <numeric>
#include <string_view>
#include <thread>
#include <vector>

#include "runtime/tools/output.h"
#include "runtime/tools/signals.h"

namespace quern::tools {
namespace {

constexpr double kSeconds = 0.3;
constexpr size_t kFewestPasses = 5;
constexpr uint64_t kLine = 64;
/// How far ahead reading is fastest on the machines seen so far (benchmarks/peers/read_loop.c).
constexpr uint64_t kPrefetch = 3072;

/// Threads, the caller's being the first, that begin each pass together and spin in between.
class Team {
 public:
  Team(int threads, std::function<void(int)> work) : work_(std::move(work)) {
    const BlockSignals block;
    for (int i = 1; i < threads; ++i) helpers_.emplace_back([this, i] { Help(i); });
  }
  ~Team() {
    stop_ = true;
    for (std::thread& helper : helpers_) helper.join();
  }
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  /// Runs the work once in each thread. Seconds until the last one is through.
  double Pass() {
    finished_ = 0;
    const Stopwatch watch;
    ++begun_;
    work_(0);
    while (finished_ < static_cast<int>(helpers_.size())) _mm_pause();
    return watch.Seconds();
  }

  /// Seconds of each pass that begins within `seconds`, some at least.
  std::vector<double> Passes(double seconds) {
    std::vector<double> passes;
    for (const Stopwatch watch; passes.size() < kFewestPasses || watch.Seconds() < seconds;) {
      passes.push_back(Pass());
    }
    return passes;
  }

 private:
  void Help(int thread) {
    for (int pass = 1;; ++pass) {
      while (begun_ < pass) {
        if (stop_) return;
        _mm_pause();
      }
      work_(thread);
      ++finished_;
    }
  }

  std::function<void(int)> work_;
  std::vector<std::thread> helpers_;
  std::atomic<int> begun_ = 0, finished_ = 0;
  std::atomic<bool> stop_ = false;
};

__attribute__((target("avx2"))) void ReadLines(const std::byte* at, uint64_t lines) {
  __m256i low = _mm256_setzero_si256(), high = low;
  for (uint64_t i = 0; i < lines; ++i, at += kLine) {
    _mm_prefetch(at + kPrefetch, _MM_HINT_T0);
    low = _mm256_xor_si256(low, _mm256_load_si256(reinterpret_cast<const __m256i*>(at)));
    high = _mm256_xor_si256(high, _mm256_load_si256(reinterpret_cast<const __m256i*>(at + 32)));
  }
  asm volatile("" : : "x"(low), "x"(high));
}

constexpr uint64_t kRounds = 20000;

/// A loop of products, `step(a, b, sum)`, into so many sums: more than the instruction takes
/// cycles. `a` is one that the optimiser cannot know. A macro, because a target attribute reaches
/// into no lambda and no template argument.
#define QUERN_PRODUCT_LOOP(Name, features, Vector, kSums, operand, step) \
  __attribute__((target(features))) void Name() {                        \
    Vector a = operand, b = a, sums[kSums] = {};                         \
    for (uint64_t i = 0; i < kRounds; ++i) {                             \
      _Pragma("GCC unroll 16") for (int s = 0; s < (kSums); ++s) {       \
        asm volatile("" : "+v"(a));                                      \
        sums[s] = step(a, b, sums[s]);                                   \
      }                                                                  \
    }                                                                    \
    for (const Vector& sum : sums) asm volatile("" : : "v"(sum));        \
  }

#define QUERN_INT8_DOTS_256(a, b, sum) \
  _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)))
#define QUERN_INT16_DOTS_256(a, b, sum) _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
#define QUERN_INT8_DOTS_512(a, b, sum) _mm512_dpbusd_epi32(sum, a, b)
#define QUERN_INT16_DOTS_512(a, b, sum) _mm512_dpwssd_epi32(sum, a, b)

QUERN_PRODUCT_LOOP(Fma256, "avx2,fma", __m256, 12, _mm256_set1_ps(1e-3f), _mm256_fmadd_ps)
QUERN_PRODUCT_LOOP(Int8Dots256, "avx2", __m256i, 10, _mm256_set1_epi8(3), QUERN_INT8_DOTS_256)
QUERN_PRODUCT_LOOP(Int16Dots256, "avx2", __m256i, 12, _mm256_set1_epi16(3), QUERN_INT16_DOTS_256)
QUERN_PRODUCT_LOOP(Fma512, "avx512f", __m512, 16, _mm512_set1_ps(1e-3f), _mm512_fmadd_ps)
QUERN_PRODUCT_LOOP(Int8Dots512, "avx512f,avx512vnni", __m512i, 16, _mm512_set1_epi8(3),
                   QUERN_INT8_DOTS_512)
QUERN_PRODUCT_LOOP(Int16Dots512, "avx512f,avx512vnni", __m512i, 16, _mm512_set1_epi16(3),
                   QUERN_INT16_DOTS_512)

/// Palette 1: eight tiles of 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t columns[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

/// Operands that are not zero: zeros run faster than anything real.
struct alignas(64) TileData {
  TileData() { std::fill(std::begin(bytes), std::end(bytes), uint8_t{0x3c}); }
  uint8_t bytes[16 * 64];
};

constexpr int kTileRounds = kRounds / 16;

/// Sums in tiles 0 to 3, operands in 4 to 7.
__attribute__((target("amx-tile"))) void LoadTiles() {
  const TileConfig config;
  _tile_loadconfig(&config);
  const TileData data;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, data.bytes, 64);
  _tile_loadd(5, data.bytes, 64);
  _tile_loadd(6, data.bytes, 64);
  _tile_loadd(7, data.bytes, 64);
}

__attribute__((target("amx-tile,amx-bf16"))) void AmxBf16() {
  LoadTiles();
  for (int i = 0; i < kTileRounds; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
}

__attribute__((target("amx-tile,amx-int8"))) void AmxInt8() {
  LoadTiles();
  for (int i = 0; i < kTileRounds; ++i) {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
  }
  _tile_release();
}

}  // namespace

struct ProductUnit {
  std::string_view name;
  /// Of the kernels that use it.
  std::string_view target, arithmetic;
  /// Begins the name of their generators.
  std::string_view generator;
  void (*loop)();
  /// Of one call of `loop`.
  double operations;
};

namespace {

constexpr double kTileProducts = 2.0 * 16 * 16 * 4 * kTileRounds;

constexpr ProductUnit kUnits[] = {
    {"256-bit FMA", "avx2", "F32", "", Fma256, 2.0 * 8 * 12 * kRounds},
    {"256-bit int8 dots", "avx2", "Int8", "", Int8Dots256, 2.0 * 32 * 10 * kRounds},
    {"256-bit int16 dots", "avx2", "Int16", "", Int16Dots256, 2.0 * 16 * 12 * kRounds},
    {"512-bit FMA", "avx512-vnni", "F32", "", Fma512, 2.0 * 16 * 16 * kRounds},
    {"VNNI int8 dots", "avx512-vnni", "Int8", "", Int8Dots512, 2.0 * 64 * 16 * kRounds},
    {"VNNI int16 dots", "avx512-vnni", "Int16", "", Int16Dots512, 2.0 * 32 * 16 * kRounds},
    {"AMX bf16", "amx", "Bf16", "amx-", AmxBf16, 32 * kTileProducts},
    {"AMX int8", "amx", "Int8", "amx-", AmxInt8, 64 * kTileProducts},
    {"512-bit FMA", "amx", "F32", "", Fma512, 2.0 * 16 * 16 * kRounds},
    {"VNNI int8 dots", "amx", "Int8", "", Int8Dots512, 2.0 * 64 * 16 * kRounds},
    {"VNNI int16 dots", "amx", "Int16", "", Int16Dots512, 2.0 * 32 * 16 * kRounds},
};

}  // namespace

const ProductUnit* FindProductUnit(std::string_view target, std::string_view generator,
                                   std::string_view arithmetic) {
  for (const ProductUnit& unit : kUnits) {
    if (unit.target == target && unit.arithmetic == arithmetic &&
        generator.starts_with(unit.generator)) {
      return &unit;
    }
  }
  return nullptr;
}

std::string_view UnitName(const ProductUnit& unit) { return unit.name; }

double MeasureProductRate(const ProductUnit& unit, int threads) {
  // Each thread's best: products wait for nobody, so neighbours need not stop all threads at once.
  std::vector<double> best(static_cast<size_t>(threads), 0);
  Team team(threads, [&](int thread) {
    double& rate = best[static_cast<size_t>(thread)];
    for (const Stopwatch whole; whole.Seconds() < kSeconds;) {
      const Stopwatch watch;
      unit.loop();
      rate = std::max(rate, unit.operations / watch.Seconds());
    }
  });
  team.Pass();
  return std::accumulate(best.begin(), best.end(), 0.0);
}

ReadLoop::ReadLoop(uint64_t bytes, int threads)
    : lines_(std::max<uint64_t>(bytes / kLine, 1)),
      mapped_(lines_ * kLine + kPrefetch),
      threads_(threads) {
  void* memory = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memory_ = memory == MAP_FAILED ? nullptr : static_cast<std::byte*>(memory);
  if (!memory_) return;
  madvise(memory_, mapped_, MADV_HUGEPAGE);
  std::fill_n(memory_, mapped_, std::byte{0x5a});  // or it is all one page
}

ReadLoop::~ReadLoop() {
  if (memory_) munmap(memory_, mapped_);
}

std::vector<double> ReadLoop::Rates(double seconds) const {
  if (!memory_) return {};
  const auto count = static_cast<uint64_t>(threads_);
  Team team(threads_, [&](int thread) {
    const uint64_t first = lines_ * static_cast<uint64_t>(thread) / count;
    const uint64_t last = lines_ * (static_cast<uint64_t>(thread) + 1) / count;
    ReadLines(memory_ + first * kLine, last - first);
  });
  std::vector<double> rates = team.Passes(seconds);
  for (double& rate : rates) rate = static_cast<double>(lines_ * kLine) / rate;
  std::ranges::sort(rates);
  return rates;
}

double ReadLoop::BestRate() const {
  const std::vector<double> rates = Rates(kSeconds);
  return rates.empty() ? 0 : rates.back();
}

}  // namespace quern::tools
