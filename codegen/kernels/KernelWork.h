//===- KernelWork.h - What a kernel computes and moves ----------*- C++ -*-===//
//
// The numbers that a roofline needs, from the kernel's body: the manifest's
// KernelWork (runtime/schema/artifact.fbs) has their definitions. They are one
// for all targets, so pages count as GPUs have them. One table says how many
// operations each op takes; docs/spec.md has the formulas.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_KERNELS_KERNELWORK_H
#define QUERN_CODEGEN_KERNELS_KERNELWORK_H

#include "codegen/kernels/KernelFacts.h"

namespace quern {

struct KernelWork {
  int64_t flopsPerRow = 0;
  int64_t flopsPerPair = 0;
  int64_t bytesPerRow = 0;
  int64_t bytesPerKey = 0;
  int64_t window = 0;
  bool gathersWeights = false;
};

KernelWork workOf(rt::KernelOp kernel);

} // namespace quern

#endif // QUERN_CODEGEN_KERNELS_KERNELWORK_H
