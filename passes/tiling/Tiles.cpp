//===- Tiles.cpp - Tile tables of ops -------------------------------------===//
#include "passes/tiling/Tiles.h"

#include "dialects/lm/Lm.h"

using namespace mlir;

namespace quern {

FailureOr<DictionaryAttr>
tileTable(Operation *op, ArrayRef<std::string> targetNames,
          function_ref<KernelFamily(const Target &)> familyOn) {
  SmallVector<const Target *> chosen;
  for (const std::string &name : targetNames) {
    std::string error;
    const Target *target = resolveTarget(name, error);
    if (!target)
      return op->emitError(error);
    chosen.push_back(target);
  }
  if (chosen.empty())
    for (const Target &target : targets())
      chosen.push_back(&target);

  NamedAttrList table;
  for (const Target *target : chosen) {
    for (Role role : {Role::Decode, Role::Prefill}) {
      const Tile &tile = target->tileFor(role, familyOn(*target));
      table.set(tileKey(*target, role),
                lm::TileAttr::get(op->getContext(), tile.rows, tile.blocks,
                                  tile.keys, tile.prefetch));
    }
  }
  return table.getDictionary(op->getContext());
}

} // namespace quern
