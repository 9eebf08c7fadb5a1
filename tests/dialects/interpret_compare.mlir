// --compare runs two modules on the same inputs and weights.
// RUN: split-file %s %t
// RUN: quern-interpret %t/a.mlir --compare=%t/same.mlir | FileCheck %s --check-prefix=SAME
// RUN: not quern-interpret %t/a.mlir --compare=%t/other.mlir --tolerance=1e-3 | FileCheck %s --check-prefix=OTHER
// RUN: quern-interpret %t/a.mlir --compare=%t/other.mlir --tolerance=1
// RUN: not quern-interpret %t/a.mlir --function=g 2>&1 | FileCheck %s --check-prefix=FUNCTION
// RUN: not quern-interpret %t/a.mlir --compare=%t/fewer.mlir 2>&1 | FileCheck %s --check-prefix=FEWER
// RUN: not quern-interpret %t/outside.mlir 2>&1 | FileCheck %s --check-prefix=OUTSIDE

// SAME: f result 0: max error 0
// OTHER: f result 0: max error 0.{{[0-9]+}} exceeds 0.001
// FUNCTION: has no function 'g'
// FEWER: 'f' has no counterpart with as many results
// OUTSIDE: expected an index below 2, but got 2

//--- a.mlir
func.func @f(%x: tensor<?x32xf32>) -> tensor<?x8xf32> {
  %w = lm.weight "w" : tensor<8x32x!lm.block<q5_0>>
  %y = lm.quant_matmul %x, %w : (tensor<?x32xf32>, tensor<8x32x!lm.block<q5_0>>) -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

//--- same.mlir
func.func @f(%x: tensor<?x32xf32>) -> tensor<?x8xf32> {
  %w = lm.weight "w" : tensor<8x32x!lm.block<q5_0>>
  %f = lm.dequantize %w : tensor<8x32x!lm.block<q5_0>> -> tensor<8x32xf32>
  %y = lm.matmul %x, %f : (tensor<?x32xf32>, tensor<8x32xf32>) -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

//--- other.mlir
func.func @f(%x: tensor<?x32xf32>) -> tensor<?x8xf32> {
  %w = lm.weight "w" : tensor<8x32x!lm.block<q5_0>>
  %q = lm.quantize %x : tensor<?x32xf32> -> tensor<?x32x!lm.block<a8>>
  %y = lm.quant_matmul %q, %w : (tensor<?x32x!lm.block<a8>>, tensor<8x32x!lm.block<q5_0>>) -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

//--- fewer.mlir
func.func @f() {
  return
}

//--- outside.mlir
func.func @f(%x: tensor<2x32xf32>, %rows: tensor<3xi32>) -> tensor<3x32xf32> {
  %y = lm.select_rows %x, %rows : (tensor<2x32xf32>, tensor<3xi32>) -> tensor<3x32xf32>
  return %y : tensor<3x32xf32>
}
