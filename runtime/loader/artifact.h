// An artifact in memory, checked: the edge behind which everything is trusted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/device/gpu_target.h"
#include "runtime/device/host/target.h"
#include "runtime/loader/file_bytes.h"
#include "runtime/loader/records.h"
#include "runtime/loader/signature.h"
#include "runtime/schema/artifact_generated.h"
#include "runtime/schema/file_header.h"

namespace quern {

struct LoadOptions {
  /// Read the file into memory instead of mapping it.
  bool copy = false;
  /// Hash the weights too.
  bool check_weights = false;
  /// Not empty: a signature by one of these is required, and weights are hashed too, so that every
  /// byte is the signer's. Before that is known nothing but header and records is looked at.
  std::vector<PublicKey> trusted_keys = {};
};

/// A file whose header, manifest (hash, structure and the meaning of every field), code and
/// tokenizer segments (hashes), records and signatures were checked. Indices, offsets and sizes of
/// the manifest may be used without looking again. Immutable; threads may share it.
///
/// Errors of Load, each naming field, byte offset and remedy: kFailure and kUsage for a file that
/// cannot be read; kMalformed; kIncompatible for a version this runtime does not read, and for a
/// missing signature.
class Artifact {
 public:
  static Result<std::unique_ptr<const Artifact>> Load(const std::string& path,
                                                      const LoadOptions& options = {});
  /// The same for bytes in memory.
  static Result<std::unique_ptr<const Artifact>> FromBytes(FileBytes file,
                                                           const LoadOptions& options = {});

  const schema::Manifest& manifest() const { return *manifest_; }
  uint64_t file_size() const { return file_.bytes().size(); }
  /// Digest of the manifest, which holds the segments' digests: it stands for the whole artifact.
  std::span<const uint8_t> hash() const {
    return file_.bytes().subspan(offsetof(FileHeader, manifest_hash), kHashBytes);
  }

  /// The first 64 bytes of the file, which signatures sign.
  std::span<const uint8_t> header() const { return file_.bytes().first(sizeof(FileHeader)); }
  std::span<const Record> records() const { return records_.items; }
  /// Where the next record goes.
  uint64_t records_end() const { return records_.end; }
  /// Who signed the artifact.
  std::span<const PublicKey> signers() const { return signers_; }

  /// The bytes of segment `index` of the manifest.
  std::span<const uint8_t> SegmentBytes(size_t index) const;
  /// The one segment of kind Weights.
  std::span<const uint8_t> weights() const;
  /// The tokenizer segment; empty where there is none.
  std::span<const uint8_t> tokenizer() const;

  /// Compares segment `index` with its hash. Error: kMalformed.
  Status CheckHash(size_t index) const;

  /// The targets of each kind, in the manifest's order.
  std::vector<TargetRequirement> HostTargets() const;
  std::vector<GpuTargetRequirement> GpuTargets() const;

 private:
  explicit Artifact(FileBytes file) : file_(std::move(file)) {}
  Status ReadHeader(FileHeader& header);
  Status ReadManifest(const FileHeader& header);
  Status CheckHashes(bool weights) const;

  FileBytes file_;
  const schema::Manifest* manifest_ = nullptr;
  Records records_;
  std::vector<PublicKey> signers_;
};

}  // namespace quern
