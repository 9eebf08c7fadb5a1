//===- LmAttrs.td - Attributes of the lm dialect ------------*- tablegen -*-===//
#ifndef QUERN_DIALECTS_LM_LMATTRS_TD
#define QUERN_DIALECTS_LM_LMATTRS_TD

include "dialects/lm/LmDialect.td"
include "dialects/lm/LmEnums.td"
include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/EnumAttr.td"

class Lm_Attr<string name, string attrMnemonic, list<Trait> traits = []>
    : AttrDef<Lm_Dialect, name, traits> {
  let mnemonic = attrMnemonic;
}

def Lm_RopeModeAttr : EnumAttr<Lm_Dialect, Lm_RopeMode, "rope_mode">;

def Lm_MatmulSplitAttr : EnumAttr<Lm_Dialect, Lm_MatmulSplit, "matmul_split">;

def Lm_KernelSplitAttr : EnumAttr<Lm_Dialect, Lm_KernelSplit, "kernel_split">;

def Lm_TileAttr : Lm_Attr<"Tile", "tile"> {
  let summary = "parameters of a kernel generator";
  let description = [{
    One entry of a `tiles` dictionary, whose keys are "target/role".

    - `rows`: rows of activations in a register tile;
    - `blocks`: 16-column blocks of the weight in a register tile;
    - `keys`: keys of one step of attention;
    - `prefetch`: bytes that the weight stream is prefetched ahead, 0 for none.

    Example: `#lm.tile<rows = 4, prefetch = 4096>`
  }];
  let parameters = (ins
    DefaultValuedParameter<"int64_t", "1">:$rows,
    DefaultValuedParameter<"int64_t", "1">:$blocks,
    DefaultValuedParameter<"int64_t", "32">:$keys,
    DefaultValuedParameter<"int64_t", "0">:$prefetch
  );
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
}

def Lm_RangesAttr : Lm_Attr<"Ranges", "ranges"> {
  let summary = "how a kernel's work is cut in shares";
  let description = [{
    Half-open ranges of elements [share][segment]: one bracket a share, in it
    one range per segment (an output or a weight). The ranges of a segment
    follow one another from 0; a share's range may be empty.

    Example, q k v of 3 + 1 + 1 heads of 64 in two shares:
    `#lm.ranges<[0:64, 0:64, 0:64], [64:192, 64:64, 64:64]>`
  }];
  let parameters = (ins
    "int64_t":$segments,
    ArrayRefParameter<"int64_t", "begin, end by [share][segment]">:$bounds
  );
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    int64_t getShares() const { return getBounds().size() / (2 * getSegments()); }
    int64_t getBegin(int64_t share, int64_t segment) const {
      return getBounds()[2 * (share * getSegments() + segment)];
    }
    int64_t getEnd(int64_t share, int64_t segment) const {
      return getBounds()[2 * (share * getSegments() + segment) + 1];
    }
    /// Elements that all shares of a segment cover.
    int64_t getExtent(int64_t segment) const {
      return getEnd(getShares() - 1, segment);
    }
  }];
}

#endif // QUERN_DIALECTS_LM_LMATTRS_TD
