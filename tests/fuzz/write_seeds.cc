// Writes inputs to begin with for the binary formats, one folder a target, from the builders that
// the other tests use: they follow the formats by themselves.
//   quern_fuzz_seeds FOLDER
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "runtime/schema/file_header.h"
#include "tests/compiler/gguf_builder.h"
#include "tests/compiler/gguf_model.h"
#include "tests/runtime/support/fake_ptx.h"

namespace quern {
namespace {

using testing::Bytes;

void Write(const std::filesystem::path& path, const Bytes& bytes) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

/// The manifest of the artifact `file`, which is its last part.
Bytes ManifestOf(const Bytes& file) {
  FileHeader header;
  std::memcpy(&header, file.data(), sizeof(header));
  return {file.begin() + static_cast<std::ptrdiff_t>(header.manifest_offset), file.end()};
}

void WriteArtifacts(const std::filesystem::path& folder) {
  testing::FakeModel model = testing::MakeFakeModel(/*shares=*/2);
  Write(folder / "artifact" / "host", testing::Assemble(model));
  Write(folder / "tokenizer_segment" / "fake", model.tokenizer);
  testing::FakeModel gpu = testing::MakeFakeModel();
  testing::AddGpuTargets(gpu);
  Write(folder / "manifest" / "gpu", ManifestOf(testing::Assemble(gpu)));
  gpu.ptx.resize(1);
  Write(folder / "ptx" / "fake", Bytes(gpu.ptx[0].begin(), gpu.ptx[0].end()));
}

/// Without the weights, which are zeros that the target adds.
void WriteModels(const std::filesystem::path& folder) {
  for (const char* family : {"llama", "qwen2"}) {
    Bytes file = testing::gguf::SmallModel(family).Build();
    while (file.back() == 0) file.pop_back();
    Write(folder / "gguf" / family, file);
  }
}

void WriteSampling(const std::filesystem::path& folder) {
  struct {
    float penalty = 1.1f;
    int32_t last = 4, k = 3;
    float p = 0.9f, min_p = 0.01f, temperature = 0.7f;
    uint64_t seed = 7;
    float logits[6] = {1.0f, -2.5f, 0.0f, 3.0f, 2.9f, -1e30f};
  } input;
  Bytes bytes(sizeof(input));
  std::memcpy(bytes.data(), &input, sizeof(input));
  Write(folder / "sampler" / "usual", bytes);
}

}  // namespace
}  // namespace quern

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  quern::WriteArtifacts(argv[1]);
  quern::WriteModels(argv[1]);
  quern::WriteSampling(argv[1]);
  return 0;
}
