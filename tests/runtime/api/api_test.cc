// The C interface on the made-up artifact, whose only working kernel makes 'A' the best token.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "quern.h"
#include "tests/runtime/support/fake_model.h"

namespace {

/// Takes over and frees what the library returned.
std::string Take(char* text) {
  std::string copy = text ? text : "";
  quern_free(text);
  return copy;
}

bool Contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

class Api : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = ::testing::TempDir() + "quern_api_" + std::to_string(getpid()) + ".quern";
    Write(quern::testing::Assemble(quern::testing::MakeFakeModel()));
  }
  void TearDown() override {
    quern_sequence_free(sequence_);
    quern_session_free(session_);
    quern_model_free(model_);
    std::remove(path_.c_str());
  }

  void Write(const std::vector<uint8_t>& bytes) {
    std::ofstream(path_, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }

  void Load() {
    ASSERT_EQ(quern_model_load(path_.c_str(), nullptr, &model_, &error_), QUERN_OK)
        << error_.message;
  }

  void Open(quern_session_options options = QUERN_SESSION_OPTIONS_INIT) {
    Load();
    ASSERT_EQ(quern_session_create(model_, &options, &session_, &error_), QUERN_OK)
        << error_.message;
    ASSERT_EQ(quern_sequence_create(session_, &sequence_, &error_), QUERN_OK);
  }

  quern_status_code Feed(std::vector<int32_t> tokens) {
    return quern_sequence_feed(sequence_, tokens.data(), tokens.size(), QUERN_ROLE_PREFILL, nullptr,
                               &error_);
  }

  std::string path_;
  quern_error error_{};
  quern_model* model_ = nullptr;
  quern_session* session_ = nullptr;
  quern_sequence* sequence_ = nullptr;
};

TEST_F(Api, VersionsAgree) {
  EXPECT_EQ(quern_api_version(), static_cast<uint32_t>(QUERN_API_VERSION));
  EXPECT_STRNE(quern_version(), "");
}

TEST_F(Api, DescribesTheModel) {
  Load();
  EXPECT_EQ(quern_model_vocab(model_), 272u);
  EXPECT_EQ(quern_model_context(model_), 256u);
  const std::string json = quern_model_json(model_);
  for (const char* part :
       {"\"name\":\"Fake\"", "\"supported\":true", "\"missing\":[\"avx4096\"]", "\"kernels\":[",
        "\"layers\":[\"layer_0\",\"layer_0\"]", "\"weight_bytes\":{\"f32\":"}) {
    EXPECT_TRUE(Contains(json, part)) << part << " in " << json;
  }
}

TEST_F(Api, RefusesFilesWithCodeAndSentence) {
  EXPECT_EQ(quern_model_load("/no/such/file", nullptr, &model_, &error_), QUERN_FAILURE);
  EXPECT_EQ(error_.code, QUERN_FAILURE);
  EXPECT_TRUE(Contains(error_.message, "/no/such/file"));
  EXPECT_EQ(model_, nullptr);

  Write({'n', 'o'});
  EXPECT_EQ(quern_model_load(path_.c_str(), nullptr, &model_, nullptr), QUERN_MALFORMED);
}

TEST_F(Api, ChecksWeightsOnRequest) {
  std::vector<uint8_t> bytes = quern::testing::Assemble(quern::testing::MakeFakeModel());
  bytes[4096] ^= 1;
  Write(bytes);
  quern_model_options options = QUERN_MODEL_OPTIONS_INIT;
  options.check_weights = 1;
  options.copy = 1;
  EXPECT_EQ(quern_model_load(path_.c_str(), &options, &model_, &error_), QUERN_MALFORMED);

  char* json = nullptr;
  EXPECT_EQ(quern_verify(path_.c_str(), nullptr, &json, &error_), QUERN_OK);
  EXPECT_TRUE(Contains(Take(json), "\"ok\":true"));
  EXPECT_EQ(quern_verify(path_.c_str(), &options, &json, &error_), QUERN_MALFORMED);
  const std::string report = Take(json);
  EXPECT_TRUE(Contains(report, "\"name\":\"weights\",\"ok\":false")) << report;
}

TEST_F(Api, KeepsRecords) {
  Load();
  const char text[] = "{}";
  size_t bytes = 0;
  EXPECT_EQ(quern_model_record(model_, QUERN_RECORD_ACCURACY, 0, &bytes), nullptr);
  ASSERT_EQ(quern_record_add(path_.c_str(), QUERN_RECORD_ACCURACY, text, 2, &error_), QUERN_OK)
      << error_.message;
  ASSERT_EQ(quern_record_add(path_.c_str(), QUERN_RECORD_REFERENCE, "", 0, &error_), QUERN_OK);
  EXPECT_EQ(quern_record_add(path_.c_str(), QUERN_RECORD_ACCURACY, nullptr, 1, &error_),
            QUERN_USAGE);
  EXPECT_EQ(quern_record_add(path_.c_str(), QUERN_RECORD_SIGNATURE, text, 2, &error_), QUERN_USAGE);
  EXPECT_EQ(quern_model_record(model_, QUERN_RECORD_ACCURACY, 0, &bytes), nullptr)
      << "a loaded model stays as it was";
  quern_model_free(model_);
  model_ = nullptr;
  Load();
  const void* record = quern_model_record(model_, QUERN_RECORD_ACCURACY, 0, &bytes);
  ASSERT_NE(record, nullptr);
  EXPECT_EQ(std::string(static_cast<const char*>(record), bytes), text);
  EXPECT_NE(quern_model_record(model_, QUERN_RECORD_REFERENCE, 0, &bytes), nullptr);
  EXPECT_EQ(bytes, 0u);
  EXPECT_EQ(quern_model_record(model_, QUERN_RECORD_ACCURACY, 1, &bytes), nullptr);
  EXPECT_EQ(quern_model_record(nullptr, QUERN_RECORD_ACCURACY, 0, &bytes), nullptr);
  EXPECT_TRUE(Contains(quern_model_json(model_), "\"records\":[{\"kind\":\"accuracy\""));
}

TEST_F(Api, AsksForSignatures) {
  Load();
  quern_model_free(model_);
  model_ = nullptr;
  quern_model_options options = QUERN_MODEL_OPTIONS_INIT;
  options.trusted_keys = "nonsense";
  EXPECT_EQ(quern_model_load(path_.c_str(), &options, &model_, &error_), QUERN_USAGE);
  const std::string key = "quern-public-key:" + std::string(64, '0');
  options.trusted_keys = key.c_str();
  EXPECT_EQ(quern_model_load(path_.c_str(), &options, &model_, &error_), QUERN_INCOMPATIBLE);
  EXPECT_TRUE(Contains(error_.message, "no signature")) << error_.message;
}

TEST_F(Api, DoctorReports) {
  char* json = nullptr;
  ASSERT_EQ(quern_doctor(&json, &error_), QUERN_OK);
  const std::string report = Take(json);
  EXPECT_TRUE(Contains(report, "\"name\":\"executable memory\",\"ok\":true")) << report;
}

TEST_F(Api, GoesFromTextToTokensAndBack) {
  Load();
  const std::string text = "xab<|end|>";
  int32_t* tokens = nullptr;
  size_t count = 0;
  ASSERT_EQ(quern_tokenize(model_, text.data(), text.size(), QUERN_TOKENIZE_CONTROL, &tokens,
                           &count, &error_),
            QUERN_OK)
      << error_.message;
  EXPECT_EQ(std::vector<int32_t>(tokens, tokens + count), (std::vector<int32_t>{'x', 258, 256}));
  EXPECT_EQ(quern_token_is_end(model_, 256), 1);
  EXPECT_EQ(quern_token_is_end(model_, 'x'), 0);

  char* back = nullptr;
  size_t length = 0;
  ASSERT_EQ(quern_detokenize(model_, tokens, count, 0, &back, &length, &error_), QUERN_OK);
  EXPECT_EQ(length, text.size());
  EXPECT_EQ(Take(back), text);
  ASSERT_EQ(quern_detokenize(model_, tokens, count, QUERN_DETOKENIZE_SKIP_CONTROL, &back, nullptr,
                             &error_),
            QUERN_OK);
  EXPECT_EQ(Take(back), "xab");
  quern_free(tokens);

  ASSERT_EQ(quern_chat_render(model_, R"([{"role": "user", "content": "hi"}])", 1, &back, &error_),
            QUERN_OK)
      << error_.message;
  EXPECT_EQ(Take(back), "<|user|>hi<|end|>>");
  tokens = nullptr;
  ASSERT_EQ(quern_chat_tokenize(model_, R"([{"role": "user", "content": "<|end|>"}])", 1, &tokens,
                                &count, &error_),
            QUERN_OK)
      << error_.message;
  ASSERT_EQ(quern_detokenize(model_, tokens, count, 0, &back, nullptr, &error_), QUERN_OK);
  EXPECT_EQ(Take(back), "<|user|><|end|><|end|>>");
  EXPECT_EQ(std::count(tokens, tokens + count, 256), 1) << "the message wrote an end";
  quern_free(tokens);
  EXPECT_EQ(quern_chat_tokenize(model_, "{}", 1, &tokens, &count, &error_), QUERN_USAGE);
  EXPECT_EQ(quern_chat_tokenize(model_, nullptr, 1, &tokens, &count, &error_), QUERN_USAGE);
  EXPECT_EQ(quern_chat_render(model_, "{}", 1, &back, &error_), QUERN_USAGE);
  EXPECT_EQ(quern_chat_render(model_, "[", 1, &back, &error_), QUERN_USAGE);
}

TEST_F(Api, GeneratesThroughNativeCode) {
  quern_session_options session = QUERN_SESSION_OPTIONS_INIT;
  session.threads = 2;
  session.context = 64;
  Open(session);
  EXPECT_TRUE(Contains(quern_session_json(session_), "\"target\":\"plain\",\"threads\":2"))
      << quern_session_json(session_);
  EXPECT_EQ(quern_sequence_logits(sequence_), nullptr);
  ASSERT_EQ(Feed({'h', 'i'}), QUERN_OK) << error_.message;
  const float* logits = quern_sequence_logits(sequence_);
  ASSERT_NE(logits, nullptr);
  EXPECT_EQ(logits['A'], 1.0f);
  int32_t token = -1;
  ASSERT_EQ(quern_sequence_sample(sequence_, &token, &error_), QUERN_OK);
  EXPECT_EQ(token, 'A');

  std::string text;
  auto append = [](void* user, const char* piece, size_t length, int32_t) -> int32_t {
    static_cast<std::string*>(user)->append(piece, length);
    return 0;
  };
  quern_generate_options options = QUERN_GENERATE_OPTIONS_INIT;
  options.max_tokens = 5;
  quern_generate_result result{};
  ASSERT_EQ(quern_generate(sequence_, &options, append, &text, &result, &error_), QUERN_OK);
  EXPECT_EQ(text, "AAAAA");
  EXPECT_EQ(result.finish, QUERN_FINISH_LENGTH);
  EXPECT_EQ(quern_sequence_length(sequence_), 6u);
  EXPECT_EQ(quern_sequence_tokens(sequence_)[5], 'A');

  const char* stop[] = {"AAA"};
  options.stop = stop;
  options.stop_count = 1;
  text.clear();
  ASSERT_EQ(quern_generate(sequence_, &options, append, &text, &result, &error_), QUERN_OK);
  EXPECT_EQ(text, "");
  EXPECT_EQ(result.finish, QUERN_FINISH_STOP);
  EXPECT_EQ(result.tokens, 3u);
}

TEST_F(Api, ForksTruncatesAndDecodesTogether) {
  Open();
  ASSERT_EQ(Feed({'h', 'i'}), QUERN_OK);
  quern_sequence* fork = nullptr;
  ASSERT_EQ(quern_sequence_fork(sequence_, &fork, &error_), QUERN_OK);
  quern_sequence* both[] = {sequence_, fork};
  const int32_t tokens[] = {'x', 'y'};
  ASSERT_EQ(quern_decode(session_, both, tokens, 2, &error_), QUERN_OK) << error_.message;
  EXPECT_EQ(quern_sequence_tokens(sequence_)[2], 'x');
  EXPECT_EQ(quern_sequence_tokens(fork)[2], 'y');
  ASSERT_EQ(quern_sequence_truncate(fork, 1, &error_), QUERN_OK);
  EXPECT_EQ(quern_sequence_length(fork), 1u);
  EXPECT_EQ(quern_sequence_truncate(fork, 2, &error_), QUERN_USAGE);
  both[1] = sequence_;
  EXPECT_EQ(quern_decode(session_, both, tokens, 2, &error_), QUERN_USAGE);
  quern_sequence_free(fork);
}

TEST_F(Api, RefusesTargetsThatDoNotRunHere) {
  Load();
  quern_session_options options = QUERN_SESSION_OPTIONS_INIT;
  options.isa = "future";
  EXPECT_EQ(quern_session_create(model_, &options, &session_, &error_), QUERN_INCOMPATIBLE);
  EXPECT_TRUE(Contains(error_.message, "avx4096")) << error_.message;
  options.isa = "arm";
  EXPECT_EQ(quern_session_create(model_, &options, &session_, &error_), QUERN_USAGE);
  EXPECT_EQ(session_, nullptr);
}

TEST_F(Api, RefusesCallsWithoutMeaning) {
  Open();
  EXPECT_EQ(quern_model_load(nullptr, nullptr, &model_, &error_), QUERN_USAGE);
  EXPECT_STREQ(error_.message, "path is NULL");
  EXPECT_EQ(quern_session_create(model_, nullptr, nullptr, nullptr), QUERN_USAGE);
  EXPECT_EQ(quern_sequence_feed(sequence_, nullptr, 3, QUERN_ROLE_PREFILL, nullptr, &error_),
            QUERN_USAGE);
  EXPECT_EQ(quern_sequence_feed(nullptr, nullptr, 0, QUERN_ROLE_PREFILL, nullptr, &error_),
            QUERN_USAGE);
  EXPECT_EQ(Feed({272}), QUERN_USAGE);
  EXPECT_EQ(Feed({-1}), QUERN_USAGE);

  quern_session_options options = QUERN_SESSION_OPTIONS_INIT;
  quern_session* other = nullptr;
  options.size = sizeof(options) + 8;
  EXPECT_EQ(quern_session_create(model_, &options, &other, &error_), QUERN_USAGE);
  options.size = 0;
  EXPECT_EQ(quern_session_create(model_, &options, &other, &error_), QUERN_USAGE);
  options = QUERN_SESSION_OPTIONS_INIT;
  options.context = UINT64_MAX;
  EXPECT_EQ(quern_session_create(model_, &options, &other, &error_), QUERN_USAGE);

  quern_sampling sampling = QUERN_SAMPLING_INIT;
  sampling.temperature = -1.0f;
  EXPECT_EQ(quern_sequence_set_sampling(sequence_, &sampling, &error_), QUERN_USAGE);
  // Freeing nothing is allowed.
  quern_model_free(nullptr);
  quern_session_free(nullptr);
  quern_sequence_free(nullptr);
  quern_free(nullptr);
  quern_session_cancel(nullptr);
}

TEST_F(Api, AnOlderCallersShorterOptionsKeepTheDefaults) {
  Load();
  quern_session_options options = QUERN_SESSION_OPTIONS_INIT;
  options.threads = 1;
  options.context = 1u << 30;  // beyond the size below: must not be read
  options.size = offsetof(quern_session_options, context);
  ASSERT_EQ(quern_session_create(model_, &options, &session_, &error_), QUERN_OK) << error_.message;
  EXPECT_TRUE(Contains(quern_session_json(session_), "\"context\":256"));
}

TEST_F(Api, CancelFromAnotherThreadEndsGeneration) {
  Open();
  ASSERT_EQ(Feed({'h'}), QUERN_OK);
  quern_generate_options options = QUERN_GENERATE_OPTIONS_INIT;
  options.ignore_end = 1;
  auto cancel = [](void* user, const char*, size_t, int32_t) -> int32_t {
    std::thread([user] { quern_session_cancel(static_cast<quern_session*>(user)); }).join();
    return 0;
  };
  quern_generate_result result{};
  EXPECT_EQ(quern_generate(sequence_, &options, cancel, session_, &result, &error_),
            QUERN_CANCELLED);
  EXPECT_EQ(result.finish, QUERN_FINISH_CANCEL);
  EXPECT_EQ(result.tokens, 1u);
  EXPECT_EQ(Feed({'i'}), QUERN_OK);
}

TEST_F(Api, ProfilesKernels) {
  Open();
  quern_session_set_profiling(session_, 1);
  ASSERT_EQ(Feed({'a', 'b', 'c'}), QUERN_OK);
  char* json = nullptr;
  ASSERT_EQ(quern_session_profile(session_, &json, &error_), QUERN_OK);
  const std::string profile = Take(json);
  EXPECT_TRUE(Contains(profile, "\"name\":\"attend\",\"role\":\"prefill\",\"calls\":")) << profile;
  EXPECT_TRUE(Contains(profile, "\"last_step\":{\"role\":\"prefill\",\"rows\":3,\"logit_rows\":1,"))
      << profile;
  EXPECT_TRUE(Contains(profile, "{\"kernel\":\"embed\",\"layer\":-1,\"begin_ns\":0,")) << profile;
}

/// Stores 7 to *x and 9 behind it.
constexpr const char* kStores = R"(.version 8.0
.target sm_80
.address_size 64
.visible .entry stores(.param .u64 x)
{
  .reg .b64 %l<2>;
  .reg .b32 %r<3>;
  ld.param.u64 %l1, [x];
  mov.u32 %r1, 7;
  st.global.u32 [%l1], %r1;
  mov.u32 %r2, 9;
  st.global.u32 [%l1+4], %r2;
  ret;
}
)";

TEST(Emulate, ReturnsTheReportAndTheBuffers) {
  uint32_t words[2] = {1, 2};
  const quern_emulate_argument argument = {words, sizeof(words), 1};
  quern_emulate_options options = QUERN_EMULATE_OPTIONS_INIT;
  options.kernel = "stores";
  options.coverage = 1;
  char* report = nullptr;
  quern_error error = {};
  ASSERT_EQ(quern_emulate(kStores, std::strlen(kStores), &options, &argument, 1, &report, &error),
            QUERN_OK)
      << error.message;
  const std::string json = Take(report);
  EXPECT_TRUE(Contains(json, R"("kernel":"stores","target":"sm_80","threads":1)")) << json;
  EXPECT_TRUE(Contains(json, R"({"line":10,"instruction":"st.global.u32","warps":1})")) << json;
  EXPECT_EQ(words[0], 7u);
  EXPECT_EQ(words[1], 9u);
}

TEST(Emulate, ReturnsBuffersOfAKernelThatFails) {
  uint32_t word = 1;
  const quern_emulate_argument argument = {&word, sizeof(word), 1};
  char* report = nullptr;
  quern_error error = {};
  EXPECT_EQ(quern_emulate(kStores, std::strlen(kStores), nullptr, &argument, 1, &report, &error),
            QUERN_FAILURE);
  EXPECT_TRUE(Contains(error.message, "kernel 'stores': PTX line 12: st.global.u32: access"))
      << error.message;
  EXPECT_EQ(report, nullptr);
  EXPECT_EQ(word, 7u);
}

TEST(Emulate, RefusesCallsWithoutMeaning) {
  char* report = nullptr;
  quern_error error = {};
  const size_t length = std::strlen(kStores);
  const quern_emulate_argument nothing = {nullptr, 8, 1};
  const auto call = [&](const char* text, const quern_emulate_argument* arguments, size_t count) {
    return quern_emulate(text, length, nullptr, arguments, count, &report, &error);
  };
  EXPECT_EQ(call(nullptr, nullptr, 0), QUERN_USAGE);
  EXPECT_EQ(call(kStores, nullptr, 1), QUERN_USAGE);
  EXPECT_EQ(call(kStores, nullptr, 0), QUERN_USAGE);
  EXPECT_EQ(call(kStores, &nothing, 1), QUERN_USAGE);
  EXPECT_EQ(quern_emulate(kStores, length, nullptr, nullptr, 0, nullptr, &error), QUERN_USAGE);
  EXPECT_EQ(quern_emulate(kStores, 20, nullptr, nullptr, 0, &report, &error), QUERN_MALFORMED);
}

}  // namespace
