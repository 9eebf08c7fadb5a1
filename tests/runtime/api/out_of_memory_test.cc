// Every allocation of a whole use of the C interface fails once: the call says so, nothing leaks,
// and the same call works afterwards.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "quern.h"
#include "tests/runtime/support/fake_model.h"
#include "tests/support/failures/failing_new.h"

namespace {

using quern::testing::AllocationsSinceThen;
using quern::testing::FailAllocation;

constexpr char kMessages[] = R"([{"role": "user", "content": "ab <|end|> \u00e9"}])";

/// One use of the interface, call by call. Calls fill the members that later ones use.
class Use {
 public:
  explicit Use(std::string path) : path_(std::move(path)) {
    calls_ = {
        [this] { return quern_model_load(path_.c_str(), nullptr, &model_, &error_); },
        [this] {
          quern_model_options options = QUERN_MODEL_OPTIONS_INIT;
          options.check_weights = 1;
          return Text(
              [&](char** out) { return quern_verify(path_.c_str(), &options, out, &error_); });
        },
        [this] {
          return Text(
              [this](char** out) { return quern_chat_render(model_, kMessages, 1, out, &error_); });
        },
        [this] {
          int32_t* tokens = nullptr;
          size_t count = 0;
          const auto code = quern_tokenize(model_, "ab ab\n12", 8, QUERN_TOKENIZE_CONTROL, &tokens,
                                           &count, &error_);
          quern_free(tokens);
          return code;
        },
        [this] {
          const int32_t tokens[] = {97, 98, 258};
          return Text([&](char** out) {
            return quern_detokenize(model_, tokens, 3, 0, out, nullptr, &error_);
          });
        },
        [this] {
          quern_session_options options = QUERN_SESSION_OPTIONS_INIT;
          options.threads = 1;
          return quern_session_create(model_, &options, &session_, &error_);
        },
        [this] { return quern_sequence_create(session_, &sequence_, &error_); },
        [this] {
          static constexpr int32_t kTokens[40] = {};
          return quern_sequence_feed(sequence_, kTokens, 40, QUERN_ROLE_PREFILL, nullptr, &error_);
        },
        [this] { return quern_sequence_fork(sequence_, &fork_, &error_); },
        [this] {
          const int32_t tokens[] = {1, 2};
          quern_sequence* const both[] = {sequence_, fork_};
          return quern_decode(session_, both, tokens, 2, &error_);
        },
        [this] {
          quern_sampling sampling = QUERN_SAMPLING_INIT;
          sampling.temperature = 0.5f;
          sampling.top_k = 5;
          return quern_sequence_set_sampling(sequence_, &sampling, &error_);
        },
        [this] {
          int32_t token = 0;
          return quern_sequence_sample(sequence_, &token, &error_);
        },
        [this] {
          quern_generate_options options = QUERN_GENERATE_OPTIONS_INIT;
          const char* const stop[] = {"never"};
          options.max_tokens = 3;
          options.stop = stop;
          options.stop_count = 1;
          const auto ignore = [](void*, const char*, size_t, int32_t) { return int32_t{0}; };
          return quern_generate(fork_, &options, ignore, nullptr, nullptr, &error_);
        },
        [this] {
          return Text([this](char** out) {
            quern_session_set_profiling(session_, 1);
            return quern_session_profile(session_, out, &error_);
          });
        },
        [this] { return quern_sequence_truncate(sequence_, 7, &error_); },
    };
  }
  ~Use() {
    quern_sequence_free(fork_);
    quern_sequence_free(sequence_);
    quern_session_free(session_);
    quern_model_free(model_);
  }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

  const std::vector<std::function<quern_status_code()>>& calls() const { return calls_; }
  const quern_error& error() const { return error_; }

 private:
  /// A call that gives a text.
  template <typename Call>
  static quern_status_code Text(Call call) {
    char* text = nullptr;
    const quern_status_code code = call(&text);
    quern_free(text);
    return code;
  }

  std::string path_;
  std::vector<std::function<quern_status_code()>> calls_;
  quern_error error_{};
  quern_model* model_ = nullptr;
  quern_session* session_ = nullptr;
  quern_sequence* sequence_ = nullptr;
  quern_sequence* fork_ = nullptr;
};

class OutOfMemory : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = ::testing::TempDir() + "quern_oom_" + std::to_string(getpid()) + ".quern";
    const auto bytes = quern::testing::Assemble(quern::testing::MakeFakeModel());
    std::ofstream(path_, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }
  void TearDown() override { std::remove(path_.c_str()); }

  std::string path_;
};

/// Runs everything with call number `which` failing its `nth` allocation. Returns whether it had
/// that many.
bool FailOnce(const std::string& path, size_t which, uint64_t nth) {
  Use use(path);
  bool failed = false;
  for (size_t i = 0; i < use.calls().size(); ++i) {
    if (i == which) {
      FailAllocation(nth);
      const quern_status_code code = use.calls()[i]();
      failed = nth > 0 && AllocationsSinceThen() >= nth;
      FailAllocation(0);
      // The standard library may do without, as std::stable_sort does.
      if (code == QUERN_OK) continue;
      EXPECT_TRUE(failed) << "call " << i << ": " << use.error().message;
      EXPECT_EQ(code, QUERN_OUT_OF_MEMORY) << "call " << i << ", allocation " << nth;
      EXPECT_STRNE(use.error().message, "");
    }
    EXPECT_EQ(use.calls()[i](), QUERN_OK)
        << "call " << i << " after call " << which << " failed its allocation " << nth << ": "
        << use.error().message;
    if (::testing::Test::HasFailure()) return false;
  }
  return failed;
}

TEST_F(OutOfMemory, AnyAllocationMayFailOnce) {
  EXPECT_FALSE(FailOnce(path_, 0, 0)) << "and nothing fails when nothing is made to";
  const int64_t blocks = quern::testing::LiveBlocks();
  uint64_t points = 0;
  for (size_t call = 0; call < Use(path_).calls().size(); ++call) {
    for (uint64_t nth = 1; FailOnce(path_, call, nth); ++nth) {
      ++points;
      ASSERT_EQ(quern::testing::LiveBlocks(), blocks)
          << "call " << call << " leaks after its allocation " << nth << " failed";
    }
    ASSERT_FALSE(HasFailure());
  }
  EXPECT_GT(points, 200u);
}

}  // namespace
