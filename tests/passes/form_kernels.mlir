// A model through the phases up to this pass, with and without grouping.
// RUN: quern-opt --lm-normalize --lm-quantize-activations --lm-fuse-dequant-matmul --lm-fuse-qkv --lm-fuse-swiglu --lm-fuse-add-rms-norm --lm-convert-attention-to-online-attention --lm-tile-matmul=targets=avx2 --lm-split-shares %S/inputs/small_model.mlir -o %t.tile
// RUN: quern-opt --lm-form-kernels %t.tile -o %t
// RUN: quern-interpret %t.tile --compare=%t --tolerance=0
// RUN: FileCheck %s --input-file=%t
// RUN: quern-opt --lm-form-kernels=fuse=false %t.tile -o %t.plain
// RUN: quern-interpret %t.tile --compare=%t.plain --tolerance=0
// RUN: FileCheck %s --input-file=%t.plain --check-prefix=PLAIN
// RUN: sed 's/heads = 4/heads = 8/g; s/heads = 2/heads = 4/g; s/_dim = 32/_dim = 16/g' %t.tile >%t.small
// RUN: quern-opt --lm-form-kernels %t.small -o %t.heads
// RUN: quern-interpret %t.small --compare=%t.heads --tolerance=0
// RUN: FileCheck %s --input-file=%t.heads --check-prefix=HEADS
// RUN: sed 's/!lm.block<[a-z0-9_]*>/!lm.block<e4m3>/g' %t.tile >%t.scaled
// RUN: quern-opt --lm-form-kernels %t.scaled -o %t.fp8
// RUN: quern-interpret %t.scaled --compare=%t.fp8 --tolerance=0
// RUN: FileCheck %s --input-file=%t.fp8 --check-prefix=FP8

// CHECK-LABEL: func.func @embed
// CHECK: lm.weight
// CHECK: lm.kernel "embed" split(rows)
// CHECK: lm.embedding

// Norm and quantize are one kernel, the norm's floats stay inside.
// CHECK-LABEL: func.func @layer_0
// CHECK: lm.kernel "attn_norm" split(rows) {{.*}} -> (tensor<?x64x!lm.block<a8>>)
// CHECK-NEXT: lm.rms_norm
// CHECK-NEXT: lm.quantize
// CHECK: lm.kernel "qkv_proj" split(shares) {{.*}} attributes {ranges = #lm.ranges<[0:64, 0:32, 0:32], [64:128, 32:64, 32:64]>, tiles = {
// Ranges and tiles moved from the op to the kernel.
// CHECK-NEXT: lm.qkv_proj
// CHECK-NOT: ranges
// CHECK: lm.yield
// Queries, keys and values: one segment each.
// CHECK: lm.kernel "rope_append" split(shares) {{.*}} attributes {ranges = #lm.ranges<[0:64, 0:32, 0:32], [64:128, 32:64, 32:64]>}
// CHECK-NEXT: lm.rope {{.*}} heads = 4
// CHECK-NEXT: lm.rope {{.*}} heads = 2
// CHECK-NEXT: lm.kv_append
// CHECK-NEXT: lm.yield
// CHECK: lm.kernel "attention" split(shares) {{.*}} attributes {ranges = #lm.ranges<[0:64], [64:128]>}
// CHECK-NEXT: lm.online_attention
// CHECK-NEXT: lm.quantize
// CHECK: lm.kernel "attn_output" split(shares) {{.*}} -> (tensor<2x?x64xf32>)
// CHECK: lm.kernel "ffn_norm" split(rows) {{.*}} -> (tensor<?x64xf32>, tensor<?x64x!lm.block<a8>>)
// CHECK-NEXT: lm.add_rms_norm
// CHECK-NEXT: lm.quantize
// CHECK: lm.kernel "gate_up" split(shares) {{.*}} attributes {ranges = #lm.ranges<[0:64], [64:96]>
// CHECK-NEXT: lm.quant_matmul
// CHECK-NEXT: lm.quant_matmul
// CHECK-NEXT: lm.swiglu
// CHECK-NEXT: lm.quantize
// CHECK: lm.kernel "ffn_down" split(shares)
// CHECK: lm.kernel "add" split(rows)
// CHECK: return
// CHECK-LABEL: func.func @head
// CHECK: lm.kernel "select_rows" split(rows)
// CHECK: lm.kernel "output_norm" split(rows)
// CHECK: lm.kernel "token_embd" split(shares)

// The scale of an e4m3 row is known where the whole row is: behind a norm, but
// not in the shares of attention and feed-forward.
// FP8-LABEL: func.func @layer_0
// FP8: lm.kernel "attention" split(shares)
// FP8-NEXT: lm.online_attention
// FP8-NEXT: lm.yield
// FP8: lm.kernel "quantize" split(rows)
// FP8-NEXT: lm.quantize
// FP8: lm.kernel "attn_output" split(shares)
// FP8: lm.kernel "ffn_norm" split(rows)
// FP8-NEXT: lm.add_rms_norm
// FP8-NEXT: lm.quantize
// FP8: lm.kernel "gate_up" split(shares)
// FP8-NEXT: lm.quant_matmul
// FP8-NEXT: lm.quant_matmul
// FP8-NEXT: lm.swiglu
// FP8-NEXT: lm.yield
// FP8: lm.kernel "quantize" split(rows)
// FP8: lm.kernel "ffn_down" split(shares)

// Two heads of 16 share a group of 32 activations, which is rounded behind both.
// HEADS: lm.kernel "attention" split(shares) {{.*}} -> (tensor<?x128xf32>)
// HEADS-NEXT: lm.online_attention {{.*}} heads = 8
// HEADS-NEXT: lm.yield
// HEADS: lm.kernel "quantize" split(rows)

// One op a kernel; rope is row by row then.
// PLAIN-LABEL: func.func @layer_0
// PLAIN: lm.kernel "rms_norm" split(rows)
// PLAIN: lm.kernel "quantize" split(rows)
// PLAIN: lm.kernel "qkv_proj" split(shares)
// PLAIN: lm.kernel "rope" split(rows)
// PLAIN: lm.kernel "rope" split(rows)
// PLAIN: lm.kernel "kv_append" split(shares) {{.*}} attributes {ranges = #lm.ranges<[0:32, 0:32], [32:64, 32:64]>}
// PLAIN: lm.kernel "attention" split(shares)
// PLAIN: lm.kernel "quantize" split(rows)
