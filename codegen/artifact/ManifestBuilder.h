//===- ManifestBuilder.h - rt IR to the artifact's manifest -----*- C++ -*-===//
//
// Translates a planned runtime program, one record an op, into the FlatBuffers
// manifest (runtime/schema/artifact.fbs).
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_ARTIFACT_MANIFESTBUILDER_H
#define QUERN_CODEGEN_ARTIFACT_MANIFESTBUILDER_H

#include "codegen/artifact/Hash.h"
#include "codegen/artifact/WeightLayout.h"
#include "codegen/host/HostCodegen.h"
#include "codegen/ptx/PtxCodegen.h"
#include "runtime/schema/artifact_generated.h"

#include <optional>
#include <string>
#include <vector>

namespace quern {

/// A segment as the manifest lists it.
struct SegmentRecord {
  schema::SegmentKind kind;
  std::string name;
  uint64_t offset = 0;
  uint64_t size = 0;
  Digest hash{};
};

/// Everything that a manifest says.
struct ManifestInputs {
  mlir::ModuleOp module;
  rt::ProgramOp program;
  const ProgramBodies &bodies;
  const WeightLayout &weights;
  llvm::ArrayRef<host::CodeImage> images;
  llvm::ArrayRef<nvptx::PtxImage> ptxImages;
  /// One HostCode or Ptx segment per image, among others.
  llvm::ArrayRef<SegmentRecord> segments;
  /// Name and version of the compiler.
  std::string producer;
  /// Records of the tuning database that the kernels follow.
  std::vector<std::string> tuning;
  /// Digest of the model file.
  std::optional<Digest> sourceHash;
};

/// The manifest's bytes; the same inputs give the same bytes. Errors: Malformed
/// (a program whose parts do not fit each other), Failure (code is missing).
llvm::Expected<std::vector<uint8_t>>
buildManifest(const ManifestInputs &inputs);

/// The one program of a module. Errors: Malformed.
llvm::Expected<rt::ProgramOp> findProgram(mlir::ModuleOp module);

} // namespace quern

#endif // QUERN_CODEGEN_ARTIFACT_MANIFESTBUILDER_H
