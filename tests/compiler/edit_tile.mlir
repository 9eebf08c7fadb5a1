// Editing a tile in dumped IR and going on from there changes the loops that are emitted.
// RUN: rm -rf %t && mkdir %t
// RUN: quern-compile compile %S/phases.mlir --target=avx2 --compile-to=tile -o %t/05-tile.mlir -q
// RUN: quern-compile compile %t/05-tile.mlir --compile-from=tile --compile-to=codegen --dump-kernels-to=%t/before -q
// RUN: FileCheck %s --check-prefix=BEFORE < %t/before/attn_output.avx2.decode.mlir
// RUN: sed 's/"avx2.decode" = #lm.tile<rows = 2/"avx2\/decode" = #lm.tile<rows = 3/' %t/05-tile.mlir > %t/edited.mlir
// RUN: quern-compile compile %t/edited.mlir --compile-from=tile --compile-to=codegen --dump-kernels-to=%t/after -q
// RUN: FileCheck %s --check-prefix=AFTER < %t/after/attn_output.avx2.decode.mlir

// Rows of activations a step: two as the table of targets says, then three.
// BEFORE: scf.for %{{.*}} to %{{.*}} step %c2_i64{{[_0-9]*}} : i64
// BEFORE: scf.for {{.*}} -> (vector<16xf32>, vector<16xf32>) : i64

// AFTER: scf.for %{{.*}} to %{{.*}} step %c3_i64{{[_0-9]*}} : i64
// AFTER: scf.for {{.*}} -> (vector<16xf32>, vector<16xf32>, vector<16xf32>) : i64
