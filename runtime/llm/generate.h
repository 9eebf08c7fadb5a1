// Generating text: sample, show, decode, until something ends it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/llm/session.h"

namespace quern {

struct GenerateOptions {
  /// 0: no limit of its own.
  uint64_t max_tokens = 0;
  std::vector<std::string> stop = {};
  /// End tokens are text like any other.
  bool ignore_end = false;
  bool show_control = false;
};

/// What ended it; the values are those of quern_finish in quern.h.
enum class Finish { kLength = 0, kEnd = 1, kStop = 2, kCaller = 3, kContext = 4, kCancel = 5 };

struct GenerateResult {
  Finish finish = Finish::kLength;
  /// Tokens chosen; the last one need not be part of the sequence.
  uint64_t tokens = 0;
};

/// Gets whole UTF-8 characters (maybe none) and the token that completed them, -1 for the rest at
/// the end. False ends it.
using TextCallback = std::function<bool(std::string_view text, int32_t token)>;

/// Extends `sequence`, which has logits. `result` is filled also on failure. Without a tokenizer
/// the texts are empty. Errors: kUsage, kOutOfMemory; kCancelled after Session::Cancel.
Status Generate(Sequence& sequence, const GenerateOptions& options, const TextCallback& callback,
                GenerateResult& result);

}  // namespace quern
