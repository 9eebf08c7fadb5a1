//===- Passes.td - Every pass, by folder --------------------*- tablegen -*-===//
//
// A pass has one name in four spellings: FuseSwigluPass here, FuseSwiglu.cpp in
// the folder of its banner, --lm-fuse-swiglu, tests/passes/fuse_swiglu.mlir.
// Groups are in pipeline order, passes inside a group in alphabetical order.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_PASSES_PASSES_TD
#define QUERN_PASSES_PASSES_TD

include "mlir/Pass/PassBase.td"

class Quern_Pass<string flag> : Pass<flag, "::mlir::ModuleOp">;

//===----------------------------------------------------------------------===//
// transforms/: rewrites that leave what is computed as it is
//===----------------------------------------------------------------------===//

def FuseAddRmsNormPass : Quern_Pass<"lm-fuse-add-rms-norm"> {
  let summary = "Fuse a residual add with the norm that reads it";
  let description = [{
    One kernel then adds, normalizes and writes both. The add at the end of a
    layer stays, since the next norm is in another body.

    ```mlir
    %sum = lm.add %x, %delta : ...
    %y = lm.rms_norm %sum, %w eps = 1.0e-05 : ...
    // becomes
    %sum, %y = lm.add_rms_norm %x, %delta, %w eps = 1.0e-05 : ...
    ```
  }];
}

def FuseDequantMatmulPass : Quern_Pass<"lm-fuse-dequant-matmul"> {
  let summary = "Multiply in the stored formats instead of dequantized copies";
  let description = [{
    A matmul over a weight takes the weight as it is stored, and an activation
    that went through quantize and dequantize as its integers.

    ```mlir
    %q = lm.quantize %x : tensor<?x64xf32> -> tensor<?x64x!lm.block<a8>>
    %xd = lm.dequantize %q : tensor<?x64x!lm.block<a8>> -> tensor<?x64xf32>
    %wd = lm.dequantize %w : tensor<96x64x!lm.block<q4_0>> -> tensor<96x64xf32>
    %y = lm.matmul %xd, %wd : ...
    // becomes
    %q = lm.quantize %x : tensor<?x64xf32> -> tensor<?x64x!lm.block<a8>>
    %y = lm.quant_matmul %q, %w
        : (tensor<?x64x!lm.block<a8>>, tensor<96x64x!lm.block<q4_0>>) -> tensor<?x96xf32>
    ```
  }];
}

def FuseQkvPass : Quern_Pass<"lm-fuse-qkv"> {
  let summary = "Fuse the three projections of attention";
  let description = [{
    The projections that reach attention's queries, keys and values (through
    rope or not) from one input become one op. Their weights may differ in
    format; they have all three biases or none.

    ```mlir
    %q = lm.quant_matmul %x, %wq : ...
    %k = lm.quant_matmul %x, %wk : ...
    %v = lm.quant_matmul %x, %wv : ...
    // becomes
    %q, %k, %v = lm.qkv_proj %x, %wq, %wk, %wv : ...
    ```
  }];
}

def FuseSwigluPass : Quern_Pass<"lm-fuse-swiglu"> {
  let summary = "Fuse silu of the gate with the product by up";
  let description = [{
    ```mlir
    %s = lm.silu %gate : tensor<?x96xf32>
    %y = lm.mul %s, %up : tensor<?x96xf32>
    // becomes
    %y = lm.swiglu %gate, %up : tensor<?x96xf32>
    ```
  }];
}

def NormalizePass : Quern_Pass<"lm-normalize"> {
  let summary = "Bring a module to the form that the other passes match";
  let description = [{
    - Equal ops are merged and unused ones erased.
    - `lm.add`: the residual comes first, the delta (a product's result) second.
    - `lm.mul`: a silu comes first.

    ```mlir
    %s = lm.silu %gate : tensor<?x96xf32>
    %h = lm.mul %up, %s : tensor<?x96xf32>
    %y = lm.add %down, %x : ...
    // becomes
    %s = lm.silu %gate : tensor<?x96xf32>
    %h = lm.mul %s, %up : tensor<?x96xf32>
    %y = lm.add %x, %down : ...
    ```
  }];
}

//===----------------------------------------------------------------------===//
// quantization/: rewrites that change the numbers, within a promise
//===----------------------------------------------------------------------===//

def QuantizeActivationsPass : Quern_Pass<"lm-quantize-activations"> {
  let summary = "Round the inputs of matmuls to int8 in groups of 16, or to f16";
  let description = [{
    Beside weights in a block format to int8, beside float weights to f16 (which
    only GPUs do: hosts keep these floats as they are). One quantize serves all
    matmuls that read the same input in one format. Inputs whose columns are no
    whole groups of 32 stay.

    ```mlir
    %wd = lm.dequantize %w : tensor<96x64x!lm.block<q4_0>> -> tensor<96x64xf32>
    %y = lm.matmul %x, %wd : ...
    // becomes
    %q = lm.quantize %x : tensor<?x64xf32> -> tensor<?x64x!lm.block<a8>>
    %xd = lm.dequantize %q : tensor<?x64x!lm.block<a8>> -> tensor<?x64xf32>
    %wd = lm.dequantize %w : tensor<96x64x!lm.block<q4_0>> -> tensor<96x64xf32>
    %y = lm.matmul %xd, %wd : ...
    ```
  }];
}

def QuantizeWeightsPass : Quern_Pass<"lm-quantize-weights"> {
  let summary = "Store float weights in a block format";
  let description = [{
    Matrices of f16, bf16 and f32 that a matmul reads get the block format
    `format`; the packer rounds each element to the nearest code, from the
    source that `source` names. Vectors (norms, biases) stay. A table that an
    embedding reads too gets q8_0, since it is the one matrix that both ends of
    the model depend on; a table that only an embedding reads stays. So does a
    matrix whose rows are no multiple of a block, with a remark.

    ```mlir
    %w = lm.weight "blk.{layer}.ffn_up.weight" : tensor<96x64xf16>
    %wd = lm.dequantize %w : tensor<96x64xf16> -> tensor<96x64xf32>
    // becomes, with format=q4_0
    %w = lm.weight "blk.{layer}.ffn_up.weight" source = f16 : tensor<96x64x!lm.block<q4_0>>
    %wd = lm.dequantize %w : tensor<96x64x!lm.block<q4_0>> -> tensor<96x64xf32>
    ```
  }];
  let options = [
    Option<"format", "format", "std::string", "\"q8_0\"",
           "Block format of the weights: q8_0 (int8), q4_0 or q4_1 (int4), "
           "e4m3 (fp8, a scale a row)">,
  ];
}

//===----------------------------------------------------------------------===//
// tiling/: how the work is cut
//===----------------------------------------------------------------------===//

def ApplyTuningPass : Quern_Pass<"rt-apply-tuning"> {
  let summary = "Give kernels the tiles that tuning found";
  let description = [{
    A tile takes the place of the present one of its target and role in every
    kernel with its signature (dialects/rt/KernelSignature.h). Kernels without
    tiles, and targets that a kernel has no tile for, stay as they are.

    ```mlir
    rt.kernel @k(...) attributes {tiles = {"avx2/decode" = #lm.tile<rows = 2>}} { ... }
    // becomes, with tiles=0123456789abcdef:avx2/decode=4/2/32/1024
    rt.kernel @k(...)
        attributes {tiles = {"avx2/decode" = #lm.tile<rows = 4, blocks = 2, prefetch = 1024>}} { ... }
    ```
  }];
  let options = [
    ListOption<"tiles", "tiles", "std::string",
               "SIGNATURE:TARGET/ROLE=ROWS/BLOCKS/KEYS/PREFETCH of each">,
  ];
}

def ConvertAttentionToOnlineAttentionPass
    : Quern_Pass<"lm-convert-attention-to-online-attention"> {
  let summary = "Compute attention in one pass over tiles of keys";
  let description = [{
    A tile is at most a page of the cache, so a row's result depends on nothing
    but its own prefix.

    ```mlir
    %y = lm.attention %q, %kv, %p heads = 4, scale = 0.25, window = 0 : ...
    // becomes
    %y = lm.online_attention %q, %kv, %p heads = 4, scale = 0.25, window = 0, key_tile = 32 : ...
    ```
  }];
}

def FormKernelsPass : Quern_Pass<"lm-form-kernels"> {
  let summary = "Group ops into the kernels that will be generated";
  let description = [{
    A group is one of the families that codegen/host has a generator for:

    | kernel | ops | split |
    |---|---|---|
    | embed | embedding | rows |
    | norm | [reduce_shares], rms_norm or add_rms_norm, [quantize] | rows |
    | add | add | rows |
    | matmul, qkv_proj | quant_matmul or qkv_proj | shares |
    | gate_up | two quant_matmul, swiglu, [quantize] | shares |
    | rope_append | rope (q), rope (k), kv_append: segments q, k, v | shares |
    | attention | online_attention or attention, [quantize] | shares |
    | select_rows and any other op | alone | rows |

    Weights stay outside and are operands. A weight is only ever read in its
    stored format: `lm.matmul %x, (lm.dequantize %w)` becomes `lm.quant_matmul`
    over float activations here if no pass before did it. `ranges` and `tiles`
    move from the ops to the kernel; an op without ranges is one share.

    ```mlir
    %n = lm.rms_norm %x, %w eps = 1.0e-05 : ...
    %q = lm.quantize %n : tensor<?x64xf32> -> tensor<?x64x!lm.block<a8>>
    // becomes
    %q = lm.kernel "norm" split(rows) (%a = %x : tensor<?x64xf32>, %b = %w : tensor<64xf32>)
        -> (tensor<?x64x!lm.block<a8>>) {
      %n = lm.rms_norm %a, %b eps = 1.0e-05 : ...
      %q = lm.quantize %n : tensor<?x64xf32> -> tensor<?x64x!lm.block<a8>>
      lm.yield %q : tensor<?x64x!lm.block<a8>>
    }
    ```
  }];
  let options = [
    Option<"fuse", "fuse", "bool", "true", "False: one kernel per op">,
  ];
}

def SplitSharesPass : Quern_Pass<"lm-split-shares"> {
  let summary = "Cut the work of every body in shares, as tensor parallelism does";
  let description = [{
    Cuts (docs/architecture.md, section 3), in elements of columns: queries at
    heads, keys and values at KV heads, feed-forward columns at the unit of the
    matrix that sums over them, every other output at 16 rows of the weight. A
    product that is added to the residual stream is summed per share over the
    columns that the same share produced; its result gets a dimension of
    shares, which `lm.add` and `lm.add_rms_norm` sum in order (any other reader
    through `lm.reduce_shares`). A model that has too few heads or columns for
    `shares` gets as many as it can have, with a remark.

    ```mlir
    %y = lm.quant_matmul %x, %w : (tensor<?x96xf32>, tensor<64x96xf32>) -> tensor<?x64xf32>
    %s = lm.add %r, %y : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
    // becomes, with shares=2
    %y = lm.quant_matmul %x, %w split = k {ranges = #lm.ranges<[0:64], [64:96]>}
        : (tensor<?x96xf32>, tensor<64x96xf32>) -> tensor<2x?x64xf32>
    %s = lm.add %r, %y : (tensor<?x64xf32>, tensor<2x?x64xf32>) -> tensor<?x64xf32>
    ```
  }];
  let options = [
    Option<"shares", "shares", "int64_t", "2", "Number of shares, 1 to 64">,
  ];
}

def TileAttentionPass : Quern_Pass<"lm-tile-attention"> {
  let summary = "Give attention the tiles of every target and role";
  let description = [{
    The dictionary `tiles` comes from the table of codegen/target. It is what
    the kernel generator obeys: edit it and go on from here.

    ```mlir
    %y = lm.online_attention %q, %kv, %p heads = 4, scale = 0.25, window = 0, key_tile = 32 : ...
    // becomes
    %y = lm.online_attention %q, %kv, %p heads = 4, scale = 0.25, window = 0, key_tile = 32
        {tiles = {"avx2/decode" = #lm.tile<rows = 2, keys = 32>, ...}} : ...
    ```
  }];
  let options = [
    ListOption<"targetNames", "targets", "std::string", "Targets to give tiles for (default: all)">,
  ];
}

def TileMatmulPass : Quern_Pass<"lm-tile-matmul"> {
  let summary = "Give matmuls the tiles of every target and role";
  let description = [{
    As lm-tile-attention, for `lm.matmul`, `lm.quant_matmul` and `lm.qkv_proj`.
    Products of quantized and of float activations have tiles of their own.

    ```mlir
    %y = lm.quant_matmul %x, %w : ...
    // becomes
    %y = lm.quant_matmul %x, %w
        {tiles = {"avx2/decode" = #lm.tile<rows = 2, blocks = 1, prefetch = 4096>, ...}} : ...
    ```
  }];
  let options = [
    ListOption<"targetNames", "targets", "std::string", "Targets to give tiles for (default: all)">,
  ];
}

//===----------------------------------------------------------------------===//
// conversion/: from one dialect to the next
//===----------------------------------------------------------------------===//

def ConvertLmToRtPass : Quern_Pass<"convert-lm-to-rt"> {
  let summary = "Turn kernels and values into dispatches and buffers";
  let description = [{
    Every distinct `lm.kernel` (names and ranges apart) becomes one `rt.kernel`,
    every value between kernels a buffer, every body a list of dispatches, and
    `lm.layers` the program's layer table. The value that bodies hand on to each
    other has one buffer, @x. Weight slots stand in the order of first use.

    Joins are placed where a dispatch touches what another thread may still
    write or read: between dispatches split over rows never, but for
    `lm.select_rows`; between dispatches split over shares unless each share
    reads only what it wrote itself; between the two kinds always, or only
    outside small steps when the buffer is private.

    ```mlir
    func.func @embed(%t: tensor<?xi32>) -> tensor<?x64xf32> {
      %w = lm.weight "token_embd.weight" : tensor<80x64xf32>
      %x = lm.kernel "embed" split(rows) (%a = %w : ..., %b = %t : ...) -> (...) { ... }
      return %x : tensor<?x64xf32>
    }
    // becomes
    rt.kernel @embed(%a: ..., %b: ...) -> (tensor<?x64xf32>) attributes {...} { ... }
    rt.program @model shares = 2 layers = [...] {
      rt.buffer @x activation bytes_per_row = 256 private
      rt.prologue {
        rt.weight_slot "token_embd.weight" : tensor<80x64xf32>
        rt.dispatch @embed(weight "token_embd.weight", step tokens, buffer @x) split = rows
      }
      ...
    }
    ```
  }];
  let dependentDialects = ["::quern::rt::RtDialect"];
}

//===----------------------------------------------------------------------===//
// memory/: where things lie
//===----------------------------------------------------------------------===//

def PlanMemoryPass : Quern_Pass<"rt-plan-memory"> {
  let summary = "Give every buffer its place";
  let description = [{
    Offsets are bytes per row of capacity, in two arenas: of token rows and of
    logit rows. Two buffers may overlap when every thread has passed an
    unconditional join between the last access to one and the first access to
    the other; the last stretch of a body counts as the first of the next. A
    private buffer gets a second place, in the private memory that a thread has
    for small steps, where buffers may overlap as soon as they are dead. The
    program says the sum of each (its peak). The carried buffer @x overlaps
    nothing.

    ```mlir
    rt.program @model shares = 2 layers = [@layer_0] {
      rt.buffer @x activation bytes_per_row = 256 private
      rt.buffer @q activation bytes_per_row = 256
    // becomes
    rt.program @model shares = 2 layers = [@layer_0] arena_bytes_per_row = 512 ... {
      rt.buffer @x activation bytes_per_row = 256 private offset = 0 ...
      rt.buffer @q activation bytes_per_row = 256 offset = 256
    ```
  }];
}

#endif // QUERN_PASSES_PASSES_TD
