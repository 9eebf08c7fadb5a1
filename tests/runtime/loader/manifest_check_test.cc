// Manifests that FlatBuffers finds sound but that make no sense.
#include <gtest/gtest.h>

#include <functional>

#include "runtime/loader/artifact.h"
#include "runtime/schema/file_header.h"
#include "tests/runtime/support/fake_model.h"

namespace quern {
namespace {

using schema::Access;
using schema::Arg;
using schema::ArgKind;
using schema::ManifestT;

Status Check(const std::function<void(ManifestT&)>& mutate) {
  const testing::FakeModel model = testing::MakeFakeModel();
  Result<FileBytes> file = FileBytes::FromBytes(testing::Assemble(model, mutate));
  return Artifact::FromBytes(std::move(file).value()).status();
}

/// A form of kernel 2 for target 0 in decode, to be broken.
schema::KernelFormT& AddForm(ManifestT& m) {
  m.kernels[2]->forms.push_back(std::make_unique<schema::KernelFormT>());
  m.kernels[2]->forms.back()->generator = "matmul";
  return *m.kernels[2]->forms.back();
}

struct Case {
  const char* name;
  /// The field that the message must name.
  const char* field;
  std::function<void(ManifestT&)> mutate;
};

/// The dispatch of attention, of the fake's layers, and its merge.
constexpr size_t kAttendAt = 3, kMergeAt = 5;

/// The n-th instruction of body 1, the layer: 0 project, 1 append, 2 a join, 3 attend, 4 a join,
/// 5 attend's merge, ...
schema::InstructionT& LayerInstruction(ManifestT& m, size_t n) {
  return *m.bodies[1]->instructions[n];
}

const Case kCases[] = {
    {"NameWithNewline", "model.name", [](ManifestT& m) { m.model->name = "a\nb"; }},
    {"ProducerWithEscape", "producer", [](ManifestT& m) { m.producer = "a\x1b[2J"; }},
    {"LicenceWithC1Control", "model.licence", [](ManifestT& m) { m.model->licence = "\xc2\x9b"; }},
    {"LicenceTooLong", "model.licence",
     [](ManifestT& m) { m.model->licence = std::string((64 << 10) + 1, 'x'); }},
    {"KernelNameWithZero", "kernels[2].name",
     [](ManifestT& m) { m.kernels[2]->name = std::string("a\0b", 3); }},
    {"WeightNameWithNewline", "bodies[1].weights.name",
     [](ManifestT& m) { m.bodies[1]->weights[0]->name = "\n"; }},
    {"FormTargetBeyond", "kernels[2].forms[0].target", [](ManifestT& m) { AddForm(m).target = 2; }},
    {"FormRole", "kernels[2].forms[0].role",
     [](ManifestT& m) { AddForm(m).role = static_cast<schema::Role>(2); }},
    {"FormArithmetic", "kernels[2].forms[0].arithmetic",
     [](ManifestT& m) { AddForm(m).arithmetic = static_cast<schema::Arithmetic>(9); }},
    {"FormTwice", "kernels[2].forms[1]",
     [](ManifestT& m) {
       AddForm(m);
       AddForm(m);
     }},
    {"FormGeneratorWithNewline", "kernels[2].forms[0].generator",
     [](ManifestT& m) { AddForm(m).generator = "a\nb"; }},
    {"NoVocab", "model.vocab", [](ManifestT& m) { m.model->vocab = 0; }},
    {"HugeHidden", "model.hidden", [](ManifestT& m) { m.model->hidden = 1u << 30; }},
    {"LayersDisagree", "layers", [](ManifestT& m) { m.model->layers = 3; }},
    {"NoShares", "shares", [](ManifestT& m) { m.shares = 0; }},
    {"ManyShares", "shares", [](ManifestT& m) { m.shares = 1u << 31; }},
    {"SegmentKind", "segments[0].kind",
     [](ManifestT& m) { m.segments[0]->kind = static_cast<schema::SegmentKind>(9); }},
    {"SegmentUnaligned", "segments[0].offset", [](ManifestT& m) { m.segments[0]->offset += 8; }},
    {"SegmentBeyondFile", "segments[1].offset",
     [](ManifestT& m) { m.segments[1]->offset = uint64_t{1} << 50; }},
    {"SegmentTooLong", "segments[2].size",
     [](ManifestT& m) { m.segments[2]->size = UINT64_MAX - 4095; }},
    {"SegmentsOverlap", "offset",
     [](ManifestT& m) { m.segments[1]->offset = m.segments[0]->offset; }},
    {"TwoWeights", "segments",
     [](ManifestT& m) { m.segments[2]->kind = schema::SegmentKind::Weights; }},
    {"NoTargets", "targets", [](ManifestT& m) { m.targets.clear(); }},
    {"TargetTwice", "targets[1].name", [](ManifestT& m) { m.targets[1]->name = "plain"; }},
    {"CodeSegmentBeyond", "targets[0].code_segment",
     [](ManifestT& m) { m.targets[0]->code_segment = 77; }},
    {"CodeSegmentOfWeights", "targets[0].code_segment",
     [](ManifestT& m) { m.targets[0]->code_segment = 0; }},
    {"MissingCode", "kernels[2].codes", [](ManifestT& m) { m.kernels[2]->codes.pop_back(); }},
    {"CodeTwice", "kernels[2].codes[1]",
     [](ManifestT& m) { m.kernels[2]->codes[1] = m.kernels[2]->codes[0]; }},
    {"CodeOffsetOdd", "kernels[0].codes[0].offset",
     [](ManifestT& m) { m.kernels[0]->codes[0].mutate_offset(4); }},
    {"CodeOffsetBeyond", "kernels[0].codes[0].offset",
     [](ManifestT& m) { m.kernels[0]->codes[0].mutate_offset(1u << 20); }},
    {"CodeTarget", "kernels[0].codes[0].target",
     [](ManifestT& m) { m.kernels[0]->codes[0].mutate_target(2); }},
    {"CodeRole", "kernels[0].codes[0].role",
     [](ManifestT& m) { m.kernels[0]->codes[0].mutate_role(static_cast<schema::Role>(2)); }},
    {"HugeScratch", "kernels[0].codes[0].scratch_bytes",
     [](ManifestT& m) { m.kernels[0]->codes[0].mutate_scratch_bytes(uint64_t{1} << 40); }},
    {"ManyArguments", "kernels[0].argument_count",
     [](ManifestT& m) { m.kernels[0]->argument_count = 1000; }},
    {"BufferBeyondArena", "buffers[3].offset",
     [](ManifestT& m) { m.buffers[3]->offset = 1 << 20; }},
    {"BufferWraps", "buffers[3].offset",
     [](ManifestT& m) { m.buffers[3]->offset = UINT64_MAX - 63; }},
    {"BufferUnaligned", "buffers[1].offset", [](ManifestT& m) { m.buffers[1]->offset += 4; }},
    {"BufferCopies", "buffers[3].copies", [](ManifestT& m) { m.buffers[3]->copies = 2; }},
    {"BufferHugeRow", "buffers[3].bytes_per_row",
     [](ManifestT& m) { m.buffers[3]->bytes_per_row = UINT64_MAX - 3; }},
    {"PrivateCopies", "buffers[3].per_thread",
     [](ManifestT& m) { m.buffers[3]->per_thread = true; }},
    {"PrivateBeyond", "buffers[0].private_offset",
     [](ManifestT& m) { m.buffers[0]->private_offset = 1 << 20; }},
    {"ArenaHuge", "token_bytes_per_row",
     [](ManifestT& m) { m.token_bytes_per_row = uint64_t{1} << 60; }},
    {"KvCount", "kv", [](ManifestT& m) { m.kv.pop_back(); }},
    {"KvPageTokens", "kv[0].page_tokens", [](ManifestT& m) { m.kv[0].mutate_page_tokens(31); }},
    {"KvPageBytes", "kv[1].page_bytes", [](ManifestT& m) { m.kv[1].mutate_page_bytes(64); }},
    {"KvNoHeads", "kv[0]", [](ManifestT& m) { m.kv[0].mutate_kv_heads(0); }},
    {"SlotSizes", "bodies[1].weights[0].sizes",
     [](ManifestT& m) { m.bodies[1]->weights[0]->sizes.pop_back(); }},
    {"SlotSplit", "bodies[1].weights[0].split",
     [](ManifestT& m) { m.bodies[1]->weights[0]->split = static_cast<schema::WeightSplit>(3); }},
    {"Op", "bodies[1].instructions[0].op",
     [](ManifestT& m) { LayerInstruction(m, 0).op = static_cast<schema::Op>(2); }},
    {"JoinWhen", "bodies[0].instructions[1].when",
     [](ManifestT& m) { m.bodies[0]->instructions[1]->when = static_cast<schema::JoinWhen>(7); }},
    {"DispatchKernel", "bodies[1].instructions[0].kernel",
     [](ManifestT& m) { LayerInstruction(m, 0).kernel = 99; }},
    {"DispatchArguments", "bodies[1].instructions[0].args",
     [](ManifestT& m) { LayerInstruction(m, 0).args.pop_back(); }},
    {"RangesMissing", "bodies[1].instructions[0].ranges",
     [](ManifestT& m) { LayerInstruction(m, 0).ranges.pop_back(); }},
    {"RangesOfRows", "bodies[0].instructions[0].ranges",
     [](ManifestT& m) { m.bodies[0]->instructions[0]->ranges = {0, 1}; }},
    {"RangeNegative", "bodies[1].instructions[0].ranges[0]",
     [](ManifestT& m) { LayerInstruction(m, 0).ranges[0] = -1; }},
    {"RangeBackwards", "bodies[1].instructions[0].ranges[0]",
     [](ManifestT& m) { LayerInstruction(m, 0).ranges[1] = -5; }},
    {"RangesOverlap", "bodies[1].instructions[0].ranges[2]",
     [](ManifestT& m) { LayerInstruction(m, 0).ranges[2] = 1; }},
    {"RangeTooFar", "bodies[1].instructions[0].ranges[4]",
     [](ManifestT& m) { LayerInstruction(m, 0).ranges[5] = int64_t{1} << 40; }},
    {"ArgKind", "bodies[1].instructions[0].args[0].kind",
     [](ManifestT& m) {
       LayerInstruction(m, 0).args[0] = Arg(static_cast<ArgKind>(6), Access::Read, 0);
     }},
    {"ArgBuffer", "bodies[1].instructions[0].args[0].index",
     [](ManifestT& m) { LayerInstruction(m, 0).args[0].mutate_index(7); }},
    {"ArgWeight", "bodies[1].instructions[0].args[1].index",
     [](ManifestT& m) { LayerInstruction(m, 0).args[1].mutate_index(5); }},
    {"ArgStep", "bodies[1].instructions[1].args[1].index",
     [](ManifestT& m) { LayerInstruction(m, 1).args[1].mutate_index(8); }},
    {"WritesWeight", "bodies[1].instructions[0].args[1].access",
     [](ManifestT& m) { LayerInstruction(m, 0).args[1].mutate_access(Access::Write); }},
    {"SharesWritePrivate", "bodies[1].instructions[0].args[2].index",
     [](ManifestT& m) { LayerInstruction(m, 0).args[2].mutate_index(0); }},
    {"RowsWriteShared", "bodies[0].instructions[0].args[2].index",
     [](ManifestT& m) { m.bodies[0]->instructions[0]->args[2].mutate_index(1); }},
    {"MergeOfAnotherDispatch", "bodies[1].instructions[1].merge",
     [](ManifestT& m) { LayerInstruction(m, 1).merge = true; }},
    {"MergeOfNothing", "bodies[1].instructions[0].merge",
     [](ManifestT& m) { LayerInstruction(m, 0).merge = true; }},
    {"MergeWithOtherArguments", "bodies[1].instructions[5].merge",
     [](ManifestT& m) { LayerInstruction(m, 5).args[0].mutate_index(0); }},
    {"MergeWithOtherRanges", "bodies[1].instructions[5].merge",
     [](ManifestT& m) { LayerInstruction(m, 5).ranges[1] -= 1; }},
    {"MergeOfRows", "bodies[0].instructions[0].merge",
     [](ManifestT& m) { m.bodies[0]->instructions[0]->merge = true; }},
    {"MergeOfOtherSplit", "bodies[1].instructions[5].merge",
     [](ManifestT& m) {
       for (size_t at : {kAttendAt, kMergeAt}) {
         LayerInstruction(m, at).args[4].mutate_access(Access::Read);
       }
       LayerInstruction(m, kAttendAt).split = schema::Split::Rows;
       LayerInstruction(m, kAttendAt).ranges.clear();
     }},
    {"MergeOfOtherRows", "bodies[1].instructions[5].merge",
     [](ManifestT& m) {
       for (size_t at : {kAttendAt, kMergeAt}) {
         LayerInstruction(m, at).args[4].mutate_access(Access::Read);
       }
       LayerInstruction(m, kAttendAt).row_class = schema::RowClass::Logits;
     }},
    {"MergeWithoutRanges", "bodies[1].instructions[5].ranges",
     [](ManifestT& m) { LayerInstruction(m, kMergeAt).ranges.clear(); }},
    {"MergeWithoutArgs", "bodies[1].instructions[5].merge",
     [](ManifestT& m) {
       m.kernels[testing::kAttend]->argument_count = 0;
       for (size_t at : {kAttendAt, kMergeAt}) LayerInstruction(m, at).args.clear();
     }},
    {"MergeWithoutStates", "bodies[1].instructions[5].merge",
     [](ManifestT& m) {
       m.kernels[testing::kAttend]->argument_count = 5;
       for (size_t at : {kAttendAt, kMergeAt}) LayerInstruction(m, at).args.pop_back();
     }},
    {"MergeWithoutJoin", "bodies[1].instructions[4].merge",
     [](ManifestT& m) {
       auto& instructions = m.bodies[1]->instructions;
       instructions.erase(instructions.begin() + kMergeAt - 1);
     }},
    {"MergeBehindJoinOfRows", "bodies[1].instructions[5].merge",
     [](ManifestT& m) { LayerInstruction(m, kMergeAt - 1).when = schema::JoinWhen::Rows; }},
    {"PartialOfWhole", "bodies[1].instructions[6].args[2].kind",
     [](ManifestT& m) { LayerInstruction(m, 6).args[2].mutate_index(1); }},
    {"PrologueBody", "prologue.body", [](ManifestT& m) { m.prologue->body = 3; }},
    {"PrologueWithKv", "prologue",
     [](ManifestT& m) {
       m.prologue->body = 1;
       m.prologue->weight_offsets = m.layers[0]->weight_offsets;
     }},
    {"LayerWithLogits", "layers[1]",
     [](ManifestT& m) {
       m.layers[1]->body = 2;
       m.layers[1]->weight_offsets = m.epilogue->weight_offsets;
     }},
    {"WeightOffsetCount", "layers[0].weight_offsets",
     [](ManifestT& m) { m.layers[0]->weight_offsets.pop_back(); }},
    {"WeightOffsetUnaligned", "layers[0].weight_offsets[4]",
     [](ManifestT& m) { m.layers[0]->weight_offsets[4] += 4; }},
    {"WeightOffsetWraps", "epilogue.weight_offsets[0]",
     [](ManifestT& m) { m.epilogue->weight_offsets[0] = UINT64_MAX - 63; }},
};

class ManifestCheck : public ::testing::TestWithParam<Case> {};

TEST_P(ManifestCheck, IsRefusedByName) {
  const Status status = Check(GetParam().mutate);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.code(), StatusCode::kMalformed) << status.message();
  EXPECT_NE(status.message().find(GetParam().field), std::string::npos) << status.message();
  EXPECT_NE(status.message().find("(byte "), std::string::npos) << status.message();
  EXPECT_NE(status.message().find("wanted"), std::string::npos) << status.message();
}

INSTANTIATE_TEST_SUITE_P(All, ManifestCheck, ::testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(ManifestVersion, AnotherOneIsIncompatible) {
  const Status status = Check([](ManifestT& m) { m.version = kManifestVersion + 1; });
  EXPECT_EQ(status.code(), StatusCode::kIncompatible);
}

TEST(ManifestCheckTest, AMergeOfAttentionWithoutRangesIsSound) {
  const Status status = Check([](ManifestT& m) {
    m.kernels[testing::kAttend]->range_count = 0;
    for (size_t at : {kAttendAt, kMergeAt}) LayerInstruction(m, at).ranges.clear();
  });
  EXPECT_TRUE(status.ok()) << status.message();
}

TEST(ManifestCheckTest, TheFakeItselfIsSound) {
  for (uint32_t shares : {1u, 2u, 3u, 5u, 8u}) {
    const testing::FakeModel model = testing::MakeFakeModel(shares);
    Result<FileBytes> file = FileBytes::FromBytes(testing::Assemble(model));
    const auto artifact = Artifact::FromBytes(std::move(file).value());
    EXPECT_TRUE(artifact.ok()) << artifact.status().message();
  }
}

}  // namespace
}  // namespace quern
