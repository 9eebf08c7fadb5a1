//===- Tiles.h - Tile tables of ops -----------------------------*- C++ -*-===//
#ifndef QUERN_PASSES_TILING_TILES_H
#define QUERN_PASSES_TILING_TILES_H

#include "codegen/target/Target.h"
#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/Operation.h"

namespace quern {

/// The `tiles` dictionary of the kernel family that each target has: an entry
/// "target/role" for every named target (all targets if none is named) and
/// role. Emits an error at `op` when a name is unknown.
mlir::FailureOr<mlir::DictionaryAttr>
tileTable(mlir::Operation *op, llvm::ArrayRef<std::string> targetNames,
          llvm::function_ref<KernelFamily(const Target &)> familyOn);

} // namespace quern

#endif // QUERN_PASSES_TILING_TILES_H
