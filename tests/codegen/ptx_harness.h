// GPU kernels from text to results inside one test process: an `rt.kernel` becomes PTX, and the PTX
// emulator runs it with the launch that the manifest would hold; or the GPU does that
// QUERN_TEST_GPU names ("cuda:0").
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "codegen/target/Target.h"

namespace quern::test {

/// Whether this process can run kernels of a GPU target: the emulator runs all, a GPU its own.
bool RunsHere(const Target& target);

class EmulatedKernel {
 public:
  /// Generates the one rt.kernel in `text`. Returns null, with a test failure, when it cannot.
  static std::unique_ptr<EmulatedKernel> Compile(const std::string& text, const Target& target,
                                                 Role role);
  ~EmulatedKernel();

  /// Which family made it: "wgmma-matmul".
  std::string_view generator() const;

  /// Copies what `args` point at (tracked memory) to the device, launches the kernel, and
  /// copies it back; as often as QUERN_EMULATE_SCHEDULES says, in other orders of warps, which must
  /// give the same bits. An emulator error, a race on shared memory or a missing fence is a test
  /// failure. `dims` are KernelDim's.
  void Run(const std::vector<const void*>& args, const std::vector<int64_t>& dims,
           const std::vector<int64_t>& ranges) const;

 private:
  EmulatedKernel() = default;
  /// What lies at each piece of host memory after a launch.
  using Memory = std::map<uint8_t*, std::vector<uint8_t>>;
  void RunOnce(const std::vector<const void*>& args, const std::vector<int64_t>& dims,
               const std::vector<int64_t>& ranges, uint64_t schedule, Memory& memory) const;

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace quern::test
