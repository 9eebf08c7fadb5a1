// Model configurations, tensors and tokenizers read from GGUF metadata.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "compiler/import/GgufTokenizer.h"
#include "compiler/import/ModelFamilies.h"
#include "tests/compiler/gguf_model.h"

namespace quern::importer {
namespace {

using namespace quern::testing;        // NOLINT: the builder's vocabulary
using namespace quern::testing::gguf;  // NOLINT

/// What reading the whole model ends with; `bytes` outlives the result.
struct Import {
  std::optional<ModelConfig> config;
  std::optional<ModelTensors> tensors;
  std::optional<TokenizerSpec> tokenizer;
  std::optional<ImportError> error;
};

Import ImportModel(const Bytes& bytes) {
  Import result;
  ImportResult<GgufFile> file = parseGguf(bytes);
  if (!file.ok()) return result.error = file.error(), result;
  ImportResult<ModelConfig> config = readModelConfig(*file);
  if (!config.ok()) return result.error = config.error(), result;
  result.config = *config;
  ImportResult<ModelTensors> tensors = bindTensors(*file, *config);
  if (!tensors.ok()) return result.error = tensors.error(), result;
  for (const ModelTensors::ByRole& layer : tensors->layers)
    for (const GgufTensor* tensor : layer)
      if (tensor) EXPECT_EQ(file->findTensor(tensor->name), tensor);
  result.tensors = *tensors;
  ImportResult<std::optional<TokenizerSpec>> tokenizer = readTokenizer(*file, config->vocab);
  if (!tokenizer.ok()) return result.error = tokenizer.error(), result;
  result.tokenizer = *tokenizer;
  return result;
}

TEST(ModelFamilies, ReadsALlama) {
  Bytes bytes = SmallModel("llama").Build();
  Import model = ImportModel(bytes);
  ASSERT_FALSE(model.error) << model.error->str();
  const ModelConfig& config = *model.config;
  EXPECT_EQ(config.family, "llama");
  EXPECT_EQ(config.name, "llama") << "the family, when the file gives no name";
  EXPECT_EQ(config.licence, "apache-2.0");
  EXPECT_EQ(config.vocab, 8);
  EXPECT_EQ(config.headDim, 16);
  EXPECT_EQ(config.ropeDim, 16);
  EXPECT_EQ(config.ropeBase, 10000);
  EXPECT_EQ(config.ropeMode, RopeMode::Interleaved);
  EXPECT_EQ(config.context, 512);
  EXPECT_FLOAT_EQ(static_cast<float>(config.rmsEps), 1e-5f);
  EXPECT_TRUE(config.tiedEmbedding);
  EXPECT_FALSE(config.qkvBias);
  EXPECT_TRUE(config.ropeFreqFactors.empty());
  EXPECT_EQ(model.tensors->get(TensorRole::Output), nullptr);
  ASSERT_EQ(model.tensors->layers.size(), 2u);
  EXPECT_NE(model.tensors->get(TensorRole::FfnDown, 1), nullptr);
  EXPECT_EQ(model.tensors->get(TensorRole::QueryBias, 0), nullptr);
}

TEST(ModelFamilies, ReadsAQwen2) {
  GgufBuilder builder = SmallModel("qwen2");
  builder.Set("qwen2.rope.freq_base", F32(1e6f));
  builder.Set("general.name", Text("small"));
  AddMatrix(builder, "output.weight", kVocab, kHidden);
  Bytes bytes = builder.Build();
  Import model = ImportModel(bytes);
  ASSERT_FALSE(model.error) << model.error->str();
  EXPECT_EQ(model.config->name, "small");
  EXPECT_EQ(model.config->ropeMode, RopeMode::HalfSplit);
  EXPECT_EQ(model.config->ropeBase, 1e6);
  EXPECT_TRUE(model.config->qkvBias);
  EXPECT_FALSE(model.config->tiedEmbedding);
  EXPECT_NE(model.tensors->get(TensorRole::KeyBias, 1), nullptr);
}

TEST(ModelFamilies, ReadsHeadSizesAndRopeFactors) {
  GgufBuilder builder = SmallModel("llama");
  builder.Set("llama.attention.key_length", U32(kHidden / kHeads));
  builder.Set("llama.rope.dimension_count", U32(8));
  builder.tensors.insert(builder.tensors.begin(), Tensor{"rope_freqs.weight", {4}, 0, 16});
  Bytes bytes = builder.Build();
  const float factors[] = {1.0f, 2.0f, 4.0f, 8.0f};
  ImportResult<GgufFile> file = parseGguf(bytes);
  ASSERT_TRUE(file.ok());
  std::memcpy(const_cast<uint8_t*>(file->findTensor("rope_freqs.weight")->data.data()), factors,
              sizeof(factors));
  Import model = ImportModel(bytes);
  ASSERT_FALSE(model.error) << model.error->str();
  EXPECT_EQ(model.config->ropeDim, 8);
  EXPECT_EQ(model.config->ropeFreqFactors, (std::vector<float>{1, 2, 4, 8}));
  EXPECT_NE(model.tensors->get(TensorRole::RopeFactors), nullptr);
}

TEST(GgufTokenizer, ReadsEveryField) {
  GgufBuilder builder = SmallModel("llama");
  builder.Set("tokenizer.ggml.unknown_token_id", U32(0));
  builder.Set("tokenizer.ggml.eot_token_id", U32(5));
  builder.Set("tokenizer.ggml.eog_token_ids", I32s({5, 7}));
  builder.Set("tokenizer.chat_template", Text("{{ messages }}"));
  Bytes bytes = builder.Build();
  Import model = ImportModel(bytes);
  ASSERT_FALSE(model.error) << model.error->str();
  const TokenizerSpec& spec = *model.tokenizer;
  EXPECT_EQ(spec.tokens.size(), kVocab);
  EXPECT_EQ(spec.tokens[4], "ab");
  EXPECT_EQ(spec.types[6], 3);
  EXPECT_EQ(spec.merges, (std::vector<std::string>{"a b", "c d"}));
  EXPECT_EQ(spec.preTokenizer, "smollm");
  EXPECT_EQ(spec.bos, 6);
  EXPECT_EQ(spec.eos, 7);
  EXPECT_EQ(spec.eot, 5);
  EXPECT_EQ(spec.pad, -1);
  EXPECT_EQ(spec.unknown, 0);
  EXPECT_TRUE(spec.addBos);
  EXPECT_FALSE(spec.addEos);
  EXPECT_EQ(spec.endOfGeneration, (std::vector<int32_t>{5, 7}));
  EXPECT_EQ(spec.chatTemplate, "{{ messages }}");
}

TEST(GgufTokenizer, AFileMayHaveNone) {
  GgufBuilder builder = SmallModel("llama");
  builder.Remove("tokenizer.ggml.model");
  Bytes bytes = builder.Build();
  Import model = ImportModel(bytes);
  ASSERT_FALSE(model.error) << model.error->str();
  EXPECT_FALSE(model.tokenizer.has_value());
}

//===--- Models that contradict themselves
//-----------------------------------------------------===//

struct BadModel {
  const char* name;
  std::function<void(GgufBuilder&)> damage;
  ImportErrorCode code;
  const char* fragment;
};

auto Setting(std::string key, Value value) {
  return [=](GgufBuilder& builder) { builder.Set(key, value); };
}
auto Without(std::string name) {
  return [=](GgufBuilder& builder) { builder.Remove(name); };
}

std::vector<BadModel> BadModels() {
  constexpr auto kMalformed = ImportErrorCode::Malformed;
  constexpr auto kUnsupported = ImportErrorCode::Unsupported;
  return {
      {"no_architecture", Without("general.architecture"), kMalformed, "general.architecture"},
      {"architecture_number", Setting("general.architecture", U32(1)), kMalformed, "type uint32"},
      {"architecture_unknown", Setting("general.architecture", Text("mamba")), kUnsupported,
       "\"mamba\"; llama, qwen2 are supported; compile a model of one of these, or add "
       "its row"},
      {"adapter", Setting("general.type", Text("adapter")), kUnsupported, "GGUF \"adapter\""},
      {"shard", Setting("split.count", U32(4)), kUnsupported, "one of 4 shards"},
      {"no_layers_key", Without("llama.block_count"), kMalformed,
       "\"llama.block_count\" is missing"},
      {"layers_0", Setting("llama.block_count", U32(0)), kMalformed, "block_count\" is 0"},
      {"layers_huge", Setting("llama.block_count", U32(1u << 31)), kMalformed, "is 2147483648"},
      {"layers_text", Setting("llama.block_count", Text("2")), kMalformed, "of type string"},
      {"layers_overflow", Setting("llama.block_count", U64(UINT64_MAX)), kMalformed,
       "is 18446744073709551615"},
      {"layers_more_than_tensors", Setting("llama.block_count", U32(3)), kMalformed,
       "\"blk.2.attn_norm.weight\" is missing"},
      {"layers_fewer_than_tensors", Setting("llama.block_count", U32(1)), kUnsupported,
       "is not part of a llama model of 1 layers"},
      {"heads_0", Setting("llama.attention.head_count", U32(0)), kMalformed, "head_count\" is 0"},
      {"heads_by_layer", Setting("llama.attention.head_count", I32s({4, 4})), kUnsupported,
       "differs from layer to layer"},
      {"heads_negative", Setting("llama.attention.head_count", I32(-4)), kMalformed, "is -4"},
      {"kv_heads_not_dividing", Setting("llama.attention.head_count_kv", U32(3)), kMalformed,
       "a divisor of the 4 heads"},
      {"kv_heads_more", Setting("llama.attention.head_count_kv", U32(8)), kMalformed,
       "a divisor of the 4 heads"},
      {"width_not_heads", Setting("llama.attention.head_count", U32(6)), kMalformed,
       "not a multiple of the 6 heads"},
      {"heads_above_width", Setting("llama.attention.head_count", U32(128)), kMalformed,
       "not a multiple of the 128 heads"},
      {"value_length", Setting("llama.attention.value_length", U32(8)), kUnsupported,
       "values of 8"},
      {"rope_odd", Setting("llama.rope.dimension_count", U32(7)), kMalformed, "is 7, an even"},
      {"rope_above_head", Setting("llama.rope.dimension_count", U32(32)), kMalformed,
       "head size of 16"},
      {"rope_base_nan", Setting("llama.rope.freq_base", F32(NAN)), kMalformed,
       "freq_base\" is nan"},
      {"rope_base_0", Setting("llama.rope.freq_base", F32(0)), kMalformed, "is 0.0"},
      {"rope_linear", Setting("llama.rope.scaling.type", Text("linear")), kUnsupported,
       "\"linear\""},
      {"rope_yarn", Setting("llama.rope.scaling.type", Text("yarn")), kUnsupported, "\"yarn\""},
      {"rope_factor", Setting("llama.rope.scaling.factor", F32(4)), kUnsupported, "rope scaling"},
      {"context_0", Setting("llama.context_length", U32(0)), kMalformed, "context_length\" is 0"},
      {"eps_0", Setting("llama.attention.layer_norm_rms_epsilon", F32(0)), kMalformed,
       "rms_epsilon\" is 0"},
      {"experts", Setting("llama.expert_count", U32(8)), kUnsupported, "a mixture of experts"},
      {"window", Setting("llama.attention.sliding_window", U32(4096)), kUnsupported,
       "sliding-window"},
      {"vocab_size", Setting("llama.vocab_size", U32(9)), kMalformed, "8 rows of the embedding"},
      {"no_embedding", Without("token_embd.weight"), kMalformed,
       "\"token_embd.weight\" is missing"},
      {"no_weight", Without("blk.1.ffn_up.weight"), kMalformed, "\"blk.1.ffn_up.weight\""},
      {"wrong_shape", [](auto& b) { b.Find("blk.0.attn_k.weight").dims = {kHidden, kKv / 2}; },
       kMalformed, "is 16 x 64, 32 x 64 was wanted"},
      {"wrong_rank", [](auto& b) { b.Find("output_norm.weight").dims = {32, 2}; }, kMalformed,
       "is 2 x 32, 64 was wanted"},
      {"quantized_norm",
       [](auto& b) { b.Find("output_norm.weight") = {"output_norm.weight", {64}, 8, 68}; },
       kUnsupported, "has type q8_0"},
      {"some_biases", [](auto& b) { AddVector(b, "blk.0.attn_q.bias", kHidden); }, kMalformed,
       "\"blk.1.attn_q.bias\" is missing"},
      {"unknown_tensor", [](auto& b) { AddVector(b, "blk.0.attn_q_norm.weight", 16); },
       kUnsupported, "\"blk.0.attn_q_norm.weight\" is not part"},
      {"rope_factors_zero", [](auto& b) { AddVector(b, "rope_freqs.weight", 8); }, kMalformed,
       "not positive"},
      {"rope_factors_size", [](auto& b) { AddVector(b, "rope_freqs.weight", 5); }, kMalformed,
       "wanted as 8 floats"},
      {"tokenizer_model_number", Setting("tokenizer.ggml.model", U32(2)), kMalformed,
       "string was wanted"},
      {"tokenizer_spm", Setting("tokenizer.ggml.model", Text("llama")), kUnsupported, "\"llama\""},
      {"no_tokens", Without("tokenizer.ggml.tokens"), kMalformed, "\"tokenizer.ggml.tokens\""},
      {"tokens_numbers", Setting("tokenizer.ggml.tokens", I32s({1})), kMalformed,
       "array of int32, array of strings"},
      {"tokens_short", Setting("tokenizer.ggml.tokens", Texts({"a", "b"})), kMalformed,
       "has 2 elements"},
      {"tokens_not_utf8",
       Setting("tokenizer.ggml.tokens", Texts({"a", "\xed\xa0\x80", "c", "", "", "", "", ""})),
       kMalformed, "element 1"},
      {"types_short", Setting("tokenizer.ggml.token_type", I32s({1, 1, 1})), kMalformed,
       "has 3 elements"},
      {"types_unknown", Setting("tokenizer.ggml.token_type", I32s({1, 1, 1, 1, 1, 1, 1, 9})),
       kMalformed, "token 7 has type 9"},
      {"scores_short", Setting("tokenizer.ggml.scores", I32s({1})), kMalformed, "has 1 elements"},
      {"no_merges", Without("tokenizer.ggml.merges"), kMalformed, "\"tokenizer.ggml.merges\""},
      {"bos_past_vocab", Setting("tokenizer.ggml.bos_token_id", U32(8)), kMalformed,
       "is token 8, the vocabulary has 0 to 7"},
      {"eos_negative", Setting("tokenizer.ggml.eos_token_id", I32(-1)), kMalformed, "is token -1"},
      {"eog_past_vocab", Setting("tokenizer.ggml.eog_token_ids", I32s({7, 99})), kMalformed,
       "is token 99"},
      {"add_bos_number", Setting("tokenizer.ggml.add_bos_token", U32(1)), kMalformed,
       "bool was wanted"},
      {"template_not_utf8", Setting("tokenizer.chat_template", Text("\xff")), kMalformed,
       "is not UTF-8"},
  };
}

class BadModelTest : public ::testing::TestWithParam<BadModel> {};

TEST_P(BadModelTest, IsRefusedWithCodeAndReason) {
  GgufBuilder builder = SmallModel("llama");
  GetParam().damage(builder);
  Bytes bytes = builder.Build();
  Import model = ImportModel(bytes);
  ASSERT_TRUE(model.error.has_value());
  EXPECT_EQ(model.error->code, GetParam().code) << model.error->str();
  EXPECT_NE(model.error->message.find(GetParam().fragment), std::string::npos)
      << model.error->str();
}

INSTANTIATE_TEST_SUITE_P(Models, BadModelTest, ::testing::ValuesIn(BadModels()),
                         [](const auto& param) { return std::string(param.param.name); });

TEST(ModelFamilies, Qwen2WantsBiases) {
  GgufBuilder builder = SmallModel("qwen2");
  builder.Remove("blk.0.attn_k.bias");
  Bytes bytes = builder.Build();
  Import model = ImportModel(bytes);
  ASSERT_TRUE(model.error.has_value());
  EXPECT_NE(model.error->message.find("\"blk.0.attn_k.bias\" is missing"), std::string::npos)
      << model.error->str();
}

}  // namespace
}  // namespace quern::importer
