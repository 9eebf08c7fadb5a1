// PTX text, as an artifact holds it: what the emulator's parser and resolver make of it.
#include "runtime/device/ptx_emulator/emulator.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quern;  // NOLINT
  const fuzz::ExactCopy text({data, size});
  const Result<ptx::Module> module = ptx::ParseModule(fuzz::Text(text.bytes()));
  if (!module.ok()) return fuzz::RequireRefusal(module.status()), 0;
  for (const ptx::KernelInfo& kernel : module->kernels())
    fuzz::Require(module->FindKernel(kernel.name) != nullptr, "a kernel is found by its name");
  return 0;
}
