// Memory of the importers: any allocation may fail, and hostile files get little.
#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <variant>

#include "compiler/import/GgufTokenizer.h"
#include "compiler/import/ModelFamilies.h"
#include "tests/compiler/gguf_model.h"
#include "tests/support/failures/failing_new.h"

namespace quern::importer {
namespace {

using namespace quern::testing;  // NOLINT: the builder's vocabulary
using gguf::SmallModel;

/// Imports the whole model; what went wrong, if anything.
ImportCheck Import(const Bytes& bytes) {
  const ImportResult<GgufFile> file = parseGguf(bytes);
  if (!file.ok()) return file.error();
  const ImportResult<ModelConfig> config = readModelConfig(*file);
  if (!config.ok()) return config.error();
  const ImportResult<ModelTensors> tensors = bindTensors(*file, *config);
  if (!tensors.ok()) return tensors.error();
  const auto tokenizer = readTokenizer(*file, config->vocab);
  if (!tokenizer.ok()) return tokenizer.error();
  return std::nullopt;
}

TEST(ImportMemory, AnyAllocationMayFail) {
  const Bytes bytes = SmallModel("qwen2").Build();
  uint64_t nth = 0;
  bool failed = true;
  while (failed) {
    const int64_t blocks = LiveBlocks();
    {
      FailAllocation(++nth);
      const ImportCheck error = Import(bytes);
      failed = AllocationsSinceThen() >= nth;
      FailAllocation(0);
      ASSERT_EQ(error.has_value(), failed) << "allocation " << nth;
      if (failed) {
        ASSERT_EQ(error->code, ImportErrorCode::OutOfMemory) << error->str();
      }
    }
    ASSERT_EQ(LiveBlocks(), blocks) << "a leak after allocation " << nth << " failed";
  }
  EXPECT_GT(nth, 100u);
}

/// The most memory that importing takes, and that it is refused in time.
int64_t PeakOfRefusal(const Bytes& bytes) {
  ResetPeak();
  const int64_t before = LiveBytes();
  const double start = CpuSeconds();
  EXPECT_TRUE(Import(bytes).has_value());
  EXPECT_LT(CpuSeconds() - start, 1.0);
  return PeakBytes() - before;
}

struct Hostile {
  const char* name;
  std::function<void(GgufBuilder&)> change;
};

auto Set(const char* key, const Value& value) {
  return [=](GgufBuilder& builder) { builder.Set(key, value); };
}

const Hostile kHostile[] = {
    {"CountsOfTensors", [](auto& b) { b.claimed_tensors = uint64_t{1} << 63; }},
    {"CountsOfKeys", [](auto& b) { b.claimed_keys = uint64_t{1} << 63; }},
    {"Layers", Set("llama.block_count", U32(4096))},
    {"Width", Set("llama.embedding_length", U32(1u << 20))},
    {"Ffn", Set("llama.feed_forward_length", U32(1u << 20))},
    {"Heads", Set("llama.attention.head_count", U32(1u << 14))},
    {"Context", Set("llama.context_length", U32(1u << 31))},
    {"Tokens", Set("tokenizer.ggml.tokens", Texts(std::vector<std::string>(1 << 20)))},
    {"Merges", Set("tokenizer.ggml.merges", Texts(std::vector<std::string>(1 << 20)))},
    {"Types", Set("tokenizer.ggml.token_type", I32s(std::vector<int32_t>(1 << 20, 1)))},
    {"Ends", Set("tokenizer.ggml.eog_token_ids", I32s(std::vector<int32_t>(1 << 20, 1)))},
    {"HollowStrings", Set("k", HollowArray(8, uint64_t{1} << 60))},
    {"HollowNumbers", Set("k", HollowArray(10, uint64_t{1} << 61))},
    {"Dimensions", [](auto& b) { b.tensors.push_back({"t", {uint64_t{1} << 58, 2}, 0, 0}); }},
};

class HostileMemory : public ::testing::TestWithParam<Hostile> {};

TEST_P(HostileMemory, IsLessThanTwiceTheFile) {
  GgufBuilder builder = SmallModel("llama");
  GetParam().change(builder);
  const Bytes bytes = builder.Build();
  EXPECT_LT(PeakOfRefusal(bytes), 2 * static_cast<int64_t>(bytes.size()));
}

INSTANTIATE_TEST_SUITE_P(Files, HostileMemory, ::testing::ValuesIn(kHostile),
                         [](const auto& param) { return std::string(param.param.name); });

/// The worst there is: a directory of nothing but the shortest entries.
TEST(ImportMemory, ShortEntriesTakeNoMoreThanFiveTimesTheirBytes) {
  GgufBuilder builder;
  for (int i = 0; i < 60000; ++i) builder.keys.push_back({std::to_string(i), Bool(1)});
  const Bytes keys = builder.Build();
  EXPECT_LT(PeakOfRefusal(keys), 5 * static_cast<int64_t>(keys.size()));
  builder.keys.clear();
  for (int i = 0; i < 60000; ++i) builder.tensors.push_back({std::to_string(i), {1}, 0, 0, 0});
  const Bytes tensors = builder.Build();
  EXPECT_LT(PeakOfRefusal(tensors), 5 * static_cast<int64_t>(tensors.size()));
}

}  // namespace
}  // namespace quern::importer
