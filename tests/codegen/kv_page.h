// KV pages as machines hold them (docs/architecture.md, sections 5 and 8), by the definition: what
// a test puts into a page, and what is in one.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/schema/fixed_kv.h"

namespace quern::test {

/// A KV cache's page for a machine.
struct KvPage {
  int64_t head_dim;
  bool f32;
  bool on_gpu;
  bool int8 = false;

  static constexpr int64_t kTokens = 32;
  static constexpr int64_t kGroup = 32;  // columns that share a scale of int8
  /// Fixed-point numbers of 16 bits.
  bool is_fixed() const { return !on_gpu && !f32; }
  int64_t element_bytes() const { return int8 ? 1 : f32 ? 4 : 2; }
  /// Bytes of keys, or values; of their scales in int8.
  int64_t part_bytes() const { return head_dim * kTokens * element_bytes(); }
  int64_t scales_bytes() const { return int8 ? head_dim / kGroup * kTokens * 4 : 0; }
  /// Bytes of a KV head: its keys, its values, the scales of both.
  int64_t head_bytes() const;
  /// Bytes from the start of a KV head to the key (or value) of `token`, column `d`.
  int64_t Offset(bool value, int64_t token, int64_t d) const;
  /// The same to the f32 scale of its columns of group `group`, in int8.
  int64_t OffsetOfScale(bool value, int64_t token, int64_t group) const {
    return 2 * part_bytes() + (value ? scales_bytes() : 0) + (group * kTokens + token) * 4;
  }
  /// The same to a scale of `token` in fixed point.
  int64_t OffsetOfScale(FixedKvScale scale, int64_t token) const {
    return part_bytes() + (static_cast<int64_t>(scale) * kTokens + token) * 4;
  }
  /// Bytes from the start of a layer's pool to KV head `head` of `heads` of page `page`.
  int64_t HeadOffset(int64_t page, int64_t heads, int64_t head) const;
  /// Bytes of a pool of `pages` pages of `heads` KV heads: in whole runs on the host.
  int64_t PoolBytes(int64_t pages, int64_t heads) const;

  /// Puts `numbers` (head_dim) into the KV head at `head` as the key (or value) of `token`.
  void Write(uint8_t* head, bool value, int64_t token, const std::vector<float>& numbers) const;
  /// What the KV head at `head` holds as the key (or value) of `token`. (head_dim)
  std::vector<float> Read(const uint8_t* head, bool value, int64_t token) const;

 private:
  void WriteInt8(uint8_t* head, bool value, int64_t token, const std::vector<float>& numbers) const;
  void WriteFixed(uint8_t* head, bool value, int64_t token,
                  const std::vector<float>& numbers) const;
};

}  // namespace quern::test
