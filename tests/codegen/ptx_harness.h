// GPU kernels from text to results inside one test process: an `rt.kernel` becomes PTX, and the PTX
// emulator runs it with the launch that the manifest would hold; or the GPU does that
// QUERN_TEST_GPU names ("cuda:0").
#pragma once

#include <cstdint>
#include <memory>
#include <string>
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

  /// Copies what `args` point at (tracked memory) to the device, launches the kernel, and
  /// copies it back. An emulator error, a race on shared memory or a missing fence is a test
  /// failure. `dims` are KernelDim's.
  void Run(const std::vector<const void*>& args, const std::vector<int64_t>& dims,
           const std::vector<int64_t>& ranges) const;

 private:
  EmulatedKernel() = default;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace quern::test
