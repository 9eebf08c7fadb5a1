// RUN: quern-opt --rt-plan-memory %s | FileCheck %s

// When the buffers of the block are used, in stretches between unconditional
// joins. The last stretch of a block is also the first of the next.
//
//   stretch      0 | 1 | 2 | 3     bytes per row
//   @n (private) ===|              64
//   @a           =======|          256
//   @b           ===|              192
//   @p               =======|      2 x 64
//   @s (private)         =======|  64
//
// @p lies where @b was. @s may lie neither there nor at @n: the next block
// writes those while this one may still be in @s. But private memory belongs to
// one thread, so there @s lies where @n was.

// CHECK: rt.program @model shares = 2 layers = [@layer, @layer]
// CHECK-SAME: arena_bytes_per_row = 640 logit_bytes_per_row = 64 private_bytes_per_row = 128
// CHECK: rt.buffer @x {{.*}} private offset = 448 private_offset = 0{{$}}
// CHECK: rt.buffer @n {{.*}} private offset = 512 private_offset = 64{{$}}
// CHECK: rt.buffer @a {{.*}} offset = 0{{$}}
// CHECK: rt.buffer @p {{.*}} copies = 2 offset = 256{{$}}
// CHECK: rt.buffer @b {{.*}} offset = 256{{$}}
// CHECK: rt.buffer @s {{.*}} private offset = 576 private_offset = 64{{$}}
// Logit rows have an arena of their own.
// CHECK: rt.buffer @l {{.*}} private offset = 0 private_offset = 64{{$}}
// CHECK: rt.buffer @logits
// CHECK-NOT: offset

!x = tensor<?x16xf32>
!a = tensor<?x64xf32>
!b = tensor<?x48xf32>
!p = tensor<2x?x16xf32>

rt.kernel @embed(%w: tensor<8x16xf32>, %t: tensor<?xi32>) -> (!x) attributes {split = #lm<kernel_split rows>} {
  %y = lm.embedding %w, %t : (tensor<8x16xf32>, tensor<?xi32>) -> !x
  lm.yield %y : !x
}
rt.kernel @silu(%x: !x) -> (!x) attributes {split = #lm<kernel_split rows>} {
  %y = lm.silu %x : !x
  lm.yield %y : !x
}
rt.kernel @wide(%x: !x, %w0: tensor<64x16xf32>) -> (!a) attributes {split = #lm<kernel_split shares>} {
  %a = lm.quant_matmul %x, %w0 : (!x, tensor<64x16xf32>) -> !a
  lm.yield %a : !a
}
rt.kernel @middle(%x: !x, %w1: tensor<48x16xf32>) -> (!b) attributes {split = #lm<kernel_split shares>} {
  %b = lm.quant_matmul %x, %w1 : (!x, tensor<48x16xf32>) -> !b
  lm.yield %b : !b
}
rt.kernel @down(%a: !a, %w: tensor<16x64xf32>) -> (!p) attributes {split = #lm<kernel_split shares>} {
  %p = lm.quant_matmul %a, %w split = k {ranges = #lm.ranges<[0:32], [32:64]>} : (!a, tensor<16x64xf32>) -> !p
  lm.yield %p : !p
}
rt.kernel @sum(%p: !p) -> (!x) attributes {split = #lm<kernel_split rows>} {
  %y = lm.reduce_shares %p : !p -> !x
  lm.yield %y : !x
}
rt.kernel @select(%x: !x, %r: tensor<?xi32>) -> (!x) attributes {split = #lm<kernel_split rows>} {
  %y = lm.select_rows %x, %r : (!x, tensor<?xi32>) -> !x
  lm.yield %y : !x
}
rt.kernel @head(%x: !x, %w: tensor<8x16xf32>) -> (tensor<?x8xf32>) attributes {split = #lm<kernel_split shares>} {
  %y = lm.quant_matmul %x, %w : (!x, tensor<8x16xf32>) -> tensor<?x8xf32>
  lm.yield %y : tensor<?x8xf32>
}

rt.program @model shares = 2 layers = [@layer, @layer] {
  rt.buffer @x activation bytes_per_row = 64 private
  rt.buffer @n activation bytes_per_row = 64 private
  rt.buffer @a activation bytes_per_row = 256
  rt.buffer @p activation bytes_per_row = 64 copies = 2
  rt.buffer @b activation bytes_per_row = 192
  rt.buffer @s activation bytes_per_row = 64 private
  rt.buffer @l activation bytes_per_row = 64 rows = logits private
  rt.buffer @logits logits bytes_per_row = 32 rows = logits
  rt.prologue {
    rt.weight_slot "embd" : tensor<8x16xf32>
    rt.dispatch @embed(weight "embd", step tokens, buffer @x) split = rows
  }
  rt.block @layer {
    rt.weight_slot "a" : tensor<64x16xf32>
    rt.weight_slot "b" : tensor<48x16xf32>
    rt.weight_slot "d" : tensor<16x64xf32> split = k
    rt.dispatch @silu(buffer @x, buffer @n) split = rows
    rt.join rows
    rt.dispatch @wide(buffer @n, weight "a", buffer @a) split = shares
    rt.dispatch @middle(buffer @n, weight "b", buffer @b) split = shares
    rt.join always
    rt.dispatch @down(buffer @a, weight "d", buffer @p) split = shares
    rt.join always
    rt.dispatch @sum(buffer @p, buffer @s) split = rows
    rt.join always
    rt.dispatch @silu(buffer @s, buffer @x) split = rows
  }
  rt.epilogue {
    rt.weight_slot "head" : tensor<8x16xf32>
    rt.dispatch @select(buffer @x, step logit_rows, buffer @l) split = rows rows = logits
    rt.join rows
    rt.dispatch @head(buffer @l, weight "head", buffer @logits) split = shares rows = logits
  }
}
