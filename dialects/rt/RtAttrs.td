//===- RtAttrs.td - Attributes of the rt dialect ------------*- tablegen -*-===//
#ifndef QUERN_DIALECTS_RT_RTATTRS_TD
#define QUERN_DIALECTS_RT_RTATTRS_TD

include "dialects/rt/RtDialect.td"
include "dialects/rt/RtEnums.td"
include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/EnumAttr.td"

def Rt_BufferKindAttr : EnumAttr<Rt_Dialect, Rt_BufferKind, "buffer_kind">;

def Rt_RowSpaceAttr : EnumAttr<Rt_Dialect, Rt_RowSpace, "row_space">;

def Rt_JoinWhenAttr : EnumAttr<Rt_Dialect, Rt_JoinWhen, "join_when">;

def Rt_ArgAttr : AttrDef<Rt_Dialect, "Arg"> {
  let mnemonic = "arg";
  let summary = "one argument of a dispatch";
  let description = [{
    - `#rt.arg<buffer @x>`: a buffer of the program;
    - `#rt.arg<weight "blk.{layer}.attn_q.weight">`: a weight slot of the list;
    - `#rt.arg<kv>`: the layer's page pool;
    - `#rt.arg<step tokens>`: an input of the step.
  }];
  let parameters = (ins
    "::quern::rt::ArgKind":$kind,
    StringRefParameter<"of the buffer, weight or step input; empty for kv">:$name
  );
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    static ArgAttr buffer(::mlir::MLIRContext *context, ::llvm::StringRef name);
    static ArgAttr weight(::mlir::MLIRContext *context, ::llvm::StringRef name);
    static ArgAttr kv(::mlir::MLIRContext *context);
    static ArgAttr step(::mlir::MLIRContext *context, StepInput input);

    /// The input that a step argument names.
    StepInput getStepInput() const;
  }];
}

#endif // QUERN_DIALECTS_RT_RTATTRS_TD
