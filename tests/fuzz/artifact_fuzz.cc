// A whole artifact file: as it is, and with hashes that fit.
#include <vector>

#include "tests/fuzz/artifact_input.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<uint8_t> file(data, data + size);
  quern::fuzz::LoadAndUse(file);
  quern::fuzz::FitHashes(file);
  quern::fuzz::LoadAndUse(file);
  return 0;
}
