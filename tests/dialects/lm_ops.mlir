// Every op, type and attribute of lm, printed and parsed again.
// RUN: quern-opt %s | quern-opt | FileCheck %s
// RUN: quern-opt %s --mlir-print-op-generic | quern-opt | FileCheck %s

!kv = !lm.kv_cache<heads = 1, head_dim = 32, page = 32, f16>

// CHECK: module attributes {lm.epilogue = @weight, lm.layers = [@weight, @weight], lm.model = {name = "tiny"}, lm.prologue = @weight}
module attributes {lm.model = {name = "tiny"}, lm.prologue = @weight, lm.layers = [@weight, @weight], lm.epilogue = @weight} {

// CHECK-LABEL: func.func @weight
func.func @weight() {
  // CHECK: lm.weight "blk.{layer}.attn_q.weight" : tensor<16x32x!lm.block<q4_1>>
  %0 = lm.weight "blk.{layer}.attn_q.weight" : tensor<16x32x!lm.block<q4_1>>
  // CHECK: lm.weight "output_norm.weight" source = bf16 : tensor<32xf32>
  %1 = lm.weight "output_norm.weight" source = bf16 : tensor<32xf32>
  return
}

// CHECK-LABEL: func.func @formats
func.func @formats() {
  // CHECK: !lm.block<q4_0>
  %0 = lm.weight "a" : tensor<1x256x!lm.block<q4_0>>
  // CHECK: !lm.block<q5_0>
  %1 = lm.weight "a" : tensor<1x256x!lm.block<q5_0>>
  // CHECK: !lm.block<q5_1>
  %2 = lm.weight "a" : tensor<1x256x!lm.block<q5_1>>
  // CHECK: !lm.block<q8_0>
  %3 = lm.weight "a" : tensor<1x256x!lm.block<q8_0>>
  // CHECK: !lm.block<q2_k>
  %4 = lm.weight "a" : tensor<1x256x!lm.block<q2_k>>
  // CHECK: !lm.block<q3_k>
  %5 = lm.weight "a" : tensor<1x256x!lm.block<q3_k>>
  // CHECK: !lm.block<q4_k>
  %6 = lm.weight "a" : tensor<1x256x!lm.block<q4_k>>
  // CHECK: !lm.block<q5_k>
  %7 = lm.weight "a" : tensor<1x256x!lm.block<q5_k>>
  // CHECK: !lm.block<q6_k>
  %8 = lm.weight "a" : tensor<1x256x!lm.block<q6_k>>
  return
}

// CHECK-LABEL: func.func @embedding
func.func @embedding(%table: tensor<7x32xf16>, %tokens: tensor<?xi32>) -> tensor<?x32xf32> {
  // CHECK: lm.embedding %{{.*}}, %{{.*}} : (tensor<7x32xf16>, tensor<?xi32>) -> tensor<?x32xf32>
  %0 = lm.embedding %table, %tokens : (tensor<7x32xf16>, tensor<?xi32>) -> tensor<?x32xf32>
  return %0 : tensor<?x32xf32>
}

// CHECK-LABEL: func.func @select_rows
func.func @select_rows(%x: tensor<?x32xf32>, %rows: tensor<?xi32>) -> tensor<?x32xf32> {
  // CHECK: lm.select_rows %{{.*}}, %{{.*}} : (tensor<?x32xf32>, tensor<?xi32>) -> tensor<?x32xf32>
  %0 = lm.select_rows %x, %rows : (tensor<?x32xf32>, tensor<?xi32>) -> tensor<?x32xf32>
  return %0 : tensor<?x32xf32>
}

// CHECK-LABEL: func.func @matmul
func.func @matmul(%x: tensor<?x32xf32>, %w: tensor<16x32xf32>, %b: tensor<16xf32>) {
  // CHECK: lm.matmul %{{.*}}, %{{.*}} : (tensor<?x32xf32>, tensor<16x32xf32>) -> tensor<?x16xf32>
  %0 = lm.matmul %x, %w : (tensor<?x32xf32>, tensor<16x32xf32>) -> tensor<?x16xf32>
  // CHECK: lm.matmul %{{.*}}, %{{.*}} bias %{{.*}} {tiles = {"avx2/decode" = #lm.tile<rows = 4, prefetch = 4096>}} :
  %1 = lm.matmul %x, %w bias %b {tiles = {"avx2/decode" = #lm.tile<rows = 4, blocks = 1, prefetch = 4096>}}
      : (tensor<?x32xf32>, tensor<16x32xf32>, tensor<16xf32>) -> tensor<?x16xf32>
  return
}

// CHECK-LABEL: func.func @quant_matmul
func.func @quant_matmul(%x: tensor<?x64x!lm.block<a8>>, %f: tensor<?x64xf32>,
                        %w: tensor<16x64x!lm.block<q8_0>>, %b: tensor<16xf32>) {
  // CHECK: lm.quant_matmul %{{.*}}, %{{.*}} bias %{{.*}} : (tensor<?x64x!lm.block<a8>>, tensor<16x64x!lm.block<q8_0>>, tensor<16xf32>) -> tensor<?x16xf32>
  %0 = lm.quant_matmul %x, %w bias %b
      : (tensor<?x64x!lm.block<a8>>, tensor<16x64x!lm.block<q8_0>>, tensor<16xf32>) -> tensor<?x16xf32>
  // CHECK: lm.quant_matmul %{{.*}}, %{{.*}} {ranges = #lm.ranges<[0:0], [0:16]>} : (tensor<?x64xf32>
  %1 = lm.quant_matmul %f, %w {ranges = #lm.ranges<[0:0], [0:16]>}
      : (tensor<?x64xf32>, tensor<16x64x!lm.block<q8_0>>) -> tensor<?x16xf32>
  // CHECK: lm.quant_matmul %{{.*}}, %{{.*}} split = k {ranges = #lm.ranges<[0:32], [32:64]>} : {{.*}} -> tensor<2x?x16xf32>
  %2 = lm.quant_matmul %x, %w split = k {ranges = #lm.ranges<[0:32], [32:64]>}
      : (tensor<?x64x!lm.block<a8>>, tensor<16x64x!lm.block<q8_0>>) -> tensor<2x?x16xf32>
  return
}

// CHECK-LABEL: func.func @qkv_proj
func.func @qkv_proj(%x: tensor<?x32x!lm.block<a8>>, %wq: tensor<64x32x!lm.block<q4_1>>,
                    %wk: tensor<32x32x!lm.block<q5_0>>, %wv: tensor<32x32xf16>,
                    %bq: tensor<64xf32>, %bk: tensor<32xf32>, %bv: tensor<32xf32>) {
  // CHECK: lm.qkv_proj %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} {ranges = #lm.ranges<[0:32, 0:32, 0:32], [32:64, 32:32, 32:32]>} :
  %q, %k, %v = lm.qkv_proj %x, %wq, %wk, %wv {ranges = #lm.ranges<[0:32, 0:32, 0:32], [32:64, 32:32, 32:32]>}
      : (tensor<?x32x!lm.block<a8>>, tensor<64x32x!lm.block<q4_1>>, tensor<32x32x!lm.block<q5_0>>, tensor<32x32xf16>)
      -> (tensor<?x64xf32>, tensor<?x32xf32>, tensor<?x32xf32>)
  // CHECK: lm.qkv_proj %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} bias %{{.*}}, %{{.*}}, %{{.*}} :
  %q1, %k1, %v1 = lm.qkv_proj %x, %wq, %wk, %wv bias %bq, %bk, %bv
      : (tensor<?x32x!lm.block<a8>>, tensor<64x32x!lm.block<q4_1>>, tensor<32x32x!lm.block<q5_0>>, tensor<32x32xf16>,
         tensor<64xf32>, tensor<32xf32>, tensor<32xf32>) -> (tensor<?x64xf32>, tensor<?x32xf32>, tensor<?x32xf32>)
  return
}

// CHECK-LABEL: func.func @reduce_shares
func.func @reduce_shares(%p: tensor<2x?x16xf32>) -> tensor<?x16xf32> {
  // CHECK: lm.reduce_shares %{{.*}} : tensor<2x?x16xf32> -> tensor<?x16xf32>
  %0 = lm.reduce_shares %p : tensor<2x?x16xf32> -> tensor<?x16xf32>
  return %0 : tensor<?x16xf32>
}

// CHECK-LABEL: func.func @quantize
func.func @quantize(%x: tensor<?x32xf32>) {
  // CHECK: %[[Q:.*]] = lm.quantize %{{.*}} : tensor<?x32xf32> -> tensor<?x32x!lm.block<a8>>
  %0 = lm.quantize %x : tensor<?x32xf32> -> tensor<?x32x!lm.block<a8>>
  // CHECK: lm.dequantize %[[Q]] : tensor<?x32x!lm.block<a8>> -> tensor<?x32xf32>
  %1 = lm.dequantize %0 : tensor<?x32x!lm.block<a8>> -> tensor<?x32xf32>
  // CHECK: lm.quantize %{{.*}} : tensor<?x32xf32> -> tensor<?x32x!lm.block<e4m3>>
  %2 = lm.quantize %x : tensor<?x32xf32> -> tensor<?x32x!lm.block<e4m3>>
  return
}

// CHECK-LABEL: func.func @elementwise
func.func @elementwise(%x: tensor<?x32xf32>, %p: tensor<3x?x32xf32>) {
  // CHECK: lm.add %{{.*}}, %{{.*}} : (tensor<?x32xf32>, tensor<3x?x32xf32>) -> tensor<?x32xf32>
  %0 = lm.add %x, %p : (tensor<?x32xf32>, tensor<3x?x32xf32>) -> tensor<?x32xf32>
  // CHECK: lm.mul %{{.*}}, %{{.*}} : tensor<?x32xf32>
  %1 = lm.mul %x, %x : tensor<?x32xf32>
  // CHECK: lm.silu %{{.*}} : tensor<?x32xf32>
  %2 = lm.silu %x : tensor<?x32xf32>
  // CHECK: lm.swiglu %{{.*}}, %{{.*}} : tensor<?x32xf32>
  %3 = lm.swiglu %x, %x : tensor<?x32xf32>
  return
}

// CHECK-LABEL: func.func @rows
func.func @rows(%x: tensor<?x32xf32>, %w: tensor<32xf32>) {
  // CHECK: lm.rms_norm %{{.*}}, %{{.*}} eps = 9.99999974E-6 : (tensor<?x32xf32>, tensor<32xf32>) -> tensor<?x32xf32>
  %0 = lm.rms_norm %x, %w eps = 1.0e-05 : (tensor<?x32xf32>, tensor<32xf32>) -> tensor<?x32xf32>
  // CHECK: lm.add_rms_norm %{{.*}}, %{{.*}}, %{{.*}} eps = 9.99999974E-6 :
  %1, %2 = lm.add_rms_norm %x, %x, %w eps = 1.0e-05
      : (tensor<?x32xf32>, tensor<?x32xf32>, tensor<32xf32>) -> (tensor<?x32xf32>, tensor<?x32xf32>)
  // CHECK: lm.softmax %{{.*}} : tensor<?x32xf32>
  %3 = lm.softmax %x : tensor<?x32xf32>
  // CHECK: lm.top_k %{{.*}} k = 3 : tensor<?x32xf32> -> tensor<?x3xf32>, tensor<?x3xi32>
  %4, %5 = lm.top_k %x k = 3 : tensor<?x32xf32> -> tensor<?x3xf32>, tensor<?x3xi32>
  return
}

// CHECK-LABEL: func.func @attention
func.func @attention(%q: tensor<?x64xf32>, %k: tensor<?x32xf32>, %kv: !kv, %p: tensor<?xi32>, %f: tensor<16xf32>) {
  // CHECK: lm.rope %{{.*}}, %{{.*}} heads = 2, head_dim = 32, rotary_dim = 32, base = 1.000000e+04, mode = half :
  %0 = lm.rope %q, %p heads = 2, head_dim = 32, rotary_dim = 32, base = 1.0e+04, mode = half
      : (tensor<?x64xf32>, tensor<?xi32>) -> tensor<?x64xf32>
  // CHECK: lm.rope %{{.*}}, %{{.*}} factors %{{.*}} heads = 2, head_dim = 32, rotary_dim = 32, base = 1.000000e+04, mode = interleaved :
  %1 = lm.rope %q, %p factors %f heads = 2, head_dim = 32, rotary_dim = 32, base = 1.0e+04, mode = interleaved
      : (tensor<?x64xf32>, tensor<?xi32>, tensor<16xf32>) -> tensor<?x64xf32>
  // CHECK: lm.kv_append %{{.*}}, %{{.*}}, %{{.*}} : (!lm.kv_cache<heads = 1, head_dim = 32, page = 32, f16>,
  %2 = lm.kv_append %kv, %k, %k : (!kv, tensor<?x32xf32>, tensor<?x32xf32>) -> !kv
  // CHECK: lm.attention %{{.*}}, %{{.*}}, %{{.*}} heads = 2, scale = 1.250000e-01, window = 16 :
  %3 = lm.attention %q, %2, %p heads = 2, scale = 0.125, window = 16
      : (tensor<?x64xf32>, !kv, tensor<?xi32>) -> tensor<?x64xf32>
  // CHECK: lm.online_attention %{{.*}}, %{{.*}}, %{{.*}} heads = 2, scale = 1.250000e-01, window = 0, key_tile = 32 :
  %4 = lm.online_attention %q, %2, %p heads = 2, scale = 0.125, window = 0, key_tile = 32
      : (tensor<?x64xf32>, !kv, tensor<?xi32>) -> tensor<?x64xf32>
  return
}

// CHECK-LABEL: func.func @kernel
func.func @kernel(%x: tensor<?x32xf32>, %w: tensor<32xf32>, %kv: !kv) {
  // CHECK: lm.kernel "norm" split(rows) (%[[A:.*]] = %{{.*}} : tensor<?x32xf32>, %[[B:.*]] = %{{.*}} : tensor<32xf32>) -> (tensor<?x32xf32>) {
  // CHECK-NEXT: lm.rms_norm %[[A]], %[[B]]
  // CHECK-NEXT: lm.yield %{{.*}} : tensor<?x32xf32>
  %0 = lm.kernel "norm" split(rows) (%a = %x : tensor<?x32xf32>, %b = %w : tensor<32xf32>) -> tensor<?x32xf32> {
    %n = lm.rms_norm %a, %b eps = 1.0e-05 : (tensor<?x32xf32>, tensor<32xf32>) -> tensor<?x32xf32>
    lm.yield %n : tensor<?x32xf32>
  }
  // CHECK: lm.kernel "append" split(shares) ({{.*}}) -> (!lm.kv_cache<heads = 1, head_dim = 32, page = 32, f16>) attributes {ranges = #lm.ranges<[0:32, 0:32]>, tiles = {"avx2/decode" = #lm.tile<>}} {
  %1 = lm.kernel "append" split(shares) (%c = %kv : !kv, %k = %x : tensor<?x32xf32>) -> !kv
      attributes {ranges = #lm.ranges<[0:32, 0:32]>, tiles = {"avx2/decode" = #lm.tile<rows = 1>}} {
    %n = lm.kv_append %c, %k, %k : (!kv, tensor<?x32xf32>, tensor<?x32xf32>) -> !kv
    lm.yield %n : !kv
  }
  return
}

}
