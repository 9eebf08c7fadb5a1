// What the loader refuses of GPU targets and kernels.
#include <gtest/gtest.h>

#include <functional>

#include "runtime/loader/artifact.h"
#include "tests/runtime/support/fake_ptx.h"

namespace quern {
namespace {

using schema::ManifestT;

Status Check(const testing::FakeModel& model, const std::function<void(ManifestT&)>& mutate = {}) {
  Result<FileBytes> file = FileBytes::FromBytes(testing::Assemble(model, mutate));
  return Artifact::FromBytes(std::move(file).value()).status();
}

testing::FakeModel Model() {
  testing::FakeModel model = testing::MakeFakeModel();
  testing::AddGpuTargets(model);
  return model;
}

schema::GpuKernelCodeT& Code(ManifestT& m, size_t kernel, size_t index = 0) {
  return *m.kernels[kernel]->gpu_codes[index];
}

struct Case {
  const char* name;
  /// The field that the message must name.
  const char* field;
  std::function<void(ManifestT&)> mutate;
};

const Case kCases[] = {
    {"TargetKind", "targets[2].kind",
     [](ManifestT& m) { m.targets[2]->kind = static_cast<schema::TargetKind>(7); }},
    {"TargetOnHostCode", "targets[2].code_segment",
     [](ManifestT& m) { m.targets[2]->code_segment = 1; }},
    {"HostTargetOnPtx", "targets[0].code_segment",
     [](ManifestT& m) { m.targets[0]->code_segment = 3; }},
    {"TargetSm", "targets[2].gpu_sm", [](ManifestT& m) { m.targets[2]->gpu_sm = 0; }},
    {"TargetName", "targets[2].name", [](ManifestT& m) { m.targets[2]->name = "sm_89"; }},
    {"TargetExact", "targets[3].name", [](ManifestT& m) { m.targets[3]->gpu_exact = false; }},
    {"TargetVersion", "targets[2].ptx_version",
     [](ManifestT& m) { m.targets[2]->ptx_version = 8; }},
    {"TargetTileRows", "targets[2].attention_tile_rows",
     [](ManifestT& m) { m.targets[2]->attention_tile_rows = 0; }},
    {"VersionIsNotTheTexts", "targets[2].ptx_version",
     [](ManifestT& m) { m.targets[2]->ptx_version = 83; }},
    {"TargetIsNotTheTexts", "targets[2].name",
     [](ManifestT& m) {
       m.targets[2]->name = "sm_89";
       m.targets[2]->gpu_sm = 89;
     }},
    {"MissingCode", "kernels[2].gpu_codes",
     [](ManifestT& m) { m.kernels[2]->gpu_codes.pop_back(); }},
    {"NoCodes", "kernels[2].gpu_codes", [](ManifestT& m) { m.kernels[2]->gpu_codes.clear(); }},
    {"CodeTwice", "kernels[2].gpu_codes[1]",
     [](ManifestT& m) { Code(m, 2, 1).role = schema::Role::Decode; }},
    {"CodeOfHostTarget", "kernels[2].gpu_codes[0].target",
     [](ManifestT& m) { Code(m, 2).target = 0; }},
    {"HostCodeOfGpuTarget", "kernels[2].codes[0].target",
     [](ManifestT& m) { m.kernels[2]->codes[0].mutate_target(2); }},
    {"CodeTargetBeyond", "kernels[2].gpu_codes[0].target",
     [](ManifestT& m) { Code(m, 2).target = 99; }},
    {"CodeRole", "kernels[2].gpu_codes[0].role",
     [](ManifestT& m) { Code(m, 2).role = static_cast<schema::Role>(5); }},
    {"EntryEmpty", "kernels[0].gpu_codes[0].entry", [](ManifestT& m) { Code(m, 0).entry = ""; }},
    {"EntryStrange", "kernels[0].gpu_codes[0].entry",
     [](ManifestT& m) { Code(m, 0).entry = "a b\n"; }},
    {"EntryUnknown", "kernels (embed).gpu_codes.entry",
     [](ManifestT& m) { Code(m, 0).entry = "nobody"; }},
    {"NoThreads", "kernels[1].gpu_codes[0].block_threads",
     [](ManifestT& m) { Code(m, 1).block_threads = 0; }},
    {"ManyThreads", "kernels[1].gpu_codes[0].block_threads",
     [](ManifestT& m) { Code(m, 1).block_threads = 1025; }},
    {"MuchSharedMemory", "kernels[1].gpu_codes[0].shared_bytes",
     [](ManifestT& m) { Code(m, 1).shared_bytes = 228 * 1024; }},
    {"ManyFactors", "kernels[1].gpu_codes[0].grid",
     [](ManifestT& m) { Code(m, 1).grid.resize(4, {1, schema::GridCount::One}); }},
    {"FactorPerNothing", "kernels[1].gpu_codes[0].grid[0].per",
     [](ManifestT& m) { Code(m, 1).grid[0].mutate_per(0); }},
    {"FactorKind", "kernels[1].gpu_codes[0].grid[1].count",
     [](ManifestT& m) { Code(m, 1).grid[1].mutate_count(static_cast<schema::GridCount>(9)); }},
    {"ColumnsWithoutRanges", "kernels[0].gpu_codes[0].grid[0].count",
     [](ManifestT& m) { Code(m, 0).grid[0].mutate_count(schema::GridCount::Columns); }},
    {"MuchWorkspace", "kernels[1].gpu_codes[0].workspace_bytes_per_row",
     [](ManifestT& m) { Code(m, 1).workspace_bytes_per_row = (1u << 26) + 1; }},
    {"ManyCounters", "kernels[1].gpu_codes[0].counters_per_row",
     [](ManifestT& m) { Code(m, 1).counters_per_row = (1u << 16) + 1; }},
    {"NoCandidates", "samplers[0].candidates", [](ManifestT& m) { m.samplers[0]->candidates = 0; }},
    {"SamplersOutOfOrder", "samplers[1].candidates",
     [](ManifestT& m) { m.samplers[1]->candidates = 1; }},
    {"ManyCandidates", "samplers[1].candidates",
     [](ManifestT& m) { m.samplers[1]->candidates = 257; }},
    {"MoreCandidatesThanTokens", "samplers[1].candidates",
     [](ManifestT& m) {
       m.samplers[1]->candidates = 100;
       m.model->vocab = 99;
     }},
    {"SamplerWithoutATarget", "samplers[0].codes",
     [](ManifestT& m) { m.samplers[0]->codes.pop_back(); }},
    {"SamplerOfHostTarget", "samplers[0].codes[1].target",
     [](ManifestT& m) { m.samplers[0]->codes[1]->target = 0; }},
    {"SamplerTargetTwice", "samplers[0].codes[1].target",
     [](ManifestT& m) { m.samplers[0]->codes[1]->target = 2; }},
    {"SamplerThreads", "samplers[0].codes[0].block_threads",
     [](ManifestT& m) { m.samplers[0]->codes[0]->block_threads = 0; }},
    {"SamplerCountsColumns", "samplers[0].codes[0].grid[0].count",
     [](ManifestT& m) {
       m.samplers[0]->codes[0]->grid[0].mutate_count(schema::GridCount::Columns);
     }},
    {"SamplerEntryUnknown", "samplers[1].codes.entry",
     [](ManifestT& m) { m.samplers[1]->codes[0]->entry = "nobody"; }},
    {"GridOverflows", "bodies[1].instructions[0].kernel",
     [](ManifestT& m) {
       Code(m, 1).grid = {{1, schema::GridCount::One}, {65536, schema::GridCount::One}};
     }},
};

class GpuManifest : public ::testing::TestWithParam<Case> {};

TEST_P(GpuManifest, IsRefusedWithTheField) {
  const Status status = Check(Model(), GetParam().mutate);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.code(), StatusCode::kMalformed) << status.message();
  EXPECT_NE(status.message().find(std::string("manifest.") + GetParam().field), std::string::npos)
      << status.message();
  EXPECT_EQ(status.message().find('\n'), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Cases, GpuManifest, ::testing::ValuesIn(kCases),
                         [](const auto& info) { return info.param.name; });

TEST(GpuArtifact, LoadsAndListsItsTargets) {
  Result<FileBytes> file = FileBytes::FromBytes(testing::Assemble(Model()));
  const auto artifact = Artifact::FromBytes(std::move(file).value(), {.check_weights = true});
  ASSERT_TRUE(artifact.ok()) << artifact.status().message();
  EXPECT_EQ((*artifact)->HostTargets().size(), 2u);
  const auto targets = (*artifact)->GpuTargets();
  ASSERT_EQ(targets.size(), 2u);
  EXPECT_EQ(targets[0].name, "sm_80");
  EXPECT_FALSE(targets[0].exact);
  EXPECT_EQ(targets[1].index, 3u);
  EXPECT_EQ(targets[1].ptx_version, 83u);
  EXPECT_TRUE(targets[1].exact);
}

TEST(GpuArtifact, RefusesADamagedPtxSegment) {
  const testing::FakeModel model = Model();
  std::vector<uint8_t> bytes = testing::Assemble(model);
  const std::string_view all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  bytes[all.find(".visible .entry attend")] ^= 1;
  const Status status =
      Artifact::FromBytes(std::move(FileBytes::FromBytes(bytes)).value()).status();
  EXPECT_EQ(status.code(), StatusCode::kMalformed);
  EXPECT_NE(status.message().find("segment ptx.0 (byte"), std::string::npos) << status.message();
}

TEST(GpuArtifact, CommentsAreNoEntries) {
  for (const char* comment : {"// .entry nobody\n", "/* .visible .entry nobody( */", "/*"}) {
    testing::FakeModel model = Model();
    model.ptx[0] += comment;
    EXPECT_TRUE(Check(model).ok()) << comment;
    const Status status = Check(model, [](ManifestT& m) { Code(m, 0).entry = "nobody"; });
    EXPECT_EQ(status.code(), StatusCode::kMalformed) << comment;
  }
}

TEST(GpuArtifact, RefusesTextThatIsNoPtx) {
  for (const char* text : {"x", ".version", ".version 8.0\n", ".version 80\n.target sm_80",
                           ".target sm_80\n.entry embed_decode"}) {
    testing::FakeModel model = Model();
    model.ptx[0] = text;
    EXPECT_EQ(Check(model).code(), StatusCode::kMalformed) << text;
  }
}

}  // namespace
}  // namespace quern
