// --explain says what fused, what did not and why, and each kernel's tile.
// RUN: quern-compile compile %S/phases.mlir --target=avx2 --compile-to=memory --explain -o %t 2>&1 | FileCheck %s
// RUN: quern-compile compile %S/phases.mlir --target=avx2 --compile-to=memory --explain --disable-pass=fuse-swiglu --disable-pass=lm-quantize-activations -o %t 2>&1 | FileCheck %s --check-prefix=OFF

// CHECK: import {{[0-9.]+}} s
// CHECK: quantize: layer: blk.{layer}.attn_q.weight (q4_0) reads int8 activations
// CHECK: fuse: layer: fused into {{.*}}1 lm.qkv_proj
// CHECK: fuse: layer: lm.rms_norm stays alone: the sum before it is in another body
// CHECK: kernels: layer: kernel qkv_proj = 1 lm.qkv_proj; split over shares [0:32, 0:32, 0:32] [32:64, 32:64, 32:64]; avx2/decode rows=2
// CHECK: lower: layer: {{[0-9]+}} rt.dispatch, {{[0-9]+}} rt.join
// CHECK: memory: arena: {{[0-9]+}} bytes per row

// OFF: quantize: layer: blk.{layer}.attn_q.weight (q4_0) reads float activations: --disable-pass=quantize-activations says so
// OFF: fuse: layer: lm.silu stays alone: --disable-pass=fuse-swiglu says so
