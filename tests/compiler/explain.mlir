// --explain says what fused, what did not and why, and each kernel's tile.
// RUN: quern-compile compile %S/phases.mlir --target=avx2 --compile-to=memory --explain -o %t 2>&1 | FileCheck %s
// RUN: quern-compile compile %S/phases.mlir --target=avx2 --compile-to=memory --explain --disable-pass=fuse-swiglu --disable-pass=lm-quantize-activations -o %t 2>&1 | FileCheck %s --check-prefix=OFF

// RUN: quern-compile compile %S/phases.mlir --target=avx2 --compile-to=codegen --explain 2>&1 | FileCheck %s --check-prefix=CODE

// CODE: codegen: qkv_proj avx2/decode: matmul (products of numeric rows, in vectors; Int8), rows 3, blocks 1, keys 32, prefetch 4096, {{[0-9]+}} bytes of code
// CODE: codegen: attention avx2/decode: fixed-attention (attention over pages of 16-bit numbers; Int16)

// CHECK: import {{[0-9.]+}} s
// CHECK: quantize: layer: blk.{layer}.attn_q.weight (q4_0) reads int8 activations
// CHECK: fuse: layer: fused into {{.*}}1 lm.qkv_proj
// CHECK-DAG: fuse: layer: lm.qkv_proj reads its rows once instead of three times: saves 256 bytes a row, read, and 2 dispatches
// CHECK-DAG: fuse: layer: lm.quant_matmul reads q4_0 as it is stored: saves 16384 bytes of floats, written and read, and 1 dispatch
// CHECK-DAG: fuse: layer: lm.add_rms_norm has the sum at hand for the norm: saves 256 bytes a row, read, and 1 dispatch
// CHECK-DAG: fuse: layer: lm.swiglu keeps silu of the gate in registers: saves 256 bytes a row, written and read, and 1 dispatch
// CHECK: fuse: layer: lm.rms_norm stays alone: the sum before it is in another body
// CHECK: kernels: layer: kernel qkv_proj = 1 lm.qkv_proj; split over shares [0:32, 0:32, 0:32] [32:64, 32:64, 32:64]; avx2/decode rows=3
// Both products and their join: three rows of 64 floats stay inside.
// CHECK: kernels: layer: kernel gate_up = 2 lm.quant_matmul, 1 lm.swiglu, 1 lm.quantize; {{.*}}; saves 3 dispatches and 768 bytes a row of intermediates, written and read
// CHECK: lower: kernel qkv_proj: signature {{[0-9a-f]+$}}
// CHECK: lower: layer: {{[0-9]+}} rt.dispatch, {{[0-9]+}} rt.join
// CHECK: memory: arena: {{[0-9]+}} bytes per row

// OFF: quantize: layer: blk.{layer}.attn_q.weight (q4_0) reads float activations: --disable-pass=quantize-activations says so
// OFF: fuse: layer: lm.silu stays alone: --disable-pass=fuse-swiglu says so
