//===- LmOps.td - Operations of the lm dialect --------------*- tablegen -*-===//
//
// Every op is a section of docs/spec.md: its formula, inputs (I1..) and
// constraints (C1..). `?` is the number of rows of the call.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_DIALECTS_LM_LMOPS_TD
#define QUERN_DIALECTS_LM_LMOPS_TD

include "dialects/lm/LmAttrs.td"
include "dialects/lm/LmTypes.td"
include "mlir/IR/OpBase.td"
include "mlir/Interfaces/ControlFlowInterfaces.td"
include "mlir/Interfaces/InferTypeOpInterface.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

class Lm_Op<string mnemonic, list<Trait> traits = []>
    : Op<Lm_Dialect, mnemonic, !listconcat([Pure], traits)>;

defvar PositiveI64 = ConfinedAttr<I64Attr, [IntPositive]>;
defvar NonNegativeI64 = ConfinedAttr<I64Attr, [IntNonNegative]>;

//===----------------------------------------------------------------------===//
// Inputs
//===----------------------------------------------------------------------===//

def Lm_WeightOp : Lm_Op<"weight"> {
  let summary = "a tensor of the model file";
  let description = [{
    Names a tensor of the model; its bytes are never in the IR. `{layer}` in the
    name stands for the index of the body in `lm.layers`. `source` is the
    element type in the file where it differs: packing then requantizes.

    ```mlir
    %w = lm.weight "blk.{layer}.attn_q.weight" : tensor<576x576x!lm.block<q4_1>>
    ```
  }];
  let arguments = (ins StrAttr:$name, OptionalAttr<TypeAttr>:$source);
  let results = (outs Lm_AnyTensor:$result);
  let assemblyFormat = "$name (`source` `=` $source^)? attr-dict `:` type($result)";
  let hasVerifier = 1;
}

def Lm_EmbeddingOp : Lm_Op<"embedding"> {
  let summary = "rows of a table as floats, by token";
  let description = [{
    `y[m, k] = dequantize(table)[tokens[m], k]`

    ```mlir
    %x = lm.embedding %table, %tokens
        : (tensor<49152x576x!lm.block<q8_0>>, tensor<?xi32>) -> tensor<?x576xf32>
    ```
  }];
  let arguments = (ins Lm_Matrix:$table /*embedding_i1*/, Lm_Indices:$tokens /*embedding_i2*/);
  let results = (outs Lm_Rows:$result);
  let assemblyFormat = "$table `,` $tokens attr-dict `:` functional-type(operands, results)";
  let hasVerifier = 1;
}

def Lm_SelectRowsOp : Lm_Op<"select_rows"> {
  let summary = "some rows of a matrix";
  let description = [{
    `y[m, k] = x[rows[m], k]`

    ```mlir
    %y = lm.select_rows %x, %rows : (tensor<?x576xf32>, tensor<?xi32>) -> tensor<?x576xf32>
    ```
  }];
  let arguments = (ins Lm_Rows:$x /*select_rows_i1*/, Lm_Indices:$rows /*select_rows_i2*/);
  let results = (outs Lm_Rows:$result);
  let assemblyFormat = "$x `,` $rows attr-dict `:` functional-type(operands, results)";
  let hasVerifier = 1;
}

//===----------------------------------------------------------------------===//
// Matrix products
//===----------------------------------------------------------------------===//

def Lm_MatmulOp : Lm_Op<"matmul"> {
  let summary = "product with a transposed weight, in floats";
  let description = [{
    `y[m, n] = sum_k x[m, k] w[n, k] + bias[n]`

    ```mlir
    %y = lm.matmul %x, %w bias %b
        : (tensor<?x576xf32>, tensor<192x576xf32>, tensor<192xf32>) -> tensor<?x192xf32>
    ```
  }];
  let arguments = (ins Lm_Rows:$x /*matmul_i1*/, TensorRankOf<[F32], [2]>:$w /*matmul_i2*/,
                       Optional<Lm_Vector>:$bias /*matmul_i3*/,
                       OptionalAttr<DictionaryAttr>:$tiles);
  let results = (outs Lm_Rows:$result);
  let assemblyFormat = [{
    $x `,` $w (`bias` $bias^)? attr-dict `:` functional-type(operands, results)
  }];
  let hasVerifier = 1;
}

def Lm_QuantMatmulOp : Lm_Op<"quant_matmul"> {
  let summary = "product with a weight in its stored format";
  let description = [{
    As `lm.matmul` of the dequantized operands. Split along k, share s sums over
    its own range of k, and the result holds one matrix per share:
    `y[s, m, n] = sum_{k in range(s)} x[m, k] w[n, k]` (share 0 adds the bias).
    The ranges are the op's own or those of the kernel around it.

    ```mlir
    %y = lm.quant_matmul %x, %w : (tensor<?x576x!lm.block<a8>>, tensor<192x576x!lm.block<q4_1>>)
        -> tensor<?x192xf32>
    %p = lm.quant_matmul %x, %w split = k {ranges = #lm.ranges<[0:288], [288:576]>}
        : (tensor<?x576x!lm.block<a8>>, tensor<192x576x!lm.block<q4_1>>) -> tensor<2x?x192xf32>
    ```
  }];
  let arguments = (ins Lm_Activations:$x /*quant_matmul_i1*/, Lm_Matrix:$w /*quant_matmul_i2*/,
                       Optional<Lm_Vector>:$bias /*quant_matmul_i3*/,
                       DefaultValuedAttr<Lm_MatmulSplitAttr, "::quern::lm::MatmulSplit::N">:$split,
                       OptionalAttr<Lm_RangesAttr>:$ranges,
                       OptionalAttr<DictionaryAttr>:$tiles);
  let results = (outs Lm_Deltas:$result);
  let assemblyFormat = [{
    $x `,` $w (`bias` $bias^)? (`split` `=` `` $split^)? attr-dict `:`
    functional-type(operands, results)
  }];
  let hasVerifier = 1;
}

def Lm_QkvProjOp : Lm_Op<"qkv_proj", [AttrSizedOperandSegments]> {
  let summary = "the three projections of attention, reading x once";
  let description = [{
    `q = x wq^T + bq`, `k = x wk^T + bk`, `v = x wv^T + bv`; the weights may
    differ in format. All three biases or none.

    ```mlir
    %q, %k, %v = lm.qkv_proj %x, %wq, %wk, %wv bias %bq, %bk, %bv : (...) -> (...)
    ```
  }];
  let arguments = (ins Lm_Activations:$x /*qkv_proj_i1*/, Lm_Matrix:$wq /*qkv_proj_i2*/,
                       Lm_Matrix:$wk /*qkv_proj_i3*/, Lm_Matrix:$wv /*qkv_proj_i4*/,
                       Optional<Lm_Vector>:$bq /*qkv_proj_i5*/,
                       Optional<Lm_Vector>:$bk /*qkv_proj_i6*/,
                       Optional<Lm_Vector>:$bv /*qkv_proj_i7*/,
                       OptionalAttr<Lm_RangesAttr>:$ranges,
                       OptionalAttr<DictionaryAttr>:$tiles);
  let results = (outs Lm_Rows:$q, Lm_Rows:$k, Lm_Rows:$v);
  let assemblyFormat = [{
    $x `,` $wq `,` $wk `,` $wv (`bias` $bq^ `,` $bk `,` $bv)? attr-dict `:`
    functional-type(operands, results)
  }];
  let hasVerifier = 1;
}

def Lm_ReduceSharesOp : Lm_Op<"reduce_shares"> {
  let summary = "the sum of all shares' partial results, in share order";
  let description = [{
    `y[m, n] = ((p[0, m, n] + p[1, m, n]) + ...)`

    ```mlir
    %y = lm.reduce_shares %p : tensor<2x?x576xf32> -> tensor<?x576xf32>
    ```
  }];
  let arguments = (ins Lm_Partials:$partials /*reduce_shares_i1*/);
  let results = (outs Lm_Rows:$result);
  let assemblyFormat = "$partials attr-dict `:` type($partials) `->` type($result)";
  let hasVerifier = 1;
}

//===----------------------------------------------------------------------===//
// Quantization
//===----------------------------------------------------------------------===//

def Lm_QuantizeOp : Lm_Op<"quantize"> {
  let summary = "floats to blocks";
  let description = [{
    Per block of the last dimension, a scale and the nearest codes. For a8:
    `d = max|x| / 127`, `q = round(x * (127 / max|x|))`. For f16 the nearest numbers.

    ```mlir
    %q = lm.quantize %x : tensor<?x576xf32> -> tensor<?x576x!lm.block<a8>>
    ```
  }];
  let arguments = (ins TensorRankOf<[F32], [2]>:$x /*quantize_i1*/);
  let results = (outs TensorRankOf<[Lm_Block, F16, BF16], [2]>:$result);
  let assemblyFormat = "$x attr-dict `:` type($x) `->` type($result)";
  let hasVerifier = 1;
}

def Lm_DequantizeOp : Lm_Op<"dequantize"> {
  let summary = "blocks or short floats to floats";
  let description = [{
    The numbers that the stored format means, each rounded once to f32.

    ```mlir
    %f = lm.dequantize %w : tensor<576x576x!lm.block<q4_1>> -> tensor<576x576xf32>
    ```
  }];
  let arguments = (ins Lm_Matrix:$x /*dequantize_i1*/);
  let results = (outs TensorRankOf<[F32], [2]>:$result);
  let assemblyFormat = "$x attr-dict `:` type($x) `->` type($result)";
  let hasVerifier = 1;
  let hasFolder = 1;
}

//===----------------------------------------------------------------------===//
// Elementwise and rows
//===----------------------------------------------------------------------===//

// mul_c1, swiglu_c1: one type for all.
class Lm_BinaryOp<string mnemonic> : Lm_Op<mnemonic, [SameOperandsAndResultType]> {
  let arguments = (ins Lm_Rows:$lhs, Lm_Rows:$rhs);
  let results = (outs Lm_Rows:$result);
  let assemblyFormat = "$lhs `,` $rhs attr-dict `:` type($result)";
}

def Lm_AddOp : Lm_Op<"add"> {
  let summary = "sum of a matrix and a delta, or the deltas of all shares";
  let description = [{
    `y = x + delta`; partial deltas are added in share order:
    `y = x + ((delta[0] + delta[1]) + ...)`.

    ```mlir
    %y = lm.add %x, %delta : (tensor<?x576xf32>, tensor<2x?x576xf32>) -> tensor<?x576xf32>
    ```
  }];
  let arguments = (ins Lm_Rows:$x /*add_i1*/, Lm_Deltas:$delta /*add_i2*/);
  let results = (outs Lm_Rows:$result);
  let assemblyFormat = "$x `,` $delta attr-dict `:` functional-type(operands, results)";
  let hasVerifier = 1;
}

def Lm_MulOp : Lm_BinaryOp<"mul"> {
  let summary = "elementwise product";
  let description = [{ `y = lhs * rhs`

    ```mlir
    %y = lm.mul %a, %b : tensor<?x1536xf32>
    ```
  }];
}

// silu_c1: one type for both.
def Lm_SiluOp : Lm_Op<"silu", [SameOperandsAndResultType]> {
  let summary = "x times the logistic function of x";
  let description = [{ `y = x / (1 + exp(-x))`

    ```mlir
    %y = lm.silu %x : tensor<?x1536xf32>
    ```
  }];
  let arguments = (ins Lm_Rows:$x);
  let results = (outs Lm_Rows:$result);
  let assemblyFormat = "$x attr-dict `:` type($x)";
}

def Lm_SwigluOp : Lm_BinaryOp<"swiglu"> {
  let summary = "silu of the gate times up";
  let description = [{ `y = silu(gate) * up`, the gate first.

    ```mlir
    %y = lm.swiglu %gate, %up : tensor<?x1536xf32>
    ```
  }];
  let extraClassDeclaration = [{
    ::mlir::Value getGate() { return getLhs(); }
    ::mlir::Value getUp() { return getRhs(); }
  }];
}

def Lm_RmsNormOp : Lm_Op<"rms_norm"> {
  let summary = "rows divided by their root mean square";
  let description = [{
    `y[m, k] = x[m, k] * w[k] / sqrt(mean_k(x[m, k]^2) + eps)`

    ```mlir
    %y = lm.rms_norm %x, %w eps = 1.0e-05 : (tensor<?x576xf32>, tensor<576xf32>) -> tensor<?x576xf32>
    ```
  }];
  let arguments = (ins Lm_Rows:$x /*rms_norm_i1*/, Lm_Vector:$w /*rms_norm_i2*/, F32Attr:$eps);
  let results = (outs Lm_Rows:$result);
  let assemblyFormat = [{
    $x `,` $w `eps` `=` $eps attr-dict `:` functional-type(operands, results)
  }];
  let hasVerifier = 1;
}

def Lm_AddRmsNormOp : Lm_Op<"add_rms_norm"> {
  let summary = "the residual sum and its norm";
  let description = [{
    `sum = lm.add(x, delta)`, `y = lm.rms_norm(sum, w)`

    ```mlir
    %sum, %y = lm.add_rms_norm %x, %delta, %w eps = 1.0e-05
        : (tensor<?x576xf32>, tensor<2x?x576xf32>, tensor<576xf32>)
        -> (tensor<?x576xf32>, tensor<?x576xf32>)
    ```
  }];
  let arguments = (ins Lm_Rows:$x /*add_rms_norm_i1*/, Lm_Deltas:$delta /*add_rms_norm_i2*/,
                       Lm_Vector:$w /*add_rms_norm_i3*/, F32Attr:$eps);
  let results = (outs Lm_Rows:$sum, Lm_Rows:$result);
  let assemblyFormat = [{
    $x `,` $delta `,` $w `eps` `=` $eps attr-dict `:` functional-type(operands, results)
  }];
  let hasVerifier = 1;
}

// softmax_c1: one type for both.
def Lm_SoftmaxOp : Lm_Op<"softmax", [SameOperandsAndResultType]> {
  let summary = "probabilities of each row";
  let description = [{
    `y[m, n] = exp(x[m, n] - max_n x[m, n]) / sum_n exp(x[m, n] - max_n x[m, n])`

    ```mlir
    %y = lm.softmax %x : tensor<?x49152xf32>
    ```
  }];
  let arguments = (ins Lm_Rows:$x);
  let results = (outs Lm_Rows:$result);
  let assemblyFormat = "$x attr-dict `:` type($x)";
}

def Lm_TopKOp : Lm_Op<"top_k"> {
  let summary = "the largest elements of each row and their columns";
  let description = [{
    `values[m, i] = x[m, columns[m, i]]`, where columns[m, 0], columns[m, 1], ...
    are the columns in order of their elements, the largest first; of equal
    elements the first column comes first. NaN counts as the largest of all.

    ```mlir
    %values, %columns = lm.top_k %x k = 256
        : tensor<?x49152xf32> -> tensor<?x256xf32>, tensor<?x256xi32>
    ```
  }];
  let arguments = (ins Lm_Rows:$x /*top_k_i1*/, I64Attr:$k);
  let results = (outs Lm_Rows:$values, Lm_IndexRows:$columns);
  let assemblyFormat = [{
    $x `k` `=` $k attr-dict `:` type($x) `->` type($values) `,` type($columns)
  }];
  let hasVerifier = 1;
}

//===----------------------------------------------------------------------===//
// Attention
//===----------------------------------------------------------------------===//

def Lm_RopeOp : Lm_Op<"rope"> {
  let summary = "rotary position embedding";
  let description = [{
    In each head, pair i of the first `rotary_dim` elements turns by
    `positions[m] * base^(-2 i / rotary_dim) / factors[i]`. A pair is elements
    (2i, 2i + 1) when interleaved, (i, i + rotary_dim / 2) in halves.

    ```mlir
    %y = lm.rope %x, %positions heads = 9, head_dim = 64, rotary_dim = 64, base = 1.0e+05,
        mode = interleaved : (tensor<?x576xf32>, tensor<?xi32>) -> tensor<?x576xf32>
    ```
  }];
  let arguments = (ins Lm_Rows:$x /*rope_i1*/, Lm_Indices:$positions /*rope_i2*/,
                       Optional<Lm_Vector>:$factors /*rope_i3*/,
                       PositiveI64:$heads, PositiveI64:$head_dim, PositiveI64:$rotary_dim,
                       F64Attr:$base, Lm_RopeModeAttr:$mode);
  let results = (outs Lm_Rows:$result);
  let assemblyFormat = [{
    $x `,` $positions (`factors` $factors^)? `heads` `=` $heads `,` `head_dim` `=` $head_dim `,`
    `rotary_dim` `=` $rotary_dim `,` `base` `=` $base `,` `mode` `=` `` $mode attr-dict `:`
    functional-type(operands, results)
  }];
  let hasVerifier = 1;
}

def Lm_KvAppendOp : Lm_Op<"kv_append"> {
  let summary = "the cache with the keys and values of the call's rows";
  let description = [{
    Rows are added in order, rounded to the cache's element type.

    ```mlir
    %kv1 = lm.kv_append %kv, %k, %v : (!kv, tensor<?x192xf32>, tensor<?x192xf32>) -> !kv
    ```
  }];
  let arguments = (ins Lm_KvCache:$kv /*kv_append_i1*/, Lm_Rows:$k /*kv_append_i2*/,
                       Lm_Rows:$v /*kv_append_i3*/);
  let results = (outs Lm_KvCache:$result);
  let assemblyFormat = "$kv `,` $k `,` $v attr-dict `:` functional-type(operands, results)";
  let hasVerifier = 1;
}

class Lm_AttentionLike<string mnemonic> : Lm_Op<mnemonic> {
  let results = (outs Lm_Rows:$result);
  let hasVerifier = 1;
}

def Lm_AttentionOp : Lm_AttentionLike<"attention"> {
  let summary = "causal attention over a cache";
  let description = [{
    For row m and head h, over the cache rows j that the row sees (j <=
    positions[m], and positions[m] - j < window when window > 0), with g the
    head's group of `heads / kv.heads` query heads:
    `y[m, h] = sum_j softmax_j(scale * q[m, h] . k[j, g]) v[j, g]`.
    `positions[m]` is the row's slot in the cache.

    ```mlir
    %y = lm.attention %q, %kv, %positions heads = 9, scale = 1.25e-01, window = 0
        : (tensor<?x576xf32>, !kv, tensor<?xi32>) -> tensor<?x576xf32>
    ```
  }];
  let arguments = (ins Lm_Rows:$q /*attention_i1*/, Lm_KvCache:$kv /*attention_i2*/,
                       Lm_Indices:$positions /*attention_i3*/,
                       PositiveI64:$heads, F32Attr:$scale,
                       DefaultValuedAttr<NonNegativeI64, "0">:$window,
                       OptionalAttr<DictionaryAttr>:$tiles);
  let assemblyFormat = [{
    $q `,` $kv `,` $positions `heads` `=` $heads `,` `scale` `=` $scale `,` `window` `=` $window
    attr-dict `:` functional-type(operands, results)
  }];
}

def Lm_OnlineAttentionOp : Lm_AttentionLike<"online_attention"> {
  let summary = "attention in one pass over tiles of keys";
  let description = [{
    `lm.attention`, computed over tiles of `key_tile` cache rows in ascending
    order with a running maximum and sum.

    ```mlir
    %y = lm.online_attention %q, %kv, %positions heads = 9, scale = 1.25e-01, window = 0,
        key_tile = 32 : (tensor<?x576xf32>, !kv, tensor<?xi32>) -> tensor<?x576xf32>
    ```
  }];
  let arguments = (ins Lm_Rows:$q /*online_attention_i1*/, Lm_KvCache:$kv /*online_attention_i2*/,
                       Lm_Indices:$positions /*online_attention_i3*/,
                       PositiveI64:$heads, F32Attr:$scale,
                       DefaultValuedAttr<NonNegativeI64, "0">:$window,
                       PositiveI64:$key_tile, OptionalAttr<DictionaryAttr>:$tiles);
  let assemblyFormat = [{
    $q `,` $kv `,` $positions `heads` `=` $heads `,` `scale` `=` $scale `,` `window` `=` $window `,`
    `key_tile` `=` $key_tile attr-dict `:` functional-type(operands, results)
  }];
}

//===----------------------------------------------------------------------===//
// Kernels
//===----------------------------------------------------------------------===//

def Lm_KernelOp : Lm_Op<"kernel", [IsolatedFromAbove, SingleBlock]> {
  let summary = "ops that one kernel computes";
  let description = [{
    Computes its region. `split` says what threads divide: rows, each
    independent, or the shares that `ranges` cuts. A cache that the region
    appends to is an operand and a result.

    ```mlir
    %sum, %y = lm.kernel "ffn_norm" split(rows) (%a = %x : tensor<?x576xf32>,
        %b = %delta : tensor<2x?x576xf32>, %c = %w : tensor<576xf32>)
        -> (tensor<?x576xf32>, tensor<?x576xf32>) {
      %s, %n = lm.add_rms_norm %a, %b, %c eps = 1.0e-05 : (...) -> (...)
      lm.yield %s, %n : tensor<?x576xf32>, tensor<?x576xf32>
    }
    ```
  }];
  let arguments = (ins Variadic<Lm_Value>:$inputs, StrAttr:$name, Lm_KernelSplitAttr:$split,
                       OptionalAttr<Lm_RangesAttr>:$ranges, OptionalAttr<DictionaryAttr>:$tiles);
  let results = (outs Variadic<Lm_Value>:$outputs);
  let regions = (region SizedRegion<1>:$body);
  let hasCustomAssemblyFormat = 1;
  let hasVerifier = 1;
}

def Lm_YieldOp : Lm_Op<"yield", [Terminator, ReturnLike]> {
  let summary = "results of a kernel's region";
  let description = [{
    ```mlir
    lm.yield %s, %n : tensor<?x576xf32>, tensor<?x576xf32>
    ```
  }];
  let arguments = (ins Variadic<Lm_Value>:$values);
  let assemblyFormat = "attr-dict ($values^ `:` type($values))?";
  let hasVerifier = 1;
}

#endif // QUERN_DIALECTS_LM_LMOPS_TD
