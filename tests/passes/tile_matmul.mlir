// RUN: quern-opt --lm-tile-matmul=targets=avx2,amx %s -o %t
// RUN: quern-interpret %s --compare=%t --tolerance=0
// RUN: FileCheck %s --input-file=%t
// RUN: not quern-opt --lm-tile-matmul=targets=sparc %s 2>&1 | FileCheck %s --check-prefix=ERROR

// ERROR: error: unknown target 'sparc'

// Products of float activations do without matrix registers.
// CHECK: lm.quant_matmul
// CHECK-SAME: "amx/decode" = #lm.tile<rows = 8, prefetch = 8192>
// CHECK-SAME: "amx/prefill" = #lm.tile<rows = 8, prefetch = 8192>
// CHECK: lm.quant_matmul
// CHECK-SAME: "amx/decode" = #lm.tile<rows = 8, prefetch = 8192>
// CHECK-SAME: "amx/prefill" = #lm.tile<rows = 32, blocks = 2, prefetch = 2048>
// CHECK-SAME: "avx2/decode" = #lm.tile<rows = 3, prefetch = 4096>
// CHECK-NOT: avx512-vnni
// Tiles that someone chose are kept.
// CHECK: lm.quant_matmul
// CHECK-SAME: {tiles = {"avx2/decode" = #lm.tile<rows = 7>}}
func.func @matmul(%x: tensor<?x64xf32>) -> (tensor<?x48xf32>, tensor<?x48xf32>, tensor<?x48xf32>) {
  %w = lm.weight "w" : tensor<48x64x!lm.block<q8_0>>
  %q = lm.quantize %x : tensor<?x64xf32> -> tensor<?x64x!lm.block<a8>>
  %f = lm.quant_matmul %x, %w : (tensor<?x64xf32>, tensor<48x64x!lm.block<q8_0>>) -> tensor<?x48xf32>
  %y = lm.quant_matmul %q, %w : (tensor<?x64x!lm.block<a8>>, tensor<48x64x!lm.block<q8_0>>) -> tensor<?x48xf32>
  %z = lm.quant_matmul %x, %w {tiles = {"avx2/decode" = #lm.tile<rows = 7>}} : (tensor<?x64xf32>, tensor<48x64x!lm.block<q8_0>>) -> tensor<?x48xf32>
  return %f, %y, %z : tensor<?x48xf32>, tensor<?x48xf32>, tensor<?x48xf32>
}

// Rows of f16 are floats on hosts and go to tensor cores on GPUs.
// RUN: quern-opt --lm-tile-matmul=targets=amx,sm_80 %s | FileCheck %s --check-prefix=HALVES
// HALVES-LABEL: func.func @halves
// HALVES: lm.quant_matmul
// HALVES-SAME: "amx/prefill" = #lm.tile<rows = 8, prefetch = 8192>
// HALVES-SAME: "sm_80/prefill" = #lm.tile<rows = 64, blocks = 8>
func.func @halves(%x: tensor<?x64xf16>) -> tensor<?x48xf32> {
  %w = lm.weight "wf" : tensor<48x64xf16>
  %y = lm.quant_matmul %x, %w : (tensor<?x64xf16>, tensor<48x64xf16>) -> tensor<?x48xf32>
  return %y : tensor<?x48xf32>
}
