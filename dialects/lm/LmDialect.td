//===- LmDialect.td - The dialect of language models --------*- tablegen -*-===//
//
// A model as tensors: what it computes, and nothing about where or how.
// docs/spec.md gives every op's formula and constraints.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_DIALECTS_LM_LMDIALECT_TD
#define QUERN_DIALECTS_LM_LMDIALECT_TD

include "mlir/IR/DialectBase.td"

def Lm_Dialect : Dialect {
  let name = "lm";
  let cppNamespace = "::quern::lm";
  let summary = "Language models as tensor programs";
  let description = [{
    One module is one model. `lm.layers` on the module names a body for every
    layer; a body exists once per distinct block signature, so layers stay
    rolled. Everything has value semantics, the KV cache included.

    Module attributes: `lm.model` (a dictionary of the model's sizes),
    `lm.prologue`, `lm.epilogue` (symbols of functions) and `lm.layers` (an
    array of symbols, one per layer).
  }];
  let useDefaultAttributePrinterParser = 1;
  let useDefaultTypePrinterParser = 1;
  let hasOperationAttrVerify = 1;
  let extraClassDeclaration = [{
    /// Names of the module attributes that make a module a model.
    static constexpr ::llvm::StringLiteral kModelAttr = "lm.model";
    static constexpr ::llvm::StringLiteral kPrologueAttr = "lm.prologue";
    static constexpr ::llvm::StringLiteral kLayersAttr = "lm.layers";
    static constexpr ::llvm::StringLiteral kEpilogueAttr = "lm.epilogue";

    void registerAttributes();
    void registerTypes();
  }];
}

#endif // QUERN_DIALECTS_LM_LMDIALECT_TD
