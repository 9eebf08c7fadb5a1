// Which of an artifact's targets this machine runs.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/device/host/cpu_features.h"

namespace quern {

/// A target's name and the features its code needs.
struct TargetRequirement {
  std::string name;
  std::vector<std::string> features;
  /// Index in the manifest's list of targets.
  size_t index = 0;
};

/// The features of `target` that `features` lacks.
std::vector<std::string> MissingFeatures(const TargetRequirement& target,
                                         const CpuFeatures& features);

/// Index in `targets` of the one to run: the one named `forced`, or with an empty `forced` the last
/// one that `features` suffice for (targets are ordered from the plainest to the best).
///
/// `allow_emulated_amx`: a forced target may lack AMX features, since something in the process
/// answers their instructions.
/// Errors: kIncompatible, naming the missing features of each target; kUsage when no target has the
/// name `forced`.
Result<size_t> SelectTarget(std::span<const TargetRequirement> targets, std::string_view forced,
                            const CpuFeatures& features, bool allow_emulated_amx);

/// Whether the environment says that an AMX emulator is loaded: QUERN_AMX_EMULATOR=1, set beside
/// preloading tests/support/amx_emulator. For tests on machines without AMX; far too slow for use.
bool AmxEmulatorDeclared();

}  // namespace quern
