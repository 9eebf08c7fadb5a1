// Editing a tile in dumped IR and going on from there changes the loops that are emitted.
// RUN: rm -rf %t && mkdir %t
// RUN: quern-compile compile %S/phases.mlir --target=avx2 --compile-to=tile -o %t/05-tile.mlir -q
// RUN: quern-compile compile %t/05-tile.mlir --compile-from=tile --compile-to=codegen --dump-kernels-to=%t/before -q
// RUN: FileCheck %s --check-prefix=BEFORE < %t/before/attn_output.avx2.decode.mlir
// RUN: sed 's/"avx2.decode" = #lm.tile<rows = 3/"avx2\/decode" = #lm.tile<rows = 2/' %t/05-tile.mlir > %t/edited.mlir
// RUN: quern-compile compile %t/edited.mlir --compile-from=tile --compile-to=codegen --dump-kernels-to=%t/after -q
// RUN: FileCheck %s --check-prefix=AFTER < %t/after/attn_output.avx2.decode.mlir

// RUN: quern-compile compile %S/phases.mlir --target=amx --compile-to=tile -o %t/amx.mlir -q
// RUN: quern-compile compile %t/amx.mlir --compile-from=tile --compile-to=codegen --dump-kernels-to=%t/before -q
// RUN: FileCheck %s --check-prefix=AMX < %t/before/attn_output.amx.prefill.mlir
// RUN: sed 's/"amx.prefill" = #lm.tile<rows = 32, blocks = 2/"amx\/prefill" = #lm.tile<rows = 16, blocks = 3/' %t/amx.mlir > %t/amx_edited.mlir
// RUN: quern-compile compile %t/amx_edited.mlir --compile-from=tile --compile-to=codegen --dump-kernels-to=%t/after -q
// RUN: FileCheck %s --check-prefix=AMX-EDITED < %t/after/attn_output.amx.prefill.mlir
// RUN: sed 's/"amx.prefill" = #lm.tile<rows = 32, blocks = 2/"amx\/prefill" = #lm.tile<rows = 32, blocks = 3/' %t/amx.mlir > %t/amx_large.mlir
// RUN: not quern-compile compile %t/amx_large.mlir --compile-from=tile --compile-to=codegen -q 2>&1 | FileCheck %s --check-prefix=LARGE
// RUN: quern-compile compile %S/phases.mlir --target=sm_80,sm_90a --compile-to=tile -o %t/gpu.mlir -q
// RUN: sed 's/"sm_80.prefill" = #lm.tile<rows = 64/"sm_80\/prefill" = #lm.tile<rows = 128/' %t/gpu.mlir > %t/sm_80_large.mlir
// RUN: not quern-compile compile %t/sm_80_large.mlir --compile-from=tile --compile-to=codegen -q 2>&1 | FileCheck %s --check-prefix=LARGE-SM_80
// RUN: sed 's/"sm_90a.prefill" = #lm.tile<rows = 256/"sm_90a\/prefill" = #lm.tile<rows = 250/' %t/gpu.mlir > %t/sm_90a_ragged.mlir
// RUN: not quern-compile compile %t/sm_90a_ragged.mlir --compile-from=tile --compile-to=codegen -q 2>&1 | FileCheck %s --check-prefix=RAGGED-SM_90A
// RUN: sed 's/"avx2.decode" = #lm.tile<rows = 3/"avx2\/decode" = #lm.tile<rows = 9/' %t/05-tile.mlir > %t/avx2_large.mlir
// RUN: not quern-compile compile %t/avx2_large.mlir --compile-from=tile --compile-to=codegen -q 2>&1 | FileCheck %s --check-prefix=LARGE-AVX2

// Rows of activations a step: three as the table of targets says, then two.
// BEFORE: scf.for %{{.*}} to %{{.*}} step %c3_i64{{[_0-9]*}} : i64
// BEFORE: scf.for {{.*}} -> (vector<16xf32>, vector<16xf32>, vector<16xf32>) : i64

// AFTER-NOT: -> (vector<16xf32>, vector<16xf32>, vector<16xf32>) : i64
// AFTER: scf.for %{{.*}} to %{{.*}} step %c2_i64{{[_0-9]*}} : i64
// AFTER: scf.for {{.*}} -> (vector<16xf32>, vector<16xf32>) : i64

// Two row blocks a panel and two row tiles a step; then three and one.
// AMX: scf.for %{{.*}} to %{{.*}} step %c2_i64
// AMX: scf.for %{{.*}} to %{{.*}} step %c2_i64
// AMX: scf.for {{.*}} -> (!llvm.x86_amx, !llvm.x86_amx, !llvm.x86_amx, !llvm.x86_amx) : i64

// AMX-EDITED: scf.for %{{.*}} to %{{.*}} step %c3_i64
// AMX-EDITED: scf.for %{{.*}} to %{{.*}} step %c1_i64
// AMX-EDITED: scf.for {{.*}} -> (!llvm.x86_amx, !llvm.x86_amx, !llvm.x86_amx) : i64

// Tiles that the registers do not hold are refused, not bent.
// LARGE: error: {{.*}} for amx/prefill: expected a tile with rows a multiple of 16 and (rows / 16 + 1) * blocks + 1 of at most 8 tile registers, got rows = 32, blocks = 3
// LARGE-SM_80: error: {{.*}} for sm_80/prefill: expected a tile with blocks of 4 or 8 and rows of a multiple of 16, rows * blocks of at most 512, got rows = 128, blocks = 8
// RAGGED-SM_90A: error: {{.*}} for sm_90a/prefill: expected a tile with blocks of 8 or 16 and rows of a multiple of 32, rows * blocks of at most 2048, got rows = 250, blocks = 8
// LARGE-AVX2: error: {{.*}} for avx2/decode: expected a tile with rows * blocks of at most 8, got rows = 9, blocks = 1
