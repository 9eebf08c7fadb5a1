#include "dialects/rt/KernelSignature.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/raw_ostream.h"
#include "llvm/Support/xxhash.h"

using namespace mlir;

std::string quern::rt::kernelSignature(KernelOp kernel) {
  OwningOpRef<KernelOp> plain = kernel.clone();
  plain->removeTilesAttr();
  plain->setSymName("kernel");
  std::string text;
  llvm::raw_string_ostream os(text);
  plain->print(os, OpPrintingFlags().useLocalScope());
  return llvm::utohexstr(llvm::xxh3_64bits(text), /*LowerCase=*/true,
                         /*Width=*/16);
}
