// Sampler options and logits: 32 bytes of options, then logits as they lie in memory.
#include <cmath>
#include <vector>

#include "runtime/llm/sampler.h"
#include "tests/fuzz/fuzz.h"

namespace quern {
namespace {

using fuzz::Require;

SamplerOptions TakeOptions(fuzz::Numbers& numbers) {
  SamplerOptions options;
  options.repeat_penalty = numbers.Take<float>();
  options.repeat_last_n = numbers.Take<int32_t>();
  options.top_k = numbers.Take<int32_t>();
  options.top_p = numbers.Take<float>();
  options.min_p = numbers.Take<float>();
  options.temperature = numbers.Take<float>();
  options.seed = numbers.Take<uint64_t>();
  return options;
}

/// Chooses a few tokens; the same sampler must choose the same again.
std::vector<int32_t> Choose(Sampler sampler, std::span<const float> logits) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < 4; ++i) {
    const Result<int32_t> token = sampler.Sample(logits);
    if (!token.ok()) {
      fuzz::RequireOneLine(token.status().message());
      Require(token.status().code() == StatusCode::kFailure, "bad logits are a failure");
      break;
    }
    Require(*token >= 0 && static_cast<size_t>(*token) < logits.size(), "a token has a logit");
    Require(std::isfinite(logits[static_cast<size_t>(*token)]), "a masked token is not chosen");
    sampler.Accept(*token);
    tokens.push_back(*token);
  }
  return tokens;
}

}  // namespace
}  // namespace quern

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quern;  // NOLINT
  fuzz::Numbers numbers({data, size});
  const Result<Sampler> sampler = Sampler::Create(TakeOptions(numbers));
  if (!sampler.ok()) return fuzz::RequireRefusal(sampler.status()), 0;
  std::vector<float> logits(numbers.rest().size() / sizeof(float));
  if (!logits.empty())
    std::memcpy(logits.data(), numbers.rest().data(), logits.size() * sizeof(float));
  Require(Choose(*sampler, logits) == Choose(*sampler, logits), "a seed gives the same tokens");
  return 0;
}
