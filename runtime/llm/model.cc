#include "runtime/llm/model.h"

#include <utility>

namespace quern {

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

}  // namespace quern
