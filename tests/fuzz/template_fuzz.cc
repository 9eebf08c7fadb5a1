// A chat template and, behind a zero byte, its variables as JSON (those of a usual conversation
// when there are none).
#include <optional>

#include "runtime/llm/template/template.h"
#include "runtime/llm/template/value.h"
#include "runtime/llm/utf8.h"
#include "tests/fuzz/fuzz.h"

namespace quern {
namespace {

constexpr std::string_view kConversation = R"({
  "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi \u00e9"},
    {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function",
      "function": {"name": "f", "arguments": {"x": 1, "y": [2.5, true]}}}]},
    {"role": "tool", "tool_call_id": "c1", "name": "f", "content": "7"}],
  "tools": [{"type": "function", "function": {"name": "f", "description": "d",
    "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}}],
  "add_generation_prompt": true, "bos_token": "<s>", "eos_token": "</s>"})";

/// Smaller than the product's limits in what costs time, so that more inputs are seen.
constexpr jinja::Limits kLimits = {.max_steps = 20'000, .max_string_bytes = size_t{4} << 20};

}  // namespace
}  // namespace quern

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quern;  // NOLINT
  const std::string_view input = fuzz::Text({data, size});
  const size_t end = input.find('\0');
  const fuzz::ExactCopy source({data, std::min(end, size)});
  Result<jinja::Template> parsed = jinja::Template::Parse(fuzz::Text(source.bytes()));
  if (!parsed.ok()) return fuzz::RequireRefusal(parsed.status()), 0;
  parsed->SetClock(1'700'000'000);
  const std::string_view json = end == input.npos ? kConversation : input.substr(end + 1);
  const Result<jinja::Value> context = jinja::ParseJson(json);
  if (!context.ok()) return fuzz::RequireRefusal(context.status()), 0;
  const Result<std::string> text = parsed->Render(*context, kLimits);
  if (!text.ok()) return fuzz::RequireRefusal(text.status()), 0;
  fuzz::Require(text->size() <= kLimits.max_output_bytes, "the output is bounded");
  fuzz::Require(utf8::IsValid(*text), "the output is UTF-8");
  return 0;
}
