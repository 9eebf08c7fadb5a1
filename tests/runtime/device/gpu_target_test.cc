// Which target of an artifact a GPU runs, and what it says otherwise.
#include "runtime/device/gpu_target.h"

#include <gtest/gtest.h>

namespace quern {
namespace {

const std::vector<GpuTargetRequirement> kTargets = {{"sm_80", 80, false, 80, 3},
                                                    {"sm_89", 89, false, 84, 4},
                                                    {"sm_90a", 90, true, 83, 5},
                                                    {"sm_100a", 100, true, 88, 6}};

GpuLimits Device(uint32_t sm, uint32_t driver) {
  GpuLimits limits;
  limits.sm = sm;
  limits.driver_version = driver;
  limits.ptx_version = PtxVersionOfDriver(driver);
  return limits;
}

void ExpectIncompatible(const Result<size_t>& result, const std::vector<const char*>& words) {
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), StatusCode::kIncompatible);
  for (const char* word : words) {
    EXPECT_NE(result.status().message().find(word), std::string::npos)
        << word << " is not in: " << result.status().message();
  }
}

TEST(SelectGpuTarget, TakesTheBestThatRuns) {
  EXPECT_EQ(*SelectGpuTarget(kTargets, "", Device(80, 12080)), 0u);
  EXPECT_EQ(*SelectGpuTarget(kTargets, "", Device(86, 12080)), 0u);
  EXPECT_EQ(*SelectGpuTarget(kTargets, "", Device(89, 12080)), 1u);
  EXPECT_EQ(*SelectGpuTarget(kTargets, "", Device(90, 12080)), 2u);
  EXPECT_EQ(*SelectGpuTarget(kTargets, "", Device(100, 13000)), 3u);
  // sm_90a and sm_100a run nowhere else; sm_89 is compatible upwards.
  EXPECT_EQ(*SelectGpuTarget(kTargets, "", Device(120, 13000)), 1u);
}

TEST(SelectGpuTarget, AnOldDriverTakesAnOlderTarget) {
  EXPECT_EQ(*SelectGpuTarget(kTargets, "", Device(90, 12040)), 2u);
  EXPECT_EQ(*SelectGpuTarget(kTargets, "", Device(90, 12020)), 0u);
}

TEST(SelectGpuTarget, SaysWhatIsMissing) {
  ExpectIncompatible(
      SelectGpuTarget(kTargets, "", Device(75, 12080)),
      {"7.5", "sm_80 needs compute capability 8.0", "; use the CPU with --device=cpu"});
  ExpectIncompatible(
      SelectGpuTarget(kTargets, "", Device(80, 11080)),
      {"needs PTX 8.0", "CUDA 11.8", "reads up to 7.8", "update the NVIDIA driver", "CUDA 12.0"});
  ExpectIncompatible(SelectGpuTarget({}, "", Device(90, 12080)),
                     {"no code for GPUs", "--target=sm_90a, or"});
  ExpectIncompatible(SelectGpuTarget({}, "", Device(103, 13000)), {"--target=sm_89, or"});
}

TEST(SelectGpuTarget, ForcedTargetsAreTakenOrRefused) {
  EXPECT_EQ(*SelectGpuTarget(kTargets, "sm_80", Device(90, 12080)), 0u);
  ExpectIncompatible(SelectGpuTarget(kTargets, "sm_90a", Device(89, 12080)),
                     {"sm_90a needs compute capability 9.0 exactly"});
  const Result<size_t> unknown = SelectGpuTarget(kTargets, "sm_70", Device(90, 12080));
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.status().code(), StatusCode::kUsage);
}

TEST(GpuFacts, DriversAndTheirPtx) {
  EXPECT_EQ(PtxVersionOfDriver(10020), 0u);
  EXPECT_EQ(PtxVersionOfDriver(12040), 84u);
  EXPECT_EQ(PtxVersionOfDriver(12060), 85u);
  EXPECT_EQ(PtxVersionOfDriver(99000), PtxVersionOfDriver(13000));
  EXPECT_EQ(DriverOfPtxVersion(83), 12030u);
  EXPECT_EQ(DriverOfPtxVersion(79), 12000u);
  EXPECT_EQ(DriverOfPtxVersion(999), 0u);
}

TEST(GpuFacts, NamesOfTargets) {
  EXPECT_EQ(ParseSm("sm_80"), 80u);
  EXPECT_EQ(ParseSm("sm_100a"), 100u);
  for (const char* name :
       {"", "sm_", "sm_a", "sm_9", "sm_90b", "sm_90aa", "sm_-90", "sm_1000", "80", "compute_80"}) {
    EXPECT_FALSE(ParseSm(name).has_value()) << name;
  }
}

}  // namespace
}  // namespace quern
