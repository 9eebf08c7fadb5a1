//===- ApplyTuning.cpp - Tiles that tuning found --------------------------===//
#include "dialects/rt/KernelSignature.h"
#include "passes/Passes.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringMap.h"

using namespace mlir;

namespace quern {
#define GEN_PASS_DEF_APPLYTUNINGPASS
#include "passes/Passes.h.inc"

namespace {
struct TunedTile {
  StringRef key; ///< "avx2/decode"
  int64_t rows, blocks, keys, prefetch;
};

/// "SIGNATURE:TARGET/ROLE=ROWS/BLOCKS/KEYS/PREFETCH".
std::optional<std::pair<StringRef, TunedTile>> parse(StringRef text) {
  auto [signature, rest] = text.split(':');
  auto [key, numbers] = rest.split('=');
  SmallVector<StringRef> fields;
  numbers.split(fields, '/');
  TunedTile tile = {key, 0, 0, 0, 0};
  int64_t *values[] = {&tile.rows, &tile.blocks, &tile.keys, &tile.prefetch};
  if (signature.empty() || !key.contains('/') ||
      fields.size() != std::size(values))
    return std::nullopt;
  for (auto [field, value] : llvm::zip_equal(fields, values))
    if (field.getAsInteger(10, *value) || *value < 0)
      return std::nullopt;
  return std::pair(signature, tile);
}

struct ApplyTuningPass : impl::ApplyTuningPassBase<ApplyTuningPass> {
  using ApplyTuningPassBase::ApplyTuningPassBase;

  void runOnOperation() override {
    llvm::StringMap<SmallVector<TunedTile>> tuned;
    for (const std::string &text : tiles) {
      auto tile = parse(text);
      if (!tile) {
        getOperation().emitError("expected a tuned tile as SIGNATURE:TARGET/"
                                 "ROLE=ROWS/BLOCKS/KEYS/PREFETCH, got '")
            << text << "'";
        return signalPassFailure();
      }
      tuned[tile->first].push_back(tile->second);
    }
    getOperation().walk([&](rt::KernelOp kernel) {
      auto found = tuned.find(rt::kernelSignature(kernel));
      if (found == tuned.end() || !kernel.getTilesAttr())
        return;
      NamedAttrList table(kernel.getTilesAttr());
      for (const TunedTile &tile : found->second)
        if (table.get(tile.key)) // the compilation is for that target
          table.set(tile.key,
                    lm::TileAttr::get(&getContext(), tile.rows, tile.blocks,
                                      tile.keys, tile.prefetch));
      kernel.setTilesAttr(table.getDictionary(&getContext()));
    });
  }
};
} // namespace
} // namespace quern
