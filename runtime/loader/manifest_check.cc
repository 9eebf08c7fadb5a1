#include "runtime/loader/manifest_check.h"

#include "runtime/schema/file_header.h"

namespace quern {
namespace {

/// The FlatBuffers verifier aligns a vector's length, 4 bytes, but not elements of 8 bytes. Empty
/// vectors have none, and FlatBuffers writes them unaligned.
template <typename Vector>
Status CheckAlignment(const ManifestCheck& check, const std::string& field, const Vector* vector) {
  if (!vector || vector->size() == 0) return {};
  if (reinterpret_cast<uintptr_t>(vector->Data()) % sizeof(uint64_t) == 0) return {};
  return check.Bad(field, vector, "not aligned", "elements at a multiple of 8 bytes");
}

Status CheckVectors(const ManifestCheck& check) {
  const schema::Manifest& m = check.manifest;
  QUERN_RETURN_IF_ERROR(CheckAlignment(check, "kv", m.kv()));
  for (const schema::Kernel* kernel : *m.kernels()) {
    QUERN_RETURN_IF_ERROR(CheckAlignment(check, "kernels.codes", kernel->codes()));
  }
  for (const schema::Body* body : *m.bodies()) {
    for (const schema::WeightSlot* slot : *body->weights()) {
      QUERN_RETURN_IF_ERROR(CheckAlignment(check, "bodies.weights.sizes", slot->sizes()));
    }
    for (const schema::Instruction* i : *body->instructions()) {
      QUERN_RETURN_IF_ERROR(CheckAlignment(check, "bodies.instructions.ranges", i->ranges()));
    }
  }
  QUERN_RETURN_IF_ERROR(
      CheckAlignment(check, "prologue.weight_offsets", m.prologue()->weight_offsets()));
  for (const schema::BodyCall* layer : *m.layers()) {
    QUERN_RETURN_IF_ERROR(CheckAlignment(check, "layers.weight_offsets", layer->weight_offsets()));
  }
  return CheckAlignment(check, "epilogue.weight_offsets", m.epilogue()->weight_offsets());
}

}  // namespace

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

size_t ManifestCheck::CountTargets(schema::TargetKind kind) const {
  size_t count = 0;
  for (const schema::Target* target : *manifest.targets()) count += target->kind() == kind;
  return count;
}

bool ManifestCheck::IsTarget(uint32_t index, schema::TargetKind kind) const {
  return index < manifest.targets()->size() && manifest.targets()->Get(index)->kind() == kind;
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
  QUERN_RETURN_IF_ERROR(CheckVectors(check));
  QUERN_RETURN_IF_ERROR(CheckTexts(check));
  QUERN_RETURN_IF_ERROR(CheckTables(check));
  return CheckProgram(check);
}

}  // namespace quern
