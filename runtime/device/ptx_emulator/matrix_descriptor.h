// Matrix descriptors: how wgmma and tcgen05.mma find a matrix in shared memory. PTX ISA
// 9.7.15.5.1.2 and 9.7.16.4.1.
//
//   bits 0-13   start address / 16        16-29  leading byte offset / 16 (LBO)
//   bits 32-45  stride byte offset / 16 (SBO)   49-51  base offset
//   wgmma:      62-63  swizzle: none, 128, 64, 32 bytes
//   tcgen05:    46-48  001   52  LBO is an address   53-60  0
//               61-63  swizzle: 0 none, 1 128 bytes in units of 32, 2 128, 4 64, 6 32 bytes
//
// With T = 16 bytes of elements, W = 16, 32, 64 or 128 bytes for no swizzle, 32, 64 and 128, "row"
// the M or N index and k the depth:
//   K-major:         row r, byte kb:  (r / 8) SBO + (r % 8) W + kb            (kb < W)
//   K-major, none:   (r / 8) SBO + (r % 8) 16 + (kb / 16) LBO + kb % 16
//   MN-major:        (r / P) LBO + (k / 8) SBO + (k % 8) W + (r % P) bytes    (P = W / element)
//   MN-major, none:  (r / P) SBO + (k / 8) LBO + ...
// and 16-byte units of the sum are swizzled by address.
#pragma once

#include <cstdint>
#include <string>

#include "runtime/device/ptx_emulator/elements.h"
#include "runtime/device/ptx_emulator/program.h"
#include "runtime/device/ptx_emulator/tensor_map.h"

namespace quern::ptx {

/// Whose descriptors they are.
enum class DescriptorKind { kWgmma, kTcgen05 };

class SharedMatrix {
 public:
  SharedMatrix(uint64_t descriptor, MatrixType type, bool mn_major,
               DescriptorKind kind = DescriptorKind::kWgmma)
      : type_(type), mn_major_(mn_major), bytes_(MatrixTypeBytes(type)) {
    constexpr TensorSwizzle kModes[] = {TensorSwizzle::kNone, TensorSwizzle::k128,
                                        TensorSwizzle::k64, TensorSwizzle::k32};
    swizzle_ = kModes[descriptor >> 62];
    if (kind == DescriptorKind::kTcgen05) CheckTcgen05(descriptor);
    width_ = 16u << static_cast<uint32_t>(swizzle_);
    start_ = static_cast<uint32_t>(descriptor & 0x3fff) << 4;
    leading_ = static_cast<uint32_t>((descriptor >> 16) & 0x3fff) << 4;
    stride_ = static_cast<uint32_t>((descriptor >> 32) & 0x3fff) << 4;
    if ((descriptor >> 49) & 7)
      problem_ = "matrix descriptors with a base offset are not supported";
    else if (mn_major && bytes_ != 2)
      problem_ = "only 16-bit matrices may be MN-major";
  }

  /// What cannot be executed, or "".
  const std::string& problem() const { return problem_; }

  /// Calls visit(address, row, k) for every 16-byte unit of rows [first, first + rows): its first
  /// element. Units run along k, or along the rows of an MN-major matrix.
  template <class Visit>
  void ForEachUnit(uint32_t first, uint32_t rows, uint32_t depth, Visit visit) const {
    const uint32_t per = 16 / bytes_;
    if (!mn_major_) {
      for (uint32_t row = first; row < first + rows; ++row)
        for (uint32_t k = 0; k < depth; k += per) visit(Address(row, k), row, k);
    } else {
      for (uint32_t k = 0; k < depth; ++k)
        for (uint32_t row = first; row < first + rows; row += per) visit(Address(row, k), row, k);
    }
  }

  /// Element (row, k) goes to out[(row - first) row_step + k k_step]. `shared`: byte kSharedBase.
  void Read(const uint8_t* shared, uint32_t first, uint32_t rows, uint32_t depth, float* out,
            uint32_t row_step, uint32_t k_step) const {
    const uint32_t per = 16 / bytes_, each = 4 / bytes_;
    ForEachUnit(first, rows, depth, [&](uint32_t address, uint32_t row, uint32_t k) {
      uint32_t words[4];
      __builtin_memcpy(words, shared + (address - kSharedBase), 16);
      float* to = out + (row - first) * row_step + k * k_step;
      const uint32_t step = mn_major_ ? row_step : k_step;
      for (uint32_t i = 0; i < per; ++i)
        to[i * step] = MatrixElement(type_, words[i / each], i % each);
    });
  }

 private:
  /// The bits that only descriptors of tcgen05 have. Bits 62-63 mean the same swizzle in both.
  void CheckTcgen05(uint64_t descriptor) {
    const uint64_t mode = descriptor >> 61;
    if (mode % 2)
      problem_ =
          "matrix descriptors with swizzle mode " + std::to_string(mode) + " are not supported";
    if (((descriptor >> 46) & 7) != 1 || ((descriptor >> 53) & 255))
      problem_ = "bits 46-48 of a matrix descriptor of tcgen05 are 001, bits 53-60 are 0";
    if ((descriptor >> 52) & 1)
      problem_ = "matrix descriptors with an absolute leading address are not supported";
  }

  uint32_t Address(uint32_t row, uint32_t k) const {
    uint32_t sum = start_;
    if (!mn_major_) {
      const uint32_t at = k * bytes_;
      sum += row / 8 * stride_ + row % 8 * width_;
      sum += swizzle_ == TensorSwizzle::kNone ? at / 16 * leading_ + at % 16 : at;
    } else {
      const uint32_t per = width_ / bytes_;
      const bool none = swizzle_ == TensorSwizzle::kNone;
      sum += row / per * (none ? stride_ : leading_) + k / 8 * (none ? leading_ : stride_);
      sum += k % 8 * width_ + row % per * bytes_;
    }
    return Swizzle(sum, swizzle_);
  }

  MatrixType type_;
  bool mn_major_;
  uint32_t bytes_;
  TensorSwizzle swizzle_;
  uint32_t width_, start_, leading_, stride_;
  std::string problem_;
};

}  // namespace quern::ptx
