// Chat templates: a sandboxed Jinja engine of bounded work.
//
// It renders what Python's jinja2 renders when set up as transformers sets it up: an immutable
// sandbox, trim_blocks, lstrip_blocks, the loop controls extension, `raise_exception`,
// `strftime_now`, `{% generation %}`, and `tojson` as json.dumps(ensure_ascii=False).
// Reference: the Jinja documentation, "Template Designer Documentation".
//
// Left out, each refused by name: inheritance, include and import, recursive loops, integers
// beyond 64 bits.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/base/status.h"
#include "runtime/llm/template/value.h"

namespace quern::jinja {

/// What one rendering may use. Exceeding any is kMalformed, with the limit's name.
struct Limits {
  size_t max_output_bytes = size_t{1} << 20;
  /// Nodes evaluated, loop turns, items built.
  uint64_t max_steps = 5'000'000;
  /// Bytes of strings built on the way, output not counted.
  uint64_t max_string_bytes = uint64_t{256} << 20;
  /// Nested expressions, blocks and macro calls.
  int max_depth = 600;
};

struct Ast;

class Template {
 public:
  static constexpr size_t kMaxSourceBytes = size_t{1} << 20;
  /// Nesting of expressions and blocks in the source.
  static constexpr int kMaxSourceDepth = 200;

  /// Errors: kMalformed with line and column for broken syntax; kUnsupported, naming it, for a
  /// filter, test or statement that does not exist here.
  static Result<Template> Parse(std::string_view source);

  /// Renders with the variables of `context`, a dict.
  /// Errors: kUsage when the template itself refuses (`raise_exception`); kMalformed when it
  /// computes something undefined or wrong, or exceeds `limits`; kUnsupported as in Parse.
  Result<std::string> Render(const Value& context, const Limits& limits = {}) const;

  /// The clock of `strftime_now`, in seconds since 1970; unset: the system's.
  void SetClock(std::optional<int64_t> now) { now_ = now; }

 private:
  explicit Template(std::shared_ptr<const Ast> ast) : ast_(std::move(ast)) {}
  std::shared_ptr<const Ast> ast_;
  std::optional<int64_t> now_;
};

}  // namespace quern::jinja
