// Real tile instructions against plain loops, at ragged shapes; where the machine has AMX, the
// hardware against the emulator's arithmetic.
#include "tests/support/amx_emulator/amx_emulator.h"

#include <gtest/gtest.h>
#include <immintrin.h>
#include <signal.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <thread>
#include <vector>

namespace quern {
namespace {

constexpr int kExitOfOldHandler = 42;

// The handler that must still see what is not the emulator's.
void OldHandler(int) { _exit(kExitOfOldHandler); }

class AmxEnvironment : public testing::Environment {
  void SetUp() override {
    signal(SIGILL, OldHandler);
    signal(SIGSEGV, SIG_DFL);  // sanitizers have their own
    ASSERT_TRUE(InstallAmxEmulator());
    has_hardware = HasHardwareAmx();
  }

 public:
  static inline bool has_hardware = false;
};
const auto* const kEnvironment = testing::AddGlobalTestEnvironment(new AmxEnvironment);

struct Shape {
  int rows, columns, depth;  // in 4-byte elements
};
constexpr Shape kShapes[] = {{16, 16, 16}, {1, 16, 16}, {3, 5, 7},
                             {16, 1, 1},   {1, 1, 16},  {13, 15, 2}};

// Not the intrinsic: GCC 12's tells the compiler that only 8 bytes are read.
void LoadConfig(const AmxTileConfig& config) { asm volatile("ldtilecfg %0" : : "m"(config)); }
AmxTileConfig StoreConfig() {
  AmxTileConfig config;
  asm volatile("sttilecfg %0" : "=m"(config));
  return config;
}

// Tile 0 = c, 1 = a, 2 = b.
AmxTileConfig ConfigOf(Shape shape) {
  AmxTileConfig config = {};
  config.palette = 1;
  const int rows[] = {shape.rows, shape.rows, shape.depth};
  const int columns[] = {shape.columns, shape.depth, shape.columns};
  for (int t = 0; t < 3; ++t) {
    config.rows[t] = static_cast<uint8_t>(rows[t]);
    config.row_bytes[t] = static_cast<uint16_t>(4 * columns[t]);
  }
  return config;
}

// A matrix of 4-byte elements with a row stride wider than its columns, filled by `next`.
struct Matrix {
  static constexpr int kStride = 80;
  std::vector<uint8_t> bytes = std::vector<uint8_t>(16 * kStride, 0xcd);

  template <typename Next>
  static Matrix Make(int rows, int columns, Next next) {
    Matrix matrix;
    for (int m = 0; m < rows; ++m)
      for (int n = 0; n < columns; ++n) {
        const uint32_t value = next();
        std::memcpy(matrix.at(m, n), &value, 4);
      }
    return matrix;
  }
  uint8_t* at(int m, int n) { return bytes.data() + m * kStride + 4 * n; }
  template <typename T>
  T get(int m, int n) const {
    T value;
    std::memcpy(&value, bytes.data() + m * kStride + 4 * n, 4);
    return value;
  }
  // As a tile register holds it: zero outside rows and columns.
  AmxTile Tile(int rows, int columns) const {
    AmxTile tile = {};
    for (int m = 0; m < rows; ++m)
      std::memcpy(tile.row[m], bytes.data() + m * kStride, 4 * columns);
    return tile;
  }
};

float Bf16(uint32_t pair, int element) {
  return std::bit_cast<float>(element == 0 ? pair << 16 : pair & 0xffff0000u);
}
float Flush(float x) {
  return std::fabs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x;
}

enum class Kind { kBf16, kSs, kSu, kUs, kUu };

// c + a * b by tile instructions; outside the shape the result keeps c's fill.
Matrix RunTiles(Kind kind, Shape shape, const Matrix& c, const Matrix& a, const Matrix& b) {
  Matrix result = c;
  LoadConfig(ConfigOf(shape));
  _tile_loadd(0, c.bytes.data(), Matrix::kStride);
  _tile_loadd(1, a.bytes.data(), Matrix::kStride);
  _tile_stream_loadd(2, b.bytes.data(), Matrix::kStride);
  switch (kind) {
    case Kind::kBf16:
      _tile_dpbf16ps(0, 1, 2);
      break;
    case Kind::kSs:
      _tile_dpbssd(0, 1, 2);
      break;
    case Kind::kSu:
      _tile_dpbsud(0, 1, 2);
      break;
    case Kind::kUs:
      _tile_dpbusd(0, 1, 2);
      break;
    case Kind::kUu:
      _tile_dpbuud(0, 1, 2);
      break;
  }
  _tile_stored(0, result.bytes.data(), Matrix::kStride);
  _tile_release();
  return result;
}

float DotBf16(const Matrix& a, const Matrix& b, int m, int n, int pairs) {
  float sum[2] = {0, 0};
  for (int k = 0; k < pairs; ++k)
    for (int j = 0; j < 2; ++j)
      sum[j] = Flush(std::fma(Flush(Bf16(a.get<uint32_t>(m, k), j)),
                              Flush(Bf16(b.get<uint32_t>(k, n), j)), sum[j]));
  return Flush(sum[0] + sum[1]);
}

TEST(AmxEmulator, Bf16ProductsEqualTheManualsLoopsBitForBit) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  const auto f32 = [&] { return std::bit_cast<uint32_t>(normal(random)); };
  const auto pair = [&] { return (f32() & 0xffff0000u) | f32() >> 16; };
  for (const Shape& shape : kShapes) {
    const Matrix c = Matrix::Make(shape.rows, shape.columns, f32);
    const Matrix a = Matrix::Make(shape.rows, shape.depth, pair);
    const Matrix b = Matrix::Make(shape.depth, shape.columns, pair);
    const Matrix got = RunTiles(Kind::kBf16, shape, c, a, b);
    Matrix want = c;
    for (int m = 0; m < shape.rows; ++m)
      for (int n = 0; n < shape.columns; ++n) {
        const float sum = Flush(c.get<float>(m, n) + DotBf16(a, b, m, n, shape.depth));
        std::memcpy(want.at(m, n), &sum, 4);
      }
    EXPECT_EQ(got.bytes, want.bytes) << shape.rows << "x" << shape.columns << "x" << shape.depth;
  }
}

TEST(AmxEmulator, Bf16TreatsDenormalsAsZeroAndFlushesThem) {
  const Shape shape = {1, 4, 1};
  const uint32_t values[] = {0x00000001, 0x00000000, 0x00000000, 0x3f800000};  // denormal, 0, 0, 1
  const uint32_t pairs[] = {0x3f800040, 0x00003f80, 0x00000100, 0x3f803f80};
  int i = 0;
  const Matrix c = Matrix::Make(1, 4, [&] { return values[i++]; });
  // a = (2^-64, 1): 0x0100 (2^-125) * 2^-64 is below the range.
  const Matrix a = Matrix::Make(1, 1, [] { return 0x3f801f80u; });
  i = 0;
  const Matrix b = Matrix::Make(1, 4, [&] { return pairs[i++]; });
  const Matrix got = RunTiles(Kind::kBf16, shape, c, a, b);
  EXPECT_EQ(got.get<float>(0, 0), 1.0f);
  EXPECT_EQ(got.get<float>(0, 1), std::ldexp(1.0f, -64));
  EXPECT_EQ(got.get<uint32_t>(0, 2), 0u);
  EXPECT_EQ(got.get<float>(0, 3), 2.0f);
}

TEST(AmxEmulator, Int8ProductsOfAllSignsAreExact) {
  std::mt19937 random(2);
  const auto word = [&] { return static_cast<uint32_t>(random()); };
  for (Kind kind : {Kind::kSs, Kind::kSu, Kind::kUs, Kind::kUu}) {
    const bool a_signed = kind == Kind::kSs || kind == Kind::kSu;
    const bool b_signed = kind == Kind::kSs || kind == Kind::kUs;
    for (const Shape& shape : kShapes) {
      const Matrix c = Matrix::Make(shape.rows, shape.columns, word);
      const Matrix a = Matrix::Make(shape.rows, shape.depth, word);
      const Matrix b = Matrix::Make(shape.depth, shape.columns, word);
      const Matrix got = RunTiles(kind, shape, c, a, b);
      const auto element = [](uint32_t quad, int j, bool is_signed) {
        const uint8_t byte = static_cast<uint8_t>(quad >> (8 * j));
        return is_signed ? static_cast<int64_t>(static_cast<int8_t>(byte)) : byte;
      };
      for (int m = 0; m < shape.rows; ++m)
        for (int n = 0; n < shape.columns; ++n) {
          int64_t sum = c.get<int32_t>(m, n);
          for (int k = 0; k < shape.depth; ++k)
            for (int j = 0; j < 4; ++j)
              sum += element(a.get<uint32_t>(m, k), j, a_signed) *
                     element(b.get<uint32_t>(k, n), j, b_signed);
          ASSERT_EQ(got.get<uint32_t>(m, n), static_cast<uint32_t>(sum)) << m << ", " << n;
        }
    }
  }
}

// On hardware this says whether the functions are the machine's arithmetic; otherwise that the
// decoder feeds them the right operands.
TEST(AmxEmulator, InstructionsEqualTheArithmeticFunctions) {
  std::mt19937 random(3);
  const auto word = [&] { return static_cast<uint32_t>(random()); };
  std::normal_distribution<float> normal(0, 100);
  const auto f32 = [&] { return std::bit_cast<uint32_t>(normal(random)); };
  const auto pair = [&] { return (f32() & 0xffff0000u) | f32() >> 16; };
  for (const Shape& shape : kShapes) {
    for (Kind kind : {Kind::kBf16, Kind::kSs, Kind::kUs}) {
      const bool bf16 = kind == Kind::kBf16;
      const auto next = [&] { return bf16 ? pair() : word(); };
      const Matrix c =
          Matrix::Make(shape.rows, shape.columns, [&] { return bf16 ? f32() : word(); });
      const Matrix a = Matrix::Make(shape.rows, shape.depth, next);
      const Matrix b = Matrix::Make(shape.depth, shape.columns, next);
      AmxTile want = c.Tile(shape.rows, shape.columns);
      const AmxTile tile_a = a.Tile(shape.rows, shape.depth);
      const AmxTile tile_b = b.Tile(shape.depth, shape.columns);
      if (bf16)
        AmxDotBf16(want, tile_a, tile_b, shape.rows, shape.columns, shape.depth);
      else
        AmxDotInt8(want, tile_a, tile_b, shape.rows, shape.columns, shape.depth, kind == Kind::kSs,
                   true);
      const AmxTile got = RunTiles(kind, shape, c, a, b).Tile(shape.rows, shape.columns);
      EXPECT_EQ(std::memcmp(&got, &want, sizeof got), 0) << static_cast<int>(kind);
    }
  }
}

TEST(AmxEmulator, DecodesAddressesOfEveryForm) {
  std::vector<uint8_t> bytes(4096);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 7 + i / 256);
  LoadConfig(ConfigOf({3, 16, 16}));
  std::vector<uint8_t> out(3 * 64);
  const auto expect_rows = [&](int begin, int stride, const char* what) {
    for (int m = 0; m < 3; ++m)
      EXPECT_EQ(std::memcmp(out.data() + 64 * m, bytes.data() + begin + stride * m, 64), 0)
          << what << ", row " << m;
  };
  asm volatile(
      "tileloadd 8(%0,%1,8), %%tmm0\n\t"
      "tilestored %%tmm0, (%2,%3,2)"
      :
      : "r"(bytes.data()), "r"(24L), "r"(out.data()), "r"(32L)
      : "memory");
  expect_rows(8, 192, "disp8, scale 8");
  asm volatile(
      "mov %0, %%r13\n\t"
      "mov %1, %%r12\n\t"
      "mov %2, %%r14\n\t"
      "tileloadd 1000(%%r13,%%r12,4), %%tmm0\n\t"
      "lea -64(%%r14), %%r15\n\t"
      "tilestored %%tmm0, 64(%%r15,%3)"
      :
      : "r"(bytes.data()), "r"(24L), "r"(out.data()), "r"(64L)
      : "memory", "r12", "r13", "r14", "r15");
  expect_rows(1000, 96, "disp32, high registers, behind a lea");
  asm volatile(
      "mov %0, %%r12\n\t"
      "tileloadd (%%r12), %%tmm0\n\t"
      "tilestored %%tmm0, (%1,%2)"
      :
      : "r"(bytes.data()), "r"(out.data()), "r"(64L)
      : "memory", "r12");
  expect_rows(0, 0, "no index");
  asm volatile(
      "tileloadd (%0,%1), %%tmm0\n\t"
      "tilestored %%tmm0, (%2,%3)"
      :
      : "r"(bytes.data() + 2048), "r"(-64L), "r"(out.data()), "r"(64L)
      : "memory");
  expect_rows(2048, -64, "negative stride");
  static const AmxTileConfig kGlobal = ConfigOf({4, 4, 4});
  asm volatile("ldtilecfg %0" : : "m"(kGlobal));  // RIP-relative
  EXPECT_EQ(StoreConfig().rows[0], 4);
  _tile_release();
}

TEST(AmxEmulator, StoresTheConfigurationAndReleasesIt) {
  const AmxTileConfig config = ConfigOf({3, 5, 7});
  LoadConfig(config);
  const AmxTileConfig stored = StoreConfig();
  EXPECT_EQ(std::memcmp(&stored, &config, sizeof config), 0);
  _tile_release();
  const AmxTileConfig released = StoreConfig(), zero = {};
  EXPECT_EQ(std::memcmp(&released, &zero, sizeof zero), 0);
}

TEST(AmxEmulator, EveryThreadHasItsOwnTiles) {
  LoadConfig(ConfigOf({16, 16, 16}));
  std::thread([] {
    EXPECT_EQ(StoreConfig().palette, 0);
    LoadConfig(ConfigOf({2, 2, 2}));
  }).join();
  EXPECT_EQ(StoreConfig().rows[0], 16);
  _tile_release();
}

TEST(AmxEmulator, CountsWhatItEmulates) {
  const uint64_t before = EmulatedAmxInstructions();
  LoadConfig(ConfigOf({1, 1, 1}));
  _tile_zero(0);
  _tile_release();
  EXPECT_EQ(EmulatedAmxInstructions() - before, AmxEnvironment::has_hardware ? 0u : 3u);
}

TEST(AmxEmulatorDeathTest, RefusesWhatHardwareRefuses) {
  const auto refused = testing::ExitedWithCode(kExitOfOldHandler);
  const auto with = [](void (*change)(AmxTileConfig&)) {
    AmxTileConfig config = ConfigOf({16, 16, 16});
    change(config);
    return config;
  };
  EXPECT_EXIT(LoadConfig(with([](AmxTileConfig& c) { c.palette = 2; })),
              testing::KilledBySignal(SIGSEGV), "");
  EXPECT_EXIT(LoadConfig(with([](AmxTileConfig& c) { c.rows[5] = 1; })),
              testing::KilledBySignal(SIGSEGV), "");
  EXPECT_EXIT(LoadConfig(with([](AmxTileConfig& c) { c.rows[0] = 17; })),
              testing::KilledBySignal(SIGSEGV), "");
  EXPECT_EXIT(LoadConfig(with([](AmxTileConfig& c) { c.reserved_head[3] = 1; })),
              testing::KilledBySignal(SIGSEGV), "");
  EXPECT_EXIT(_tile_zero(0), refused, "");  // nothing configured
  LoadConfig(ConfigOf({16, 16, 16}));
  EXPECT_EXIT(_tile_zero(3), refused, "");
  // tdpbssd tmm0, tmm1, tmm1, which assemblers refuse too.
  EXPECT_EXIT(asm volatile(".byte 0xc4, 0xe2, 0x73, 0x5e, 0xc1"), refused, "");
  LoadConfig(with([](AmxTileConfig& c) { c.rows[0] = 15; }));
  EXPECT_EXIT(_tile_dpbssd(0, 1, 2), refused, "");
  LoadConfig(with([](AmxTileConfig& c) { c.row_bytes[1] = 60; }));
  EXPECT_EXIT(_tile_dpbf16ps(0, 1, 2), refused, "");
  _tile_release();
}

TEST(AmxEmulatorDeathTest, PassesOtherIllegalInstructionsOn) {
  EXPECT_EXIT(asm volatile("ud2"), testing::ExitedWithCode(kExitOfOldHandler), "");
}

}  // namespace
}  // namespace quern
