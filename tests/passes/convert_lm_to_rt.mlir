// RUN: quern-opt --lm-normalize --lm-quantize-activations --lm-fuse-dequant-matmul --lm-fuse-qkv --lm-fuse-swiglu --lm-fuse-add-rms-norm --lm-convert-attention-to-online-attention --lm-split-shares --lm-form-kernels %S/inputs/small_model.mlir -o %t.kernels
// RUN: quern-opt --convert-lm-to-rt %t.kernels -o %t
// RUN: quern-interpret %t.kernels --compare=%t --tolerance=0
// RUN: FileCheck %s --input-file=%t
// RUN: quern-opt --lm-normalize --lm-quantize-activations --lm-fuse-dequant-matmul --lm-fuse-qkv --lm-convert-attention-to-online-attention --lm-split-shares=shares=3 --lm-form-kernels %S/inputs/small_model.mlir -o %t.uneven.kernels
// RUN: quern-opt --convert-lm-to-rt %t.uneven.kernels -o %t.uneven
// RUN: quern-interpret %t.uneven.kernels --compare=%t.uneven --tolerance=0
// RUN: FileCheck %s --input-file=%t.uneven --check-prefix=UNEVEN
// RUN: quern-opt --lm-normalize --lm-quantize-activations --lm-fuse-dequant-matmul --lm-fuse-qkv --lm-convert-attention-to-online-attention --lm-split-shares=shares=1 --lm-form-kernels --convert-lm-to-rt %S/inputs/small_model.mlir -o %t.one
// RUN: FileCheck %s --input-file=%t.one --check-prefix=ONE
// RUN: not quern-opt --convert-lm-to-rt %S/inputs/small_model.mlir 2>&1 | FileCheck %s --check-prefix=NOKERNELS
// RUN: echo 'module {}' | not quern-opt --convert-lm-to-rt 2>&1 | FileCheck %s --check-prefix=NOMODEL

// NOKERNELS: error: 'lm.embedding' op is not in a kernel: run --lm-form-kernels first
// NOMODEL: error: is no model: expected 'lm.prologue' to name a function

// The head's norm is the layer's: one kernel for both.
// CHECK: rt.kernel @embed(
// CHECK: rt.kernel @attn_norm(
// CHECK-NOT: rt.kernel @output_norm(
// CHECK: rt.program @model shares = 2 layers = [@layer_0, @layer_0]
// CHECK-NEXT: rt.buffer @x activation bytes_per_row = 256 private
// CHECK: rt.buffer @layer_0.attn_norm activation bytes_per_row = 128 private
// CHECK: rt.buffer @layer_0.attn_output activation bytes_per_row = 256 copies = 2
// CHECK: rt.buffer @head.select_rows {{.*}}rows = logits private
// CHECK: rt.buffer @logits logits bytes_per_row = 320 rows = logits

// CHECK: rt.prologue
// CHECK: rt.dispatch @embed(weight "token_embd.weight", step tokens, buffer @x) split = rows

// A list has its slots in order of use, cut as their kernels cut them.
// CHECK: rt.block @layer_0
// CHECK: rt.weight_slot "blk.{layer}.attn_norm.weight" : tensor<64xf32>
// CHECK-NEXT: rt.weight_slot "blk.{layer}.attn_q.weight" : tensor<128x64x!lm.block<q4_0>> ranges = <[0:64], [64:128]>
// CHECK-NEXT: rt.weight_slot "blk.{layer}.attn_k.weight" : tensor<64x64x!lm.block<q4_0>> ranges = <[0:32], [32:64]>
// CHECK-NEXT: rt.weight_slot "blk.{layer}.attn_v.weight"
// CHECK-NEXT: rt.weight_slot "blk.{layer}.attn_output.weight" : tensor<64x128x!lm.block<q4_0>> split = k ranges = <[0:64], [64:128]>
// CHECK-NEXT: rt.weight_slot "blk.{layer}.ffn_norm.weight"
// CHECK-NEXT: rt.weight_slot "blk.{layer}.ffn_gate.weight"
// CHECK-NEXT: rt.weight_slot "blk.{layer}.ffn_up.weight"
// CHECK-NEXT: rt.weight_slot "blk.{layer}.ffn_down.weight" : tensor<64x96x!lm.block<q8_0>> split = k

// Rows to shares: a join outside small steps. Aligned shares: none, and so are
// queries with all of the keys that they read, where a step cuts attention as
// the shares are. Adding deltas reads other shares' sums: always.
// CHECK-NEXT: rt.dispatch @attn_norm
// CHECK-NEXT: rt.join rows
// CHECK-NEXT: rt.dispatch @qkv_proj
// CHECK-NEXT: rt.dispatch @rope_append
// CHECK-NEXT: rt.join split
// CHECK-NEXT: rt.dispatch @attention([[ATTENTION:.*]])
// CHECK-NOT: merge
// CHECK-NEXT: rt.join split
// CHECK-NEXT: rt.dispatch @attention([[ATTENTION]]) {{.*}} merge
// CHECK-NEXT: rt.dispatch @attn_output
// CHECK-NEXT: rt.join always
// CHECK-NEXT: rt.dispatch @ffn_norm
// CHECK-NEXT: rt.join rows
// CHECK-NEXT: rt.dispatch @gate_up
// CHECK-NEXT: rt.dispatch @ffn_down
// CHECK-NEXT: rt.join always
// CHECK-NEXT: rt.dispatch @add
// CHECK-NEXT: }

// Two KV heads in three shares: attention reads keys that another share wrote.
// UNEVEN: rt.dispatch @rope_append
// UNEVEN-NEXT: rt.join always
// UNEVEN-NEXT: rt.dispatch @attention
// UNEVEN-NEXT: rt.join split
// UNEVEN-NEXT: rt.dispatch @attention({{.*}} merge

// One share computes all of attention.
// ONE: rt.dispatch @rope_append
// ONE-NEXT: rt.dispatch @attention
// ONE-NOT: merge
// ONE: rt.dispatch @attn_output

// Selecting rows reads rows that another thread may have written.
// CHECK: rt.epilogue
// CHECK: rt.join rows
// CHECK-NEXT: rt.dispatch @select_rows
// CHECK-SAME: rows = logits
// CHECK-NEXT: rt.dispatch @attn_norm
// CHECK-NEXT: rt.join rows
// CHECK-NEXT: rt.dispatch @token_embd
