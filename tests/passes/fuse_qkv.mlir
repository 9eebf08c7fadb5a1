// RUN: quern-opt --lm-fuse-qkv %s -o %t
// RUN: quern-interpret %s --compare=%t --tolerance=1e-6
// RUN: FileCheck %s --input-file=%t
// RUN: quern-opt --lm-fuse-qkv %s 2>&1 >/dev/null | FileCheck %s --check-prefix=REMARK

!x = tensor<?x64xf32>
!q = tensor<?x48xf32>
!k = tensor<?x16xf32>
!kv = !lm.kv_cache<heads = 1, head_dim = 16, page = 32, f16>

// Three formats, biases, and a rope that stands before the projection of v.
// CHECK-LABEL: func.func @mixed_formats
// CHECK: %[[Q:.*]], %[[K:.*]], %[[V:.*]] = lm.qkv_proj %arg0, %{{.*}}, %{{.*}}, %{{.*}} bias %{{.*}}, %{{.*}}, %{{.*}} : (tensor<?x64xf32>, tensor<48x64x!lm.block<q4_0>>, tensor<16x64x!lm.block<q5_1>>, tensor<16x64xf16>,
// CHECK-NOT: lm.quant_matmul
// CHECK-DAG: %[[QR:.*]] = lm.rope %[[Q]]
// CHECK-DAG: %[[KR:.*]] = lm.rope %[[K]]
// CHECK: lm.kv_append %arg2, %[[KR]], %[[V]]
// CHECK: lm.attention %[[QR]]
func.func @mixed_formats(%x: !x, %p: tensor<?xi32>, %kv: !kv) -> (!q, !kv) {
  %wq = lm.weight "wq" : tensor<48x64x!lm.block<q4_0>>
  %bq = lm.weight "bq" : tensor<48xf32>
  %q = lm.quant_matmul %x, %wq bias %bq : (!x, tensor<48x64x!lm.block<q4_0>>, tensor<48xf32>) -> !q
  %qr = lm.rope %q, %p heads = 3, head_dim = 16, rotary_dim = 16, base = 1.0e+04, mode = half : (!q, tensor<?xi32>) -> !q
  %wk = lm.weight "wk" : tensor<16x64x!lm.block<q5_1>>
  %bk = lm.weight "bk" : tensor<16xf32>
  %k = lm.quant_matmul %x, %wk bias %bk : (!x, tensor<16x64x!lm.block<q5_1>>, tensor<16xf32>) -> !k
  %kr = lm.rope %k, %p heads = 1, head_dim = 16, rotary_dim = 16, base = 1.0e+04, mode = half : (!k, tensor<?xi32>) -> !k
  %wv = lm.weight "wv" : tensor<16x64xf16>
  %bv = lm.weight "bv" : tensor<16xf32>
  %v = lm.quant_matmul %x, %wv bias %bv : (!x, tensor<16x64xf16>, tensor<16xf32>) -> !k
  %kv1 = lm.kv_append %kv, %kr, %v : (!kv, !k, !k) -> !kv
  %y = lm.attention %qr, %kv1, %p heads = 3, scale = 2.5e-01, window = 0 : (!q, !kv, tensor<?xi32>) -> !q
  return %y, %kv1 : !q, !kv
}

// REMARK: remark: queries, keys and values not fused: they read different inputs
// CHECK-LABEL: func.func @two_inputs
// CHECK-NOT: lm.qkv_proj
// CHECK: return
func.func @two_inputs(%x: !x, %z: !x, %p: tensor<?xi32>, %kv: !kv) -> (!q, !kv) {
  %wq = lm.weight "wq" : tensor<48x64x!lm.block<q4_0>>
  %q = lm.quant_matmul %x, %wq : (!x, tensor<48x64x!lm.block<q4_0>>) -> !q
  %wk = lm.weight "wk" : tensor<16x64x!lm.block<q5_1>>
  %k = lm.quant_matmul %x, %wk : (!x, tensor<16x64x!lm.block<q5_1>>) -> !k
  %wv = lm.weight "wv" : tensor<16x64xf16>
  %v = lm.quant_matmul %z, %wv : (!x, tensor<16x64xf16>) -> !k
  %kv1 = lm.kv_append %kv, %k, %v : (!kv, !k, !k) -> !kv
  %y = lm.attention %q, %kv1, %p heads = 3, scale = 2.5e-01, window = 0 : (!q, !kv, tensor<?xi32>) -> !q
  return %y, %kv1 : !q, !kv
}

// REMARK: remark: queries, keys and values not fused: only some have a bias
// CHECK-LABEL: func.func @one_bias
// CHECK-NOT: lm.qkv_proj
// CHECK: return
func.func @one_bias(%x: !x, %p: tensor<?xi32>, %kv: !kv) -> (!q, !kv) {
  %wq = lm.weight "wq" : tensor<48x64x!lm.block<q4_0>>
  %bq = lm.weight "bq" : tensor<48xf32>
  %q = lm.quant_matmul %x, %wq bias %bq : (!x, tensor<48x64x!lm.block<q4_0>>, tensor<48xf32>) -> !q
  %wk = lm.weight "wk" : tensor<16x64x!lm.block<q5_1>>
  %k = lm.quant_matmul %x, %wk : (!x, tensor<16x64x!lm.block<q5_1>>) -> !k
  %wv = lm.weight "wv" : tensor<16x64xf16>
  %v = lm.quant_matmul %x, %wv : (!x, tensor<16x64xf16>) -> !k
  %kv1 = lm.kv_append %kv, %k, %v : (!kv, !k, !k) -> !kv
  %y = lm.attention %q, %kv1, %p heads = 3, scale = 2.5e-01, window = 0 : (!q, !kv, tensor<?xi32>) -> !q
  return %y, %kv1 : !q, !kv
}
