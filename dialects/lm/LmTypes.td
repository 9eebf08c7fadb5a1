//===- LmTypes.td - Types of the lm dialect -----------------*- tablegen -*-===//
#ifndef QUERN_DIALECTS_LM_LMTYPES_TD
#define QUERN_DIALECTS_LM_LMTYPES_TD

include "dialects/lm/LmDialect.td"
include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/BuiltinTypes.td"
include "mlir/IR/CommonTypeConstraints.td"

class Lm_Type<string name, string typeMnemonic> : TypeDef<Lm_Dialect, name> {
  let mnemonic = typeMnemonic;
}

def Lm_Block : Lm_Type<"Block", "block"> {
  let summary = "an element of a quantized tensor";
  let description = [{
    Elements are stored in blocks along the last dimension; the format says how
    (dialects/lm/BlockFormat.h). Float formats are the builtin types f32, f16
    and bf16, never a block type.

    Example: `tensor<576x576x!lm.block<q4_1>>`
  }];
  let parameters = (ins "::quern::BlockFormat":$format);
  let assemblyFormat = "`<` custom<Format>($format) `>`";
  let genVerifyDecl = 1;
}

def Lm_KvCache : Lm_Type<"KvCache", "kv_cache"> {
  let summary = "keys and values of one layer";
  let description = [{
    A sequence of rows, each `heads` keys and `heads` values of `head_dim`
    elements, kept in pages of `page` rows. A value: appending gives a new one.
    Elements `!lm.block<a8>` are int8 codes; 32 of a head share an f32 scale.

    Example: `!lm.kv_cache<heads = 3, head_dim = 64, page = 32, f16>`
  }];
  let parameters = (ins "int64_t":$heads, "int64_t":$headDim, "int64_t":$page,
                        "::mlir::Type":$elementType);
  let assemblyFormat = [{
    `<` `heads` `=` $heads `,` `head_dim` `=` $headDim `,` `page` `=` $page `,` $elementType `>`
  }];
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// Elements of the keys (or values) of one row.
    int64_t getRowElements() const { return getHeads() * getHeadDim(); }
  }];
}

// Operand and result types. Sizes are checked by the verifiers.
def Lm_Vector : TensorRankOf<[F32], [1]>;                   // (K)
def Lm_Rows : TensorRankOf<[F32], [2]>;                     // (?, K)
def Lm_Deltas : TensorRankOf<[F32], [2, 3]>;                // (?, K) or (S, ?, K)
def Lm_Partials : TensorRankOf<[F32], [3]>;                 // (S, ?, N)
def Lm_Indices : TensorRankOf<[I32], [1]>;                  // (?)
def Lm_IndexRows : TensorRankOf<[I32], [2]>;               // (?, K)
def Lm_Activations : TensorRankOf<[F32, F16, Lm_Block], [2]>;    // (?, K), float or a8
def Lm_Matrix : TensorRankOf<[F32, F16, BF16, Lm_Block], [2]>; // (N, K)
def Lm_AnyTensor : TensorRankOf<[F32, F16, BF16, I32, Lm_Block], [1, 2, 3]>;
def Lm_Value : AnyTypeOf<[Lm_AnyTensor, Lm_KvCache]>;

#endif // QUERN_DIALECTS_LM_LMTYPES_TD
