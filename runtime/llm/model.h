// A language model: an artifact and the text side of it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/base/status.h"
#include "runtime/llm/tokenizer.h"
#include "runtime/loader/artifact.h"

namespace quern {

/// Immutable; threads and sessions may share one.
class Model {
 public:
  /// Errors: those of Artifact::Load and Tokenizer::Create; kMalformed when the tokenizer has more
  /// tokens than the model.
  static Result<std::shared_ptr<const Model>> Load(const std::string& path,
                                                   const LoadOptions& options = {});
  static Result<std::shared_ptr<const Model>> FromArtifact(
      std::unique_ptr<const Artifact> artifact);

  const Artifact& artifact() const { return *artifact_; }
  const schema::Manifest& manifest() const { return artifact_->manifest(); }
  int64_t vocab() const { return manifest().model()->vocab(); }
  int64_t context() const { return manifest().model()->context(); }

  /// Null for an artifact without a tokenizer, which works on token ids alone.
  const Tokenizer* tokenizer() const { return tokenizer_ ? &*tokenizer_ : nullptr; }
  /// The tokenizer, or kUnsupported.
  Result<const Tokenizer*> RequireTokenizer() const;

 private:
  explicit Model(std::unique_ptr<const Artifact> artifact) : artifact_(std::move(artifact)) {}

  std::unique_ptr<const Artifact> artifact_;
  std::optional<Tokenizer> tokenizer_;
};

}  // namespace quern
