#include "codegen/artifact/Hash.h"

#include "llvm/ADT/StringExtras.h"

std::string quern::hexDigest(const Digest &digest) {
  return llvm::toHex(digest, /*LowerCase=*/true);
}
