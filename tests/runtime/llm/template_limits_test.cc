// Templates as hostile input: bounded work, typed errors, and what Python has no say in.
#include <gtest/gtest.h>

#include <cmath>
#include <ctime>

#include "runtime/llm/template/template.h"

namespace quern::jinja {
namespace {

Value Context(std::string_view json = R"({"n": 3, "text": "abc", "items": [1, 2, 3]})") {
  Result<Value> value = ParseJson(json);
  EXPECT_TRUE(value.ok()) << value.status().message();
  return value.ok() ? *value : Value();
}

Status Outcome(std::string_view source, const Limits& limits = {}) {
  const Result<Template> parsed = Template::Parse(source);
  if (!parsed.ok()) return parsed.status();
  return parsed->Render(Context(), limits).status();
}

std::string Repeat(std::string_view text, int times) {
  std::string result;
  for (int i = 0; i < times; ++i) result += text;
  return result;
}

TEST(TemplateLimits, EndlessWorkEndsSoon) {
  const std::string_view bombs[] = {
      // Output, steps, strings, values, recursion.
      "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
      "{% for i in range(100000) %}{{ text * 1000 }}{% endfor %}",
      "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% "
      "endfor %}",
      "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% "
      "endfor %}",
      "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = [ns.s, ns.s] %}{% "
      "endfor %}{{ ns.s }}",
      "{% set ns = namespace(s=1) %}{% for i in range(999) %}{% set ns.s = [ns.s] %}{% endfor %}",
      "{% set ns = namespace(s=1) %}{% for i in range(999) %}{% set ns.s = {'k': ns.s} %}{% endfor "
      "%}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% macro a() %}{{ b() }}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{{ a() }}{% endmacro "
      "%}{{ a() }}",
      "{{ 'x' * 10000000000 }}",
      "{{ [1] * 10000000000 }}",
      "{{ 9223372036854775807 * 'ab' }}",
      "{{ '%999999999d' % 1 }}",
      "{{ '{:>999999999}'.format('a') }}",
      "{{ 'a'.center(999999999999) }}",
      "{{ 'a'.zfill(999999999999) }}",
      "{{ text | indent(999999999) }}",
      "{{ items | tojson(indent=999999999) | length ~ (text * 200000000) }}",
      "{% set a = 'a' * 1000000 %}{{ a | replace('a', a) | length }}",
      "{% set a = 'a' * 1000000 %}{{ a | replace('', a) | length }}",
      "{% set a = 'a' * 1000000 %}{{ range(100000) | join(a) | length }}",
      "{{ range(100000) | map('string') | batch(1) | map('batch', 1) | list | length ~ "
      "range(99999) | list * 99999 }}",
      "{% for i in range(99999) %}{% for j in range(99999) %}{% set x = text[::-1] %}{% endfor "
      "%}{% endfor %}",
      "{% for i in range(100000) %}{% set x = range(100000) | list %}{% endfor %}",
      "{% for i in range(100000) %}{% set x = namespace() %}{% macro m() %}{% endmacro %}{{ x }}{% "
      "endfor %}",
  };
  for (const std::string_view bomb : bombs) {
    const std::clock_t start = std::clock();  // processor time: the machine may be busy
    const Status status = Outcome(bomb);
    EXPECT_EQ(status.code(), StatusCode::kMalformed) << bomb << ": " << status.message();
    EXPECT_LT(std::clock() - start, 15 * CLOCKS_PER_SEC) << bomb;
  }
}

TEST(TemplateLimits, DeepSourceIsRefused) {
  const std::string deep[] = {
      "{{ " + Repeat("(", 5000) + "1" + Repeat(")", 5000) + " }}",
      "{{ " + Repeat("[", 5000) + Repeat("]", 5000) + " }}",
      "{{ " + Repeat("not ", 5000) + "1 }}",
      "{{ " + Repeat("-", 5000) + "1 }}",
      "{{ 1" + Repeat(" + 1", 5000) + " }}",
      "{{ 1" + Repeat(" if 1 else 1", 5000) + " }}",
      "{{ x" + Repeat(".a", 5000) + " }}",
      "{{ x" + Repeat("|list", 5000) + " }}",
      "{{ x" + Repeat("()", 5000) + " }}",
      Repeat("{% if 1 %}", 5000) + Repeat("{% endif %}", 5000),
      Repeat("{% for a in b %}", 5000) + Repeat("{% endfor %}", 5000),
      "{% set " + Repeat("(", 5000) + "a" + Repeat(")", 5000) + " = 1 %}",
      "{% set x %}" + Repeat("{% filter upper %}", 5000),
  };
  for (const std::string& source : deep)
    EXPECT_EQ(Outcome(source).code(), StatusCode::kMalformed) << source.substr(0, 40);
  EXPECT_EQ(Outcome(std::string(Template::kMaxSourceBytes + 1, 'x')).code(),
            StatusCode::kMalformed);
  // Width is no depth.
  EXPECT_TRUE(Outcome("{{ 1" + Repeat(" ~ 1", 5000) + " }}").ok());
  EXPECT_TRUE(Outcome("{% if 0 %}" + Repeat("{% elif 0 %}", 5000) + "{% endif %}").ok());
}

TEST(TemplateLimits, LimitsNameThemselves) {
  EXPECT_EQ(Outcome("{{ text }}{{ text }}", {.max_output_bytes = 5}).message(),
            "chat template, line 1: the rendered text is longer than 5 bytes");
  EXPECT_EQ(Outcome("{% for i in range(9) %}\n{{ i }}{% endfor %}", {.max_steps = 60}).message(),
            "chat template, line 2: the template takes more than 60 steps");
}

// What Python's sandbox guards does not exist here: there are no objects behind the values.
TEST(TemplateLimits, NothingLiesBehindValues) {
  for (const std::string_view source :
       {"{{ text.__class__ }}", "{{ items.__init__ }}", "{{ n.__add__ }}", "{{ self }}",
        "{{ text['__class__'] }}", "{{ text | attr('__class__') }}", "{{ config }}"}) {
    const Result<Template> parsed = Template::Parse(source);
    if (!parsed.ok()) continue;  // no such filter
    const Result<std::string> text = parsed->Render(Context());
    EXPECT_TRUE(!text.ok() || text->empty()) << source << ": " << *text;
  }
  for (const std::string_view source :
       {"{{ text.__class__.__mro__ }}", "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__ }}", "{{ namespace.__init__.__globals__ }}",
        "{% set ns = namespace() %}{{ ns.__class__.__init__ }}", "{{ items.append(4) }}",
        "{{ raise_exception.__globals__['os'] }}", "{{ lipsum.__globals__ }}",
        "{% set items.x = 1 %}", "{% import 'os' as os %}", "{% include '/etc/passwd' %}"})
    EXPECT_FALSE(Outcome(source).ok()) << source;
}

TEST(TemplateErrors, SayWhereAndWhat) {
  const std::pair<std::string_view, std::string_view> cases[] = {
      {"a\nb{{ missing.x }}", "chat template, line 2: 'missing' is undefined"},
      {"{% if %}", "chat template, line 1: expected an expression, found '%}'"},
      {"{{ 'a' | shout }}", "chat template, line 1: the filter 'shout' is not supported"},
      {"\n{% include 'a' %}", "chat template, line 2: the statement 'include' is not supported"},
      {"{{ raise_exception('No system role') }}", "the chat template refuses: No system role"},
      {"{{ raise_exception('two\\nlines') }}", "the chat template refuses: two lines"},
      {"{{ 9223372036854775807 + 1 }}", "chat template, line 1: an integer grows beyond 64 bits"},
  };
  for (const auto& [source, message] : cases) EXPECT_EQ(Outcome(source).message(), message);
  EXPECT_EQ(Outcome("{{ 'a' | shout }}").code(), StatusCode::kUnsupported);
  EXPECT_EQ(Outcome("{{ raise_exception('x') }}").code(), StatusCode::kUsage);
  EXPECT_EQ(Outcome("\xFF").code(), StatusCode::kMalformed);
}

TEST(TemplateErrors, EveryCutOfATemplateIsAnErrorOrRenders) {
  const std::string source =
      "{%- macro m(a, b=[1, {'k': 2.5}]) -%}{{ a ~ b | tojson(indent=2) }}{%- endmacro -%}"
      "{% for x, y in [(1, 2)] if x is odd %}{{ m(x, *[y]) if loop.first else -x ** 2 }}"
      "{# note #}{% raw %}{{ }}{% endraw %}{% else %}none{% endfor %}"
      "{% set ns = namespace(a='\\u00e9') %}{% set ns.a = ns.a[::-1].upper() %}{{ '%5.1f' % 2 }}";
  for (size_t size = 0; size <= source.size(); ++size) {
    (void)Outcome(source.substr(0, size));
    (void)Outcome(source.substr(size));
    std::string changed = source;
    if (size < source.size()) changed[size] = "{}%#'\"(|"[size % 8];
    (void)Outcome(changed);
  }
}

TEST(TemplateClock, StrftimeNow) {
  Result<Template> parsed = Template::Parse("{{ strftime_now('%Y') }}|{{ strftime_now('') }}");
  ASSERT_TRUE(parsed.ok());
  parsed->SetClock(1'700'000'000);  // November 2023 in every time zone
  EXPECT_EQ(*parsed->Render(Context()), "2023|");
}

TEST(TemplateMemory, CirclesAreCut) {
  // Under the leak checker these must not leak.
  for (const std::string_view source :
       {"{% set ns = namespace() %}{% set ns.self = ns %}{% set ns.list = [ns] %}",
        "{% macro m() %}{% endmacro %}{% set k = m %}{{ m }}",
        "{% set ns = namespace() %}{% for i in [1] %}{% set ns.l = loop %}{% endfor %}",
        "{% for i in [1] %}{{ loop.changed(loop) }}{% endfor %}",
        "{% for i in [1] %}{{ loop.changed(loop) }}{{ 1 / 0 }}{% endfor %}"})
    (void)Outcome(source);
}

TEST(TemplateJson, HostileJsonIsRefused) {
  for (const std::string& json :
       {std::string(), std::string("{"), std::string("[1,]"), std::string("nul"),
        std::string("\"\xFF\""), std::string("99999999999999999999"),
        std::string("18446744073709551615"), Repeat("[", 100000), Repeat("{\"a\":", 5000)})
    EXPECT_EQ(ParseJson(json).status().code(), StatusCode::kUsage) << json.substr(0, 30);
  for (const char* json : {"1e400", "-1e400", "NaN", "-Infinity", "[01]", "[.5]", "[+1]", "'a'",
                           R"("\ud800")", R"("\udc00\ud800")", "\"\xED\xA0\x80\"", "\"\xC0\x80\"",
                           "\"\t\"", "{\"a\":1,}", "{a:1}", "[1]//", "[1] [2]", "\"\\x41\""})
    EXPECT_EQ(ParseJson(json).status().code(), StatusCode::kUsage) << json;
  EXPECT_TRUE(ParseJson(Repeat("[", kMaxValueDepth) + Repeat("]", kMaxValueDepth)).ok());
  EXPECT_EQ(ParseJson(Repeat("[", kMaxValueDepth + 1) + Repeat("]", kMaxValueDepth + 1))
                .status()
                .message(),
            "JSON nests deeper than 128");
  EXPECT_EQ(ParseJson("\xEF\xBB\xBF[-0]")->list().items()[0].integer(), 0) << "with a BOM";
  EXPECT_TRUE(std::signbit(ParseJson("-0.0")->number()));
  EXPECT_EQ(ParseJson(R"("\ud83d\ude00")")->string(), "\U0001F600");
  const Result<Value> value = ParseJson(R"({"a": 1, "b": [true, null, -2.5e3], "a": "last"})");
  ASSERT_TRUE(value.ok());
  EXPECT_EQ(value->dict().size(), 2u);
  EXPECT_EQ(value->dict().Find("a")->string(), "last");
  EXPECT_EQ(value->dict().Find("b")->list().items()[2].number(), -2500);
}

}  // namespace
}  // namespace quern::jinja
