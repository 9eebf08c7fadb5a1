//===- RtEnums.td - Enumerations of the rt dialect ----------*- tablegen -*-===//
#ifndef QUERN_DIALECTS_RT_RTENUMS_TD
#define QUERN_DIALECTS_RT_RTENUMS_TD

include "mlir/IR/EnumAttr.td"

class Rt_Enum<string name, string description, list<I32EnumAttrCase> cases>
    : I32EnumAttr<name, description, cases> {
  let cppNamespace = "::quern::rt";
  let genSpecializedAttr = 0;
}

def Rt_BufferKind : Rt_Enum<"BufferKind", "where a buffer lives", [
  I32EnumAttrCase<"Activation", 0, "activation">, // in the arena
  I32EnumAttrCase<"Logits", 1, "logits">,         // the caller's memory
]>;

def Rt_RowSpace : Rt_Enum<"RowSpace", "what a row of a buffer or dispatch stands for", [
  I32EnumAttrCase<"Tokens", 0, "tokens">, // a row of the step
  I32EnumAttrCase<"Logits", 1, "logits">, // a row of the step that needs logits
]>;

def Rt_JoinWhen : Rt_Enum<"JoinWhen", "when threads must meet", [
  I32EnumAttrCase<"Always", 0, "always">,
  I32EnumAttrCase<"Rows", 1, "rows">, // only when rows were divided among threads
  I32EnumAttrCase<"Split", 2, "split">, // only when attention is not cut as the shares are
]>;

def Rt_StepInput : Rt_Enum<"StepInput", "an input of a step", [
  I32EnumAttrCase<"Tokens", 0, "tokens">,         // int32 (rows)
  I32EnumAttrCase<"Positions", 1, "positions">,   // int32 (rows)
  I32EnumAttrCase<"Slots", 2, "slots">,           // int32 (rows): index in its sequence
  I32EnumAttrCase<"Sequences", 3, "sequences">,   // int32 (rows)
  I32EnumAttrCase<"PageTable", 4, "page_table">,  // int32 (sequences, stride)
  I32EnumAttrCase<"AttentionTiles", 5, "attention_tiles">, // int32 (tiles, 4)
  I32EnumAttrCase<"LogitRows", 6, "logit_rows">,  // int32 (logit rows)
]>;

def Rt_ArgKind : Rt_Enum<"ArgKind", "what a dispatch argument points at", [
  I32EnumAttrCase<"Buffer", 0, "buffer">,
  I32EnumAttrCase<"Weight", 1, "weight">,
  I32EnumAttrCase<"Kv", 2, "kv">,
  I32EnumAttrCase<"Step", 3, "step">,
]>;

#endif // QUERN_DIALECTS_RT_RTENUMS_TD
