#include "runtime/device/host/target.h"

#include <cstdlib>

namespace quern {
namespace {

std::string Join(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) {
    if (!text.empty()) text += ", ";
    text += part;
  }
  return text;
}

bool OnlyAmx(const std::vector<std::string>& features) {
  for (const std::string& feature : features) {
    if (!CpuFeatures::IsAmx(feature)) return false;
  }
  return true;
}

Result<size_t> SelectForced(std::span<const TargetRequirement> targets, std::string_view forced,
                            const CpuFeatures& features, bool allow_emulated_amx) {
  std::vector<std::string> names;
  for (size_t i = 0; i < targets.size(); ++i) {
    names.push_back(targets[i].name);
    if (targets[i].name != forced) continue;
    const std::vector<std::string> missing = MissingFeatures(targets[i], features);
    if (missing.empty() || (allow_emulated_amx && OnlyAmx(missing))) return i;
    return Incompatible("target " + targets[i].name +
                        " needs CPU features that this machine lacks: " + Join(missing) +
                        "; choose another target or let Quern choose");
  }
  return UsageError("the artifact has no target '" + std::string(forced) + "', only " +
                    Join(names) +
                    "; name one of these, or compile the model for more of them with --target");
}

}  // namespace

std::vector<std::string> MissingFeatures(const TargetRequirement& target,
                                         const CpuFeatures& features) {
  std::vector<std::string> missing;
  for (const std::string& feature : target.features) {
    if (!features.Has(feature)) missing.push_back(feature);
  }
  return missing;
}

Result<size_t> SelectTarget(std::span<const TargetRequirement> targets, std::string_view forced,
                            const CpuFeatures& features, bool allow_emulated_amx) {
  if (!forced.empty()) return SelectForced(targets, forced, features, allow_emulated_amx);
  if (targets.empty()) {
    return Incompatible(
        "the artifact has code for GPUs only; choose a device with --device, or "
        "compile the model with --target=host");
  }
  std::string lacks;
  for (size_t i = targets.size(); i > 0; --i) {
    const std::vector<std::string> missing = MissingFeatures(targets[i - 1], features);
    if (missing.empty()) return i - 1;
    lacks += (lacks.empty() ? "" : "; ") + targets[i - 1].name + " needs " + Join(missing);
  }
  return Incompatible("this machine can run none of the artifact's targets (" + lacks +
                      "); compile the model for it with --target=host");
}

bool AmxEmulatorDeclared() {
  const char* value = std::getenv("QUERN_AMX_EMULATOR");
  return value && std::string_view(value) == "1";
}

}  // namespace quern
