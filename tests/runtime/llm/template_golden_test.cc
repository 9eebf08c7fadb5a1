// Templates against Python's jinja2: the same text, or both refuse.
#include <gtest/gtest.h>

#include "runtime/llm/template/template.h"
#include "tests/runtime/llm/golden.h"

namespace quern::jinja {
namespace {

using Json = nlohmann::ordered_json;

/// Whether `source` renders as `expected` says: {"text": ...} or {"error": ...}.
testing::AssertionResult Agrees(const std::string& source, const Value& context,
                                const Json& expected) {
  const Result<Template> parsed = Template::Parse(source);
  const Result<std::string> rendered =
      parsed.ok() ? parsed->Render(context) : Result<std::string>(parsed.status());
  if (expected.contains("error")) {
    const std::string error = expected["error"];
    if (rendered.ok())
      return testing::AssertionFailure() << "rendered <" << *rendered << ">, Python: " << error;
    // What the template itself says must come through.
    constexpr std::string_view kRaised = "TemplateError: ";
    if (error.starts_with(kRaised) &&
        (rendered.status().code() != StatusCode::kUsage ||
         !rendered.status().message().ends_with(error.substr(kRaised.size()))))
      return testing::AssertionFailure()
             << "refused with <" << rendered.status().message() << ">, Python: " << error;
    return testing::AssertionSuccess();
  }
  const std::string text = expected["text"];
  if (!rendered.ok())
    return testing::AssertionFailure() << "refused with <" << rendered.status().message()
                                       << ">, Python rendered <" << text << ">";
  if (*rendered != text)
    return testing::AssertionFailure()
           << "rendered\n<" << *rendered << ">\nPython\n<" << text << ">";
  return testing::AssertionSuccess();
}

Value ToValue(const Json& json) {
  Result<Value> value = ParseJson(json.dump());
  EXPECT_TRUE(value.ok()) << value.status().message();
  return value.ok() ? *value : Value();
}

TEST(TemplateGolden, PublishedStylesAgreeWithPython) {
  const Json conversations = ReadGoldenJson("templates/conversations.json");
  const Json expected = ReadGoldenJson("templates/expected.json")["templates"];
  EXPECT_GE(expected.size(), 40u);
  for (const auto& [name, renderings] : expected.items()) {
    const std::string source = ReadGolden("templates/sources/" + name + ".jinja");
    for (const auto& [conversation, result] : renderings.items())
      EXPECT_TRUE(Agrees(source, ToValue(conversations[conversation]), result))
          << name << " on " << conversation;
  }
}

TEST(TemplateGolden, SnippetsAgreeWithPython) {
  const Json snippets = ReadGoldenJson("templates/snippets.json");
  const Json expected = ReadGoldenJson("templates/expected.json")["snippets"];
  const Value context = ToValue(snippets["context"]);
  ASSERT_EQ(snippets["sources"].size(), expected.size()) << "run regenerate.py";
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_TRUE(Agrees(snippets["sources"][i], context, expected[i])) << snippets["sources"][i];
}

}  // namespace
}  // namespace quern::jinja
