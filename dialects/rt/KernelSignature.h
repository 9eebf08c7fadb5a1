//===- KernelSignature.h - What two equal kernels share ---------*- C++ -*-===//
#ifndef QUERN_DIALECTS_RT_KERNELSIGNATURE_H
#define QUERN_DIALECTS_RT_KERNELSIGNATURE_H

#include "dialects/rt/Rt.h"

#include <string>

namespace quern::rt {

/// 16 hexadecimal digits of what the kernel computes, over which types and cut
/// how: its name, its tiles and where it stands do not matter. Equal kernels of
/// different models have equal signatures, so that what was measured of one
/// holds for the other.
std::string kernelSignature(KernelOp kernel);

} // namespace quern::rt

#endif // QUERN_DIALECTS_RT_KERNELSIGNATURE_H
