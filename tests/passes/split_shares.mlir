// RUN: quern-opt --lm-split-shares %s -o %t.2
// RUN: quern-interpret %s --compare=%t.2 --tolerance=1e-5
// RUN: FileCheck %s --input-file=%t.2
// RUN: quern-opt --lm-split-shares=shares=3 %s -o %t.3
// RUN: quern-interpret %s --compare=%t.3 --tolerance=1e-5
// RUN: FileCheck %s --input-file=%t.3 --check-prefix=THREE
// RUN: quern-opt --lm-split-shares=shares=9 %s 2>&1 >%t.9 | FileCheck %s --check-prefix=REMARK
// RUN: quern-interpret %s --compare=%t.9 --tolerance=1e-5
// RUN: quern-opt --lm-split-shares=shares=1 %s | FileCheck %s --check-prefix=ONE
// RUN: not quern-opt --lm-split-shares=shares=0 %s 2>&1 | FileCheck %s --check-prefix=ERROR

// REMARK: remark: cut in 3 shares, not 9
// ERROR: error: cannot cut a model in 0 shares (1 to 64)
// ONE-NOT: lm.ranges
// ONE-NOT: split

!x = tensor<?x64xf32>
!q = tensor<?x288xf32>
!k = tensor<?x96xf32>
!f = tensor<?x768xf32>
!kv = !lm.kv_cache<heads = 3, head_dim = 32, page = 32, f16>
!q4 = !lm.block<q4_0>
!a8 = !lm.block<a8>

// 9 heads over 3 KV heads: the last share gets the odd head, the first the odd
// KV head. What the heads of a share give is what its o product sums over.
// CHECK-LABEL: func.func @attention
// CHECK: lm.qkv_proj {{.*}}ranges = #lm.ranges<[0:128, 0:64, 0:64], [128:288, 64:96, 64:96]>
// CHECK: lm.rope {{.*}}ranges = #lm.ranges<[0:128], [128:288]>
// CHECK: lm.rope {{.*}}ranges = #lm.ranges<[0:64], [64:96]>
// CHECK: lm.kv_append {{.*}}ranges = #lm.ranges<[0:64, 0:64], [64:96, 64:96]>
// CHECK: lm.attention {{.*}}ranges = #lm.ranges<[0:128], [128:288]>
// CHECK: %[[O:.*]] = lm.quant_matmul {{.*}} split = k {ranges = #lm.ranges<[0:128], [128:288]>}
// CHECK-SAME: -> tensor<2x?x64xf32>
// CHECK: lm.add %arg0, %[[O]] : (tensor<?x64xf32>, tensor<2x?x64xf32>)
// THREE-LABEL: func.func @attention
// THREE: lm.qkv_proj {{.*}}ranges = #lm.ranges<[0:96, 0:32, 0:32], [96:192, 32:64, 32:64], [192:288, 64:96, 64:96]>
func.func @attention(%x: !x, %p: tensor<?xi32>, %kv: !kv) -> (!x, !kv) {
  %wq = lm.weight "wq" : tensor<288x64x!q4>
  %wk = lm.weight "wk" : tensor<96x64x!q4>
  %wv = lm.weight "wv" : tensor<96x64x!q4>
  %q, %k, %v = lm.qkv_proj %x, %wq, %wk, %wv
      : (!x, tensor<288x64x!q4>, tensor<96x64x!q4>, tensor<96x64x!q4>) -> (!q, !k, !k)
  %qr = lm.rope %q, %p heads = 9, head_dim = 32, rotary_dim = 32, base = 1.0e+04, mode = half : (!q, tensor<?xi32>) -> !q
  %kr = lm.rope %k, %p heads = 3, head_dim = 32, rotary_dim = 32, base = 1.0e+04, mode = half : (!k, tensor<?xi32>) -> !k
  %kv1 = lm.kv_append %kv, %kr, %v : (!kv, !k, !k) -> !kv
  %a = lm.attention %qr, %kv1, %p heads = 9, scale = 1.25e-01, window = 0 : (!q, !kv, tensor<?xi32>) -> !q
  %aq = lm.quantize %a : !q -> tensor<?x288x!a8>
  %wo = lm.weight "wo" : tensor<64x288x!q4>
  %o = lm.quant_matmul %aq, %wo : (tensor<?x288x!a8>, tensor<64x288x!q4>) -> !x
  %y = lm.add %x, %o : (!x, !x) -> !x
  return %y, %kv1 : !x, !kv
}

// A K-quant can only be cut at its superblocks of 256, and so gate and up are.
// CHECK-LABEL: func.func @ffn
// CHECK: lm.quant_matmul %arg0, {{.*}}ranges = #lm.ranges<[0:512], [512:768]>
// CHECK: lm.quant_matmul %arg0, {{.*}}ranges = #lm.ranges<[0:512], [512:768]>
// CHECK: %[[D:.*]] = lm.quant_matmul {{.*}} split = k {ranges = #lm.ranges<[0:512], [512:768]>}
// CHECK: lm.add_rms_norm %arg0, %[[D]]
// THREE-LABEL: func.func @ffn
// THREE: lm.quant_matmul {{.*}}ranges = #lm.ranges<[0:256], [256:512], [512:768]>
func.func @ffn(%x: !x) -> (!x, !x) {
  %wg = lm.weight "wg" : tensor<768x64x!q4>
  %g = lm.quant_matmul %x, %wg : (!x, tensor<768x64x!q4>) -> !f
  %wu = lm.weight "wu" : tensor<768x64x!q4>
  %u = lm.quant_matmul %x, %wu : (!x, tensor<768x64x!q4>) -> !f
  %h = lm.swiglu %g, %u : !f
  %hq = lm.quantize %h : !f -> tensor<?x768x!a8>
  %wd = lm.weight "wd" : tensor<64x768x!lm.block<q6_k>>
  %d = lm.quant_matmul %hq, %wd : (tensor<?x768x!a8>, tensor<64x768x!lm.block<q6_k>>) -> !x
  %w = lm.weight "norm" : tensor<64xf32>
  %sum, %y = lm.add_rms_norm %x, %d, %w eps = 1.0e-05 : (!x, !x, tensor<64xf32>) -> (!x, !x)
  return %sum, %y : !x, !x
}

// Readers that take no deltas read the sum; the same product's delta stays.
// CHECK-LABEL: func.func @other_reader
// CHECK: %[[D:.*]] = lm.quant_matmul {{.*}} split = k
// CHECK: %[[SUM:.*]] = lm.reduce_shares %[[D]]
// CHECK: lm.add %arg0, %[[D]]
// CHECK: lm.silu %[[SUM]]
func.func @other_reader(%x: !x, %h: tensor<?x96xf32>) -> (!x, !x) {
  %w = lm.weight "w" : tensor<64x96xf16>
  %d = lm.quant_matmul %h, %w : (tensor<?x96xf32>, tensor<64x96xf16>) -> !x
  %y = lm.add %x, %d : (!x, !x) -> !x
  %s = lm.silu %d : !x
  return %y, %s : !x, !x
}

// Everything else is cut at 32 rows of the weight, so that every piece but the
// last has whole cache lines: 3 units here, the last of which is not full. A bias keeps a product from being summed per share.
// CHECK-LABEL: func.func @outputs
// CHECK: lm.quant_matmul {{.*}}ranges = #lm.ranges<[0:64], [64:75]>
// CHECK: lm.quant_matmul {{.*}} bias {{.*}}ranges = #lm.ranges<[0:32], [32:64]>{{.*}} -> tensor<?x64xf32>
func.func @outputs(%x: !x) -> (tensor<?x75xf32>, !x) {
  %w0 = lm.weight "w0" : tensor<75x64xf32>
  %y = lm.quant_matmul %x, %w0 : (!x, tensor<75x64xf32>) -> tensor<?x75xf32>
  %w1 = lm.weight "w1" : tensor<64x64xf32>
  %b1 = lm.weight "b1" : tensor<64xf32>
  %d = lm.quant_matmul %x, %w1 bias %b1 : (!x, tensor<64x64xf32>, tensor<64xf32>) -> !x
  %z = lm.add %x, %d : (!x, !x) -> !x
  return %y, %z : tensor<?x75xf32>, !x
}
