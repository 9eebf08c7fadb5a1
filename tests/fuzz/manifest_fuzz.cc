// A manifest, put behind the segments of the tests' made-up model, with hashes that fit. Inputs are
// a tenth of a whole file, and nearly every byte of one has a meaning.
#include <cstring>
#include <vector>

#include "runtime/schema/file_header.h"
#include "tests/fuzz/artifact_input.h"
#include "tests/fuzz/fuzz.h"
#include "tests/runtime/support/fake_ptx.h"

namespace quern {
namespace {

/// The made-up model's header and segments, without its manifest.
std::vector<uint8_t> Segments() {
  testing::FakeModel model = testing::MakeFakeModel();
  testing::AddGpuTargets(model);
  std::vector<uint8_t> file = testing::Assemble(model);
  FileHeader header;
  std::memcpy(&header, file.data(), sizeof(header));
  file.resize(header.manifest_offset);
  return file;
}

}  // namespace
}  // namespace quern

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quern;  // NOLINT
  static const std::vector<uint8_t> kSegments = Segments();
  std::vector<uint8_t> file = kSegments;
  file.insert(file.end(), data, data + size);
  const uint64_t manifest_size = size;
  std::memcpy(file.data() + offsetof(FileHeader, manifest_size), &manifest_size,
              sizeof(manifest_size));
  fuzz::FitHashes(file);
  fuzz::LoadAndUse(file);
  return 0;
}
