// RUN: quern-opt --lm-normalize --lm-quantize-activations --lm-fuse-dequant-matmul --lm-convert-attention-to-online-attention --lm-split-shares=shares=2 --lm-form-kernels --convert-lm-to-rt %s | FileCheck %s

// Two attentions that read the same queries and pages: the second must not
// leave states where shares still merge those of the first.
// CHECK: rt.block @layer
// CHECK: rt.dispatch @attention(
// CHECK-NEXT: rt.join split
// CHECK-NEXT: rt.dispatch @attention({{.*}} merge
// CHECK-NEXT: rt.join split
// CHECK-NEXT: rt.dispatch @attention_1(
// CHECK-NEXT: rt.join split
// CHECK-NEXT: rt.dispatch @attention_1({{.*}} merge
// CHECK-NEXT: rt.join always

!x = tensor<?x64xf32>
!kv = !lm.kv_cache<heads = 2, head_dim = 32, page = 32, f16>
!w = tensor<64x64x!lm.block<q8_0>>
!wf = tensor<64x64xf32>

module attributes {lm.model = {name = "two", family = "llama", vocab = 64, hidden = 64, heads = 2,
                               kv_heads = 2, head_dim = 32, ffn = 64, context = 64},
                   lm.prologue = @embed, lm.layers = [@layer], lm.epilogue = @head} {
  func.func @embed(%tokens: tensor<?xi32>) -> !x {
    %table = lm.weight "token_embd.weight" : !w
    %x = lm.embedding %table, %tokens : (!w, tensor<?xi32>) -> !x
    return %x : !x
  }

  func.func @layer(%x: !x, %positions: tensor<?xi32>, %kv: !kv) -> (!x, !kv) {
    %wq = lm.weight "blk.{layer}.attn_q.weight" : !w
    %wqf = lm.dequantize %wq : !w -> !wf
    %q = lm.matmul %x, %wqf : (!x, !wf) -> !x
    %wk = lm.weight "blk.{layer}.attn_k.weight" : !w
    %wkf = lm.dequantize %wk : !w -> !wf
    %k = lm.matmul %x, %wkf : (!x, !wf) -> !x
    %wv = lm.weight "blk.{layer}.attn_v.weight" : !w
    %wvf = lm.dequantize %wv : !w -> !wf
    %v = lm.matmul %x, %wvf : (!x, !wf) -> !x
    %kv1 = lm.kv_append %kv, %k, %v : (!kv, !x, !x) -> !kv
    %a = lm.attention %q, %kv1, %positions heads = 2, scale = 0.1767767, window = 0
        : (!x, !kv, tensor<?xi32>) -> !x
    %b = lm.attention %q, %kv1, %positions heads = 2, scale = 0.5, window = 0
        : (!x, !kv, tensor<?xi32>) -> !x
    %c = lm.mul %a, %b : !x
    %wo = lm.weight "blk.{layer}.attn_output.weight" : !w
    %wof = lm.dequantize %wo : !w -> !wf
    %o = lm.matmul %c, %wof : (!x, !wf) -> !x
    %x1 = lm.add %x, %o : (!x, !x) -> !x
    return %x1, %kv1 : !x, !kv
  }

  func.func @head(%x: !x, %rows: tensor<?xi32>) -> !x {
    %s = lm.select_rows %x, %rows : (!x, tensor<?xi32>) -> !x
    %table = lm.weight "token_embd.weight" : !w
    %tablef = lm.dequantize %table : !w -> !wf
    %logits = lm.matmul %s, %tablef : (!x, !wf) -> !x
    return %logits : !x
  }
}
