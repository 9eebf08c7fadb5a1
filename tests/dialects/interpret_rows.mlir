// Tables, elementwise ops, reductions of rows and quantization, by hand.
// RUN: quern-interpret %s --print | FileCheck %s

// CHECK-LABEL: embedding result 0: 2x2xf32
// CHECK-NEXT: [5, 6]
// CHECK-NEXT: [1, 2]
func.func @embedding() -> tensor<2x2xf32> {
  %table = arith.constant dense<[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]> : tensor<3x2xf32>
  %tokens = arith.constant dense<[2, 0]> : tensor<2xi32>
  %y = lm.embedding %table, %tokens : (tensor<3x2xf32>, tensor<2xi32>) -> tensor<2x2xf32>
  return %y : tensor<2x2xf32>
}

// CHECK-LABEL: select_rows result 0: 1x2xf32
// CHECK-NEXT: [3, 4]
func.func @select_rows() -> tensor<1x2xf32> {
  %x = arith.constant dense<[[1.0, 2.0], [3.0, 4.0]]> : tensor<2x2xf32>
  %rows = arith.constant dense<1> : tensor<1xi32>
  %y = lm.select_rows %x, %rows : (tensor<2x2xf32>, tensor<1xi32>) -> tensor<1x2xf32>
  return %y : tensor<1x2xf32>
}

// Shares are summed before x: (x + 1e8) - 1e8 would lose x.
// CHECK-LABEL: add result 0: 1x2xf32
// CHECK-NEXT: [1, 222]
// CHECK-LABEL: add result 1: 1x2xf32
// CHECK-NEXT: [2, 4]
func.func @add() -> (tensor<1x2xf32>, tensor<1x2xf32>) {
  %x = arith.constant dense<[[1.0, 2.0]]> : tensor<1x2xf32>
  %d = arith.constant dense<[[[1.0e+08, 20.0]], [[-1.0e+08, 200.0]]]> : tensor<2x1x2xf32>
  %y = lm.add %x, %d : (tensor<1x2xf32>, tensor<2x1x2xf32>) -> tensor<1x2xf32>
  %z = lm.add %x, %x : (tensor<1x2xf32>, tensor<1x2xf32>) -> tensor<1x2xf32>
  return %y, %z : tensor<1x2xf32>, tensor<1x2xf32>
}

// CHECK-LABEL: mul result 0: 1x2xf32
// CHECK-NEXT: [8, -15]
func.func @mul() -> tensor<1x2xf32> {
  %a = arith.constant dense<[[2.0, -3.0]]> : tensor<1x2xf32>
  %b = arith.constant dense<[[4.0, 5.0]]> : tensor<1x2xf32>
  %y = lm.mul %a, %b : tensor<1x2xf32>
  return %y : tensor<1x2xf32>
}

// silu(ln 3) = ln 3 * 3 / 4
// CHECK-LABEL: silu result 0: 1x4xf32
// CHECK-NEXT: [0, 0.823959, -0.274653, 0]
func.func @silu() -> tensor<1x4xf32> {
  %x = arith.constant dense<[[0.0, 1.0986123, -1.0986123, -1000.0]]> : tensor<1x4xf32>
  %y = lm.silu %x : tensor<1x4xf32>
  return %y : tensor<1x4xf32>
}

// CHECK-LABEL: swiglu result 0: 1x2xf32
// CHECK-NEXT: [3.29584, 0]
func.func @swiglu() -> tensor<1x2xf32> {
  %gate = arith.constant dense<[[1.0986123, 0.0]]> : tensor<1x2xf32>
  %up = arith.constant dense<[[4.0, 7.0]]> : tensor<1x2xf32>
  %y = lm.swiglu %gate, %up : tensor<1x2xf32>
  return %y : tensor<1x2xf32>
}

// The mean of squares is 12.5; with eps the root is 5.
// CHECK-LABEL: rms_norm result 0: 1x2xf32
// CHECK-NEXT: [0.848528, 2.26274]
// CHECK-LABEL: rms_norm result 1: 1x2xf32
// CHECK-NEXT: [0.6, 1.6]
func.func @rms_norm() -> (tensor<1x2xf32>, tensor<1x2xf32>) {
  %x = arith.constant dense<[[3.0, 4.0]]> : tensor<1x2xf32>
  %w = arith.constant dense<[1.0, 2.0]> : tensor<2xf32>
  %y = lm.rms_norm %x, %w eps = 0.0 : (tensor<1x2xf32>, tensor<2xf32>) -> tensor<1x2xf32>
  %z = lm.rms_norm %x, %w eps = 12.5 : (tensor<1x2xf32>, tensor<2xf32>) -> tensor<1x2xf32>
  return %y, %z : tensor<1x2xf32>, tensor<1x2xf32>
}

// CHECK-LABEL: add_rms_norm result 0: 1x2xf32
// CHECK-NEXT: [3, 4]
// CHECK-LABEL: add_rms_norm result 1: 1x2xf32
// CHECK-NEXT: [0.6, 1.6]
func.func @add_rms_norm() -> (tensor<1x2xf32>, tensor<1x2xf32>) {
  %x = arith.constant dense<[[1.0, 1.0]]> : tensor<1x2xf32>
  %d = arith.constant dense<[[[0.5, 1.0]], [[1.5, 2.0]]]> : tensor<2x1x2xf32>
  %w = arith.constant dense<[1.0, 2.0]> : tensor<2xf32>
  %s, %y = lm.add_rms_norm %x, %d, %w eps = 12.5
      : (tensor<1x2xf32>, tensor<2x1x2xf32>, tensor<2xf32>) -> (tensor<1x2xf32>, tensor<1x2xf32>)
  return %s, %y : tensor<1x2xf32>, tensor<1x2xf32>
}

// CHECK-LABEL: softmax result 0: 2x2xf32
// CHECK-NEXT: [0.25, 0.75]
// CHECK-NEXT: [0.5, 0.5]
func.func @softmax() -> tensor<2x2xf32> {
  %x = arith.constant dense<[[0.0, 1.0986123], [1000.0, 1000.0]]> : tensor<2x2xf32>
  %y = lm.softmax %x : tensor<2x2xf32>
  return %y : tensor<2x2xf32>
}

// Of equal elements the first; NaN before all.
// CHECK-LABEL: top_k result 0: 3x2xf32
// CHECK-NEXT: [3, 3]
// CHECK-NEXT: [5, 2]
// CHECK-NEXT: [nan, inf]
// CHECK-LABEL: top_k result 1: 3x2xi32
// CHECK-NEXT: [1, 2]
// CHECK-NEXT: [0, 1]
// CHECK-NEXT: [2, 0]
func.func @top_k() -> (tensor<3x2xf32>, tensor<3x2xi32>) {
  %x = arith.constant dense<[[1.0, 3.0, 3.0], [5.0, 2.0, 1.0], [0x7F800000, 1.0, 0x7FC00000]]> : tensor<3x3xf32>
  %values, %columns = lm.top_k %x k = 2 : tensor<3x3xf32> -> tensor<3x2xf32>, tensor<3x2xi32>
  return %values, %columns : tensor<3x2xf32>, tensor<3x2xi32>
}

// The largest of the first 16 is 254, so its codes are steps of 2; that of the
// others is 1.27: steps of 0.01.
// CHECK-LABEL: quantize result 0: 1x32xa8
// CHECK-NEXT: [254, -6, 0, 2, -2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1.27, 0.01, 0, 0,
// CHECK-LABEL: quantize result 1: 1x32xf32
// CHECK-NEXT: [254, -6, 0, 2, -2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1.27, 0.01, 0, 0,
func.func @quantize() -> (tensor<1x32x!lm.block<a8>>, tensor<1x32xf32>) {
  %x = arith.constant dense<[[254.0, -6.0, 0.8, 1.2, -1.2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
                              -1.27, 0.014, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]>
      : tensor<1x32xf32>
  %q = lm.quantize %x : tensor<1x32xf32> -> tensor<1x32x!lm.block<a8>>
  %y = lm.dequantize %q : tensor<1x32x!lm.block<a8>> -> tensor<1x32xf32>
  return %q, %y : tensor<1x32x!lm.block<a8>>, tensor<1x32xf32>
}

// f16 has 10 bits after the point.
// CHECK-LABEL: dequantize result 0: 1x3xf32
// CHECK-NEXT: [1.00098, 1, 2048]
func.func @dequantize() -> tensor<1x3xf32> {
  %x = arith.constant dense<[[1.0009765625, 1.0004, 2049.0]]> : tensor<1x3xf32>
  %h = lm.quantize %x : tensor<1x3xf32> -> tensor<1x3xf16>
  %y = lm.dequantize %h : tensor<1x3xf16> -> tensor<1x3xf32>
  return %y : tensor<1x3xf32>
}
