// What the verifiers of rt refuse. Programs are named after the constraint of
// docs/spec.md that they break.
// RUN: quern-opt %s --verify-diagnostics --split-input-file

// expected-error @+1 {{expected the region to yield values of the results' types}}
rt.kernel @rt_kernel_c1(%x: tensor<?x8xf32>) -> tensor<?x9xf32> attributes {split = #lm<kernel_split rows>} {
  lm.yield %x : tensor<?x8xf32>
}

// -----

// expected-error @+1 {{to be a #lm.tile}}
rt.kernel @rt_kernel_c2(%x: tensor<?x8xf32>) -> tensor<?x8xf32>
    attributes {split = #lm<kernel_split rows>, tiles = {a = 1}} {
  lm.yield %x : tensor<?x8xf32>
}

// -----

// expected-error @+1 {{expected one rt.prologue and one rt.epilogue}}
rt.program @rt_program_c1 shares = 1 layers = [] {
  rt.prologue {}
}

// -----

// expected-error @+1 {{expected layer @layer_1 to be an rt.block of the program}}
rt.program @rt_program_c2 shares = 1 layers = [@layer_0, @layer_1] {
  rt.prologue {}
  rt.block @layer_0 {}
  rt.epilogue {}
}

// -----

rt.program @rt_program_c3 shares = 1 layers = [] {
  rt.prologue {}
  rt.epilogue {}
  // expected-error @+1 {{is not allowed in a program}}
  builtin.module {}
}

// -----

rt.program @rt_buffer_c1 shares = 1 layers = [] {
  // expected-error @+1 {{expected the caller's logits to be one copy of logit rows}}
  rt.buffer @x logits bytes_per_row = 4
  rt.prologue {}
  rt.epilogue {}
}

// -----

rt.program @rt_weight_slot_c1 shares = 1 layers = [] {
  rt.prologue {
    // expected-error @+1 {{expected a static tensor, but got 'tensor<?x32xf32>'}}
    rt.weight_slot "w" : tensor<?x32xf32>
  }
  rt.epilogue {}
}

// -----

rt.program @rt_weight_slot_c2 shares = 1 layers = [] {
  rt.prologue {
    rt.weight_slot "w" : tensor<32xf32>
    // expected-error @+1 {{is declared twice: 'w'}}
    rt.weight_slot "w" : tensor<32xf32>
  }
  rt.epilogue {}
}

// -----

rt.program @rt_weight_slot_c3 shares = 1 layers = [] {
  rt.prologue {
    // expected-error @+1 {{expected ranges of one segment over 64 elements}}
    rt.weight_slot "w" : tensor<16x64xf16> split = k ranges = <[0:32]>
  }
  rt.epilogue {}
}

// -----

rt.program @rt_dispatch_c1 shares = 1 layers = [] {
  rt.prologue {
    // expected-error @+1 {{names unknown kernel @nothing}}
    rt.dispatch @nothing() split = rows
  }
  rt.epilogue {}
}

// -----

rt.kernel @copy(%x: tensor<?x8xf32>) -> tensor<?x8xf32> attributes {split = #lm<kernel_split rows>} {
  lm.yield %x : tensor<?x8xf32>
}
rt.program @rt_dispatch_c2 shares = 1 layers = [] {
  rt.buffer @x activation bytes_per_row = 32
  rt.prologue {
    // expected-error @+1 {{expected 2 arguments for @copy, but got 1}}
    rt.dispatch @copy(buffer @x) split = rows
  }
  rt.epilogue {}
}

// -----

rt.kernel @copy(%x: tensor<?x8xf32>) -> tensor<?x8xf32> attributes {split = #lm<kernel_split rows>} {
  lm.yield %x : tensor<?x8xf32>
}
rt.program @rt_dispatch_c3 shares = 1 layers = [] {
  rt.buffer @x activation bytes_per_row = 32
  rt.prologue {
    // expected-error @+1 {{expected split = rows as the kernel has}}
    rt.dispatch @copy(buffer @x, buffer @x) split = shares
  }
  rt.epilogue {}
}

// -----

rt.kernel @copy(%x: tensor<?x8xf32>) -> tensor<?x8xf32> attributes {split = #lm<kernel_split shares>} {
  lm.yield %x : tensor<?x8xf32>
}
rt.program @rt_dispatch_c3_shares shares = 1 layers = [] {
  rt.buffer @x activation bytes_per_row = 32
  rt.prologue {
    // expected-error @+1 {{expected ranges of as many shares as the program}}
    rt.dispatch @copy(buffer @x, buffer @x) split = shares ranges = <[0:4], [4:8]>
  }
  rt.epilogue {}
}

// -----

rt.kernel @copy(%x: tensor<?x8xf32>) -> tensor<?x8xf32> attributes {split = #lm<kernel_split rows>} {
  lm.yield %x : tensor<?x8xf32>
}
rt.program @rt_dispatch_c4 shares = 1 layers = [] {
  rt.buffer @x activation bytes_per_row = 32
  rt.prologue {
    // expected-error @+1 {{names unknown buffer @y}}
    rt.dispatch @copy(buffer @x, buffer @y) split = rows
  }
  rt.epilogue {}
}

// -----

rt.kernel @copy(%x: tensor<?x8xf32>) -> tensor<?x8xf32> attributes {split = #lm<kernel_split rows>} {
  lm.yield %x : tensor<?x8xf32>
}
rt.program @rt_dispatch_c5 shares = 1 layers = [] {
  rt.buffer @x activation bytes_per_row = 36
  rt.prologue {
    // expected-error @+1 {{expected buffer @x of 32 bytes per row for 'tensor<?x8xf32>', but it has 36}}
    rt.dispatch @copy(buffer @x, buffer @x) split = rows
  }
  rt.epilogue {}
}

// -----

rt.kernel @sum(%x: tensor<2x?x8xf32>) -> tensor<?x8xf32> attributes {split = #lm<kernel_split rows>} {
  %y = lm.reduce_shares %x : tensor<2x?x8xf32> -> tensor<?x8xf32>
  lm.yield %y : tensor<?x8xf32>
}
rt.program @rt_dispatch_c6 shares = 2 layers = [] {
  rt.buffer @x activation bytes_per_row = 32
  rt.prologue {
    // expected-error @+1 {{expected buffer @x of 2 copies for 'tensor<2x?x8xf32>', but it has 1}}
    rt.dispatch @sum(buffer @x, buffer @x) split = rows
  }
  rt.epilogue {}
}

// -----

rt.kernel @copy(%x: tensor<?x8xf32>) -> tensor<?x8xf32> attributes {split = #lm<kernel_split rows>} {
  lm.yield %x : tensor<?x8xf32>
}
rt.program @rt_dispatch_c7 shares = 1 layers = [] {
  rt.buffer @x activation bytes_per_row = 32
  rt.prologue {
    // expected-error @+1 {{expected a 'tensor<?x8xf32>', but got kv}}
    rt.dispatch @copy(kv, buffer @x) split = rows
  }
  rt.epilogue {}
}

// -----

rt.kernel @copy(%x: tensor<?x8xf32>) -> tensor<?x8xf32> attributes {split = #lm<kernel_split rows>} {
  lm.yield %x : tensor<?x8xf32>
}
rt.program @rt_dispatch_c8 shares = 1 layers = [] {
  rt.buffer @x activation bytes_per_row = 32
  rt.prologue {
    // expected-error @+1 {{expected a 'tensor<?x8xf32>', but got step tokens}}
    rt.dispatch @copy(step tokens, buffer @x) split = rows
  }
  rt.epilogue {}
}

// -----

rt.kernel @norm(%x: tensor<?x8xf32>, %w: tensor<8xf32>) -> tensor<?x8xf32>
    attributes {split = #lm<kernel_split rows>} {
  %y = lm.rms_norm %x, %w eps = 1.0e-05 : (tensor<?x8xf32>, tensor<8xf32>) -> tensor<?x8xf32>
  lm.yield %y : tensor<?x8xf32>
}
rt.program @rt_dispatch_c9 shares = 1 layers = [] {
  rt.buffer @x activation bytes_per_row = 32
  rt.prologue {
    // expected-error @+1 {{names weight 'w', which has no slot in this list}}
    rt.dispatch @norm(buffer @x, weight "w", buffer @x) split = rows
  }
  rt.epilogue {}
}

// -----

rt.kernel @norm(%x: tensor<?x8xf32>, %w: tensor<8xf32>) -> tensor<?x8xf32>
    attributes {split = #lm<kernel_split rows>} {
  %y = lm.rms_norm %x, %w eps = 1.0e-05 : (tensor<?x8xf32>, tensor<8xf32>) -> tensor<?x8xf32>
  lm.yield %y : tensor<?x8xf32>
}
rt.program @rt_dispatch_c9_type shares = 1 layers = [] {
  rt.buffer @x activation bytes_per_row = 32
  rt.prologue {}
  rt.epilogue {
    rt.weight_slot "w" : tensor<16xf32>
    // expected-error @+1 {{expected weight 'w' of 'tensor<8xf32>', but its slot has 'tensor<16xf32>'}}
    rt.dispatch @norm(buffer @x, weight "w", buffer @x) split = rows
  }
}

// -----

rt.kernel @copy(%x: tensor<?x8xf32>) -> tensor<?x8xf32> attributes {split = #lm<kernel_split rows>} {
  lm.yield %x : tensor<?x8xf32>
}
rt.program @rt_dispatch_c10 shares = 1 layers = [] {
  rt.buffer @x activation bytes_per_row = 32
  rt.prologue {
    // expected-error @+1 {{expected a buffer for result 0, but got step tokens}}
    rt.dispatch @copy(buffer @x, step tokens) split = rows
  }
  rt.epilogue {}
}

// -----

!kv = !lm.kv_cache<heads = 2, head_dim = 8, page = 32, f32>
rt.kernel @attend(%x: tensor<?x16xf32>, %kv: !kv, %p: tensor<?xi32>) -> tensor<?x16xf32>
    attributes {split = #lm<kernel_split shares>} {
  %a = lm.attention %x, %kv, %p heads = 2, scale = 1.0, window = 0
      : (tensor<?x16xf32>, !kv, tensor<?xi32>) -> tensor<?x16xf32>
  lm.yield %a : tensor<?x16xf32>
}
rt.program @rt_dispatch_c11 shares = 2 layers = [@layer] {
  rt.buffer @x activation bytes_per_row = 64
  rt.buffer @y activation bytes_per_row = 64
  rt.prologue {}
  rt.block @layer {
    // expected-error @+1 {{expected a merge to repeat the dispatch before it, of attention that is split over shares}}
    rt.dispatch @attend(buffer @x, kv, step slots, buffer @y) split = shares merge
  }
  rt.epilogue {}
}

// -----

!kv = !lm.kv_cache<heads = 2, head_dim = 8, page = 32, f32>
rt.kernel @attend(%x: tensor<?x16xf32>, %kv: !kv, %p: tensor<?xi32>) -> tensor<?x16xf32>
    attributes {split = #lm<kernel_split shares>} {
  %a = lm.attention %x, %kv, %p heads = 2, scale = 1.0, window = 0
      : (tensor<?x16xf32>, !kv, tensor<?xi32>) -> tensor<?x16xf32>
  lm.yield %a : tensor<?x16xf32>
}
rt.program @rt_dispatch_c11_arguments shares = 2 layers = [@layer] {
  rt.buffer @x activation bytes_per_row = 64
  rt.buffer @y activation bytes_per_row = 64
  rt.prologue {}
  rt.block @layer {
    rt.dispatch @attend(buffer @x, kv, step slots, buffer @y) split = shares
    rt.join split
    // expected-error @+1 {{expected a merge to repeat the dispatch before it, of attention that is split over shares}}
    rt.dispatch @attend(buffer @y, kv, step slots, buffer @y) split = shares merge
  }
  rt.epilogue {}
}

// -----

!kv = !lm.kv_cache<heads = 2, head_dim = 8, page = 32, f32>
rt.kernel @attend(%x: tensor<?x16xf32>, %kv: !kv, %p: tensor<?xi32>) -> tensor<?x16xf32>
    attributes {split = #lm<kernel_split shares>} {
  %a = lm.attention %x, %kv, %p heads = 2, scale = 1.0, window = 0
      : (tensor<?x16xf32>, !kv, tensor<?xi32>) -> tensor<?x16xf32>
  lm.yield %a : tensor<?x16xf32>
}
rt.program @rt_dispatch_c11_ranges shares = 2 layers = [@layer] {
  rt.buffer @x activation bytes_per_row = 64
  rt.buffer @y activation bytes_per_row = 64
  rt.prologue {}
  rt.block @layer {
    rt.dispatch @attend(buffer @x, kv, step slots, buffer @y) split = shares ranges = <[0:8], [8:16]>
    // expected-error @+1 {{expected a merge to repeat the dispatch before it, of attention that is split over shares}}
    rt.dispatch @attend(buffer @x, kv, step slots, buffer @y) split = shares ranges = <[0:16], [16:16]> merge
  }
  rt.epilogue {}
}

// -----

!kv = !lm.kv_cache<heads = 2, head_dim = 8, page = 32, f32>
rt.kernel @attend(%x: tensor<?x16xf32>, %kv: !kv, %p: tensor<?xi32>) -> tensor<?x16xf32>
    attributes {split = #lm<kernel_split shares>} {
  %a = lm.attention %x, %kv, %p heads = 2, scale = 1.0, window = 0
      : (tensor<?x16xf32>, !kv, tensor<?xi32>) -> tensor<?x16xf32>
  lm.yield %a : tensor<?x16xf32>
}
rt.program @rt_dispatch_c11_rows shares = 2 layers = [@layer] {
  rt.buffer @x activation bytes_per_row = 64
  rt.buffer @y activation bytes_per_row = 64
  rt.prologue {}
  rt.block @layer {
    rt.dispatch @attend(buffer @x, kv, step slots, buffer @y) split = shares
    // expected-error @+1 {{expected a merge to repeat the dispatch before it, of attention that is split over shares}}
    rt.dispatch @attend(buffer @x, kv, step slots, buffer @y) split = shares rows = logits merge
  }
  rt.epilogue {}
}

// -----

!kv = !lm.kv_cache<heads = 2, head_dim = 8, page = 32, f32>
rt.kernel @attend(%x: tensor<?x16xf32>, %kv: !kv, %p: tensor<?xi32>) -> tensor<?x16xf32>
    attributes {split = #lm<kernel_split shares>} {
  %a = lm.attention %x, %kv, %p heads = 2, scale = 1.0, window = 0
      : (tensor<?x16xf32>, !kv, tensor<?xi32>) -> tensor<?x16xf32>
  lm.yield %a : tensor<?x16xf32>
}
rt.program @rt_dispatch_c11_twice shares = 2 layers = [@layer] {
  rt.buffer @x activation bytes_per_row = 64
  rt.buffer @y activation bytes_per_row = 64
  rt.prologue {}
  rt.block @layer {
    rt.dispatch @attend(buffer @x, kv, step slots, buffer @y) split = shares
    rt.dispatch @attend(buffer @x, kv, step slots, buffer @y) split = shares merge
    // expected-error @+1 {{expected a merge to repeat the dispatch before it, of attention that is split over shares}}
    rt.dispatch @attend(buffer @x, kv, step slots, buffer @y) split = shares merge
  }
  rt.epilogue {}
}

// -----

rt.kernel @copy(%x: tensor<?x8xf32>) -> tensor<?x8xf32> attributes {split = #lm<kernel_split shares>} {
  lm.yield %x : tensor<?x8xf32>
}
rt.program @rt_dispatch_c11_kernel shares = 2 layers = [@layer] {
  rt.buffer @x activation bytes_per_row = 32
  rt.buffer @y activation bytes_per_row = 32
  rt.prologue {}
  rt.block @layer {
    rt.dispatch @copy(buffer @x, buffer @y) split = shares
    // expected-error @+1 {{expected a merge to repeat the dispatch before it, of attention that is split over shares}}
    rt.dispatch @copy(buffer @x, buffer @y) split = shares merge
  }
  rt.epilogue {}
}

// -----

// expected-error @+1 {{unknown step input 'weather'}}
func.func private @arg_c1() attributes {a = #rt.arg<step weather>}

// -----

// expected-error @+1 {{expected buffer, weight, kv or step, but got 'page'}}
func.func private @arg_syntax() attributes {a = #rt.arg<page>}
