// The fake model's kernels as hand-written PTX, and small kernels for tests of devices.
#pragma once

#include <string>
#include <string_view>

#include "tests/runtime/support/fake_model.h"

namespace quern::testing {

/// How many logits the samplers of the fake's GPU targets pick.
inline constexpr uint32_t kFakeCandidates[] = {1, 8};

/// Adds GPU targets "sm_80" and "sm_90a" to the model: PTX segments and gpu_codes, whose numbers
/// are those of the C++ kernels, bit for bit.
void AddGpuTargets(FakeModel& model);

/// The PTX of the fake's kernels. `version`: 10 * major + minor.
std::string FakePtx(std::string_view target, uint32_t version);

/// `.version`, `.target`, `.address_size`.
std::string PtxHeader(std::string_view target, uint32_t version);

/// An entry with `parameters` parameters of 8 bytes, loaded into %p0, %p1, ... Beside these the
/// body has registers %d (64 bits), %r (32 bits), %f (f32) and %q (predicates), 32 of each.
std::string PtxEntry(std::string_view name, int parameters, std::string_view body);

}  // namespace quern::testing
