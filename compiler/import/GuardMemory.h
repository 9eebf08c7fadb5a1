// Turns a failed allocation into an error of the importers. Only for sources
// that are built with exceptions, which MLIR's users are not.
#ifndef QUERN_COMPILER_IMPORT_GUARDMEMORY_H
#define QUERN_COMPILER_IMPORT_GUARDMEMORY_H

#include "compiler/import/ImportResult.h"

#include <new>

namespace quern::importer {

/// What `read` returns; OutOfMemory when an allocation in it fails.
template <typename Function>
auto guardMemory(Function read) -> decltype(read()) {
  try {
    return read();
  } catch (const std::bad_alloc &) {
    return ImportError{ImportErrorCode::OutOfMemory,
                       "no memory left for reading the model file; close other "
                       "programs",
                       std::nullopt};
  }
}

} // namespace quern::importer

#endif // QUERN_COMPILER_IMPORT_GUARDMEMORY_H
