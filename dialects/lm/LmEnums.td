//===- LmEnums.td - Enumerations of the lm dialect ----------*- tablegen -*-===//
#ifndef QUERN_DIALECTS_LM_LMENUMS_TD
#define QUERN_DIALECTS_LM_LMENUMS_TD

include "mlir/IR/EnumAttr.td"

class Lm_Enum<string name, string description, list<I32EnumAttrCase> cases>
    : I32EnumAttr<name, description, cases> {
  let cppNamespace = "::quern::lm";
  let genSpecializedAttr = 0;
}

def Lm_RopeMode : Lm_Enum<"RopeMode", "which elements of a head turn together", [
  I32EnumAttrCase<"Interleaved", 0, "interleaved">,
  I32EnumAttrCase<"Half", 1, "half">,
]>;

def Lm_MatmulSplit : Lm_Enum<"MatmulSplit", "the dimension of a weight that is cut in shares", [
  I32EnumAttrCase<"N", 0, "n">,
  I32EnumAttrCase<"K", 1, "k">,
]>;

def Lm_KernelSplit : Lm_Enum<"KernelSplit", "what threads divide among themselves", [
  I32EnumAttrCase<"Rows", 0, "rows">,
  I32EnumAttrCase<"Shares", 1, "shares">,
]>;

#endif // QUERN_DIALECTS_LM_LMENUMS_TD
