// What fuzz targets share. A target is one file with LLVMFuzzerTestOneInput: libFuzzer drives it
// (preset `fuzz`, scripts/fuzz), and so does a plain program that replays files (replay.cc), which
// is what tests run.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>

#include "runtime/base/status.h"

/// Reads `size` bytes as the target's input. What must not happen ends the process.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace quern::fuzz {

/// Ends the process, naming `what`, unless `holds`: a promise of the code under test was broken.
inline void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: this does not hold: %s\n", what);
  std::abort();
}

/// The promises of an error's text: one line, no zero in it.
inline void RequireOneLine(std::string_view message) {
  Require(!message.empty(), "an error says something");
  Require(message.find_first_of(std::string_view("\n\r\0", 3)) == message.npos,
          "an error is one line");
}

/// The promises of a refusal of bytes: it blames the input, in one line.
inline void RequireRefusal(const Status& status) {
  const StatusCode code = status.code();
  Require(code == StatusCode::kUsage || code == StatusCode::kMalformed ||
              code == StatusCode::kUnsupported || code == StatusCode::kIncompatible,
          "a refusal of bytes is usage, malformed, unsupported or incompatible");
  RequireOneLine(status.message());
}

inline std::string_view Text(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Takes numbers off the front of an input; past its end they are 0.
class Numbers {
 public:
  explicit Numbers(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  template <typename T>
  T Take() {
    T value{};
    const size_t size = std::min(sizeof(T), bytes_.size());
    if (size > 0) std::memcpy(&value, bytes_.data(), size);
    bytes_ = bytes_.subspan(size);
    return value;
  }
  std::span<const uint8_t> rest() const { return bytes_; }

 private:
  std::span<const uint8_t> bytes_;
};

/// A copy of `bytes` in a block of exactly that size, so that a sanitizer sees every read past it.
class ExactCopy {
 public:
  explicit ExactCopy(std::span<const uint8_t> bytes)
      : size_(bytes.size()), bytes_(new uint8_t[bytes.size()]) {
    if (size_ > 0) std::memcpy(bytes_.get(), bytes.data(), size_);
  }
  std::span<const uint8_t> bytes() const { return {bytes_.get(), size_}; }

 private:
  size_t size_;
  std::unique_ptr<uint8_t[]> bytes_;
};

}  // namespace quern::fuzz
