//===- FlatImage.h - Objects linked to position-free bytes ------*- C++ -*-===//
#ifndef QUERN_CODEGEN_HOST_FLATIMAGE_H
#define QUERN_CODEGEN_HOST_FLATIMAGE_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <cstdint>
#include <vector>

namespace quern::host {

/// Alignment of entries and of an image's start.
inline constexpr uint64_t kImageAlignment = 64;

/// Appends the code and constants of one ELF object to `image` and returns the
/// offset of function `entry`. References between its sections are resolved by
/// distance, so the image runs wherever it is copied to. An object with an
/// undefined symbol, writable data or a reference that is not relative to the
/// instruction pointer is an error that names it.
llvm::Expected<uint64_t> appendObject(std::vector<uint8_t> &image,
                                      llvm::ArrayRef<char> object,
                                      llvm::StringRef entry);

} // namespace quern::host

#endif // QUERN_CODEGEN_HOST_FLATIMAGE_H
