// A model of two layers as bodies, and the same as a program of dispatches.
// RUN: split-file %s %t
// RUN: quern-interpret %t/model.mlir --tokens=3,1,4,1,5 --compare=%t/program.mlir --tolerance=0 | FileCheck %s
// The comparison would see a missing op.
// RUN: not quern-interpret %t/model.mlir --tokens=3,1,4,1,5 --compare=%t/no_rope.mlir | FileCheck %s --check-prefix=ROPE

// CHECK: model result 0: max error 0
// ROPE: exceeds

//--- model.mlir
!kv = !lm.kv_cache<heads = 1, head_dim = 32, page = 32, f16>
module attributes {lm.model = {}, lm.prologue = @embed, lm.layers = [@layer, @layer], lm.epilogue = @head} {
  func.func @embed(%tokens: tensor<?xi32>) -> tensor<?x64xf32> {
    %t = lm.weight "embd" : tensor<11x64x!lm.block<q8_0>>
    %x = lm.embedding %t, %tokens : (tensor<11x64x!lm.block<q8_0>>, tensor<?xi32>) -> tensor<?x64xf32>
    return %x : tensor<?x64xf32>
  }
  func.func @layer(%x: tensor<?x64xf32>, %p: tensor<?xi32>, %kv: !kv) -> (tensor<?x64xf32>, !kv) {
    %wk = lm.weight "blk.{layer}.k" : tensor<32x64xf16>
    %wo = lm.weight "blk.{layer}.o" : tensor<64x64x!lm.block<q4_0>>
    %k = lm.quant_matmul %x, %wk : (tensor<?x64xf32>, tensor<32x64xf16>) -> tensor<?x32xf32>
    %r = lm.rope %k, %p heads = 1, head_dim = 32, rotary_dim = 32, base = 1.0e+04, mode = half
        : (tensor<?x32xf32>, tensor<?xi32>) -> tensor<?x32xf32>
    %kv1 = lm.kv_append %kv, %r, %k : (!kv, tensor<?x32xf32>, tensor<?x32xf32>) -> !kv
    %a = lm.attention %x, %kv1, %p heads = 2, scale = 1.0, window = 0
        : (tensor<?x64xf32>, !kv, tensor<?xi32>) -> tensor<?x64xf32>
    %d = lm.quant_matmul %a, %wo split = k {ranges = #lm.ranges<[0:32], [32:64]>}
        : (tensor<?x64xf32>, tensor<64x64x!lm.block<q4_0>>) -> tensor<2x?x64xf32>
    %y = lm.add %x, %d : (tensor<?x64xf32>, tensor<2x?x64xf32>) -> tensor<?x64xf32>
    return %y, %kv1 : tensor<?x64xf32>, !kv
  }
  func.func @head(%x: tensor<?x64xf32>, %rows: tensor<?xi32>) -> tensor<?x11xf32> {
    %w = lm.weight "embd" : tensor<11x64x!lm.block<q8_0>>
    %s = lm.select_rows %x, %rows : (tensor<?x64xf32>, tensor<?xi32>) -> tensor<?x64xf32>
    %y = lm.quant_matmul %s, %w : (tensor<?x64xf32>, tensor<11x64x!lm.block<q8_0>>) -> tensor<?x11xf32>
    return %y : tensor<?x11xf32>
  }
}

//--- no_rope.mlir
!kv = !lm.kv_cache<heads = 1, head_dim = 32, page = 32, f16>
module attributes {lm.model = {}, lm.prologue = @embed, lm.layers = [@layer, @layer], lm.epilogue = @head} {
  func.func @embed(%tokens: tensor<?xi32>) -> tensor<?x64xf32> {
    %t = lm.weight "embd" : tensor<11x64x!lm.block<q8_0>>
    %x = lm.embedding %t, %tokens : (tensor<11x64x!lm.block<q8_0>>, tensor<?xi32>) -> tensor<?x64xf32>
    return %x : tensor<?x64xf32>
  }
  func.func @layer(%x: tensor<?x64xf32>, %p: tensor<?xi32>, %kv: !kv) -> (tensor<?x64xf32>, !kv) {
    %wk = lm.weight "blk.{layer}.k" : tensor<32x64xf16>
    %wo = lm.weight "blk.{layer}.o" : tensor<64x64x!lm.block<q4_0>>
    %k = lm.quant_matmul %x, %wk : (tensor<?x64xf32>, tensor<32x64xf16>) -> tensor<?x32xf32>
    %kv1 = lm.kv_append %kv, %k, %k : (!kv, tensor<?x32xf32>, tensor<?x32xf32>) -> !kv
    %a = lm.attention %x, %kv1, %p heads = 2, scale = 1.0, window = 0
        : (tensor<?x64xf32>, !kv, tensor<?xi32>) -> tensor<?x64xf32>
    %d = lm.quant_matmul %a, %wo : (tensor<?x64xf32>, tensor<64x64x!lm.block<q4_0>>) -> tensor<?x64xf32>
    %y = lm.add %x, %d : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
    return %y, %kv1 : tensor<?x64xf32>, !kv
  }
  func.func @head(%x: tensor<?x64xf32>, %rows: tensor<?xi32>) -> tensor<?x11xf32> {
    %w = lm.weight "embd" : tensor<11x64x!lm.block<q8_0>>
    %s = lm.select_rows %x, %rows : (tensor<?x64xf32>, tensor<?xi32>) -> tensor<?x64xf32>
    %y = lm.quant_matmul %s, %w : (tensor<?x64xf32>, tensor<11x64x!lm.block<q8_0>>) -> tensor<?x11xf32>
    return %y : tensor<?x11xf32>
  }
}

//--- program.mlir
!kv = !lm.kv_cache<heads = 1, head_dim = 32, page = 32, f16>
rt.kernel @embed(%t: tensor<11x64x!lm.block<q8_0>>, %tokens: tensor<?xi32>) -> tensor<?x64xf32>
    attributes {split = #lm<kernel_split rows>} {
  %x = lm.embedding %t, %tokens : (tensor<11x64x!lm.block<q8_0>>, tensor<?xi32>) -> tensor<?x64xf32>
  lm.yield %x : tensor<?x64xf32>
}
rt.kernel @k(%x: tensor<?x64xf32>, %w: tensor<32x64xf16>) -> tensor<?x32xf32>
    attributes {split = #lm<kernel_split shares>} {
  %k = lm.quant_matmul %x, %w : (tensor<?x64xf32>, tensor<32x64xf16>) -> tensor<?x32xf32>
  lm.yield %k : tensor<?x32xf32>
}
rt.kernel @append(%kv: !kv, %k: tensor<?x32xf32>, %p: tensor<?xi32>) -> !kv
    attributes {split = #lm<kernel_split shares>} {
  %r = lm.rope %k, %p heads = 1, head_dim = 32, rotary_dim = 32, base = 1.0e+04, mode = half
      : (tensor<?x32xf32>, tensor<?xi32>) -> tensor<?x32xf32>
  %kv1 = lm.kv_append %kv, %r, %k : (!kv, tensor<?x32xf32>, tensor<?x32xf32>) -> !kv
  lm.yield %kv1 : !kv
}
rt.kernel @attend(%x: tensor<?x64xf32>, %kv: !kv, %p: tensor<?xi32>) -> tensor<?x64xf32>
    attributes {split = #lm<kernel_split shares>} {
  %a = lm.attention %x, %kv, %p heads = 2, scale = 1.0, window = 0
      : (tensor<?x64xf32>, !kv, tensor<?xi32>) -> tensor<?x64xf32>
  lm.yield %a : tensor<?x64xf32>
}
rt.kernel @o(%x: tensor<?x64xf32>, %w: tensor<64x64x!lm.block<q4_0>>) -> tensor<2x?x64xf32>
    attributes {split = #lm<kernel_split shares>} {
  %d = lm.quant_matmul %x, %w split = k : (tensor<?x64xf32>, tensor<64x64x!lm.block<q4_0>>) -> tensor<2x?x64xf32>
  lm.yield %d : tensor<2x?x64xf32>
}
rt.kernel @residual(%x: tensor<?x64xf32>, %d: tensor<2x?x64xf32>) -> tensor<?x64xf32>
    attributes {split = #lm<kernel_split rows>} {
  %y = lm.add %x, %d : (tensor<?x64xf32>, tensor<2x?x64xf32>) -> tensor<?x64xf32>
  lm.yield %y : tensor<?x64xf32>
}
rt.kernel @head(%x: tensor<?x64xf32>, %rows: tensor<?xi32>, %w: tensor<11x64x!lm.block<q8_0>>) -> tensor<?x11xf32>
    attributes {split = #lm<kernel_split shares>} {
  %s = lm.select_rows %x, %rows : (tensor<?x64xf32>, tensor<?xi32>) -> tensor<?x64xf32>
  %y = lm.quant_matmul %s, %w : (tensor<?x64xf32>, tensor<11x64x!lm.block<q8_0>>) -> tensor<?x11xf32>
  lm.yield %y : tensor<?x11xf32>
}
rt.program @model shares = 2 layers = [@layer, @layer] {
  rt.buffer @x activation bytes_per_row = 256
  rt.buffer @keys activation bytes_per_row = 128
  rt.buffer @attended activation bytes_per_row = 256
  rt.buffer @delta activation bytes_per_row = 256 copies = 2
  rt.buffer @logits logits bytes_per_row = 44 rows = logits
  rt.prologue {
    rt.weight_slot "embd" : tensor<11x64x!lm.block<q8_0>>
    rt.dispatch @embed(weight "embd", step tokens, buffer @x) split = rows
    rt.join always
  }
  rt.block @layer {
    rt.weight_slot "blk.{layer}.k" : tensor<32x64xf16>
    rt.weight_slot "blk.{layer}.o" : tensor<64x64x!lm.block<q4_0>> split = k ranges = <[0:32], [32:64]>
    rt.dispatch @k(buffer @x, weight "blk.{layer}.k", buffer @keys) split = shares
    rt.join always
    rt.dispatch @append(kv, buffer @keys, step positions) split = shares
    rt.join always
    rt.dispatch @attend(buffer @x, kv, step slots, buffer @attended) split = shares
    rt.join split
    rt.dispatch @attend(buffer @x, kv, step slots, buffer @attended) split = shares merge
    rt.dispatch @o(buffer @attended, weight "blk.{layer}.o", buffer @delta) split = shares
        ranges = <[0:32], [32:64]>
    rt.join always
    rt.dispatch @residual(buffer @x, buffer @delta, buffer @x) split = rows
    rt.join rows
  }
  rt.epilogue {
    rt.weight_slot "embd" : tensor<11x64x!lm.block<q8_0>>
    rt.dispatch @head(buffer @x, step logit_rows, weight "embd", buffer @logits) split = shares rows = logits
  }
}
