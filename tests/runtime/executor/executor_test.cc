// How the executor calls kernels: seen through kernels that write down their calls.
#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "runtime/executor/host_executor.h"
#include "runtime/schema/file_header.h"
#include "tests/runtime/support/fake_model.h"

namespace quern {
namespace {

using schema::Role;
using testing::FakeKernel;

struct Seen {
  FakeKernel kernel;
  Role role;
  std::thread::id thread;
  std::vector<void*> args;
  int64_t dims[kDimCount];
  std::vector<int64_t> ranges;
};

std::mutex g_mutex;
std::vector<Seen> g_seen;
const schema::ManifestT* g_manifest = nullptr;

template <int kKernel, int kRole>
void Record(void* const* args, const int64_t* dims, const int64_t* ranges) {
  Seen seen{static_cast<FakeKernel>(kKernel),
            static_cast<Role>(kRole),
            std::this_thread::get_id(),
            {},
            {},
            {}};
  const schema::KernelT& kernel = *g_manifest->kernels[kKernel];
  seen.args.assign(args, args + kernel.argument_count + 1);
  std::copy(dims, dims + kDimCount, seen.dims);
  seen.ranges.assign(ranges, ranges + 2 * std::max(1u, kernel.range_count));
  const std::lock_guard<std::mutex> lock(g_mutex);
  g_seen.push_back(std::move(seen));
}

template <int... kKernels>
KernelTable RecordingTable(std::integer_sequence<int, kKernels...>) {
  KernelTable table;
  (table.kernels.push_back({{Record<kKernels, 0>, Record<kKernels, 1>}}), ...);
  table.scratch_bytes = 100;
  return table;
}

/// Runs one step of the fake program with recording kernels.
class ExecutorCalls : public ::testing::Test {
 protected:
  void Start(uint32_t shares, int threads, int64_t max_rows = 64) {
    model_ = testing::MakeFakeModel(shares);
    Open(threads, max_rows);
  }

  /// The executor of model_.
  void Open(int threads, int64_t max_rows) {
    g_manifest = &model_.manifest;
    flatbuffers::FlatBufferBuilder builder;
    schema::FinishManifestBuffer(builder, schema::Manifest::Pack(builder, &model_.manifest));
    Program program = Program::Build(*schema::GetManifest(builder.GetBufferPointer()));
    auto executor = HostExecutor::Create(
        std::move(program), RecordingTable(std::make_integer_sequence<int, testing::kKernels>()),
        model_.weights, {.threads = threads, .patience = -1, .max_rows = max_rows, .kv_pages = 8});
    ASSERT_TRUE(executor.ok()) << executor.status().message();
    executor_ = std::move(executor).value();
  }

  void Step(int32_t rows, std::vector<int32_t> logit_rows, Role role = Role::Prefill) {
    std::vector<int32_t> tokens(static_cast<size_t>(rows), 1), slots, sequences(tokens.size(), 0);
    for (int32_t row = 0; row < rows; ++row) slots.push_back(row);
    const std::vector<int32_t> pages = {3, 1};
    const std::span<const int32_t> tables[] = {pages};
    logits_.resize(logit_rows.size() * testing::kVocab);
    g_seen.clear();
    const Status status = executor_->Step({.role = role,
                                           .tokens = tokens,
                                           .positions = slots,
                                           .slots = slots,
                                           .sequences = sequences,
                                           .page_tables = tables,
                                           .logit_rows = logit_rows,
                                           .logits = logits_.data()});
    ASSERT_TRUE(status.ok()) << status.message();
  }

  static std::vector<Seen> Calls(FakeKernel kernel) {
    std::vector<Seen> calls;
    for (const Seen& seen : g_seen) {
      if (seen.kernel == kernel) calls.push_back(seen);
    }
    return calls;
  }

  testing::FakeModel model_;
  std::unique_ptr<Executor> executor_;
  std::vector<float> logits_;
};

TEST_F(ExecutorCalls, LargeStepsCutRowsInFours) {
  for (int threads : {1, 2, 3}) {
    Start(3, threads);
    for (int32_t rows : {5, 8, 17, 31, 64}) {
      Step(rows, {rows - 1});
      std::set<int64_t> covered;
      for (const Seen& call : Calls(testing::kEmbed)) {
        EXPECT_EQ(call.ranges[0] % kRowSplitUnit, 0);
        EXPECT_EQ(call.dims[kDimRows], rows);
        for (int64_t row = call.ranges[0]; row < call.ranges[1]; ++row) {
          EXPECT_TRUE(covered.insert(row).second) << "row computed twice";
        }
      }
      EXPECT_EQ(static_cast<int32_t>(covered.size()), rows);
      EXPECT_EQ(*covered.rbegin(), rows - 1);
    }
  }
}

TEST(ProgramTest, OnlyTheDispatchBeforeAMergeTakesParts) {
  testing::FakeModel model = testing::MakeFakeModel(2);
  // Attention twice, of which the second is merged.
  auto& instructions = model.manifest.bodies[1]->instructions;
  const auto attend = std::find_if(instructions.begin(), instructions.end(), [](const auto& i) {
    return i->op == schema::Op::Dispatch && i->kernel == testing::kAttend;
  });
  instructions.insert(attend, std::make_unique<schema::InstructionT>(**attend));
  flatbuffers::FlatBufferBuilder builder;
  schema::FinishManifestBuffer(builder, schema::Manifest::Pack(builder, &model.manifest));
  Program program = Program::Build(*schema::GetManifest(builder.GetBufferPointer()));
  std::vector<bool> takes_parts;
  for (const Instruction& instruction : program.bodies[1]) {
    if (instruction.attention < 0) continue;
    takes_parts.push_back(
        program.attention[static_cast<size_t>(instruction.attention)].takes_parts);
  }
  EXPECT_EQ(takes_parts, (std::vector<bool>{false, true, true}));
  EXPECT_GT(program.state_bytes, 0u);
  program.KeepContextsWhole();
  EXPECT_EQ(program.state_bytes, 0u);
}

TEST_F(ExecutorCalls, SmallStepsRepeatRowsInEveryThreadsOwnMemory) {
  Start(3, 3);
  for (int32_t rows : {1, 4}) {
    Step(rows, {0}, Role::Decode);
    const std::vector<Seen> calls = Calls(testing::kEmbed);
    ASSERT_EQ(calls.size(), 3u);
    std::set<void*> outputs;
    for (const Seen& call : calls) {
      EXPECT_EQ(call.ranges, (std::vector<int64_t>{0, rows}));
      outputs.insert(call.args[2]);
    }
    EXPECT_EQ(outputs.size(), 3u);
    // The shares' dispatches of a thread read the copy that the thread made.
    for (const Seen& project : Calls(testing::kProject)) {
      for (const Seen& embed : calls) {
        if (embed.thread == project.thread) {
          EXPECT_EQ(project.args[0], embed.args[2]);
        }
      }
    }
  }
  Step(5, {0}, Role::Decode);
  std::set<void*> outputs;
  for (const Seen& call : Calls(testing::kEmbed)) outputs.insert(call.args[2]);
  EXPECT_EQ(outputs.size(), 1u);
}

TEST_F(ExecutorCalls, EveryShareRunsOnceInRunsOfOneThread) {
  for (int threads : {1, 2, 4, 9}) {
    Start(5, threads);
    EXPECT_EQ(executor_->threads(), std::min(threads, 5));
    Step(6, {});
    std::map<int64_t, std::thread::id> owners;  // by begin of the share's range
    for (const Seen& call : Calls(testing::kAttend)) owners[call.ranges[0]] = call.thread;
    EXPECT_EQ(Calls(testing::kAttend).size(), 5u * testing::kLayers);
    ASSERT_EQ(owners.size(), 5u);
    int runs = 1;
    for (auto it = std::next(owners.begin()); it != owners.end(); ++it) {
      runs += it->second != std::prev(it)->second;
    }
    EXPECT_EQ(runs, executor_->threads());
    for (const Seen& call : Calls(testing::kProject)) {
      EXPECT_EQ(call.thread, owners[call.ranges[0]]) << "a share changed its thread";
    }
  }
}

TEST_F(ExecutorCalls, WritersOfPartialResultsGetTheirCopyAndReadersTheFirst) {
  Start(3, 1);
  Step(7, {});
  const std::vector<Seen> writers = Calls(testing::kReduceInto);
  ASSERT_EQ(writers.size(), 3u * 2 * testing::kLayers);
  const auto* first = static_cast<const char*>(writers[0].args[2]);
  for (size_t share = 0; share < 3; ++share) {
    EXPECT_EQ(static_cast<const char*>(writers[share].args[2]) - first,
              static_cast<std::ptrdiff_t>(share * 7 * testing::kHidden * 4));
  }
  EXPECT_EQ(Calls(testing::kAdd)[0].args[1], first);
}

TEST_F(ExecutorCalls, KernelsGetTheirWeightsPoolsAndDims) {
  Start(3, 2);
  Step(40, {3, 39});
  for (const Seen& call : Calls(testing::kAppend)) {
    EXPECT_EQ(call.dims[kDimRows], 40);
    EXPECT_EQ(call.dims[kDimAttentionTiles], 0);
    EXPECT_EQ(call.dims[kDimPageTableStride], 2);
    EXPECT_EQ(call.dims[kDimPageBytes], executor_->kv().page_bytes(0));
  }
  std::set<void*> pools;
  for (const Seen& call : Calls(testing::kAttend)) pools.insert(call.args[3]);
  EXPECT_EQ(pools.size(), static_cast<size_t>(testing::kLayers));
  std::set<void*> weights;
  for (const Seen& call : Calls(testing::kProject)) weights.insert(call.args[1]);
  EXPECT_EQ(weights.size(), 3u * 2 * testing::kLayers);

  const std::vector<Seen> heads = Calls(testing::kHead);
  ASSERT_EQ(heads.size(), 3u);
  for (const Seen& call : heads) {
    EXPECT_EQ(call.dims[kDimRows], 2);
    EXPECT_EQ(call.dims[kDimPageBytes], 0);
    EXPECT_EQ(call.args[3], logits_.data());
  }
}

TEST_F(ExecutorCalls, ScratchIsAlignedAndEachThreadsOwn) {
  Start(3, 3);
  Step(9, {0});
  std::map<std::thread::id, std::set<void*>> scratch;
  for (const Seen& seen : g_seen) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(seen.args.back()) % kBufferAlignment, 0u);
    scratch[seen.thread].insert(seen.args.back());
  }
  std::set<void*> all;
  for (const auto& [thread, pointers] : scratch) {
    EXPECT_EQ(pointers.size(), 1u);
    all.insert(pointers.begin(), pointers.end());
  }
  EXPECT_EQ(all.size(), scratch.size());
}

TEST_F(ExecutorCalls, TheRoleChoosesTheKernel) {
  Start(2, 1);
  for (Role role : {Role::Decode, Role::Prefill}) {
    Step(2, {1}, role);
    for (const Seen& seen : g_seen) EXPECT_EQ(seen.role, role);
  }
}

TEST_F(ExecutorCalls, WithoutLogitRowsTheEpilogueIsSkipped) {
  Start(2, 2);
  Step(6, {});
  EXPECT_TRUE(Calls(testing::kSelect).empty());
  EXPECT_TRUE(Calls(testing::kHead).empty());
  EXPECT_FALSE(Calls(testing::kAdd).empty());
}

TEST_F(ExecutorCalls, ABadStepCallsNothing) {
  Start(2, 2);
  g_seen.clear();
  EXPECT_EQ(executor_->Step({}).code(), StatusCode::kUsage);
  EXPECT_TRUE(g_seen.empty());
}

TEST_F(ExecutorCalls, ProfileCountsCallsOfTheCallingThread) {
  Start(3, 1);
  Step(5, {0});
  executor_->SetProfiling(true);
  Step(5, {0});
  Step(1, {0}, Role::Decode);
  const Profile& profile = executor_->profile();
  EXPECT_EQ(profile.steps.calls, 2u);
  EXPECT_EQ(profile.kernels[testing::kEmbed][static_cast<size_t>(Role::Prefill)].calls, 1u);
  EXPECT_EQ(profile.kernels[testing::kAttend][static_cast<size_t>(Role::Decode)].calls,
            static_cast<uint64_t>(testing::kLayers));
  // Joins of a layer: 6 in a large step, 2 in a small one; and one each around the layers.
  EXPECT_EQ(profile.joins.calls, static_cast<uint64_t>(testing::kLayers * 6 + 2) +
                                     static_cast<uint64_t>(testing::kLayers * 2));
  executor_->SetProfiling(false);
  Step(1, {0});
  EXPECT_EQ(executor_->profile().steps.calls, 2u);
}

TEST_F(ExecutorCalls, ProfileCountsWhatKernelsMoveAndCompute) {
  Start(3, 2);
  executor_->SetProfiling(true);
  Step(2, {0});
  Step(5, {4});
  const Profile& profile = executor_->profile();
  const auto expect = [&](FakeKernel kernel, uint64_t dispatches, double bytes, double flops) {
    const ProfileWork& work = profile.work[kernel];
    EXPECT_EQ(work.dispatches, dispatches) << kernel;
    EXPECT_EQ(work.bytes, bytes) << kernel;
    EXPECT_EQ(work.flops, flops) << kernel;
  };
  // Rows of 8 floats in and out; the table is looked up, so its size does not count.
  expect(testing::kEmbed, 1, 5 * (64 + 4), 0);
  // Twice a layer, each time a weight of 8 x 8 floats.
  expect(testing::kProject, 4, 4 * (256 + 5 * 64), 4 * 5 * 128);
  // 5 keys of 64 bytes; 1 + 2 + 3 + 4 + 5 pairs.
  expect(testing::kAttend, 2, 2 * (5 * 64 + 5 * 64), 2 * 15 * 32);
  // Nothing is said of its work but that it reads a weight.
  expect(testing::kHead, 1, testing::kVocab * (testing::kHidden + 1) * 4, 0);
  Step(5, {});
  EXPECT_EQ(profile.work[testing::kHead].dispatches, 0u);
  EXPECT_EQ(executor_->last_rows(), (std::array<int64_t, 2>{5, 0}));
}

/// Beside 16-bit keys and values lie 12 bytes of scales for each token and KV head.
TEST_F(ExecutorCalls, ProfileCountsTheScalesOfHostPages) {
  model_ = testing::MakeFakeModel(3);
  auto& kernels = model_.manifest.kernels;
  kernels[testing::kAppend]->work = std::make_unique<schema::KernelWorkT>();
  kernels[testing::kAppend]->work->bytes_per_row = 50;
  const auto moved = [&](FakeKernel kernel) {
    executor_->SetProfiling(true);
    Step(5, {4});
    return executor_->profile().work[kernel].bytes;
  };
  Open(2, 64);
  const double append = moved(testing::kAppend), attend = moved(testing::kAttend);
  EXPECT_EQ(append, testing::kLayers * 5 * 50);
  for (schema::KvLayer& layer : model_.manifest.kv) {
    layer = {layer.page_bytes() / 2, layer.kv_heads(), layer.head_dim(), layer.page_tokens(),
             schema::KvElement::F16};
  }
  Open(2, 64);
  const double scales = testing::kLayers * 5 * 12 * testing::kHidden;
  EXPECT_EQ(moved(testing::kAppend), append + scales);
  EXPECT_EQ(moved(testing::kAttend), attend + scales);
}

TEST_F(ExecutorCalls, TimelineHasEveryThreadsDispatchesInOrder) {
  Start(3, 2);
  executor_->SetProfiling(true);
  Step(40, {0});
  g_seen.clear();
  Step(2, {0}, Role::Decode);
  const Profile& profile = executor_->profile();
  ASSERT_EQ(profile.timeline.size(), 2u);
  for (const std::vector<ProfileSpan>& thread : profile.timeline) {
    ASSERT_FALSE(thread.empty());
    EXPECT_EQ(thread.front().kernel, testing::kEmbed);
    EXPECT_EQ(thread.front().layer, -1);
    EXPECT_EQ(thread.back().layer, testing::kLayers);
    int joins = 0;
    uint64_t now = 0;
    int32_t layer = -1;
    for (const ProfileSpan& span : thread) {
      EXPECT_LE(now, span.begin);
      EXPECT_LE(span.begin, span.end);
      EXPECT_LE(layer, span.layer);
      joins += span.kernel == ProfileSpan::kJoin;
      now = span.end;
      layer = span.layer;
    }
    EXPECT_EQ(joins, testing::kLayers * 2);
  }
}

}  // namespace
}  // namespace quern
