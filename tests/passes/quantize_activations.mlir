// RUN: quern-opt --lm-quantize-activations %s -o %t
// RUN: quern-interpret %s --compare=%t --tolerance=0.03
// RUN: FileCheck %s --input-file=%t

// One rounding serves both matmuls that read x.
// CHECK-LABEL: func.func @shared
// CHECK: %[[Q:.*]] = lm.quantize %arg0 : tensor<?x64xf32> -> tensor<?x64x!lm.block<a8>>
// CHECK: %[[X:.*]] = lm.dequantize %[[Q]]
// CHECK-NOT: lm.quantize
// CHECK: lm.matmul %[[X]],
// CHECK: lm.matmul %[[X]],
func.func @shared(%x: tensor<?x64xf32>) -> (tensor<?x32xf32>, tensor<?x48xf32>) {
  %w0 = lm.weight "w0" : tensor<32x64x!lm.block<q4_1>>
  %f0 = lm.dequantize %w0 : tensor<32x64x!lm.block<q4_1>> -> tensor<32x64xf32>
  %y0 = lm.matmul %x, %f0 : (tensor<?x64xf32>, tensor<32x64xf32>) -> tensor<?x32xf32>
  %w1 = lm.weight "w1" : tensor<48x64x!lm.block<q8_0>>
  %f1 = lm.dequantize %w1 : tensor<48x64x!lm.block<q8_0>> -> tensor<48x64xf32>
  %y1 = lm.matmul %x, %f1 : (tensor<?x64xf32>, tensor<48x64xf32>) -> tensor<?x48xf32>
  return %y0, %y1 : tensor<?x32xf32>, tensor<?x48xf32>
}

// Float weights of any kind read f16.
// CHECK-LABEL: func.func @float
// CHECK: %[[Q:.*]] = lm.quantize %arg0 : tensor<?x64xf32> -> tensor<?x64xf16>
// CHECK: %[[X:.*]] = lm.dequantize %[[Q]]
// CHECK-NOT: lm.quantize
// CHECK: lm.matmul %[[X]],
// CHECK: lm.matmul %[[X]],
func.func @float(%x: tensor<?x64xf32>) -> (tensor<?x32xf32>, tensor<?x32xf32>) {
  %w0 = lm.weight "w0f16" : tensor<32x64xf16>
  %f0 = lm.dequantize %w0 : tensor<32x64xf16> -> tensor<32x64xf32>
  %y0 = lm.matmul %x, %f0 : (tensor<?x64xf32>, tensor<32x64xf32>) -> tensor<?x32xf32>
  %w1 = lm.weight "w1f32" : tensor<32x64xf32>
  %y1 = lm.matmul %x, %w1 : (tensor<?x64xf32>, tensor<32x64xf32>) -> tensor<?x32xf32>
  return %y0, %y1 : tensor<?x32xf32>, tensor<?x32xf32>
}

// Weights under a scale a row read tokens under a scale a row.
// CHECK-LABEL: func.func @scaled
// CHECK: lm.quantize %arg0 : tensor<?x64xf32> -> tensor<?x64x!lm.block<e4m3>>
func.func @scaled(%x: tensor<?x64xf32>) -> tensor<?x32xf32> {
  %w = lm.weight "w" : tensor<32x64x!lm.block<e4m3>>
  %f = lm.dequantize %w : tensor<32x64x!lm.block<e4m3>> -> tensor<32x64xf32>
  %y = lm.matmul %x, %f : (tensor<?x64xf32>, tensor<32x64xf32>) -> tensor<?x32xf32>
  return %y : tensor<?x32xf32>
}

// A rounding for each of two formats.
// CHECK-LABEL: func.func @both
// CHECK-DAG: lm.quantize %arg0 : tensor<?x64xf32> -> tensor<?x64x!lm.block<a8>>
// CHECK-DAG: lm.quantize %arg0 : tensor<?x64xf32> -> tensor<?x64xf16>
func.func @both(%x: tensor<?x64xf32>) -> (tensor<?x32xf32>, tensor<?x32xf32>) {
  %w0 = lm.weight "w0" : tensor<32x64x!lm.block<q4_1>>
  %f0 = lm.dequantize %w0 : tensor<32x64x!lm.block<q4_1>> -> tensor<32x64xf32>
  %y0 = lm.matmul %x, %f0 : (tensor<?x64xf32>, tensor<32x64xf32>) -> tensor<?x32xf32>
  %w1 = lm.weight "w1f32" : tensor<32x64xf32>
  %y1 = lm.matmul %x, %w1 : (tensor<?x64xf32>, tensor<32x64xf32>) -> tensor<?x32xf32>
  return %y0, %y1 : tensor<?x32xf32>, tensor<?x32xf32>
}

// Columns that are no whole groups stay floats, and so does a product of two
// computed values.
// CHECK-LABEL: func.func @stays
// CHECK-NOT: lm.quantize
// CHECK: return
func.func @stays(%x: tensor<?x40xf32>, %y: tensor<32x40xf32>) -> (tensor<?x32xf32>, tensor<?x32xf32>) {
  %w = lm.weight "w40" : tensor<32x40xf32>
  %y0 = lm.matmul %x, %w : (tensor<?x40xf32>, tensor<32x40xf32>) -> tensor<?x32xf32>
  %y1 = lm.matmul %x, %y : (tensor<?x40xf32>, tensor<32x40xf32>) -> tensor<?x32xf32>
  return %y0, %y1 : tensor<?x32xf32>, tensor<?x32xf32>
}
