// Sessions on GPUs, on the fake model's PTX kernels: the emulator, and CUDA over the fake driver,
// which ctest puts in the place of libcuda.so.1. Every result has the bits of the reference.
#include "runtime/executor/gpu_executor.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "runtime/device/open_gpu.h"
#include "runtime/device/ptx_emulator_device.h"
#include "runtime/llm/session.h"
#include "runtime/schema/kernel_abi.h"
#include "tests/runtime/support/fake_ptx.h"
#include "tests/runtime/support/loaded_model.h"

namespace quern {
namespace {

using schema::ManifestT;
using schema::Role;
using testing::kRow;
using testing::kVocab;
using testing::LastRow;
using testing::SameBits;

/// Sets a variable of the environment for its scope.
class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) {
    setenv(name, value.c_str(), 1);
  }
  ~Variable() { unsetenv(name_); }

 private:
  const char* name_;
};

testing::FakeModel WithGpuTargets(uint32_t shares,
                                  const std::function<void(testing::FakeModel&)>& change) {
  testing::FakeModel made = testing::MakeFakeModel(shares);
  testing::AddGpuTargets(made);
  if (change) change(made);
  return made;
}

struct Fake : testing::LoadedModel {
  explicit Fake(uint32_t shares = 3, const std::function<void(testing::FakeModel&)>& change = {},
                const std::function<void(ManifestT&)>& mutate = {})
      : LoadedModel(WithGpuTargets(shares, change), mutate) {}

  std::unique_ptr<Session> NewSession(const SessionOptions& options) const {
    auto session = Session::Create(model, options);
    EXPECT_TRUE(session.ok()) << session.status().message();
    return std::move(session).value();
  }
};

void ExpectRefused(const Status& status, StatusCode code, const std::vector<std::string>& words) {
  EXPECT_EQ(status.code(), code) << status.message();
  for (const std::string& word : words) {
    EXPECT_NE(status.message().find(word), std::string::npos)
        << word << " is not in: " << status.message();
  }
  EXPECT_EQ(status.message().find('\n'), std::string::npos);
}

/// A device that counts the bytes which are copied back.
class CountingDevice final : public GpuDevice {
 public:
  CountingDevice(std::unique_ptr<GpuDevice> device, uint64_t& downloaded)
      : device_(std::move(device)), downloaded_(downloaded) {}
  std::string name() const override { return device_->name(); }
  std::string description() const override { return device_->description(); }
  const GpuLimits& limits() const override { return device_->limits(); }
  Result<uint64_t> FreeMemory() override { return device_->FreeMemory(); }
  Result<DeviceAddress> Allocate(uint64_t bytes) override { return device_->Allocate(bytes); }
  Status Free(DeviceAddress address) override { return device_->Free(address); }
  Status Upload(DeviceAddress to, const void* from, uint64_t bytes) override {
    return device_->Upload(to, from, bytes);
  }
  Status Download(void* to, DeviceAddress from, uint64_t bytes) override {
    downloaded_ += bytes;
    return device_->Download(to, from, bytes);
  }
  Status Copy(DeviceAddress to, DeviceAddress from, uint64_t bytes) override {
    return device_->Copy(to, from, bytes);
  }
  Status Fill(DeviceAddress to, uint8_t value, uint64_t bytes) override {
    return device_->Fill(to, value, bytes);
  }
  Result<GpuModule> LoadModule(std::string_view ptx) override { return device_->LoadModule(ptx); }
  Status UnloadModule(GpuModule module) override { return device_->UnloadModule(module); }
  Result<GpuKernel> FindKernel(GpuModule module, const std::string& name, uint32_t threads,
                               uint32_t shared) override {
    return device_->FindKernel(module, name, threads, shared);
  }
  Status Launch(const GpuLaunch& launch) override { return device_->Launch(launch); }
  Result<std::unique_ptr<GpuGraph>> Record(std::span<const GpuLaunch> launches) override {
    return device_->Record(launches);
  }
  Status LaunchTimed(std::span<const GpuLaunch> launches, std::span<uint64_t> times) override {
    return device_->LaunchTimed(launches, times);
  }
  Status Synchronize() override { return device_->Synchronize(); }

 private:
  std::unique_ptr<GpuDevice> device_;
  uint64_t& downloaded_;
};

struct Shape {
  const char* device;
  uint32_t shares;
  int64_t max_rows;
};

class AnyGpu : public ::testing::TestWithParam<Shape> {};

TEST_P(AnyGpu, PromptAndDecodeGiveTheReference) {
  const auto [device, shares, max_rows] = GetParam();
  const Fake fake(shares);
  const auto tokens = testing::SomeTokens(78, 5);
  const std::vector<float> expected = fake.Expected(tokens, 70);
  const auto session = fake.NewSession({.device = device, .max_rows = max_rows});
  EXPECT_EQ(session->target(), std::string_view(device).ends_with("sm_80") ? "sm_80" : "sm_90a");
  const auto sequence = session->NewSequence();
  std::vector<float> all(70 * kRow);
  const Status fed = sequence->Feed(std::span(tokens).first(70), Role::Prefill, all.data());
  ASSERT_TRUE(fed.ok()) << fed.message();
  EXPECT_TRUE(SameBits(all, std::span(expected).first(all.size())));
  for (size_t i = 70; i < tokens.size(); ++i) {
    Sequence* one = sequence.get();
    ASSERT_TRUE(session->Decode({&one, 1}, {&tokens[i], 1}).ok());
    EXPECT_TRUE(SameBits(sequence->logits(), std::span(expected).subspan(i * kRow, kRow))) << i;
  }
  // One shape was decoded again and again: it was recorded.
  EXPECT_EQ(static_cast<GpuExecutor&>(session->executor()).graphs(), 1u);
}

INSTANTIATE_TEST_SUITE_P(Shapes, AnyGpu,
                         ::testing::Values(Shape{"ptx-emulator", 3, 512},
                                           Shape{"ptx-emulator:sm_80", 1, 7},
                                           Shape{"ptx-emulator", 9, 33}, Shape{"cuda:0", 2, 512},
                                           Shape{"cuda", 3, 16}, Shape{"cuda:0", 8, 5}),
                         [](const auto& info) {
                           std::string name = std::string(info.param.device) + "Shares" +
                                              std::to_string(info.param.shares) + "Rows" +
                                              std::to_string(info.param.max_rows);
                           std::erase_if(name, [](char c) {
                             return !std::isalnum(static_cast<unsigned char>(c));
                           });
                           return name;
                         });

class EachGpu : public ::testing::TestWithParam<const char*> {};

TEST_P(EachGpu, SequencesOfDifferentLengthsAndForksDecodeTogether) {
  const Fake fake;
  const auto session = fake.NewSession({.device = GetParam(), .kv_tokens = 512, .max_rows = 16});
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::vector<std::vector<int32_t>> texts;
  for (const size_t length : {1, 33, 40}) {
    texts.push_back(testing::SomeTokens(length, static_cast<uint32_t>(length)));
    sequences.push_back(session->NewSequence());
    ASSERT_TRUE(sequences.back()->Feed(texts.back(), Role::Prefill).ok());
  }
  sequences.push_back(sequences.back()->Fork());  // in mid-page
  texts.push_back(texts.back());
  std::vector<size_t> prompts;
  for (const auto& text : texts) prompts.push_back(text.size());
  for (int step = 0; step < 6; ++step) {
    std::vector<Sequence*> pointers;
    std::vector<int32_t> tokens;
    for (size_t i = 0; i < sequences.size(); ++i) {
      pointers.push_back(sequences[i].get());
      tokens.push_back(static_cast<int32_t>((17 * i + 5 * static_cast<size_t>(step)) % kVocab));
      texts[i].push_back(tokens.back());
    }
    const Status status = session->Decode(pointers, tokens);
    ASSERT_TRUE(status.ok()) << status.message();
  }
  for (size_t i = 0; i < sequences.size(); ++i) {
    const std::vector<float> expected = fake.Expected(texts[i], prompts[i]);
    EXPECT_TRUE(SameBits(sequences[i]->logits(), LastRow(expected))) << i;
  }
}

TEST_P(EachGpu, UsedPagesAreClean) {
  const Fake fake;
  const auto session = fake.NewSession({.device = GetParam(), .context = 64});
  const auto tokens = testing::SomeTokens(64, 3);
  const std::vector<float> expected = fake.Expected(tokens, 64);
  for (int round = 0; round < 3; ++round) {
    const auto sequence = session->NewSequence();
    ASSERT_TRUE(sequence->Feed(tokens, Role::Prefill).ok());
    EXPECT_TRUE(SameBits(sequence->logits(), LastRow(expected)));
  }
}

TEST_P(EachGpu, ProfilesKernels) {
  const Fake fake(3);
  const auto session = fake.NewSession({.device = GetParam()});
  const auto sequence = session->NewSequence();
  session->executor().SetProfiling(true);
  const auto tokens = testing::SomeTokens(20, 3);
  ASSERT_TRUE(sequence->Feed(tokens, Role::Prefill).ok());
  const Profile& profile = session->executor().profile();
  EXPECT_EQ(profile.steps.calls, 1u);
  EXPECT_EQ(profile.kernels[testing::kEmbed][1].calls, 1u);
  EXPECT_EQ(profile.kernels[testing::kProject][1].calls, 3u * 2 * testing::kLayers);
  EXPECT_EQ(profile.kernels[testing::kProject][0].calls, 0u);
}

TEST_P(EachGpu, TellsHowFarTheWeightsAre) {
  const Fake fake;
  uint64_t last = 0, total = 0;
  SessionOptions options{.device = GetParam()};
  options.progress = [&](uint64_t done, uint64_t all) {
    EXPECT_GT(done, last);
    last = done;
    total = all;
  };
  fake.NewSession(options);
  EXPECT_EQ(last, fake.made.weights.size());
  EXPECT_EQ(total, last);
}

TEST_P(EachGpu, RefusesAKernelWithTooMuchSharedMemory) {
  // 120 KiB are within the format's limits, but compute capability 8.9 has 99 KiB.
  const Fake fake(2, [](testing::FakeModel& model) {
    for (auto& code : model.manifest.kernels[testing::kHead]->gpu_codes) {
      code->shared_bytes = 120 * 1024;
    }
  });
  EXPECT_TRUE(Session::Create(fake.model, {.device = GetParam()}).ok());
  const Variable sm("QUERN_FAKE_CUDA_SM", "89");
  const bool emulator = std::string_view(GetParam()) == "ptx-emulator";
  ExpectRefused(
      Session::Create(fake.model, {.device = emulator ? "ptx-emulator:sm_89" : GetParam()})
          .status(),
      StatusCode::kIncompatible, {"kernel head", "122880", "101376"});
}

TEST_P(EachGpu, RefusesPtxThatIsNone) {
  const Fake fake(2, [](testing::FakeModel& model) {
    for (std::string& text : model.ptx) text.replace(text.find("mad.lo"), 6, "mud.lo");
  });
  const Status status = Session::Create(fake.model, {.device = GetParam()}).status();
  // A driver cannot tell nonsense from an instruction that it does not know; the emulator does.
  EXPECT_TRUE(status.code() == StatusCode::kMalformed || status.code() == StatusCode::kUnsupported);
  ExpectRefused(status, status.code(), {"mud"});
}

TEST_P(EachGpu, RefusesAContextThatIsTooLong) {
  const Fake fake;
  ExpectRefused(Session::Create(fake.model, {.device = GetParam(), .context = 257}).status(),
                StatusCode::kUsage, {"context is 257", "256"});
  const auto session = fake.NewSession({.device = GetParam(), .context = 20});
  const auto sequence = session->NewSequence();
  ExpectRefused(sequence->Feed(testing::SomeTokens(21, 1), Role::Prefill), StatusCode::kUsage,
                {"the context is 20 tokens"});
}

TEST_P(EachGpu, RefusesMorePagesThanFitBeforeItAllocates) {
  const Fake fake;
  const int64_t tokens = int64_t{1} << 35;
  ExpectRefused(Session::Create(fake.model, {.device = GetParam(), .kv_tokens = tokens}).status(),
                StatusCode::kOutOfMemory, {"needs", "free", "lower context"});
}

TEST_P(EachGpu, SamplesAsTheHostWould) {
  const Fake fake;
  const auto session = fake.NewSession({.device = GetParam(), .kv_tokens = 512});
  const SamplerOptions options[] = {
      {},
      {.top_k = 8, .temperature = 1, .seed = 1},
      {.top_k = 5, .top_p = 0.8f, .temperature = 3, .seed = 2},
      {.top_k = 9, .temperature = 1, .seed = 3},  // more than the samplers pick
      {.temperature = 1, .seed = 4},
      {.repeat_penalty = 4, .repeat_last_n = 3},
      {.repeat_penalty = 4, .repeat_last_n = 64, .top_k = 3, .temperature = 1}};
  for (const SamplerOptions& each : options) {
    Sampler host = std::move(Sampler::Create(each)).value();
    const auto sequence = session->NewSequence();
    ASSERT_TRUE(sequence->SetSampling(each).ok());
    std::vector<int32_t> next = testing::SomeTokens(3, 9);
    for (int step = 0; step < 12; ++step) {
      ASSERT_TRUE(sequence->Feed(next, step == 0 ? Role::Prefill : Role::Decode).ok());
      for (int32_t token : next) host.Accept(token);
      const auto token = sequence->Sample();
      ASSERT_TRUE(token.ok()) << token.status().message();
      const auto wanted = host.Sample(sequence->logits());
      ASSERT_TRUE(wanted.ok());
      EXPECT_EQ(*token, *wanted) << step;
      next = {*token};
    }
  }
}

TEST_P(EachGpu, LogitsOutliveTheStepsOfOthers) {
  const Fake fake;
  const auto session = fake.NewSession({.device = GetParam(), .kv_tokens = 512});
  const auto tokens = testing::SomeTokens(10, 4);
  auto first = session->NewSequence(), second = session->NewSequence();
  auto third = session->NewSequence();
  ASSERT_TRUE(first->Feed(std::span(tokens).first(4), Role::Prefill).ok());
  ASSERT_TRUE(second->Feed(tokens, Role::Prefill).ok());
  ASSERT_TRUE(third->Feed(tokens, Role::Prefill).ok());
  third.reset();  // whose logits nobody read
  const auto fork = first->Fork();
  Sequence* both[] = {first.get(), fork.get()};
  ASSERT_TRUE(session->Decode(both, std::vector<int32_t>{5, 6}).ok());
  const std::vector<float> expected = fake.Expected(tokens, 10);
  EXPECT_TRUE(SameBits(second->logits(), std::span(expected).last(kRow)));
  std::vector<int32_t> text(tokens.begin(), tokens.begin() + 4);
  for (Sequence* each : both) {
    text.resize(4);
    text.push_back(each == first.get() ? 5 : 6);
    const std::vector<float> wanted = fake.Expected(text, 4);
    EXPECT_TRUE(SameBits(each->logits(), std::span(wanted).last(kRow)));
  }
  ASSERT_TRUE(fork->Truncate(2).ok());
  EXPECT_TRUE(fork->logits().empty());
  EXPECT_FALSE(fork->Sample().ok());
}

TEST_P(EachGpu, CopiesOnlyTheBestLogits) {
  const Fake fake;
  uint64_t downloaded = 0;
  auto session = Session::CreateWith(
      fake.model, {},
      [&](const Artifact& artifact, const ExecutorOptions& options) -> Result<OpenedExecutor> {
        QUERN_ASSIGN_OR_RETURN(auto device, OpenGpu(GetParam()));
        auto counting = std::make_unique<CountingDevice>(std::move(device), downloaded);
        QUERN_ASSIGN_OR_RETURN(auto executor,
                               GpuExecutor::Create(artifact, "", std::move(counting), options));
        return OpenedExecutor{std::move(executor), "sm_90a", GetParam()};
      });
  ASSERT_TRUE(session.ok()) << session.status().message();
  const auto sequence = (*session)->NewSequence();
  ASSERT_TRUE(sequence->Feed(testing::SomeTokens(20, 1), Role::Prefill).ok());
  EXPECT_TRUE(sequence->Sample().ok());
  EXPECT_EQ(downloaded, 8u);  // a logit and its token
  ASSERT_TRUE(sequence->SetSampling({.top_k = 3, .temperature = 1}).ok());
  Sequence* one = sequence.get();
  ASSERT_TRUE((*session)->Decode({&one, 1}, std::vector<int32_t>{7}).ok());
  EXPECT_TRUE(sequence->Sample().ok());
  EXPECT_EQ(downloaded, 8u + 8 * 8);
  sequence->logits();
  EXPECT_EQ(downloaded, 8u + 8 * 8 + 4 * kRow);
}

INSTANTIATE_TEST_SUITE_P(Gpus, EachGpu, ::testing::Values("ptx-emulator", "cuda:0"),
                         [](const auto& info) {
                           return std::string_view(info.param) == "cuda:0" ? "CudaOverFake"
                                                                           : "Emulator";
                         });

TEST(Cuda, RefusesADriverThatIsTooOld) {
  const Fake fake;
  const Variable driver("QUERN_FAKE_CUDA_DRIVER", "11080");
  ExpectRefused(Session::Create(fake.model, {.device = "cuda:0"}).status(),
                StatusCode::kIncompatible,
                {"sm_80 needs PTX 8.0", "CUDA 11.8", "update the NVIDIA driver", "CUDA 12.0"});
}

TEST(Cuda, AnOlderDriverTakesAnOlderTarget) {
  const Fake fake;
  const Variable driver("QUERN_FAKE_CUDA_DRIVER", "12000");
  EXPECT_EQ(fake.NewSession({.device = "cuda:0"})->target(), "sm_80");
}

TEST(Cuda, RefusesAGpuThatIsTooOld) {
  const Fake fake;
  const Variable sm("QUERN_FAKE_CUDA_SM", "75");
  ExpectRefused(Session::Create(fake.model, {.device = "cuda:0"}).status(),
                StatusCode::kIncompatible, {"compute capability 8.0", "7.5", "--device=cpu"});
}

TEST(Cuda, RefusesASessionThatDoesNotFitWithTheNumbers) {
  const Fake fake;
  const Variable memory("QUERN_FAKE_CUDA_MEMORY", "65536");
  const Status status = Session::Create(fake.model, {.device = "cuda:0"}).status();
  ExpectRefused(status, StatusCode::kOutOfMemory, {"needs", "65536 of 65536 free", "cuda:0"});
}

TEST(Cuda, TakesTheMemoryThatItPlannedAndNoMore) {
  const Fake fake;
  const SessionOptions options{.device = "cuda:0", .max_rows = 100};
  const uint64_t planned = fake.NewSession(options)->executor().bytes();
  const auto tokens = testing::SomeTokens(90, 2);
  {
    const Variable memory("QUERN_FAKE_CUDA_MEMORY", std::to_string(planned));
    const auto session = fake.NewSession(options);
    const auto sequence = session->NewSequence();
    std::vector<float> logits(90 * kRow);  // more rows than are computed at a time
    ASSERT_TRUE(sequence->Feed(tokens, Role::Prefill, logits.data()).ok());
    EXPECT_TRUE(SameBits(logits, fake.Expected(tokens, 90)));
  }
  const Variable memory("QUERN_FAKE_CUDA_MEMORY", std::to_string(planned - 1));
  ExpectRefused(Session::Create(fake.model, options).status(), StatusCode::kOutOfMemory,
                {"needs " + std::to_string(planned)});
}

TEST(Cuda, EveryDeviceCanBeOpenedByItsNumber) {
  const Fake fake;
  const Variable devices("QUERN_FAKE_CUDA_DEVICES", "2");
  const auto gpus = ListGpus();
  ASSERT_TRUE(gpus.ok()) << gpus.status().message();
  EXPECT_EQ(gpus.value().size(), 2u);
  EXPECT_EQ(fake.NewSession({.device = "cuda:1"})->device(), "cuda:1");
  ExpectRefused(Session::Create(fake.model, {.device = "cuda:2"}).status(), StatusCode::kUsage,
                {"no device cuda:2", "cuda:1"});
}

TEST(Devices, UnknownNamesAreRefused) {
  const Fake fake;
  for (const char* name : {"gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:0x", "cpu:0", "CUDA",
                           "ptx-emulator:", "ptx-emulator:sm_9"}) {
    const Status status = Session::Create(fake.model, {.device = name}).status();
    EXPECT_EQ(status.code(), StatusCode::kUsage) << name << ": " << status.message();
  }
}

TEST(Devices, AnArtifactWithoutGpuCodeSaysSo) {
  const testing::FakeModel made = testing::MakeFakeModel();
  auto artifact =
      Artifact::FromBytes(std::move(FileBytes::FromBytes(testing::Assemble(made))).value());
  auto model = Model::FromArtifact(std::move(artifact).value());
  ExpectRefused(Session::Create(*model, {.device = "ptx-emulator"}).status(),
                StatusCode::kIncompatible, {"no code for GPUs", "--target=sm_90"});
}

TEST(Devices, AnArtifactWithoutHostCodeSaysSo) {
  const Fake fake(2, {}, [](ManifestT& m) {
    m.targets.erase(m.targets.begin(), m.targets.begin() + 2);
    for (auto& kernel : m.kernels) {
      kernel->codes.clear();
      for (auto& code : kernel->gpu_codes) code->target -= 2;
    }
    for (auto& sampler : m.samplers) {
      for (auto& code : sampler->codes) code->target -= 2;
    }
  });
  ExpectRefused(Session::Create(fake.model, {}).status(), StatusCode::kIncompatible,
                {"GPUs only", "--target=host"});
  EXPECT_TRUE(Session::Create(fake.model, {.device = "ptx-emulator"}).ok());
}

}  // namespace
}  // namespace quern
