// A model of two layers with all the proportions of a real one: hidden 64, 4
// heads of 32 over 2 KV heads, feed-forward 96, vocabulary 80, formats that
// differ between tensors, as the importer writes it.
!x = tensor<?x64xf32>
!q = tensor<?x128xf32>
!kv = !lm.kv_cache<heads = 2, head_dim = 32, page = 32, f16>
!q4 = !lm.block<q4_0>
!q8 = !lm.block<q8_0>

module attributes {lm.model = {name = "small", family = "llama", vocab = 80, hidden = 64, heads = 4,
                               kv_heads = 2, head_dim = 32, ffn = 96, context = 64},
                   lm.prologue = @embed, lm.layers = [@layer_0, @layer_0], lm.epilogue = @head} {
  func.func @embed(%tokens: tensor<?xi32>) -> !x {
    %table = lm.weight "token_embd.weight" : tensor<80x64x!q8>
    %x = lm.embedding %table, %tokens : (tensor<80x64x!q8>, tensor<?xi32>) -> !x
    return %x : !x
  }

  func.func @layer_0(%x: !x, %positions: tensor<?xi32>, %kv: !kv) -> (!x, !kv) {
    %attn_norm = lm.weight "blk.{layer}.attn_norm.weight" : tensor<64xf32>
    %n = lm.rms_norm %x, %attn_norm eps = 1.0e-05 : (!x, tensor<64xf32>) -> !x
    %wq = lm.weight "blk.{layer}.attn_q.weight" : tensor<128x64x!q4>
    %wqf = lm.dequantize %wq : tensor<128x64x!q4> -> tensor<128x64xf32>
    %q = lm.matmul %n, %wqf : (!x, tensor<128x64xf32>) -> !q
    %wk = lm.weight "blk.{layer}.attn_k.weight" : tensor<64x64x!q4>
    %wkf = lm.dequantize %wk : tensor<64x64x!q4> -> tensor<64x64xf32>
    %k = lm.matmul %n, %wkf : (!x, tensor<64x64xf32>) -> !x
    %wv = lm.weight "blk.{layer}.attn_v.weight" : tensor<64x64x!q8>
    %wvf = lm.dequantize %wv : tensor<64x64x!q8> -> tensor<64x64xf32>
    %v = lm.matmul %n, %wvf : (!x, tensor<64x64xf32>) -> !x
    %qr = lm.rope %q, %positions heads = 4, head_dim = 32, rotary_dim = 32, base = 1.0e+04, mode = interleaved
        : (!q, tensor<?xi32>) -> !q
    %kr = lm.rope %k, %positions heads = 2, head_dim = 32, rotary_dim = 32, base = 1.0e+04, mode = interleaved
        : (!x, tensor<?xi32>) -> !x
    %kv1 = lm.kv_append %kv, %kr, %v : (!kv, !x, !x) -> !kv
    %a = lm.attention %qr, %kv1, %positions heads = 4, scale = 1.767767e-01, window = 0
        : (!q, !kv, tensor<?xi32>) -> !q
    %wo = lm.weight "blk.{layer}.attn_output.weight" : tensor<64x128x!q4>
    %wof = lm.dequantize %wo : tensor<64x128x!q4> -> tensor<64x128xf32>
    %o = lm.matmul %a, %wof : (!q, tensor<64x128xf32>) -> !x
    %x1 = lm.add %x, %o : (!x, !x) -> !x
    %ffn_norm = lm.weight "blk.{layer}.ffn_norm.weight" : tensor<64xf32>
    %n1 = lm.rms_norm %x1, %ffn_norm eps = 1.0e-05 : (!x, tensor<64xf32>) -> !x
    %wg = lm.weight "blk.{layer}.ffn_gate.weight" : tensor<96x64x!q4>
    %wgf = lm.dequantize %wg : tensor<96x64x!q4> -> tensor<96x64xf32>
    %g = lm.matmul %n1, %wgf : (!x, tensor<96x64xf32>) -> tensor<?x96xf32>
    %gs = lm.silu %g : tensor<?x96xf32>
    %wu = lm.weight "blk.{layer}.ffn_up.weight" : tensor<96x64x!q4>
    %wuf = lm.dequantize %wu : tensor<96x64x!q4> -> tensor<96x64xf32>
    %u = lm.matmul %n1, %wuf : (!x, tensor<96x64xf32>) -> tensor<?x96xf32>
    %h = lm.mul %gs, %u : tensor<?x96xf32>
    %wd = lm.weight "blk.{layer}.ffn_down.weight" : tensor<64x96x!q8>
    %wdf = lm.dequantize %wd : tensor<64x96x!q8> -> tensor<64x96xf32>
    %d = lm.matmul %h, %wdf : (tensor<?x96xf32>, tensor<64x96xf32>) -> !x
    %x2 = lm.add %x1, %d : (!x, !x) -> !x
    return %x2, %kv1 : !x, !kv
  }

  func.func @head(%x: !x, %rows: tensor<?xi32>) -> tensor<?x80xf32> {
    %s = lm.select_rows %x, %rows : (!x, tensor<?xi32>) -> !x
    %norm = lm.weight "output_norm.weight" : tensor<64xf32>
    %n = lm.rms_norm %s, %norm eps = 1.0e-05 : (!x, tensor<64xf32>) -> !x
    %table = lm.weight "token_embd.weight" : tensor<80x64x!q8>
    %tablef = lm.dequantize %table : tensor<80x64x!q8> -> tensor<80x64xf32>
    %logits = lm.matmul %n, %tablef : (!x, tensor<80x64xf32>) -> tensor<?x80xf32>
    return %logits : tensor<?x80xf32>
  }
}
