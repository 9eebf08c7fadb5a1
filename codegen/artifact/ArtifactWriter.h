//===- ArtifactWriter.h - One file from a compiled model --------*- C++ -*-===//
//
// Writes the file that docs/artifact.md describes: header, code images,
// tokenizer, weights, manifest. The same inputs give the same bytes; nothing in
// the file depends on time, place or the number of threads.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_ARTIFACT_ARTIFACTWRITER_H
#define QUERN_CODEGEN_ARTIFACT_ARTIFACTWRITER_H

#include "codegen/artifact/CompileError.h"
#include "codegen/artifact/Hash.h"
#include "codegen/artifact/Signature.h"
#include "codegen/artifact/WeightLayout.h"
#include "codegen/host/HostCodegen.h"
#include "codegen/ptx/PtxCodegen.h"

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace quern {

/// What goes into an artifact.
struct ArtifactInputs {
  /// A module with one planned rt.program.
  mlir::ModuleOp module;
  /// One image per host target, the plainest target first.
  llvm::ArrayRef<host::CodeImage> images;
  /// One image per GPU target, the oldest target first.
  llvm::ArrayRef<nvptx::PtxImage> ptxImages;
  /// The tokenizer segment, if the model has one.
  std::optional<std::vector<uint8_t>> tokenizer;
  /// The module behind the kernels phase as text, from which other code can be
  /// made; empty: none.
  std::string program;
  /// The model file: its bytes are hashed, its weights found by name.
  std::span<const uint8_t> source;
  WeightLookup findWeight;
  /// Or the weights segment of an artifact of the same program, which is
  /// copied, and the digest of the model file that it was made from.
  std::span<const uint8_t> packedWeights;
  std::optional<Digest> sourceHash;
  /// Name and version of the compiler.
  std::string producer;
  /// Records of the tuning database that the kernels follow.
  std::vector<std::string> tuning;
  /// Who signs; null: nobody.
  const SigningKey *signingKey = nullptr;
};

/// What was written.
struct ArtifactSummary {
  uint64_t fileBytes = 0;
  /// Digest of the manifest, which holds the digests of everything else.
  Digest hash{};
  uint64_t weightBytes = 0;
  /// Bytes of the same weights in the model file.
  uint64_t sourceWeightBytes = 0;
  /// Matrices that were quantized while they were packed: bytes in the model
  /// file and bytes packed.
  uint64_t quantizedFrom = 0, quantizedTo = 0;
  uint64_t parameters = 0;
};

/// Called while weights are packed, with bytes done and bytes in all.
using PackProgress = std::function<void(uint64_t done, uint64_t total)>;

/// Writes the artifact to `path`, whole or not at all (OutputFile.h). Errors:
/// those of layOutWeights() and buildManifest(); Failure when the file cannot
/// be written.
llvm::Expected<ArtifactSummary> writeArtifact(const std::string &path,
                                              const ArtifactInputs &inputs,
                                              const PackProgress &progress);

} // namespace quern

#endif // QUERN_CODEGEN_ARTIFACT_ARTIFACTWRITER_H
