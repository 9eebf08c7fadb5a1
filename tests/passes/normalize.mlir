// RUN: quern-opt --lm-normalize %s -o %t
// RUN: quern-interpret %s --compare=%t --tolerance=0
// RUN: FileCheck %s --input-file=%t

// The residual comes first, the product's result second.
// CHECK-LABEL: func.func @residual
// CHECK: %[[DELTA:.*]] = lm.matmul
// CHECK: lm.add %arg0, %[[DELTA]]
func.func @residual(%x: tensor<?x64xf32>, %h: tensor<?x96xf32>, %w: tensor<64x96xf32>) -> tensor<?x64xf32> {
  %d = lm.matmul %h, %w : (tensor<?x96xf32>, tensor<64x96xf32>) -> tensor<?x64xf32>
  %y = lm.add %d, %x : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  return %y : tensor<?x64xf32>
}

// The silu comes first.
// CHECK-LABEL: func.func @gate
// CHECK: %[[SILU:.*]] = lm.silu %arg0
// CHECK: lm.mul %[[SILU]], %arg1
func.func @gate(%gate: tensor<?x96xf32>, %up: tensor<?x96xf32>) -> tensor<?x96xf32> {
  %s = lm.silu %gate : tensor<?x96xf32>
  %y = lm.mul %up, %s : tensor<?x96xf32>
  return %y : tensor<?x96xf32>
}

// Equal ops are one, unused ones none.
// CHECK-LABEL: func.func @merge
// CHECK-COUNT-1: lm.dequantize
// CHECK-NOT: lm.dequantize
// CHECK-NOT: lm.softmax
// CHECK: return
func.func @merge(%x: tensor<?x64xf32>) -> (tensor<?x32xf32>, tensor<?x32xf32>) {
  %w0 = lm.weight "w" : tensor<32x64x!lm.block<q4_1>>
  %w1 = lm.weight "w" : tensor<32x64x!lm.block<q4_1>>
  %f0 = lm.dequantize %w0 : tensor<32x64x!lm.block<q4_1>> -> tensor<32x64xf32>
  %f1 = lm.dequantize %w1 : tensor<32x64x!lm.block<q4_1>> -> tensor<32x64xf32>
  %y0 = lm.matmul %x, %f0 : (tensor<?x64xf32>, tensor<32x64xf32>) -> tensor<?x32xf32>
  %y1 = lm.matmul %x, %f1 : (tensor<?x64xf32>, tensor<32x64xf32>) -> tensor<?x32xf32>
  %unused = lm.softmax %x : tensor<?x64xf32>
  return %y0, %y1 : tensor<?x32xf32>, tensor<?x32xf32>
}
