//===- HostCodegen.h - rt.kernel ops to x86-64 code images ------*- C++ -*-===//
//
// Every kernel of a compiled model is generated here from its `rt.kernel` body:
// one generator per kernel family emits scf/arith/vector/llvm IR with the
// parameters of the op's tile attribute, LLVM makes machine code of it, and the
// objects of all kernels become one flat image per target (FlatImage.h).
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_HOST_HOSTCODEGEN_H
#define QUERN_CODEGEN_HOST_HOSTCODEGEN_H

#include "codegen/target/Target.h"
#include "mlir/IR/BuiltinOps.h"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace quern::host {

/// Where one kernel's code for one role begins in an image.
struct KernelCode {
  std::string kernel;    ///< Symbol of the rt.kernel.
  Role role;             ///< Decode or prefill numerics.
  uint64_t offset;       ///< Entry, 64-byte aligned, from the image's start.
  uint64_t scratchBytes; ///< Scratch a thread must give this kernel.
  KernelForm form;
};

/// Code and constants of all kernels for one target: no relocation, no
/// undefined symbol, runs wherever it is copied to (64-byte aligned).
struct CodeImage {
  std::string target;
  std::vector<uint8_t> bytes;
  std::vector<KernelCode> kernels;
};

struct CodegenOptions {
  /// Directory for KERNEL.TARGET.ROLE.{mlir,ll,s}; empty: nothing is written.
  std::string dumpKernelsTo;
  /// Called with one line per kernel: generator, tile and code bytes.
  std::function<void(const std::string &)> explain;
};

/// Generates every `rt.kernel` of `module` for `target`, both roles. Kernels
/// whose two roles share numerics and tile share one piece of code.
mlir::FailureOr<CodeImage> generateHostCode(mlir::ModuleOp module,
                                            const Target &target,
                                            const CodegenOptions &options);

} // namespace quern::host

#endif // QUERN_CODEGEN_HOST_HOSTCODEGEN_H
