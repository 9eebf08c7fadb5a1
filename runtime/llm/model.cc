#include "runtime/llm/model.h"

#include <utility>

#include "runtime/llm/template/template.h"
#include "runtime/llm/template/value.h"

namespace quern {
namespace {

jinja::Value TokenText(const Tokenizer& tokenizer, int32_t token) {
  return token < 0 ? jinja::Value() : jinja::Value(tokenizer.TokenBytes(token));
}

}  // namespace

Result<std::shared_ptr<const Model>> Model::Load(const std::string& path,
                                                 const LoadOptions& options) {
  QUERN_ASSIGN_OR_RETURN(std::unique_ptr<const Artifact> artifact, Artifact::Load(path, options));
  Result<std::shared_ptr<const Model>> model = FromArtifact(std::move(artifact));
  if (model.ok()) return model;
  return Status(model.status().code(), path + ": " + model.status().message());
}

Result<std::shared_ptr<const Model>> Model::FromArtifact(std::unique_ptr<const Artifact> artifact) {
  std::shared_ptr<Model> model(new Model(std::move(artifact)));
  const std::span<const uint8_t> segment = model->artifact_->tokenizer();
  if (!segment.empty()) {
    QUERN_ASSIGN_OR_RETURN(Tokenizer tokenizer, Tokenizer::Create(segment));
    if (tokenizer.vocab_size() > model->vocab()) {
      return Malformed("the tokenizer has " + std::to_string(tokenizer.vocab_size()) +
                       " tokens and the model " + std::to_string(model->vocab()) +
                       "; compile the model again");
    }
    model->tokenizer_.emplace(std::move(tokenizer));
  }
  return std::shared_ptr<const Model>(std::move(model));
}

Result<const Tokenizer*> Model::RequireTokenizer() const {
  if (const Tokenizer* found = tokenizer()) return found;
  return Unsupported(
      "the artifact has no tokenizer; give token ids, or compile the model from a "
      "source that has one");
}

Result<std::string> Model::RenderChat(std::string_view messages_json,
                                      bool add_generation_prompt) const {
  QUERN_ASSIGN_OR_RETURN(const Tokenizer* tokenizer, RequireTokenizer());
  if (tokenizer->chat_template().empty()) {
    return Unsupported("the model has no chat template; give raw text instead");
  }
  QUERN_ASSIGN_OR_RETURN(jinja::Value messages, jinja::ParseJson(messages_json));
  if (!messages.is_list()) {
    return UsageError("messages are a JSON " + std::string(messages.TypeName()) +
                      ", wanted an array of {\"role\": ..., \"content\": ...}");
  }
  QUERN_ASSIGN_OR_RETURN(jinja::Template chat, jinja::Template::Parse(tokenizer->chat_template()));
  auto context = std::make_shared<jinja::Dict>();
  context->Set("messages", messages);
  context->Set("add_generation_prompt", add_generation_prompt);
  context->Set("tools", jinja::None{});
  context->Set("documents", jinja::None{});
  context->Set("bos_token", TokenText(*tokenizer, tokenizer->bos()));
  context->Set("eos_token", TokenText(*tokenizer, tokenizer->eos()));
  context->Set("pad_token", TokenText(*tokenizer, tokenizer->pad()));
  context->Set("unk_token", TokenText(*tokenizer, tokenizer->unknown()));
  return chat.Render(jinja::Value(std::move(context)));
}

}  // namespace quern
