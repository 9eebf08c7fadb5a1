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

    A fixed-size buffer or a weight may be addressed by share: with `segment =
    s, range_stride = b` the pointer is base + begin(s) * b.
  }];
  let parameters = (ins
    "::quern::rt::ArgKind":$kind,
    StringRefParameter<"of the buffer, weight or step input; empty for kv">:$name,
    DefaultValuedParameter<"int64_t", "0">:$segment,
    DefaultValuedParameter<"int64_t", "0">:$rangeStride
  );
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    static ArgAttr buffer(::mlir::MLIRContext *context, ::llvm::StringRef name,
                          int64_t segment = 0, int64_t rangeStride = 0);
    static ArgAttr weight(::mlir::MLIRContext *context, ::llvm::StringRef name,
                          int64_t segment = 0, int64_t rangeStride = 0);
    static ArgAttr kv(::mlir::MLIRContext *context);
    static ArgAttr step(::mlir::MLIRContext *context, StepInput input);

    /// The input that a step argument names.
    StepInput getStepInput() const;
    /// Whether the pointer moves with the share.
    bool isRanged() const { return getRangeStride() != 0; }
  }];
}

#endif // QUERN_DIALECTS_RT_RTATTRS_TD
