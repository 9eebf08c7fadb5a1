// Every op and attribute of rt, printed and parsed again.
// RUN: quern-opt %s | quern-opt | FileCheck %s
// RUN: quern-opt %s --mlir-print-op-generic | quern-opt | FileCheck %s

!kv = !lm.kv_cache<heads = 1, head_dim = 32, page = 32, f16>

// CHECK: rt.kernel @norm(%{{.*}}: tensor<?x32xf32>, %{{.*}}: tensor<32xf32>) -> (tensor<?x32x!lm.block<a8>>) attributes {split = #lm<kernel_split rows>, tiles = {"avx2/decode" = #lm.tile<keys = 16>}} {
rt.kernel @norm(%x: tensor<?x32xf32>, %w: tensor<32xf32>) -> tensor<?x32x!lm.block<a8>>
    attributes {split = #lm<kernel_split rows>, tiles = {"avx2/decode" = #lm.tile<keys = 16>}} {
  %n = lm.rms_norm %x, %w eps = 1.0e-05 : (tensor<?x32xf32>, tensor<32xf32>) -> tensor<?x32xf32>
  %q = lm.quantize %n : tensor<?x32xf32> -> tensor<?x32x!lm.block<a8>>
  // CHECK: lm.yield
  lm.yield %q : tensor<?x32x!lm.block<a8>>
}

// CHECK: rt.kernel @append
rt.kernel @append(%kv: !kv, %k: tensor<?x32xf32>, %v: tensor<?x32xf32>, %slots: tensor<?xi32>) -> !kv
    attributes {split = #lm<kernel_split shares>} {
  %n = lm.kv_append %kv, %k, %v : (!kv, tensor<?x32xf32>, tensor<?x32xf32>) -> !kv
  lm.yield %n : !kv
}

// CHECK: rt.kernel @attend
rt.kernel @attend(%x: tensor<?x32xf32>, %kv: !kv, %p: tensor<?xi32>) -> tensor<?x32xf32>
    attributes {split = #lm<kernel_split shares>} {
  %a = lm.attention %x, %kv, %p heads = 1, scale = 1.0, window = 0
      : (tensor<?x32xf32>, !kv, tensor<?xi32>) -> tensor<?x32xf32>
  lm.yield %a : tensor<?x32xf32>
}

// CHECK: rt.kernel @down
rt.kernel @down(%x: tensor<?x64xf32>, %w: tensor<32x64xf16>) -> tensor<2x?x32xf32>
    attributes {split = #lm<kernel_split shares>} {
  %y = lm.quant_matmul %x, %w split = k : (tensor<?x64xf32>, tensor<32x64xf16>) -> tensor<2x?x32xf32>
  lm.yield %y : tensor<2x?x32xf32>
}

// CHECK: rt.program @model shares = 2 layers = [@layer_0, @layer_0] arena_bytes_per_row = 640 {
rt.program @model shares = 2 layers = [@layer_0, @layer_0] arena_bytes_per_row = 640 {
  // CHECK-NEXT: rt.buffer @x activation bytes_per_row = 128 private offset = 0 private_offset = 64
  rt.buffer @x activation bytes_per_row = 128 private offset = 0 private_offset = 64
  // CHECK-NEXT: rt.buffer @q activation bytes_per_row = 64
  rt.buffer @q activation bytes_per_row = 64 rows = tokens
  // CHECK-NEXT: rt.buffer @wide activation bytes_per_row = 256
  rt.buffer @wide activation bytes_per_row = 256
  // CHECK-NEXT: rt.buffer @partials activation bytes_per_row = 128 copies = 2
  rt.buffer @partials activation bytes_per_row = 128 copies = 2
  // CHECK-NEXT: rt.buffer @out logits bytes_per_row = 1024 rows = logits
  rt.buffer @out logits bytes_per_row = 1024 rows = logits
  // CHECK-NEXT: rt.prologue {
  rt.prologue {
  }
  // CHECK: rt.block @layer_0 {
  rt.block @layer_0 {
    // CHECK-NEXT: rt.weight_slot "blk.{layer}.norm" : tensor<32xf32> source = f16
    rt.weight_slot "blk.{layer}.norm" : tensor<32xf32> source = f16
    // CHECK-NEXT: rt.weight_slot "blk.{layer}.down" : tensor<32x64xf16> split = k ranges = <[0:32], [32:64]>
    rt.weight_slot "blk.{layer}.down" : tensor<32x64xf16> split = k ranges = #lm.ranges<[0:32], [32:64]>
    // CHECK-NEXT: rt.dispatch @norm(buffer @x, weight "blk.{layer}.norm", buffer @q) split = rows rows = logits
    rt.dispatch @norm(buffer @x, weight "blk.{layer}.norm", buffer @q) split = rows rows = logits
    // CHECK-NEXT: rt.join rows
    rt.join rows
    // CHECK-NEXT: rt.dispatch @append(kv, buffer @x, buffer @x, step slots) split = shares
    rt.dispatch @append(kv, buffer @x, buffer @x, step slots) split = shares
    // CHECK-NEXT: rt.dispatch @attend(buffer @x, kv, step slots, buffer @x) split = shares
    rt.dispatch @attend(buffer @x, kv, step slots, buffer @x) split = shares
    // CHECK-NEXT: rt.dispatch @attend(buffer @x, kv, step slots, buffer @x) split = shares merge
    rt.dispatch @attend(buffer @x, kv, step slots, buffer @x) split = shares merge
    // CHECK-NEXT: rt.dispatch @down(buffer @wide, weight "blk.{layer}.down", buffer @partials) split = shares ranges = <[0:32], [32:64]>
    rt.dispatch @down(buffer @wide, weight "blk.{layer}.down", buffer @partials)
        split = shares ranges = <[0:32], [32:64]>
    // CHECK-NEXT: rt.join split
    rt.join split
    // CHECK-NEXT: rt.join always
    rt.join always
  }
  // CHECK: rt.epilogue {
  rt.epilogue {
  }
}

// CHECK: arguments = [#rt.arg<buffer @x>, #rt.arg<weight "w">, #rt.arg<kv>, #rt.arg<step page_table>]
func.func private @arguments() attributes {
  arguments = [#rt.arg<buffer @x>, #rt.arg<weight "w">, #rt.arg<kv>,
               #rt.arg<step page_table>]
}
