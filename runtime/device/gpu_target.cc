#include "runtime/device/gpu_target.h"

#include <algorithm>
#include <charconv>
#include <iterator>

namespace quern {
namespace {

/// "PTX ISA", release history: which CUDA release brought which version.
struct Release {
  uint32_t driver;
  uint32_t ptx;
};
constexpr Release kReleases[] = {
    {11000, 70}, {11010, 71}, {11020, 72}, {11030, 73}, {11040, 74}, {11050, 75}, {11060, 76},
    {11070, 77}, {11080, 78}, {12000, 80}, {12010, 81}, {12020, 82}, {12030, 83}, {12040, 84},
    {12050, 85}, {12070, 86}, {12080, 87}, {12090, 88}, {13000, 90},
};

/// "CUDA C++ Programming Guide", technical specifications per compute capability: maximum amount of
/// shared memory per thread block.
struct SharedMemory {
  uint32_t sm;
  uint32_t bytes;
};
constexpr uint32_t kKiB = 1024;
constexpr SharedMemory kSharedMemory[] = {
    {70, 96 * kKiB},   {75, 64 * kKiB},  {80, 163 * kKiB}, {86, 99 * kKiB},
    {87, 163 * kKiB},  {89, 99 * kKiB},  {90, 227 * kKiB}, {100, 227 * kKiB},
    {103, 227 * kKiB}, {120, 99 * kKiB}, {121, 99 * kKiB},
};
constexpr uint32_t kSharedBytesOfAll = 48 * kKiB;

/// Why `target` does not run on a device; empty when it does.
std::string Lacks(const GpuTargetRequirement& target, const GpuLimits& limits) {
  const bool fits = target.exact ? limits.sm == target.sm : limits.sm >= target.sm;
  if (!fits) {
    return "needs compute capability " + DottedVersion(target.sm) +
           (target.exact ? " exactly" : " or higher") + " and this device has " +
           DottedVersion(limits.sm);
  }
  if (target.ptx_version > limits.ptx_version) {
    const uint32_t driver = DriverOfPtxVersion(target.ptx_version);
    std::string text = "needs PTX " + DottedVersion(target.ptx_version) + " and ";
    if (limits.driver_version == 0) {
      return text + "this device reads up to " + DottedVersion(limits.ptx_version);
    }
    return text + "the driver (CUDA " + DriverVersionText(limits.driver_version) +
           ") reads up to " + DottedVersion(limits.ptx_version) + ": update the NVIDIA driver" +
           (driver ? " to one for CUDA " + DriverVersionText(driver) + " or newer" : "");
  }
  return {};
}

/// What to do on a compute capability for which the artifact has no target: names the best one that
/// the compiler has.
std::string Remedy(uint32_t sm) {
  struct Known {
    uint32_t sm;
    bool exact;
    const char* name;
  };
  constexpr Known kKnown[] = {{80, false, "sm_80"},
                              {89, false, "sm_89"},
                              {90, true, "sm_90a"},
                              {100, true, "sm_100a"},
                              {120, true, "sm_120a"}};
  std::string text;
  for (const Known& target : kKnown) {
    if (target.sm == sm || (target.sm < sm && !target.exact)) {
      text = std::string("compile the model with --target=") + target.name + ", or ";
    }
  }
  return text + "use the CPU with --device=cpu";
}

}  // namespace

Result<size_t> SelectGpuTarget(std::span<const GpuTargetRequirement> targets,
                               std::string_view forced, const GpuLimits& limits) {
  if (targets.empty()) {
    return Incompatible("the artifact has no code for GPUs; " + Remedy(limits.sm));
  }
  std::string names, lacks;
  for (size_t i = targets.size(); i > 0; --i) {
    const GpuTargetRequirement& target = targets[i - 1];
    names = target.name + (names.empty() ? "" : ", " + names);
    if (!forced.empty() && target.name != forced) continue;
    const std::string lack = Lacks(target, limits);
    if (lack.empty()) return i - 1;
    lacks += (lacks.empty() ? "" : "; ") + target.name + " " + lack;
  }
  if (lacks.empty()) {
    return UsageError("the artifact has no target '" + std::string(forced) + "' for GPUs, only " +
                      names +
                      "; name one of these, or compile the model for more of them with --target");
  }
  return Incompatible("the device can run none of the artifact's targets (" + lacks + "); " +
                      Remedy(limits.sm));
}

uint32_t PtxVersionOfDriver(uint32_t driver_version) {
  uint32_t ptx = 0;
  for (const Release& release : kReleases) {
    if (driver_version >= release.driver) ptx = release.ptx;
  }
  return ptx;
}

uint32_t DriverOfPtxVersion(uint32_t ptx_version) {
  const auto* found = std::find_if(std::begin(kReleases), std::end(kReleases),
                                   [&](const Release& r) { return r.ptx >= ptx_version; });
  return found == std::end(kReleases) ? 0 : found->driver;
}

uint32_t BlockSharedBytes(uint32_t sm) {
  const auto* found = std::find_if(std::begin(kSharedMemory), std::end(kSharedMemory),
                                   [&](const SharedMemory& each) { return each.sm == sm; });
  return found == std::end(kSharedMemory) ? kSharedBytesOfAll : found->bytes;
}

std::optional<uint32_t> ParseSm(std::string_view name) {
  if (!name.starts_with("sm_")) return std::nullopt;
  name.remove_prefix(3);
  uint32_t sm = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), sm);
  const std::string_view rest(end, static_cast<size_t>(name.data() + name.size() - end));
  if (error != std::errc() || sm < 10 || sm > 999 || (!rest.empty() && rest != "a")) {
    return std::nullopt;
  }
  return sm;
}

std::string DriverVersionText(uint32_t driver_version) {
  return std::to_string(driver_version / 1000) + "." + std::to_string(driver_version % 1000 / 10);
}

std::string DottedVersion(uint32_t version) {
  return std::to_string(version / 10) + "." + std::to_string(version % 10);
}

}  // namespace quern
