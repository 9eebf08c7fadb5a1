// RUN: quern-opt --lm-fuse-dequant-matmul %s -o %t
// RUN: quern-interpret %s --compare=%t --tolerance=1e-6
// RUN: FileCheck %s --input-file=%t

// Both sides in their stored formats, and nothing dequantized is left.
// CHECK-LABEL: func.func @integers
// CHECK: %[[Q:.*]] = lm.quantize %arg0
// CHECK: %[[W:.*]] = lm.weight "w"
// CHECK-NOT: lm.dequantize
// CHECK: lm.quant_matmul %[[Q]], %[[W]] bias
// CHECK-SAME: (tensor<?x64x!lm.block<a8>>, tensor<48x64x!lm.block<q5_0>>, tensor<48xf32>) -> tensor<?x48xf32>
func.func @integers(%x: tensor<?x64xf32>) -> tensor<?x48xf32> {
  %q = lm.quantize %x : tensor<?x64xf32> -> tensor<?x64x!lm.block<a8>>
  %xd = lm.dequantize %q : tensor<?x64x!lm.block<a8>> -> tensor<?x64xf32>
  %w = lm.weight "w" : tensor<48x64x!lm.block<q5_0>>
  %b = lm.weight "b" : tensor<48xf32>
  %f = lm.dequantize %w : tensor<48x64x!lm.block<q5_0>> -> tensor<48x64xf32>
  %y = lm.matmul %xd, %f bias %b : (tensor<?x64xf32>, tensor<48x64xf32>, tensor<48xf32>) -> tensor<?x48xf32>
  return %y : tensor<?x48xf32>
}

// Float activations, as in precise models, and float weights.
// CHECK-LABEL: func.func @floats
// CHECK-NOT: lm.dequantize
// CHECK: lm.quant_matmul {{.*}} : (tensor<?x64xf32>, tensor<48x64x!lm.block<q8_0>>)
// CHECK: lm.quant_matmul {{.*}} : (tensor<?x64xf32>, tensor<48x64xf16>)
// CHECK: lm.quant_matmul {{.*}} : (tensor<?x64xf32>, tensor<48x64xf32>)
func.func @floats(%x: tensor<?x64xf32>) -> (tensor<?x48xf32>, tensor<?x48xf32>, tensor<?x48xf32>) {
  %w0 = lm.weight "w0" : tensor<48x64x!lm.block<q8_0>>
  %f0 = lm.dequantize %w0 : tensor<48x64x!lm.block<q8_0>> -> tensor<48x64xf32>
  %y0 = lm.matmul %x, %f0 : (tensor<?x64xf32>, tensor<48x64xf32>) -> tensor<?x48xf32>
  %w1 = lm.weight "w1" : tensor<48x64xf16>
  %f1 = lm.dequantize %w1 : tensor<48x64xf16> -> tensor<48x64xf32>
  %y1 = lm.matmul %x, %f1 : (tensor<?x64xf32>, tensor<48x64xf32>) -> tensor<?x48xf32>
  %w2 = lm.weight "w2" : tensor<48x64xf32>
  %y2 = lm.matmul %x, %w2 : (tensor<?x64xf32>, tensor<48x64xf32>) -> tensor<?x48xf32>
  return %y0, %y1, %y2 : tensor<?x48xf32>, tensor<?x48xf32>, tensor<?x48xf32>
}

// Integers times float weights have no kernel: the rounded floats are read.
// CHECK-LABEL: func.func @mixed
// CHECK: %[[X:.*]] = lm.dequantize
// CHECK: lm.quant_matmul %[[X]], {{.*}} : (tensor<?x64xf32>, tensor<48x64xbf16>)
func.func @mixed(%x: tensor<?x64xf32>) -> tensor<?x48xf32> {
  %q = lm.quantize %x : tensor<?x64xf32> -> tensor<?x64x!lm.block<a8>>
  %xd = lm.dequantize %q : tensor<?x64x!lm.block<a8>> -> tensor<?x64xf32>
  %w = lm.weight "wb" : tensor<48x64xbf16>
  %f = lm.dequantize %w : tensor<48x64xbf16> -> tensor<48x64xf32>
  %y = lm.matmul %xd, %f : (tensor<?x64xf32>, tensor<48x64xf32>) -> tensor<?x48xf32>
  return %y : tensor<?x48xf32>
}

// Rows of f16 beside float weights.
// CHECK-LABEL: func.func @halves
// CHECK: %[[Q:.*]] = lm.quantize
// CHECK: lm.quant_matmul %[[Q]], {{.*}} : (tensor<?x64xf16>, tensor<48x64xbf16>)
func.func @halves(%x: tensor<?x64xf32>) -> tensor<?x48xf32> {
  %q = lm.quantize %x : tensor<?x64xf32> -> tensor<?x64xf16>
  %xd = lm.dequantize %q : tensor<?x64xf16> -> tensor<?x64xf32>
  %w = lm.weight "wb" : tensor<48x64xbf16>
  %f = lm.dequantize %w : tensor<48x64xbf16> -> tensor<48x64xf32>
  %y = lm.matmul %xd, %f : (tensor<?x64xf32>, tensor<48x64xf32>) -> tensor<?x48xf32>
  return %y : tensor<?x48xf32>
}

// A right side that is no stored weight stays a matmul of floats.
// CHECK-LABEL: func.func @computed
// CHECK: lm.matmul %arg0, %arg1
func.func @computed(%x: tensor<?x64xf32>, %w: tensor<48x64xf32>) -> tensor<?x48xf32> {
  %y = lm.matmul %x, %w : (tensor<?x64xf32>, tensor<48x64xf32>) -> tensor<?x48xf32>
  return %y : tensor<?x48xf32>
}
