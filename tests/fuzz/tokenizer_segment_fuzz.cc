// A tokenizer segment (runtime/schema/tokenizer.fbs).
#include "runtime/llm/tokenizer.h"
#include "runtime/llm/utf8.h"
#include "tests/fuzz/fuzz.h"

namespace quern {
namespace {

constexpr std::string_view kText =
    "Hello, world! It's 12345 o'clock.\r\n\n  \t caf\u00e9 \u4e2d\u6587 \U0001F600 <|im_end|> "
    "\xff\xc3(";

}  // namespace
}  // namespace quern

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quern;  // NOLINT
  const fuzz::ExactCopy segment({data, size});
  const Result<Tokenizer> tokenizer = Tokenizer::Create(segment.bytes());
  if (!tokenizer.ok()) return fuzz::RequireRefusal(tokenizer.status()), 0;
  const Result<std::vector<int32_t>> tokens = tokenizer->Encode(kText, {.parse_special = true});
  if (!tokens.ok()) return fuzz::RequireRefusal(tokens.status()), 0;
  for (const int32_t token : *tokens)
    fuzz::Require(token >= 0 && token < tokenizer->vocab_size(), "a token is in the vocabulary");
  fuzz::Require(tokenizer->Decode(*tokens).ok(), "tokens of a text can be decoded");
  return 0;
}
