// Writes the made-up artifact to the file that its argument names.
#include <fstream>

#include "tests/runtime/support/fake_model.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const std::vector<uint8_t> bytes = quern::testing::Assemble(quern::testing::MakeFakeModel());
  std::ofstream file(argv[1], std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  return file.flush() ? 0 : 1;
}
