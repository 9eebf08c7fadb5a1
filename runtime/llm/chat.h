// Messages through a model's chat template.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/llm/tokenizer.h"

namespace quern {

/// The text that the tokenizer's chat template makes of `messages_json`, an array of objects with
/// `role` and `content`. Errors: kUsage for JSON that is none or no array, and what the template
/// refuses; kUnsupported where there is no template; those of jinja::Template.
Result<std::string> RenderChat(const Tokenizer& tokenizer, std::string_view messages_json,
                               bool add_generation_prompt);

/// The tokens of that text. Control tokens come from the template alone: what looks like one inside
/// a message stays plain letters. Errors: those of RenderChat() and Tokenizer::Encode().
Result<std::vector<int32_t>> EncodeChat(const Tokenizer& tokenizer, std::string_view messages_json,
                                        bool add_generation_prompt);

}  // namespace quern
