#include "runtime/loader/manifest_check.h"

#include "runtime/schema/file_header.h"

namespace quern {

Status ManifestCheck::Bad(const std::string& field, const void* at, const std::string& seen,
                          const std::string& wanted) const {
  const auto byte = static_cast<const uint8_t*>(at) - file.data();
  return Malformed("manifest." + field + " (byte " + std::to_string(byte) + ") is " + seen +
                   ", wanted " + wanted + "; compile the model again");
}

uint64_t ManifestCheck::WeightBytes() const {
  for (const schema::Segment* segment : *manifest.segments()) {
    if (segment->kind() == schema::SegmentKind::Weights) return segment->size();
  }
  return 0;
}

std::string Item(const std::string& name, size_t index) {
  return name + "[" + std::to_string(index) + "]";
}

uint64_t SaturatingMul(uint64_t a, uint64_t b) {
  uint64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

uint64_t SaturatingAdd(uint64_t a, uint64_t b) {
  uint64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

Status CheckManifest(const schema::Manifest& manifest, std::span<const uint8_t> file) {
  if (manifest.version() != kManifestVersion) {
    return Incompatible("manifest.version is " + std::to_string(manifest.version()) +
                        ", this runtime reads " + std::to_string(kManifestVersion) +
                        "; compile the model with the compiler of this runtime");
  }
  const ManifestCheck check{manifest, file};
  QUERN_RETURN_IF_ERROR(CheckTables(check));
  return CheckProgram(check);
}

}  // namespace quern
