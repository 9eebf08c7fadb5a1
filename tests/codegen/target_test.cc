// The table of targets: what passes, generators and loaders take for granted.
#include "codegen/target/Target.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>

namespace quern {
namespace {

TEST(Target, NamesAreFoundAndUnknownOnesListTheKnown) {
  for (const Target& target : targets()) EXPECT_EQ(findTarget(target.name), &target);
  EXPECT_EQ(findTarget("AVX2"), nullptr);
  std::string error;
  EXPECT_EQ(resolveTarget("neon", error), nullptr);
  EXPECT_EQ(error,
            "unknown target 'neon' (known: host, avx2, avx512-vnni, amx, sm_80, sm_89, sm_90a, "
            "sm_100a, sm_120a)");
}

// The runtime takes the last target that a machine can run, so each must demand all that the one
// before demands.
TEST(Target, FeaturesGrow) {
  for (size_t i = 1; i < targets().size(); ++i) {
    auto before = targets()[i - 1].features, after = targets()[i].features;
    ASSERT_GT(after.size(), before.size());
    for (size_t j = 0; j < before.size(); ++j) EXPECT_EQ(before[j].name, after[j].name);
  }
}

TEST(Target, CodeMayUseWhatLoadingDemandsAndNothingElse) {
  EXPECT_EQ(findTarget("avx2")->llvmFeatures(),
            "+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+movbe,-prefer-256-bit,"
            "+fast-dpwssd");
  for (const Target& target : targets()) {
    EXPECT_EQ(target.llvmFeatures().find("fp16"), std::string::npos);
    EXPECT_EQ(target.llvmFeatures().find("avx512") != std::string::npos, target.vectorBits == 512);
    EXPECT_EQ(target.llvmFeatures().find("avx512vnni") != std::string::npos, target.hasVnni);
    EXPECT_EQ(target.llvmFeatures().find("amx-int8") != std::string::npos, target.hasAmx);
  }
}

TEST(Target, NumericsFollowTheRole) {
  for (const Target& target : targets()) {
    EXPECT_EQ(target.numericsFor(Role::Decode), Numerics::Int8);
    EXPECT_EQ(target.numericsFor(Role::Prefill), target.hasAmx ? Numerics::Bf16 : Numerics::Int8);
    EXPECT_EQ(target.numericsFor(Role::Prefill, /*precise=*/true), Numerics::Float);
  }
}

TEST(Target, DefaultTilesAreUsable) {
  for (const Target& target : targets()) {
    for (Role role : {Role::Decode, Role::Prefill}) {
      for (int family = 0; family < kKernelFamilyCount; ++family) {
        const Tile& tile = target.tileFor(role, static_cast<KernelFamily>(family));
        EXPECT_GE(tile.rows, 1);
        EXPECT_GE(tile.blocks, 1);
        EXPECT_EQ(32 % tile.keys, 0) << "a step of keys stays in its page";
        EXPECT_GE(tile.prefetch, 0);
      }
    }
  }
  EXPECT_EQ(tileKey(*findTarget("amx"), Role::Prefill), "amx/prefill");
}

TEST(Target, GpusStandApartAndNameTheirPtx) {
  for (const Target& target : targets()) EXPECT_FALSE(target.isGpu());
  int before = 0;
  for (const Target& target : gpuTargets()) {
    EXPECT_TRUE(target.isGpu());
    EXPECT_EQ(findTarget(target.name), &target);
    EXPECT_GT(target.gpu.sm, before);
    before = target.gpu.sm;
    EXPECT_EQ(target.name.back() == 'a', target.gpu.exact);
    EXPECT_GE(target.gpu.sharedBytes, 99 * 1024);
    EXPECT_EQ(target.numericsFor(Role::Decode), Numerics::F16);
    EXPECT_EQ(target.numericsFor(Role::Prefill), Numerics::F16);
  }
  EXPECT_EQ(findTarget("sm_90a")->llvmFeatures(), "+ptx84");
}

// The kernel's list of features is another witness than LLVM's.
TEST(Target, HostIsWhatTheSystemSays) {
  std::ifstream info("/proc/cpuinfo");
  std::set<std::string> flags;
  for (std::string line; flags.empty() && std::getline(info, line);) {
    if (line.rfind("flags", 0) != 0) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    for (std::string word; words >> word;) flags.insert(word);
  }
  if (flags.empty()) GTEST_SKIP() << "no /proc/cpuinfo";
  const Target* best = nullptr;
  for (const Target& target : targets())
    if (std::all_of(target.features.begin(), target.features.end(), [&](const CpuFeature& feature) {
          return flags.count(std::string(feature.name)) > 0;
        }))
      best = &target;
  EXPECT_EQ(hostTarget(), best);
}

}  // namespace
}  // namespace quern
