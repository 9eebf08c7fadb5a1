#include "runtime/loader/artifact.h"

#include <algorithm>
#include <cstring>

#include "runtime/loader/hash.h"
#include "runtime/loader/manifest_check.h"
#include "runtime/schema/file_header.h"

namespace quern {
namespace {

constexpr char kAgain[] = "; copy the artifact again or compile it again";

/// Bounds of the FlatBuffers verifier: deeper than the schema nests, and more tables than a
/// manifest of kMaxManifestBytes holds.
constexpr uint32_t kMaxDepth = 32;
constexpr uint32_t kMaxTables = 1u << 24;

Status BadHeader(const char* field, size_t byte, const std::string& seen,
                 const std::string& wanted) {
  return Malformed(std::string("header.") + field + " (byte " + std::to_string(byte) + ") is " +
                   seen + ", wanted " + wanted + kAgain);
}

}  // namespace

Result<std::unique_ptr<const Artifact>> Artifact::Load(const std::string& path,
                                                       const LoadOptions& options) {
  QUERN_ASSIGN_OR_RETURN(FileBytes file,
                         options.copy ? FileBytes::Copy(path) : FileBytes::Map(path));
  Result<std::unique_ptr<const Artifact>> artifact = FromBytes(std::move(file), options);
  if (artifact.ok()) return artifact;
  return Status(artifact.status().code(), path + ": " + artifact.status().message());
}

Result<std::unique_ptr<const Artifact>> Artifact::FromBytes(FileBytes file,
                                                            const LoadOptions& options) {
  std::unique_ptr<Artifact> artifact(new Artifact(std::move(file)));
  const bool must_be_signed = !options.trusted_keys.empty();
  FileHeader header;
  QUERN_RETURN_IF_ERROR(artifact->ReadHeader(header));
  QUERN_ASSIGN_OR_RETURN(
      artifact->records_,
      ReadRecords(artifact->file_.bytes(), header.manifest_offset + header.manifest_size));
  QUERN_ASSIGN_OR_RETURN(artifact->signers_, ReadSigners(artifact->header(), artifact->records_));
  if (must_be_signed) {
    QUERN_RETURN_IF_ERROR(RequireSigner(artifact->signers_, options.trusted_keys));
  }
  QUERN_RETURN_IF_ERROR(artifact->ReadManifest(header));
  QUERN_RETURN_IF_ERROR(CheckManifest(*artifact->manifest_, artifact->file_.bytes()));
  QUERN_RETURN_IF_ERROR(artifact->CheckHashes(options.check_weights || must_be_signed));
  QUERN_RETURN_IF_ERROR(CheckPtxSegments(*artifact->manifest_, artifact->file_.bytes()));
  return std::unique_ptr<const Artifact>(std::move(artifact));
}

Status Artifact::ReadHeader(FileHeader& header) {
  const std::span<const uint8_t> bytes = file_.bytes();
  if (bytes.empty()) return Malformed(std::string("the file is empty") + kAgain);
  const size_t magic_bytes = std::min(bytes.size(), sizeof(kFileMagic));
  if (std::memcmp(bytes.data(), kFileMagic, magic_bytes) != 0) {
    if (bytes.size() >= 4 && std::memcmp(bytes.data(), "GGUF", 4) == 0) {
      return Malformed(
          "header.magic (byte 0) is that of a GGUF file, wanted an artifact; make one "
          "with quern compile");
    }
    return Malformed(
        "header.magic (byte 0) is not QUERN: this is no artifact, or a text transfer "
        "changed it; make one with quern compile, and copy it as binary");
  }
  if (bytes.size() < sizeof(FileHeader)) {
    return BadHeader("size", 0, std::to_string(bytes.size()) + " bytes", "64");
  }
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (header.version != kFileVersion) {
    return Incompatible("header.version (byte 8) is " + std::to_string(header.version) +
                        ", this runtime reads " + std::to_string(kFileVersion) +
                        "; compile the model with the compiler of this runtime");
  }
  if (header.flags != 0) {
    return Incompatible("header.flags (byte 12) is " + std::to_string(header.flags) +
                        ", this runtime knows none; use a newer runtime");
  }
  if (header.manifest_offset % kSegmentAlignment != 0 || header.manifest_offset == 0 ||
      header.manifest_offset > bytes.size()) {
    return BadHeader("manifest_offset", 16, std::to_string(header.manifest_offset),
                     "a multiple of 4096 within the file's " + std::to_string(bytes.size()));
  }
  const uint64_t room = bytes.size() - header.manifest_offset;
  if (header.manifest_size < 8 || header.manifest_size > std::min(room, kMaxManifestBytes)) {
    return BadHeader("manifest_size", 24, std::to_string(header.manifest_size),
                     "8 to " + std::to_string(std::min(room, kMaxManifestBytes)));
  }
  return {};
}

Status Artifact::ReadManifest(const FileHeader& header) {
  const auto manifest = file_.bytes().subspan(header.manifest_offset, header.manifest_size);
  const Digest digest = HashBytes(manifest);
  if (std::memcmp(digest.data(), header.manifest_hash, kHashBytes) != 0) {
    return BadHeader("manifest_hash", 32, DigestText(header.manifest_hash), DigestText(digest));
  }
  flatbuffers::Verifier verifier(manifest.data(), manifest.size(), kMaxDepth, kMaxTables);
  if (!schema::VerifyManifestBuffer(verifier)) {
    return Malformed("the manifest (byte " + std::to_string(header.manifest_offset) +
                     ") is no FlatBuffer of type QRN1" + kAgain);
  }
  manifest_ = schema::GetManifest(manifest.data());
  return {};
}

std::span<const uint8_t> Artifact::SegmentBytes(size_t index) const {
  const schema::Segment& segment = *manifest_->segments()->Get(static_cast<uint32_t>(index));
  return file_.bytes().subspan(segment.offset(), segment.size());
}

std::span<const uint8_t> Artifact::weights() const {
  for (size_t i = 0; i < manifest_->segments()->size(); ++i) {
    if (manifest_->segments()->Get(i)->kind() == schema::SegmentKind::Weights)
      return SegmentBytes(i);
  }
  return {};
}

std::span<const uint8_t> Artifact::tokenizer() const {
  for (size_t i = 0; i < manifest_->segments()->size(); ++i) {
    if (manifest_->segments()->Get(i)->kind() == schema::SegmentKind::Tokenizer) {
      return SegmentBytes(i);
    }
  }
  return {};
}

Status Artifact::CheckHash(size_t index) const {
  const schema::Segment& segment = *manifest_->segments()->Get(static_cast<uint32_t>(index));
  const Digest digest = HashBytes(SegmentBytes(index));
  const std::span<const uint8_t> wanted(segment.hash()->bytes()->data(), kHashBytes);
  if (std::equal(digest.begin(), digest.end(), wanted.begin())) return {};
  return Malformed("segment " + segment.name()->str() + " (byte " +
                   std::to_string(segment.offset()) + ") has the hash " + DigestText(digest) +
                   ", wanted " + DigestText(wanted) + kAgain);
}

Status Artifact::CheckHashes(bool weights) const {
  for (size_t i = 0; i < manifest_->segments()->size(); ++i) {
    const bool is_weights = manifest_->segments()->Get(i)->kind() == schema::SegmentKind::Weights;
    if (is_weights && !weights) continue;
    QUERN_RETURN_IF_ERROR(CheckHash(i));
  }
  return {};
}

std::vector<TargetRequirement> Artifact::HostTargets() const {
  std::vector<TargetRequirement> targets;
  for (uint32_t i = 0; i < manifest_->targets()->size(); ++i) {
    const schema::Target& target = *manifest_->targets()->Get(i);
    if (target.kind() != schema::TargetKind::Host) continue;
    TargetRequirement requirement{target.name()->str(), {}, i};
    for (const flatbuffers::String* feature : *target.features()) {
      requirement.features.push_back(feature->str());
    }
    targets.push_back(std::move(requirement));
  }
  return targets;
}

std::vector<GpuTargetRequirement> Artifact::GpuTargets() const {
  std::vector<GpuTargetRequirement> targets;
  for (uint32_t i = 0; i < manifest_->targets()->size(); ++i) {
    const schema::Target& target = *manifest_->targets()->Get(i);
    if (target.kind() != schema::TargetKind::Gpu) continue;
    targets.push_back({target.name()->str(), target.gpu_sm(), target.gpu_exact(),
                       target.ptx_version(), i, target.attention_tile_rows()});
  }
  return targets;
}

}  // namespace quern
