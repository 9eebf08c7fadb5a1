// A small model after every phase.
// RUN: quern-compile compile %s --target=avx2 --compile-to=import | FileCheck %s --check-prefix=IMPORT
// RUN: quern-compile compile %s --target=avx2 --compile-to=normalize | FileCheck %s --check-prefix=NORMALIZE
// RUN: quern-compile compile %s --target=avx2 --compile-to=quantize | FileCheck %s --check-prefix=QUANTIZE
// RUN: quern-compile compile %s --target=avx2 --compile-to=fuse | FileCheck %s --check-prefix=FUSE
// RUN: quern-compile compile %s --target=avx2 --compile-to=tile | FileCheck %s --check-prefix=TILE
// RUN: quern-compile compile %s --target=avx2 --compile-to=kernels | FileCheck %s --check-prefix=KERNELS
// RUN: quern-compile compile %s --target=avx2 --compile-to=lower | FileCheck %s --check-prefix=LOWER
// RUN: quern-compile compile %s --target=avx2 --compile-to=memory | FileCheck %s --check-prefix=MEMORY
// RUN: rm -rf %t && quern-compile compile %s --target=avx2 --compile-to=codegen --dump-kernels-to=%t -q
// RUN: ls %t | FileCheck %s --check-prefix=CODEGEN
// tests/compiler/command_line_test.py goes on to the artifact phase.

!kv = !lm.kv_cache<heads = 2, head_dim = 32, page = 32, f16>
!q4 = !lm.block<q4_0>

// IMPORT-LABEL: func.func @layer
// IMPORT: %[[X:.*]] = lm.add %{{.*}}, %arg0
// IMPORT: lm.dequantize
// IMPORT: lm.matmul
// IMPORT: lm.silu
// IMPORT: lm.mul %{{.*}}, %[[SILU:.*]] : tensor<?x64xf32>

// The residual comes first in a sum, the silu first in a product.
// NORMALIZE-LABEL: func.func @layer
// NORMALIZE: lm.add %arg0, %{{.*}}
// NORMALIZE: %[[SILU:.*]] = lm.silu
// NORMALIZE: lm.mul %[[SILU]], %{{.*}}

// QUANTIZE-LABEL: func.func @layer
// QUANTIZE: %[[Q:.*]] = lm.quantize %{{.*}} : tensor<?x64xf32> -> tensor<?x64x!lm.block<a8>>
// QUANTIZE: lm.dequantize %[[Q]] : tensor<?x64x!lm.block<a8>> -> tensor<?x64xf32>
// QUANTIZE: lm.matmul

// FUSE-LABEL: func.func @layer
// FUSE-NOT: lm.matmul
// FUSE: lm.qkv_proj %{{.*}} : (tensor<?x64x!lm.block<a8>>, tensor<64x64x!lm.block<q4_0>>
// FUSE: lm.attention
// FUSE: lm.add_rms_norm
// FUSE: lm.swiglu
// FUSE: lm.quant_matmul
// FUSE: lm.add

// TILE-LABEL: func.func @layer
// TILE: lm.qkv_proj {{.*}}ranges = #lm.ranges<[0:32, 0:32, 0:32], [32:64, 32:64, 32:64]>
// TILE-SAME: "avx2/decode" = #lm.tile<
// TILE: lm.online_attention {{.*}}key_tile = 32
// TILE: lm.quant_matmul {{.*}}split = k {{.*}} -> tensor<2x?x64xf32>

// KERNELS-LABEL: func.func @layer
// KERNELS: lm.kernel "qkv_proj" split(shares)
// KERNELS: lm.kernel "rope_append" split(shares)
// KERNELS: lm.kernel "attention" split(shares)
// KERNELS: lm.kernel "gate_up" split(shares)
// KERNELS: lm.kernel "add" split(rows)

// LOWER-NOT: func.func
// LOWER: rt.kernel @qkv_proj(
// LOWER: rt.program @model shares = 2 layers = [@layer, @layer, @layer]
// LOWER: rt.buffer @x activation bytes_per_row = 256
// LOWER-NOT: offset
// LOWER: rt.block @layer
// LOWER: rt.weight_slot "blk.{layer}.attn_norm.weight"
// LOWER: rt.dispatch @qkv_proj
// LOWER: rt.join always
// LOWER: rt.epilogue

// MEMORY: rt.program @model {{.*}}arena_bytes_per_row = {{[0-9]+}}
// MEMORY: rt.buffer @x activation {{.*}}offset = {{[0-9]+}}

// CODEGEN: attention.avx2.
// CODEGEN: gate_up.avx2.
// CODEGEN: qkv_proj.avx2.

module attributes {
  lm.model = {name = "small", family = "llama", vocab = 64, hidden = 64, heads = 2, kv_heads = 2,
              head_dim = 32, ffn = 64, context = 64},
  lm.prologue = @embed, lm.layers = [@layer, @layer, @layer], lm.epilogue = @head
} {
  func.func @embed(%tokens: tensor<?xi32>) -> tensor<?x64xf32> {
    %table = lm.weight "token_embd.weight" : tensor<64x64x!q4>
    %x = lm.embedding %table, %tokens : (tensor<64x64x!q4>, tensor<?xi32>) -> tensor<?x64xf32>
    return %x : tensor<?x64xf32>
  }

  func.func @layer(%x: tensor<?x64xf32>, %positions: tensor<?xi32>, %kv: !kv)
      -> (tensor<?x64xf32>, !kv) {
    %an = lm.weight "blk.{layer}.attn_norm.weight" : tensor<64xf32>
    %wq = lm.weight "blk.{layer}.attn_q.weight" : tensor<64x64x!q4>
    %wk = lm.weight "blk.{layer}.attn_k.weight" : tensor<64x64x!q4>
    %wv = lm.weight "blk.{layer}.attn_v.weight" : tensor<64x64x!q4>
    %wo = lm.weight "blk.{layer}.attn_output.weight" : tensor<64x64x!q4>
    %h = lm.rms_norm %x, %an eps = 1.0e-05 : (tensor<?x64xf32>, tensor<64xf32>) -> tensor<?x64xf32>
    %fq = lm.dequantize %wq : tensor<64x64x!q4> -> tensor<64x64xf32>
    %fk = lm.dequantize %wk : tensor<64x64x!q4> -> tensor<64x64xf32>
    %fv = lm.dequantize %wv : tensor<64x64x!q4> -> tensor<64x64xf32>
    %fo = lm.dequantize %wo : tensor<64x64x!q4> -> tensor<64x64xf32>
    %q0 = lm.matmul %h, %fq : (tensor<?x64xf32>, tensor<64x64xf32>) -> tensor<?x64xf32>
    %k0 = lm.matmul %h, %fk : (tensor<?x64xf32>, tensor<64x64xf32>) -> tensor<?x64xf32>
    %v = lm.matmul %h, %fv : (tensor<?x64xf32>, tensor<64x64xf32>) -> tensor<?x64xf32>
    %q = lm.rope %q0, %positions heads = 2, head_dim = 32, rotary_dim = 32, base = 1.0e+04,
        mode = half : (tensor<?x64xf32>, tensor<?xi32>) -> tensor<?x64xf32>
    %k = lm.rope %k0, %positions heads = 2, head_dim = 32, rotary_dim = 32, base = 1.0e+04,
        mode = half : (tensor<?x64xf32>, tensor<?xi32>) -> tensor<?x64xf32>
    %kv1 = lm.kv_append %kv, %k, %v : (!kv, tensor<?x64xf32>, tensor<?x64xf32>) -> !kv
    %a = lm.attention %q, %kv1, %positions heads = 2, scale = 0.25, window = 0
        : (tensor<?x64xf32>, !kv, tensor<?xi32>) -> tensor<?x64xf32>
    %o = lm.matmul %a, %fo : (tensor<?x64xf32>, tensor<64x64xf32>) -> tensor<?x64xf32>
    %x1 = lm.add %o, %x : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>

    %fn = lm.weight "blk.{layer}.ffn_norm.weight" : tensor<64xf32>
    %wg = lm.weight "blk.{layer}.ffn_gate.weight" : tensor<64x64x!q4>
    %wu = lm.weight "blk.{layer}.ffn_up.weight" : tensor<64x64x!q4>
    %wd = lm.weight "blk.{layer}.ffn_down.weight" : tensor<64x64x!q4>
    %g = lm.rms_norm %x1, %fn eps = 1.0e-05 : (tensor<?x64xf32>, tensor<64xf32>) -> tensor<?x64xf32>
    %fg = lm.dequantize %wg : tensor<64x64x!q4> -> tensor<64x64xf32>
    %fu = lm.dequantize %wu : tensor<64x64x!q4> -> tensor<64x64xf32>
    %fd = lm.dequantize %wd : tensor<64x64x!q4> -> tensor<64x64xf32>
    %gate = lm.matmul %g, %fg : (tensor<?x64xf32>, tensor<64x64xf32>) -> tensor<?x64xf32>
    %up = lm.matmul %g, %fu : (tensor<?x64xf32>, tensor<64x64xf32>) -> tensor<?x64xf32>
    %act = lm.silu %gate : tensor<?x64xf32>
    %hidden = lm.mul %up, %act : tensor<?x64xf32>
    %down = lm.matmul %hidden, %fd : (tensor<?x64xf32>, tensor<64x64xf32>) -> tensor<?x64xf32>
    %x2 = lm.add %x1, %down : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
    return %x2, %kv1 : tensor<?x64xf32>, !kv
  }

  func.func @head(%x: tensor<?x64xf32>, %rows: tensor<?xi32>) -> tensor<?x64xf32> {
    %s = lm.select_rows %x, %rows : (tensor<?x64xf32>, tensor<?xi32>) -> tensor<?x64xf32>
    %n = lm.weight "output_norm.weight" : tensor<64xf32>
    %h = lm.rms_norm %s, %n eps = 1.0e-05 : (tensor<?x64xf32>, tensor<64xf32>) -> tensor<?x64xf32>
    %w = lm.weight "token_embd.weight" : tensor<64x64x!q4>
    %fw = lm.dequantize %w : tensor<64x64x!q4> -> tensor<64x64xf32>
    %y = lm.matmul %h, %fw : (tensor<?x64xf32>, tensor<64x64xf32>) -> tensor<?x64xf32>
    return %y : tensor<?x64xf32>
  }
}
