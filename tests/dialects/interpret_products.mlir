// Matrix products, partial results and kernels, by hand.
// RUN: quern-interpret %s --print | FileCheck %s

// CHECK-LABEL: matmul result 0: 1x3xf32
// CHECK-NEXT: [11.5, 17, 22]
func.func @matmul() -> tensor<1x3xf32> {
  %x = arith.constant dense<[[1.0, 2.0]]> : tensor<1x2xf32>
  %w = arith.constant dense<[[3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]> : tensor<3x2xf32>
  %b = arith.constant dense<[0.5, 0.0, -1.0]> : tensor<3xf32>
  %y = lm.matmul %x, %w bias %b : (tensor<1x2xf32>, tensor<3x2xf32>, tensor<3xf32>) -> tensor<1x3xf32>
  return %y : tensor<1x3xf32>
}

// Dot products are exact before they are rounded.
// CHECK-LABEL: matmul_cancels result 0: 1x1xf32
// CHECK-NEXT: [1]
func.func @matmul_cancels() -> tensor<1x1xf32> {
  %x = arith.constant dense<[[1.0e+08, 1.0, -1.0e+08]]> : tensor<1x3xf32>
  %w = arith.constant dense<[[1.0, 1.0, 1.0]]> : tensor<1x3xf32>
  %y = lm.matmul %x, %w : (tensor<1x3xf32>, tensor<1x3xf32>) -> tensor<1x1xf32>
  return %y : tensor<1x1xf32>
}

// Share 0 sums k 0, share 1 sums k 1..3; the bias is share 0's.
// CHECK-LABEL: quant_matmul_split_k result 0: 2x1x2xf32
// CHECK-NEXT: [11, 21]
// CHECK-NEXT: [9, 29]
// CHECK-LABEL: quant_matmul_split_k result 1: 1x2xf32
// CHECK-NEXT: [20, 50]
func.func @quant_matmul_split_k() -> (tensor<2x1x2xf32>, tensor<1x2xf32>) {
  %x = arith.constant dense<[[1.0, 2.0, 3.0, 4.0]]> : tensor<1x4xf32>
  %w = arith.constant dense<[[1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0]]> : tensor<2x4xf32>
  %b = arith.constant dense<[10.0, 20.0]> : tensor<2xf32>
  %p = lm.quant_matmul %x, %w bias %b split = k {ranges = #lm.ranges<[0:1], [1:4]>}
      : (tensor<1x4xf32>, tensor<2x4xf32>, tensor<2xf32>) -> tensor<2x1x2xf32>
  %y = lm.reduce_shares %p : tensor<2x1x2xf32> -> tensor<1x2xf32>
  return %p, %y : tensor<2x1x2xf32>, tensor<1x2xf32>
}

// x as a8 is [254, -6, 0, 2, ...]: see interpret_rows.mlir. The weight as q8_0
// is exact, since its largest element is 127.
// CHECK-LABEL: quant_matmul_a8 result 0: 1x1xf32
// CHECK-NEXT: [32252]
func.func @quant_matmul_a8() -> tensor<1x1xf32> {
  %x = arith.constant dense<[[254.0, -6.0, 0.8, 1.2, -1.2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
                              0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]>
      : tensor<1x32xf32>
  %f = arith.constant dense<[[127.0, 1.0, 5.0, 0.0, 0.0, 9.0, 9.0, 9.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
                              0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]>
      : tensor<1x32xf32>
  %q = lm.quantize %x : tensor<1x32xf32> -> tensor<1x32x!lm.block<a8>>
  %w = lm.quantize %f : tensor<1x32xf32> -> tensor<1x32x!lm.block<q8_0>>
  %y = lm.quant_matmul %q, %w : (tensor<1x32x!lm.block<a8>>, tensor<1x32x!lm.block<q8_0>>) -> tensor<1x1xf32>
  return %y : tensor<1x1xf32>
}

// The scale of x is 2, so that 3.2 / 2 = 1.6 becomes 1.625, and 17 / 2
// halfway between 8 and 9; that of the weight is 1/2, and 4.25 * 2 = 8.5. Ties go
// to the even code, so x is [896, 2, 3.25, 16] and the weight [224, 1, 4, 0.5].
// CHECK-LABEL: quant_matmul_e4m3 result 0: 1x1xf32
// CHECK-NEXT: [200727]
// CHECK-LABEL: quant_matmul_e4m3 result 1: 1x32xf32
// CHECK-NEXT: [896, 2, 3.25, 16, 0,
func.func @quant_matmul_e4m3() -> (tensor<1x1xf32>, tensor<1x32xf32>) {
  %x = arith.constant dense<[[896.0, 2.0, 3.2, 17.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
                              0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]>
      : tensor<1x32xf32>
  %f = arith.constant dense<[[224.0, 1.0, 4.25, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
                              0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]>
      : tensor<1x32xf32>
  %q = lm.quantize %x : tensor<1x32xf32> -> tensor<1x32x!lm.block<e4m3>>
  %w = lm.quantize %f : tensor<1x32xf32> -> tensor<1x32x!lm.block<e4m3>>
  %y = lm.quant_matmul %q, %w : (tensor<1x32x!lm.block<e4m3>>, tensor<1x32x!lm.block<e4m3>>) -> tensor<1x1xf32>
  %d = lm.dequantize %q : tensor<1x32x!lm.block<e4m3>> -> tensor<1x32xf32>
  return %y, %d : tensor<1x1xf32>, tensor<1x32xf32>
}

// CHECK-LABEL: qkv_proj result 0: 1x2xf32
// CHECK-NEXT: [4, 5]
// CHECK-LABEL: qkv_proj result 1: 1x1xf32
// CHECK-NEXT: [23]
// CHECK-LABEL: qkv_proj result 2: 1x1xf32
// CHECK-NEXT: [39]
func.func @qkv_proj() -> (tensor<1x2xf32>, tensor<1x1xf32>, tensor<1x1xf32>) {
  %x = arith.constant dense<[[3.0, 4.0]]> : tensor<1x2xf32>
  %wq = arith.constant dense<[[1.0, 0.0], [0.0, 1.0]]> : tensor<2x2xf32>
  %wk = arith.constant dense<[[1.0, 5.0]]> : tensor<1x2xf32>
  %wv = arith.constant dense<[[5.0, 6.0]]> : tensor<1x2xf32>
  %bq = arith.constant dense<[1.0, 1.0]> : tensor<2xf32>
  %bk = arith.constant dense<[0.0]> : tensor<1xf32>
  %q, %k, %v = lm.qkv_proj %x, %wq, %wk, %wv bias %bq, %bk, %bk
      : (tensor<1x2xf32>, tensor<2x2xf32>, tensor<1x2xf32>, tensor<1x2xf32>, tensor<2xf32>, tensor<1xf32>,
         tensor<1xf32>) -> (tensor<1x2xf32>, tensor<1x1xf32>, tensor<1x1xf32>)
  return %q, %k, %v : tensor<1x2xf32>, tensor<1x1xf32>, tensor<1x1xf32>
}

// A kernel computes its region; products split along k find its ranges.
// CHECK-LABEL: kernel result 0: 2x1x1xf32
// CHECK-NEXT: [3]
// CHECK-NEXT: [7]
func.func @kernel() -> tensor<2x1x1xf32> {
  %x = arith.constant dense<[[1.0, 2.0, 3.0, 4.0]]> : tensor<1x4xf32>
  %w = arith.constant dense<[[1.0, 1.0, 1.0, 1.0]]> : tensor<1x4xf32>
  %p = lm.kernel "down" split(shares) (%a = %x : tensor<1x4xf32>, %b = %w : tensor<1x4xf32>) -> tensor<2x1x1xf32>
      attributes {ranges = #lm.ranges<[0:2], [2:4]>} {
    %y = lm.quant_matmul %a, %b split = k : (tensor<1x4xf32>, tensor<1x4xf32>) -> tensor<2x1x1xf32>
    lm.yield %y : tensor<2x1x1xf32>
  }
  return %p : tensor<2x1x1xf32>
}
