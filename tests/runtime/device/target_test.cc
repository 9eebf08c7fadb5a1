#include "runtime/device/host/target.h"

#include <gtest/gtest.h>

namespace quern {
namespace {

const std::vector<TargetRequirement> kTargets = {
    {"avx2", {"avx2", "fma"}},
    {"avx512-vnni", {"avx2", "fma", "avx512f", "avx512vnni"}},
    {"amx", {"avx2", "fma", "avx512f", "avx512vnni", "amx-tile", "amx-int8"}},
};

CpuFeatures Machine(std::vector<std::string_view> names) { return CpuFeatures(names); }

TEST(SelectTarget, TakesTheBestThatTheMachineHas) {
  EXPECT_EQ(*SelectTarget(kTargets, "", Machine({"avx2", "fma"}), false), 0u);
  EXPECT_EQ(*SelectTarget(kTargets, "", Machine({"avx2", "fma", "avx512f", "avx512vnni"}), false),
            1u);
  EXPECT_EQ(*SelectTarget(kTargets, "",
                          Machine({"avx2", "fma", "avx512f", "avx512vnni", "amx-tile", "amx-int8"}),
                          false),
            2u);
}

TEST(SelectTarget, NamesWhatIsMissingWhenNothingRuns) {
  const Result<size_t> none = SelectTarget(kTargets, "", Machine({"avx2"}), false);
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.status().code(), StatusCode::kIncompatible);
  EXPECT_NE(none.status().message().find("avx2 needs fma"), std::string::npos);
  EXPECT_NE(none.status().message().find("avx512-vnni needs fma, avx512f, avx512vnni"),
            std::string::npos);
}

TEST(SelectTarget, ForcedTargetsAreTakenOrRefused) {
  const CpuFeatures vnni = Machine({"avx2", "fma", "avx512f", "avx512vnni"});
  EXPECT_EQ(*SelectTarget(kTargets, "avx2", vnni, false), 0u);

  const Result<size_t> amx = SelectTarget(kTargets, "amx", vnni, false);
  ASSERT_FALSE(amx.ok());
  EXPECT_EQ(amx.status().code(), StatusCode::kIncompatible);
  EXPECT_NE(amx.status().message().find("amx-tile, amx-int8"), std::string::npos);

  const Result<size_t> unknown = SelectTarget(kTargets, "sse2", vnni, false);
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.status().code(), StatusCode::kUsage);
  EXPECT_NE(unknown.status().message().find("only avx2, avx512-vnni, amx"), std::string::npos);
}

TEST(SelectTarget, AnEmulatorStandsInForAmxOnlyAndOnlyWhenForced) {
  const CpuFeatures vnni = Machine({"avx2", "fma", "avx512f", "avx512vnni"});
  EXPECT_EQ(*SelectTarget(kTargets, "amx", vnni, true), 2u);
  EXPECT_EQ(*SelectTarget(kTargets, "", vnni, true), 1u);
  EXPECT_FALSE(SelectTarget(kTargets, "amx", Machine({"avx2", "fma"}), true).ok());
}

TEST(SelectTarget, AFeatureThatTheRuntimeDoesNotKnowIsMissing) {
  const std::vector<TargetRequirement> targets = {{"future", {"avx4096"}}};
  EXPECT_FALSE(CpuFeatures::IsKnown("avx4096"));
  EXPECT_FALSE(SelectTarget(targets, "", CpuFeatures::Host(), false).ok());
}

TEST(CpuFeatures, HostIsConsistent) {
  const CpuFeatures& host = CpuFeatures::Host();
  for (std::string_view name : host.Names()) EXPECT_TRUE(host.Has(name)) << name;
  if (host.Has("avx512vnni")) {
    EXPECT_TRUE(host.Has("avx512f"));
  }
  if (host.Has("avx2")) {
    EXPECT_TRUE(host.Has("avx"));
  }
  EXPECT_GE(UsableCpus(), 1);
}

}  // namespace
}  // namespace quern
