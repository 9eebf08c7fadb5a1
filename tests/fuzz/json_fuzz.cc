// JSON from callers (chat messages), read and written again.
#include <cmath>

#include "runtime/llm/template/template.h"
#include "runtime/llm/template/value.h"
#include "tests/fuzz/fuzz.h"

namespace quern {
namespace {

using fuzz::Require;
using jinja::Value;

/// Whether `value` has a number that JSON has no spelling for.
bool HasInfinity(const Value& value) {
  if (value.is_double()) return !std::isfinite(value.number());
  if (value.is_list())
    for (const Value& item : value.list().items())
      if (HasInfinity(item)) return true;
  if (value.is_dict())
    for (const auto& [key, item] : value.dict().entries())
      if (HasInfinity(item)) return true;
  return false;
}

/// `value` through the template filter `tojson`.
Result<std::string> ToJson(const Value& value) {
  static const Result<jinja::Template> kTemplate = jinja::Template::Parse("{{ value | tojson }}");
  auto context = std::make_shared<jinja::Dict>();
  context->Set("value", value);
  return kTemplate->Render(Value(std::move(context)));
}

}  // namespace
}  // namespace quern

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quern;  // NOLINT
  const fuzz::ExactCopy copy({data, size});
  const Result<Value> value = jinja::ParseJson(fuzz::Text(copy.bytes()));
  if (!value.ok()) return fuzz::RequireRefusal(value.status()), 0;
  Require(value->depth() <= jinja::kMaxValueDepth, "nesting is bounded");
  if (HasInfinity(*value)) return 0;
  const Result<std::string> written = ToJson(*value);
  if (!written.ok()) return fuzz::RequireRefusal(written.status()), 0;
  const Result<Value> again = jinja::ParseJson(*written);
  Require(again.ok(), "what tojson wrote is JSON");
  const Result<std::string> rewritten = ToJson(*again);
  Require(rewritten.ok() && *rewritten == *written, "writing is the inverse of reading");
  return 0;
}
