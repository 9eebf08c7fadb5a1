// Running PTX in tests.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "runtime/device/ptx_emulator/emulator.h"
#include "tests/runtime/device/ptx_emulator/instruction_coverage.h"

namespace quern::ptx {

/// Puts the three directives in front of kernels.
inline std::string Header(const std::string& target = "sm_90a") {
  return ".version 8.3\n.target " + target + "\n.address_size 64\n";
}

/// `.visible .entry NAME(.param .u64 in, .param .u64 out) { ... }` with registers of every width
/// (%p<16>, %h<16>, %r<64>, %f<16>, %d<8>, %l<16>), %in and %out loaded, %tid in %r0.
inline std::string SimpleKernel(const std::string& name, const std::string& body) {
  return ".visible .entry " + name +
         "(.param .u64 in, .param .u64 out)\n{\n.reg .pred %p<16>;\n.reg .b16 %h<16>;\n"
         ".reg .b32 %r<64>;\n.reg .b32 %f<16>;\n.reg .b64 %d<8>;\n.reg .b64 %l<16>;\n"
         ".reg .b64 %in;\n.reg .b64 %out;\nld.param.u64 %in, [in];\nld.param.u64 %out, [out];\n"
         "mov.u32 %r0, %tid.x;\n" +
         body + "\nret;\n}\n";
}

/// The bytes of parameters, each aligned to its size.
class Parameters {
 public:
  template <class T>
  Parameters& Add(const T& value, size_t alignment = sizeof(T)) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment);
    const auto* from = reinterpret_cast<const uint8_t*>(&value);
    bytes_.insert(bytes_.end(), from, from + sizeof(T));
    return *this;
  }
  std::span<const uint8_t> bytes() const { return bytes_; }

 private:
  std::vector<uint8_t> bytes_;
};

template <class T>
uint64_t Upload(Memory& memory, const std::vector<T>& values) {
  const auto address = memory.Allocate(values.size() * sizeof(T));
  EXPECT_TRUE(address.ok()) << address.status().message();
  EXPECT_TRUE(memory.CopyToDevice(*address, values.data(), values.size() * sizeof(T)).ok());
  return *address;
}

template <class T>
std::vector<T> Download(const Memory& memory, uint64_t address, size_t count) {
  std::vector<T> values(count);
  EXPECT_TRUE(memory.CopyToHost(values.data(), address, count * sizeof(T)).ok());
  return values;
}

/// What a SimpleKernel did: its report or error, and the words of `out`.
struct Outcome {
  Status status;
  LaunchReport report;
  std::vector<uint32_t> out;
  std::string message() const { return status.message(); }
};

/// Runs the one kernel of `text` as a SimpleKernel; `out` has `out_words` words, all 0xCDCDCDCD.
inline Outcome RunText(const std::string& text, std::span<const uint32_t> in, size_t out_words,
                       LaunchOptions options = {}) {
  Outcome outcome;
  const auto module = ParseModule(text);
  if (!module.ok()) {
    outcome.status = module.status();
    return outcome;
  }
  Memory memory;
  std::vector<uint32_t> input(in.begin(), in.end());
  if (input.empty()) input.push_back(0);
  const uint64_t in_address = Upload(memory, input);
  const uint64_t out_address = *memory.Allocate(std::max<size_t>(out_words, 1) * 4);
  Parameters parameters;
  parameters.Add(in_address).Add(out_address);
  options.coverage = true;
  auto report = Launch(*module, module->kernels()[0].name, parameters.bytes(), memory, options);
  if (report.ok()) {
    NoteExecuted(*report);
    outcome.report = std::move(*report);
  } else {
    outcome.status = report.status();
  }
  outcome.out = Download<uint32_t>(memory, out_address, out_words);
  return outcome;
}

/// The same of a body alone, with one warp unless the options say otherwise.
inline Outcome RunBody(const std::string& body, std::span<const uint32_t> in, size_t out_words,
                       LaunchOptions options = {.block = {32, 1, 1}},
                       const std::string& before = "") {
  return RunText(Header() + before + SimpleKernel("k", body), in, out_words, options);
}

}  // namespace quern::ptx
