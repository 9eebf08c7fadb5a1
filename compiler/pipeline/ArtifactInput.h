//===- ArtifactInput.h - An artifact as what is compiled --------*- C++ -*-===//
//
// An artifact holds the program that its code was generated from, behind the
// kernels phase, and its weights are packed alike for every tile. So other code
// can be made from it where the model file is not at hand.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_COMPILER_PIPELINE_ARTIFACTINPUT_H
#define QUERN_COMPILER_PIPELINE_ARTIFACTINPUT_H

#include "codegen/artifact/ArtifactWriter.h"
#include "compiler/import/MappedFile.h"

namespace quern {

/// An artifact that the runtime accepted, mapped.
class ArtifactFile {
public:
  /// Errors: those of quern_model_load(); Unsupported when it holds no program.
  static llvm::Expected<ArtifactFile> open(const std::string &path);

  /// The module behind the kernels phase, as text.
  llvm::StringRef program() const {
    return {reinterpret_cast<const char *>(programBytes.data()),
            programBytes.size()};
  }
  /// The weights segment.
  std::span<const uint8_t> weights() const { return weightBytes; }
  /// The tokenizer segment, if there is one.
  std::optional<std::vector<uint8_t>> tokenizerSegment() const;
  /// Digest of the model file that the artifact was first made from.
  const std::optional<Digest> &sourceHash() const { return modelHash; }

private:
  explicit ArtifactFile(importer::MappedFile mapping)
      : mapping(std::move(mapping)) {}

  importer::MappedFile mapping;
  std::span<const uint8_t> programBytes, weightBytes, tokenizerBytes;
  std::optional<Digest> modelHash;
};

/// Whether a path names an artifact: it ends in ".quern".
bool isArtifactPath(llvm::StringRef path);

} // namespace quern

#endif // QUERN_COMPILER_PIPELINE_ARTIFACTINPUT_H
