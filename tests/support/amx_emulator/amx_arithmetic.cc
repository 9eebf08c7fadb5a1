// The dot products of AMX, as plain functions.
#include <immintrin.h>

#include <cstring>

#include "tests/support/amx_emulator/amx_emulator.h"

// Fused multiply-adds must be the machine's own, so that they obey MXCSR.
#define QUERN_TARGET_FMA __attribute__((target("avx2,fma"), noinline))

namespace quern {
namespace {

constexpr unsigned kMxcsrRoundNearest = 0x1f80;  // all exceptions masked
constexpr unsigned kMxcsrFlushToZero = 0x8000;
constexpr unsigned kMxcsrDenormalsAreZero = 0x0040;

struct DotBf16Row {
  __m256 even[2];
  __m256 odd[2];
};

// One row of a times b: `a` points at pairs of bf16, row k of b holds pair k of 16 columns.
QUERN_TARGET_FMA void MultiplyRow(const uint8_t* a, const AmxTile& b, int pairs, float* dot) {
  DotBf16Row sum = {};
  const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  for (int k = 0; k < pairs; ++k) {
    uint32_t pair;
    std::memcpy(&pair, a + 4 * k, sizeof pair);
    const __m256i pairs_a = _mm256_set1_epi32(static_cast<int>(pair));
    const __m256 even_a = _mm256_castsi256_ps(_mm256_slli_epi32(pairs_a, 16));
    const __m256 odd_a = _mm256_castsi256_ps(_mm256_and_si256(pairs_a, high));
    for (int half = 0; half < 2; ++half) {
      const __m256i pairs_b =
          _mm256_load_si256(reinterpret_cast<const __m256i*>(b.row[k] + 32 * half));
      const __m256 even_b = _mm256_castsi256_ps(_mm256_slli_epi32(pairs_b, 16));
      const __m256 odd_b = _mm256_castsi256_ps(_mm256_and_si256(pairs_b, high));
      sum.even[half] = _mm256_fmadd_ps(even_a, even_b, sum.even[half]);
      sum.odd[half] = _mm256_fmadd_ps(odd_a, odd_b, sum.odd[half]);
    }
  }
  for (int half = 0; half < 2; ++half)
    _mm256_storeu_ps(dot + 8 * half, _mm256_add_ps(sum.even[half], sum.odd[half]));
}

QUERN_TARGET_FMA void AddRow(uint8_t* c, const float* dot) {
  for (int half = 0; half < 2; ++half) {
    float* values = reinterpret_cast<float*>(c + 32 * half);
    _mm256_storeu_ps(values,
                     _mm256_add_ps(_mm256_loadu_ps(values), _mm256_loadu_ps(dot + 8 * half)));
  }
}

int32_t DotQuad(const uint8_t* a, const uint8_t* b, bool a_signed, bool b_signed) {
  int32_t sum = 0;
  for (int j = 0; j < 4; ++j) {
    const int32_t x = a_signed ? static_cast<int8_t>(a[j]) : a[j];
    const int32_t y = b_signed ? static_cast<int8_t>(b[j]) : b[j];
    sum += x * y;
  }
  return sum;
}

void ZeroOutside(AmxTile& tile, int rows, int columns) {
  for (int m = 0; m < rows; ++m) std::memset(tile.row[m] + 4 * columns, 0, 64 - 4 * columns);
  std::memset(tile.row[rows], 0, 64 * (16 - rows));
}

}  // namespace

void AmxDotBf16(AmxTile& c, const AmxTile& a, const AmxTile& b, int rows, int columns, int pairs) {
  const unsigned saved = _mm_getcsr();
  _mm_setcsr(kMxcsrRoundNearest | kMxcsrFlushToZero | kMxcsrDenormalsAreZero);
  alignas(32) float dot[16];
  for (int m = 0; m < rows; ++m) {
    MultiplyRow(a.row[m], b, pairs, dot);
    AddRow(c.row[m], dot);
  }
  _mm_setcsr(saved);
  ZeroOutside(c, rows, columns);
}

void AmxDotInt8(AmxTile& c, const AmxTile& a, const AmxTile& b, int rows, int columns, int quads,
                bool a_signed, bool b_signed) {
  for (int m = 0; m < rows; ++m) {
    uint32_t sum[16];
    std::memcpy(sum, c.row[m], sizeof sum);
    for (int k = 0; k < quads; ++k)
      for (int n = 0; n < columns; ++n)
        sum[n] +=
            static_cast<uint32_t>(DotQuad(a.row[m] + 4 * k, b.row[k] + 4 * n, a_signed, b_signed));
    std::memcpy(c.row[m], sum, sizeof sum);
  }
  ZeroOutside(c, rows, columns);
}

}  // namespace quern
