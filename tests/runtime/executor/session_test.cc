// Sequences over the executor, on the fake model: every way to the same numbers, bit for bit.
#include "runtime/llm/session.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "runtime/llm/generate.h"
#include "tests/runtime/support/loaded_model.h"

namespace quern {
namespace {

using schema::Role;
using testing::kRow;
using testing::kVocab;
using testing::LastRow;
using testing::SameBits;

struct Fake : testing::LoadedModel {
  explicit Fake(uint32_t shares = 3, uint32_t context = testing::kContext)
      : LoadedModel(WithContext(shares, context)) {}

  static testing::FakeModel WithContext(uint32_t shares, uint32_t context) {
    testing::FakeModel model = testing::MakeFakeModel(shares);
    model.manifest.model->context = context;
    return model;
  }

  std::unique_ptr<Session> NewSession(const SessionOptions& options = {}) const {
    auto session = Session::CreateWith(model, options, testing::OpenFakeExecutor);
    EXPECT_TRUE(session.ok()) << session.status().message();
    return std::move(session).value();
  }
};

struct Shape {
  uint32_t shares;
  int threads;
  int64_t max_rows;
};

class AnyShape : public ::testing::TestWithParam<Shape> {};

TEST_P(AnyShape, PromptAndDecodeGiveTheReference) {
  const auto [shares, threads, max_rows] = GetParam();
  const Fake fake(shares);
  const auto tokens = testing::SomeTokens(75, 5);
  const std::vector<float> expected = fake.Expected(tokens, 70);
  const auto session = fake.NewSession({.threads = threads, .max_rows = max_rows});
  const auto sequence = session->NewSequence();

  std::vector<float> all(70 * kRow);
  const Status fed = sequence->Feed(std::span(tokens).first(70), Role::Prefill, all.data());
  ASSERT_TRUE(fed.ok()) << fed.message();
  EXPECT_TRUE(SameBits(all, std::span(expected).first(all.size())));
  EXPECT_TRUE(SameBits(sequence->logits(), std::span(expected).subspan(69 * kRow, kRow)));
  for (size_t i = 70; i < tokens.size(); ++i) {
    Sequence* one = sequence.get();
    ASSERT_TRUE(session->Decode({&one, 1}, {&tokens[i], 1}).ok());
    EXPECT_TRUE(SameBits(sequence->logits(), std::span(expected).subspan(i * kRow, kRow))) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, AnyShape,
                         ::testing::Values(Shape{1, 1, 512}, Shape{2, 1, 16}, Shape{2, 2, 512},
                                           Shape{3, 2, 7}, Shape{3, 3, 64}, Shape{3, 9, 1},
                                           Shape{5, 2, 33}, Shape{5, 4, 3}, Shape{8, 3, 5}),
                         [](const auto& info) {
                           return "Shares" + std::to_string(info.param.shares) + "Threads" +
                                  std::to_string(info.param.threads) + "Rows" +
                                  std::to_string(info.param.max_rows);
                         });

/// Several blocks of attention.
constexpr uint32_t kLongContext = 4096;

TEST(Session, LongContextsAreCutOverShares) {
  constexpr size_t kPrompt = 1100, kDecoded = 6;
  for (const auto [shares, threads] : {std::pair{1u, 1}, {2u, 1}, {3u, 3}, {5u, 2}, {8u, 4}}) {
    SCOPED_TRACE(shares);
    const Fake fake(shares, kLongContext);
    const auto tokens = testing::SomeTokens(kPrompt + kDecoded, 17);
    const std::vector<float> expected = fake.Expected(tokens, kPrompt);
    const auto session = fake.NewSession({.threads = threads});
    session->executor().SetProfiling(true);
    const auto sequence = session->NewSequence();
    ASSERT_TRUE(sequence->Feed(std::span(tokens).first(kPrompt), Role::Prefill).ok());
    for (size_t i = kPrompt; i < tokens.size(); ++i) {
      Sequence* one = sequence.get();
      ASSERT_TRUE(session->Decode({&one, 1}, {&tokens[i], 1}).ok());
      ASSERT_TRUE(SameBits(sequence->logits(), std::span(expected).subspan(i * kRow, kRow))) << i;
    }
    // A merge is the second half of a call.
    const auto& decode = session->executor().profile().kernels[testing::kAttend];
    EXPECT_EQ(decode[static_cast<size_t>(Role::Decode)].calls, kDecoded * testing::kLayers);
  }
}

TEST(Session, AttentionStatesAreCountedAmongTheBytes) {
  const auto bytes = [](uint32_t shares, int threads, int64_t kv_tokens) {
    const Fake fake(shares, kLongContext);
    const auto session = fake.NewSession({.threads = threads, .kv_tokens = kv_tokens});
    return session->executor().bytes() - session->executor().kv().pages() * 2 * 2048;
  };
  // Of 4 rows and 8 heads for 1 block; then for 8, of which 5 are used.
  constexpr uint64_t kStates = 4 * 8 * 33 * 4, kPage = 4096;
  const uint64_t one = (kStates + kPage - 1) / kPage * kPage,
                 eight = (8 * kStates + kPage - 1) / kPage * kPage;
  EXPECT_EQ(bytes(3, 2, 2560) - bytes(3, 2, 512), 2 * (eight - one));
  // Pages of many sequences: one of them has no more than its context.
  EXPECT_EQ(bytes(3, 2, 8 * kLongContext), bytes(3, 2, kLongContext));
  // One share, or one thread, cuts no context.
  EXPECT_EQ(bytes(1, 2, 2560), bytes(1, 2, 512));
  EXPECT_EQ(bytes(3, 1, 2560), bytes(3, 1, 512));
}

std::atomic<uint32_t> g_attentions{0};
KernelEntry g_attend = nullptr;

/// Attention during which the thread is away for a while now and then.
void AttendWithPauses(void* const* args, const int64_t* dims, const int64_t* ranges) {
  const uint32_t turn = g_attentions.fetch_add(1) * 2654435761u >> 24;
  if (turn < 10) std::this_thread::sleep_for(std::chrono::microseconds(200));
  g_attend(args, dims, ranges);
  if (turn > 245) std::this_thread::sleep_for(std::chrono::microseconds(300));
}

std::atomic<uint32_t> g_projections{0};
KernelEntry g_project = nullptr;

/// A projection during which the thread is away for a while now and then.
void ProjectWithPauses(void* const* args, const int64_t* dims, const int64_t* ranges) {
  const uint32_t turn = g_projections.fetch_add(1) * 2654435761u >> 24;
  if (turn < 20) std::this_thread::sleep_for(std::chrono::microseconds(200));
  g_project(args, dims, ranges);
  if (turn > 240) std::this_thread::sleep_for(std::chrono::microseconds(500));
}

/// Executors whose joins have no patience at all.
Result<OpenedExecutor> OpenImpatient(const Artifact& artifact, const ExecutorOptions& given) {
  ExecutorOptions options = given;
  options.patience = 0;
  KernelTable table = testing::FakeKernelTable();
  g_project = table.kernels[testing::kProject].entries[0];
  table.kernels[testing::kProject].entries = {ProjectWithPauses, ProjectWithPauses};
  g_attend = table.kernels[testing::kAttend].entries[0];
  table.kernels[testing::kAttend].entries = {AttendWithPauses, AttendWithPauses};
  QUERN_ASSIGN_OR_RETURN(std::unique_ptr<Executor> executor,
                         HostExecutor::Create(Program::Build(artifact.manifest()), table,
                                              artifact.weights(), options));
  return OpenedExecutor{std::move(executor), "fake", "cpu"};
}

TEST(Session, ThreadsThatAreLeftBehindChangeNoBit) {
  uint64_t repeated = 0;
  for (const auto [shares, threads] : {std::pair{2u, 2}, {5u, 2}, {3u, 3}, {8u, 5}}) {
    const Fake fake(shares, kLongContext);
    // With so long a context, 3 shares of unequally many heads cut it in parts.
    const size_t prompt = shares == 3 ? 2500 : 900;
    const auto tokens = testing::SomeTokens(prompt + 200, 11);
    const std::vector<float> expected = fake.Expected(tokens, prompt);
    auto session = Session::CreateWith(fake.model, {.threads = threads}, OpenImpatient);
    ASSERT_TRUE(session.ok()) << session.status().message();
    const auto sequence = (*session)->NewSequence();
    ASSERT_TRUE(sequence->Feed(std::span(tokens).first(prompt), Role::Prefill).ok());
    g_projections = 0;
    for (size_t i = prompt; i < tokens.size(); ++i) {
      Sequence* one = sequence.get();
      ASSERT_TRUE((*session)->Decode({&one, 1}, {&tokens[i], 1}).ok());
      ASSERT_TRUE(SameBits(sequence->logits(), std::span(expected).subspan(i * kRow, kRow))) << i;
    }
    repeated += g_projections.load() - 2 * testing::kLayers * shares * (tokens.size() - prompt);
  }
  // Two projections a layer; some were done by two threads. On a busy machine the threads of one
  // team may all come too late for that, so it is asked of the four together.
  EXPECT_GT(repeated, 0u);
}

TEST(Session, ChunksOfAPromptDoNotMatter) {
  const Fake fake;
  const auto tokens = testing::SomeTokens(67, 9);
  const std::vector<float> expected = fake.Expected(tokens, tokens.size());
  const auto session = fake.NewSession({.threads = 2});
  for (size_t chunk : {1, 2, 4, 5, 31, 32, 33, 67}) {
    const auto sequence = session->NewSequence();
    for (size_t done = 0; done < tokens.size(); done += chunk) {
      const size_t count = std::min(chunk, tokens.size() - done);
      ASSERT_TRUE(sequence->Feed(std::span(tokens).subspan(done, count), Role::Prefill).ok());
    }
    EXPECT_TRUE(SameBits(sequence->logits(), LastRow(expected))) << chunk;
  }
}

TEST(Session, DecodesManySequencesOfDifferentLengthsTogether) {
  const Fake fake;
  for (const int64_t max_rows : {512, 3}) {  // in one step, and in several
    const auto session = fake.NewSession({.threads = 3, .kv_tokens = 2048, .max_rows = max_rows});
    const size_t lengths[] = {1, 31, 32, 33, 64, 70, 5};
    std::vector<std::unique_ptr<Sequence>> sequences;
    std::vector<std::vector<int32_t>> tokens;
    for (size_t i = 0; i < std::size(lengths); ++i) {
      tokens.push_back(testing::SomeTokens(lengths[i] + 3, static_cast<uint32_t>(i)));
      sequences.push_back(session->NewSequence());
      ASSERT_TRUE(sequences[i]->Feed(std::span(tokens[i]).first(lengths[i]), Role::Prefill).ok());
    }
    for (size_t turn = 0; turn < 3; ++turn) {
      std::vector<Sequence*> all;
      std::vector<int32_t> next;
      for (size_t i = 0; i < sequences.size(); ++i) {
        all.push_back(sequences[i].get());
        next.push_back(tokens[i][lengths[i] + turn]);
      }
      const Status decoded = session->Decode(all, next);
      ASSERT_TRUE(decoded.ok()) << decoded.message();
    }
    for (size_t i = 0; i < sequences.size(); ++i) {
      EXPECT_TRUE(SameBits(sequences[i]->logits(), LastRow(fake.Expected(tokens[i], lengths[i]))))
          << i;
    }
  }
}

TEST(Session, ForksInMidPageGoTheirOwnWays) {
  const Fake fake;
  const auto session = fake.NewSession({.threads = 2, .kv_tokens = 512});
  const auto prompt = testing::SomeTokens(45, 1);
  const auto sequence = session->NewSequence();
  ASSERT_TRUE(sequence->Feed(prompt, Role::Prefill).ok());
  std::vector<std::unique_ptr<Sequence>> forks;
  for (int i = 0; i < 3; ++i) forks.push_back(sequence->Fork());
  EXPECT_EQ(session->executor().kv().free_pages(), 16 - 2);  // nothing was copied yet

  for (uint32_t i = 0; i < forks.size(); ++i) {
    EXPECT_TRUE(SameBits(forks[i]->logits(), sequence->logits()));
    std::vector<int32_t> tokens = prompt;
    for (int32_t token : testing::SomeTokens(30, 100 + i)) {
      tokens.push_back(token);
      Sequence* one = forks[i].get();
      ASSERT_TRUE(session->Decode({&one, 1}, {&token, 1}).ok());
    }
    EXPECT_TRUE(SameBits(forks[i]->logits(), LastRow(fake.Expected(tokens, prompt.size())))) << i;
    EXPECT_EQ(forks[i]->pages()[0], sequence->pages()[0]);
    EXPECT_NE(forks[i]->pages()[1], sequence->pages()[1]);
  }
}

TEST(Session, TruncatesAndGoesOn) {
  const Fake fake;
  const auto session = fake.NewSession();
  const auto tokens = testing::SomeTokens(90, 2);
  const auto sequence = session->NewSequence();
  ASSERT_TRUE(sequence->Feed(testing::SomeTokens(80, 3), Role::Prefill).ok());
  for (int64_t kept : {int64_t{50}, int64_t{33}, int64_t{0}}) {
    ASSERT_TRUE(sequence->Truncate(kept).ok());
    EXPECT_EQ(sequence->length(), kept);
    EXPECT_TRUE(sequence->logits().empty());
    EXPECT_EQ(sequence->Sample().status().code(), StatusCode::kUsage);
    std::vector<int32_t> whole(sequence->tokens().begin(), sequence->tokens().end());
    whole.insert(whole.end(), tokens.begin(), tokens.end());
    ASSERT_TRUE(sequence->Feed(tokens, Role::Prefill).ok());
    EXPECT_TRUE(SameBits(sequence->logits(), LastRow(fake.Expected(whole, whole.size())))) << kept;
  }
  EXPECT_EQ(sequence->Truncate(91).code(), StatusCode::kUsage);
}

TEST(Session, RefusesWhatDoesNotFit) {
  const Fake fake;
  const auto session = fake.NewSession({.context = 40});
  const auto sequence = session->NewSequence();
  ASSERT_TRUE(sequence->Feed(testing::SomeTokens(39, 4), Role::Prefill).ok());
  const Status full = sequence->Feed(testing::SomeTokens(2, 4), Role::Prefill);
  EXPECT_EQ(full.code(), StatusCode::kUsage);
  EXPECT_NE(full.message().find("context is 40 tokens"), std::string::npos) << full.message();
  EXPECT_EQ(sequence->length(), 39);
  for (int32_t token : {-1, static_cast<int32_t>(kVocab)}) {
    EXPECT_EQ(sequence->Feed({&token, 1}, Role::Prefill).code(), StatusCode::kUsage);
  }

  Sequence* twice[] = {sequence.get(), sequence.get()};
  const int32_t tokens[] = {1, 2};
  EXPECT_EQ(session->Decode(twice, tokens).code(), StatusCode::kUsage);
  EXPECT_EQ(session->Decode(twice, std::span(tokens).first(1)).code(), StatusCode::kUsage);
  const auto other_session = fake.NewSession();
  const auto foreign = other_session->NewSequence();
  Sequence* strange[] = {foreign.get()};
  EXPECT_EQ(session->Decode(strange, std::span(tokens).first(1)).code(), StatusCode::kUsage);
  EXPECT_EQ(sequence->length(), 39);

  EXPECT_EQ(
      Session::CreateWith(fake.model, {.context = 257}, testing::OpenFakeExecutor).status().code(),
      StatusCode::kUsage);
  EXPECT_EQ(
      Session::CreateWith(fake.model, {.kv_tokens = int64_t{1} << 36}, testing::OpenFakeExecutor)
          .status()
          .code(),
      StatusCode::kOutOfMemory);
}

TEST(Session, RunsOutOfPagesAndRecovers) {
  const Fake fake;
  const auto session = fake.NewSession({.kv_tokens = 96, .max_rows = 32});
  auto first = session->NewSequence();
  const auto second = session->NewSequence();
  ASSERT_TRUE(first->Feed(testing::SomeTokens(40, 5), Role::Prefill).ok());
  const auto tokens = testing::SomeTokens(50, 6);
  const Status none = second->Feed(tokens, Role::Prefill);
  EXPECT_EQ(none.code(), StatusCode::kOutOfMemory);
  EXPECT_EQ(second->length(), 32);  // the first step was done
  EXPECT_TRUE(second->logits().empty());
  first.reset();
  ASSERT_TRUE(second->Feed(std::span(tokens).subspan(32), Role::Prefill).ok());
  EXPECT_TRUE(SameBits(second->logits(), LastRow(fake.Expected(tokens, tokens.size()))));
}

TEST(Session, DecodeThatRunsOutOfPagesChangesNothing) {
  const Fake fake;
  const auto session = fake.NewSession({.kv_tokens = 96});
  const auto first = session->NewSequence();
  const auto second = session->NewSequence();
  ASSERT_TRUE(first->Feed(testing::SomeTokens(32, 5), Role::Prefill).ok());
  ASSERT_TRUE(second->Feed(testing::SomeTokens(32, 6), Role::Prefill).ok());
  Sequence* both[] = {first.get(), second.get()};
  const int32_t tokens[] = {3, 4};
  EXPECT_EQ(session->Decode(both, tokens).code(), StatusCode::kOutOfMemory);
  EXPECT_EQ(first->length(), 32);
  EXPECT_EQ(second->length(), 32);
  EXPECT_EQ(session->executor().kv().free_pages(), 1);
}

TEST(Session, CancelEndsTheNextCallOnce) {
  const Fake fake;
  const auto session = fake.NewSession();
  const auto sequence = session->NewSequence();
  session->Cancel();
  EXPECT_EQ(sequence->Feed(testing::SomeTokens(5, 1), Role::Prefill).code(),
            StatusCode::kCancelled);
  EXPECT_EQ(sequence->length(), 0);
  EXPECT_TRUE(sequence->Feed(testing::SomeTokens(5, 1), Role::Prefill).ok());
}

TEST(Generate, SamplesDecodesAndEnds) {
  const Fake fake;
  const auto session = fake.NewSession({.context = 64});
  const auto sequence = session->NewSequence();
  ASSERT_TRUE(sequence->Feed(testing::SomeTokens(10, 1), Role::Prefill).ok());
  std::vector<int32_t> shown;
  auto callback = [&](std::string_view, int32_t token) {
    if (token >= 0) shown.push_back(token);
    return shown.size() != 20;
  };
  GenerateResult result;
  ASSERT_TRUE(Generate(*sequence, {.max_tokens = 6, .ignore_end = true}, callback, result).ok());
  EXPECT_EQ(result.finish, Finish::kLength);
  EXPECT_EQ(result.tokens, 6u);
  ASSERT_EQ(shown.size(), 6u);
  EXPECT_EQ(sequence->length(), 15);  // the last token was not decoded
  EXPECT_TRUE(std::ranges::equal(sequence->tokens().subspan(10), std::span(shown).first(5)));

  // Greedy: each token is the best by the reference's logits.
  std::vector<int32_t> tokens(sequence->tokens().begin(), sequence->tokens().begin() + 10);
  for (int32_t token : shown) {
    const std::vector<float> logits = fake.Expected(tokens, 10);
    const std::span<const float> last = LastRow(logits);
    EXPECT_EQ(token, std::max_element(last.begin(), last.end()) - last.begin());
    tokens.push_back(token);
  }

  shown.resize(15);
  ASSERT_TRUE(Generate(*sequence, {.ignore_end = true}, callback, result).ok());
  EXPECT_EQ(result.finish, Finish::kCaller);
  EXPECT_EQ(result.tokens, 5u);
  shown.resize(30);
  ASSERT_TRUE(Generate(*sequence, {.ignore_end = true}, callback, result).ok());
  EXPECT_EQ(result.finish, Finish::kContext);
  EXPECT_EQ(sequence->length(), 64);

  ASSERT_TRUE(sequence->Truncate(10).ok());
  ASSERT_TRUE(sequence->Feed(std::span(tokens).first(1), Role::Prefill).ok());
  session->Cancel();
  const Status cancelled = Generate(*sequence, {.ignore_end = true}, {}, result);
  EXPECT_EQ(cancelled.code(), StatusCode::kCancelled);
  EXPECT_EQ(result.finish, Finish::kCancel);
}

}  // namespace
}  // namespace quern
