// 16-bit keys and values in the host's memory: fixed-point numbers, a scale for each token. The
// compiler writes and reads them, the runtime knows how many bytes they take. docs/architecture.md,
// section 5.
#pragma once

#include <cstdint>

namespace quern {

/// Euclidean norm of a key's codes, but for rounding: the dot product of two such vectors fits
/// int32.
inline constexpr double kFixedKeyNorm = 32000;
/// No code of a value is larger: 32 products with probabilities of 13 bits fit int32.
inline constexpr double kFixedValueMax = 8191;

/// The f32 numbers of a token, an array (page_tokens) each, between the codes of a KV head's keys
/// and those of its values.
enum class FixedKvScale : int64_t {
  /// key = code * this.
  kKey = 0,
  /// log2 of the factor of the token's values, for it to be added to scores.
  kValueLog2 = 1,
  /// 1 / factor: code = round(value * this).
  kValueInverse = 2,
};
inline constexpr int64_t kFixedKvScales = 3;

/// Bytes of a KV head of a page: codes of keys, scales, codes of values.
constexpr uint64_t FixedKvHeadBytes(uint64_t head_dim, uint64_t page_tokens) {
  return page_tokens * (2 * head_dim * sizeof(int16_t) + kFixedKvScales * sizeof(float));
}

}  // namespace quern
