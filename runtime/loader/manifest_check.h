// What FlatBuffers cannot check of a manifest: that its numbers make sense together.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "runtime/base/status.h"
#include "runtime/schema/artifact_generated.h"

namespace quern {

/// Checks every index, offset, size, enum and range of `manifest`, which passed the FlatBuffers
/// verifier and lies inside `file`. Errors: kMalformed, naming field, byte offset, what was seen
/// and wanted; kIncompatible for another manifest version.
Status CheckManifest(const schema::Manifest& manifest, std::span<const uint8_t> file);

/// Compares the PTX segments with what the manifest says of them: version, target, entries.
/// Precondition: CheckManifest passed, and so did the segments' hashes. Error: kMalformed.
Status CheckPtxSegments(const schema::Manifest& manifest, std::span<const uint8_t> file);

// ---- Inside the checker: check_*.cc -------------------------------------------------------------

/// The manifest at hand and how its refusals are worded.
struct ManifestCheck {
  const schema::Manifest& manifest;
  std::span<const uint8_t> file;

  /// `manifest.FIELD (byte B) is SEEN, wanted WANTED; remedy`, where `at` points at the table or
  /// struct that holds the field.
  Status Bad(const std::string& field, const void* at, const std::string& seen,
             const std::string& wanted) const;
  Status Bad(const std::string& field, const void* at, uint64_t seen,
             const std::string& wanted) const {
    return Bad(field, at, std::to_string(seen), wanted);
  }

  uint64_t WeightBytes() const;
  size_t CountTargets(schema::TargetKind kind) const;
  /// Whether `index` is that of a target of `kind`.
  bool IsTarget(uint32_t index, schema::TargetKind kind) const;
};

/// Names and other texts: they go into messages and to terminals as they are.
Status CheckTexts(const ManifestCheck& check);
/// Model, segments, targets, kernels, buffers, KV.
Status CheckTables(const ManifestCheck& check);
/// What only GPU targets have; `name` is the target's or kernel's, for messages.
Status CheckGpuTarget(const ManifestCheck& check, const schema::Target& target,
                      const std::string& name);
Status CheckGpuCodes(const ManifestCheck& check, const schema::Kernel& kernel,
                     const std::string& name);
Status CheckGpuSamplers(const ManifestCheck& check);
/// The grids of a dispatch, as far as they depend on its ranges. Precondition: ranges were checked.
Status CheckGpuGrids(const ManifestCheck& check, const schema::Instruction& dispatch,
                     const std::string& name);
/// Bodies and their calls. Precondition: CheckTables passed.
Status CheckProgram(const ManifestCheck& check);

/// `name[index]`, for messages.
std::string Item(const std::string& name, size_t index);

/// a * b and a + b, or the largest u64 where that is more.
uint64_t SaturatingMul(uint64_t a, uint64_t b);
uint64_t SaturatingAdd(uint64_t a, uint64_t b);

/// Whether the enum value came from the schema: generated enums are dense from 0.
template <typename Enum>
bool IsKnown(Enum value) {
  return value >= Enum::MIN && value <= Enum::MAX;
}

}  // namespace quern
