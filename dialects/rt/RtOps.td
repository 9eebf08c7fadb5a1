//===- RtOps.td - Operations of the rt dialect --------------*- tablegen -*-===//
#ifndef QUERN_DIALECTS_RT_RTOPS_TD
#define QUERN_DIALECTS_RT_RTOPS_TD

include "dialects/lm/LmAttrs.td"
include "dialects/lm/LmTypes.td"
include "dialects/rt/RtAttrs.td"
include "mlir/IR/OpBase.td"
include "mlir/IR/RegionKindInterface.td"
include "mlir/IR/SymbolInterfaces.td"

class Rt_Op<string mnemonic, list<Trait> traits = []> : Op<Rt_Dialect, mnemonic, traits>;

def Rt_KernelOp : Rt_Op<"kernel", [IsolatedFromAbove, SingleBlock, Symbol]> {
  let summary = "what one generated kernel computes";
  let description = [{
    An outlined `lm.kernel`. Its arguments at run time are `inputs`, then every
    result that is not a cache (a cache is updated in place), then scratch.

    ```mlir
    rt.kernel @ffn_norm(%x: tensor<?x576xf32>, %d: tensor<2x?x576xf32>, %w: tensor<576xf32>)
        -> (tensor<?x576xf32>, tensor<?x576xf32>) attributes {split = #lm<kernel_split rows>} {
      %s, %n = lm.add_rms_norm %x, %d, %w eps = 1.0e-05 : (...) -> (...)
      lm.yield %s, %n : tensor<?x576xf32>, tensor<?x576xf32>
    }
    ```
  }];
  let arguments = (ins SymbolNameAttr:$sym_name, TypeAttrOf<FunctionType>:$function_type,
                       Lm_KernelSplitAttr:$split, OptionalAttr<DictionaryAttr>:$tiles);
  let regions = (region SizedRegion<1>:$body);
  let hasCustomAssemblyFormat = 1;
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    /// Types of the run-time arguments: inputs, then results that are not
    /// caches.
    ::llvm::SmallVector<::mlir::Type> getArgTypes();
    unsigned getNumInputs() { return getFunctionType().getNumInputs(); }
  }];
}

def Rt_ProgramOp : Rt_Op<"program", [IsolatedFromAbove, SymbolTable, Symbol, NoTerminator,
                                     NoRegionArguments, SingleBlock]> {
  let summary = "buffers and dispatch lists of a model";
  let description = [{
    Holds buffers, one prologue, a block per signature and one epilogue.
    `layers` names a block for every layer. When memory is planned,
    `arena_bytes_per_row` says what the buffers of token rows take for a row of
    capacity, `logit_bytes_per_row` those of logit rows, and
    `private_bytes_per_row` what a thread's own copies take for a row of a small
    step.

    ```mlir
    rt.program @model shares = 2 layers = [@layer_0, @layer_0] { ... }
    ```
  }];
  let arguments = (ins SymbolNameAttr:$sym_name, ConfinedAttr<I64Attr, [IntPositive]>:$shares,
                       TypedArrayAttrBase<FlatSymbolRefAttr, "blocks by layer">:$layers,
                       OptionalAttr<I64Attr>:$arena_bytes_per_row,
                       OptionalAttr<I64Attr>:$logit_bytes_per_row,
                       OptionalAttr<I64Attr>:$private_bytes_per_row);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = [{
    $sym_name `shares` `=` $shares `layers` `=` $layers
    (`arena_bytes_per_row` `=` $arena_bytes_per_row^)?
    (`logit_bytes_per_row` `=` $logit_bytes_per_row^)?
    (`private_bytes_per_row` `=` $private_bytes_per_row^)? attr-dict-with-keyword $body
  }];
  let hasVerifier = 1;
}

def Rt_BufferOp : Rt_Op<"buffer", [Symbol, HasParent<"ProgramOp">]> {
  let summary = "memory that kernels share";
  let description = [{
    `bytes_per_row` for each row of `rows`; `copies` partial results follow one
    another, one per share. A `private` buffer is written by row-split
    dispatches: it exists once per thread in small steps. When memory is
    planned, `offset` is its place in the arena, in bytes per row of capacity,
    and `private_offset` that of a private buffer in a thread's own memory, in
    bytes per row of a small step.

    ```mlir
    rt.buffer @partials activation bytes_per_row = 2304 copies = 2
    ```
  }];
  let arguments = (ins SymbolNameAttr:$sym_name, Rt_BufferKindAttr:$kind,
                       ConfinedAttr<I64Attr, [IntPositive]>:$bytes_per_row,
                       DefaultValuedAttr<ConfinedAttr<I64Attr, [IntPositive]>, "1">:$copies,
                       DefaultValuedAttr<Rt_RowSpaceAttr, "::quern::rt::RowSpace::Tokens">:$rows,
                       UnitAttr:$private_copy,
                       OptionalAttr<ConfinedAttr<I64Attr, [IntNonNegative]>>:$offset,
                       OptionalAttr<ConfinedAttr<I64Attr, [IntNonNegative]>>:$private_offset);
  let assemblyFormat = [{
    $sym_name `` $kind `bytes_per_row` `=` $bytes_per_row
    (`copies` `=` $copies^)? (`rows` `=` `` $rows^)? (`private` $private_copy^)?
    (`offset` `=` $offset^)? (`private_offset` `=` $private_offset^)? attr-dict
  }];
  let hasVerifier = 1;
}

class Rt_ListOp<string mnemonic, list<Trait> traits = []>
    : Rt_Op<mnemonic, !listconcat([HasParent<"ProgramOp">, NoTerminator, NoRegionArguments,
                                   SingleBlock], traits)> {
  let regions = (region SizedRegion<1>:$body);
}

def Rt_PrologueOp : Rt_ListOp<"prologue"> {
  let summary = "what a step does before its layers";
  let description = [{ ```mlir
    rt.prologue { ... }
    ``` }];
  let assemblyFormat = "attr-dict-with-keyword $body";
}

def Rt_BlockOp : Rt_ListOp<"block", [Symbol]> {
  let summary = "what a step does in a layer of this signature";
  let description = [{ ```mlir
    rt.block @layer_0 { ... }
    ``` }];
  let arguments = (ins SymbolNameAttr:$sym_name);
  let assemblyFormat = "$sym_name attr-dict-with-keyword $body";
}

def Rt_EpilogueOp : Rt_ListOp<"epilogue"> {
  let summary = "what a step does after its layers";
  let description = [{ ```mlir
    rt.epilogue { ... }
    ``` }];
  let assemblyFormat = "attr-dict-with-keyword $body";
}

defvar ListParents = ParentOneOf<["PrologueOp", "BlockOp", "EpilogueOp"]>;

def Rt_WeightSlotOp : Rt_Op<"weight_slot", [ListParents]> {
  let summary = "a weight that a list reads";
  let description = [{
    Slots stand in execution order, which is the order of the packed bytes.
    `{layer}` in the name stands for the layer. A matrix is cut along `split` by
    its `ranges` of one segment; without ranges it is kept whole. `source` as in
    `lm.weight`.

    ```mlir
    rt.weight_slot "blk.{layer}.attn_output.weight" : tensor<576x576x!lm.block<q4_1>>
        split = k ranges = #lm.ranges<[0:256], [256:576]>
    ```
  }];
  let arguments = (ins StrAttr:$name, TypeAttr:$type,
                       DefaultValuedAttr<Lm_MatmulSplitAttr, "::quern::lm::MatmulSplit::N">:$split,
                       OptionalAttr<Lm_RangesAttr>:$ranges, OptionalAttr<TypeAttr>:$source);
  let assemblyFormat = [{
    $name `:` $type (`split` `=` `` $split^)? (`ranges` `=` $ranges^)? (`source` `=` $source^)?
    attr-dict
  }];
  let hasVerifier = 1;
}

def Rt_DispatchOp : Rt_Op<"dispatch", [ListParents, DeclareOpInterfaceMethods<SymbolUserOpInterface>]> {
  let summary = "a run of one kernel over all rows";
  let description = [{
    Arguments in the kernel's order: inputs, then results that are not caches.
    `ranges` are given to each share's call. A `merge` dispatch repeats the
    dispatch of an attention kernel before it: where a step had that one attend
    to parts of contexts, it merges them into results.

    ```mlir
    rt.dispatch @attn_o(buffer @attn, weight "blk.{layer}.attn_output.weight", buffer @o)
        split = shares ranges = #lm.ranges<[0:256], [256:576]>
    ```
  }];
  let arguments = (ins FlatSymbolRefAttr:$kernel, TypedArrayAttrBase<Rt_ArgAttr, "arguments">:$args,
                       Lm_KernelSplitAttr:$split, OptionalAttr<Lm_RangesAttr>:$ranges,
                       DefaultValuedAttr<Rt_RowSpaceAttr, "::quern::rt::RowSpace::Tokens">:$rows,
                       UnitAttr:$merge);
  let assemblyFormat = [{
    $kernel `` custom<Args>($args) `split` `=` `` $split (`ranges` `=` $ranges^)?
    (`rows` `=` `` $rows^)? (`merge` $merge^)? attr-dict
  }];
}

def Rt_JoinOp : Rt_Op<"join", [ListParents]> {
  let summary = "all threads meet before the next dispatch";
  let description = [{
    ```mlir
    rt.join always
    rt.join rows
    rt.join split
    ```
  }];
  let arguments = (ins Rt_JoinWhenAttr:$when);
  let assemblyFormat = "`` $when attr-dict";
}

#endif // QUERN_DIALECTS_RT_RTOPS_TD
