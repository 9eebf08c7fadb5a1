// RUN: quern-opt %s | FileCheck %s --check-prefix=BEFORE
// RUN: quern-opt --rt-apply-tuning=tiles=703d93dd8dc19026:avx2/decode=4/2/32/1024,703d93dd8dc19026:amx/prefill=16/1/32/0 %s | FileCheck %s
// RUN: not quern-opt --rt-apply-tuning=tiles=SIGNATURE:avx2/decode=4/2/32 %s 2>&1 | FileCheck %s --check-prefix=ERROR

// ERROR: error: expected a tuned tile as SIGNATURE:TARGET/ROLE=ROWS/BLOCKS/KEYS/PREFETCH, got 'SIGNATURE:avx2/decode=4/2/32'

// Kernels that compute the same over the same types have one signature, whatever they are called; a target that a
// kernel has no tile for gets none.
// BEFORE: rt.kernel @a
// BEFORE-SAME: "avx2/decode" = #lm.tile<rows = 2>
// CHECK: rt.kernel @a
// CHECK-SAME: tiles = {"avx2/decode" = #lm.tile<rows = 4, blocks = 2, prefetch = 1024>}
rt.kernel @a(%x: tensor<?x64x!lm.block<a8>>, %w: tensor<48x64x!lm.block<q8_0>>) -> (tensor<?x48xf32>)
    attributes {split = #lm<kernel_split shares>, tiles = {"avx2/decode" = #lm.tile<rows = 2>}} {
  %y = lm.quant_matmul %x, %w : (tensor<?x64x!lm.block<a8>>, tensor<48x64x!lm.block<q8_0>>) -> tensor<?x48xf32>
  lm.yield %y : tensor<?x48xf32>
}
// CHECK: rt.kernel @another_name
// CHECK-SAME: tiles = {"avx2/decode" = #lm.tile<rows = 4, blocks = 2, prefetch = 1024>, "avx2/prefill" = #lm.tile<rows = 2>}
rt.kernel @another_name(%x: tensor<?x64x!lm.block<a8>>, %w: tensor<48x64x!lm.block<q8_0>>) -> (tensor<?x48xf32>)
    attributes {split = #lm<kernel_split shares>, tiles = {"avx2/decode" = #lm.tile<rows = 1>, "avx2/prefill" = #lm.tile<rows = 2>}} {
  %y = lm.quant_matmul %x, %w : (tensor<?x64x!lm.block<a8>>, tensor<48x64x!lm.block<q8_0>>) -> tensor<?x48xf32>
  lm.yield %y : tensor<?x48xf32>
}
// CHECK: rt.kernel @other_types
// CHECK-SAME: tiles = {"avx2/decode" = #lm.tile<rows = 2>}
rt.kernel @other_types(%x: tensor<?x64x!lm.block<a8>>, %w: tensor<48x64x!lm.block<q4_0>>) -> (tensor<?x48xf32>)
    attributes {split = #lm<kernel_split shares>, tiles = {"avx2/decode" = #lm.tile<rows = 2>}} {
  %y = lm.quant_matmul %x, %w : (tensor<?x64x!lm.block<a8>>, tensor<48x64x!lm.block<q4_0>>) -> tensor<?x48xf32>
  lm.yield %y : tensor<?x48xf32>
}
