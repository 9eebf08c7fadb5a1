// A record of the tuning database changes the tile of the kernel with its signature, and with it the loops.
// RUN: rm -rf %t && mkdir %t
// RUN: quern-compile compile %S/phases.mlir --target=avx2 --compile-to=lower --explain -o %t/lower.mlir 2>&1 | sed -n 's/^.*kernel attn_output: signature //p' > %t/signature
// RUN: echo "# quern tuning 1" > %t/db
// RUN: sed 's/^/kernel=/; s/$/ target=avx2\/decode cpu=test threads=1 tile=2\/1\/32\/1024 rows=1 ns=50 over=3\/1\/32\/4096 over_ns=100 noise=0 turns=5 types=-/' %t/signature >> %t/db
// RUN: quern-compile compile %S/phases.mlir --target=avx2 --tuning=%t/db --compile-to=codegen --dump-kernels-to=%t/kernels --explain 2>&1 | FileCheck %s
// RUN: FileCheck %s --check-prefix=LOOPS < %t/kernels/attn_output.avx2.decode.mlir
// RUN: quern-compile compile %S/phases.mlir --target=avx2,avx512-vnni --tuning=%t/db --compile-to=lower -o - -q | FileCheck %s --check-prefix=IR

// CHECK: lower: attn_output avx2/decode: tile 2/1/32/1024 is 100.0 % faster than the default in 1 records of the tuning database
// CHECK: codegen: attn_output avx2/decode: matmul {{.*}}, rows 2, blocks 1, keys 32, prefetch 1024
// CHECK: codegen: attn_output avx2/prefill: matmul {{.*}}, rows 3, blocks 1, keys 32, prefetch 4096

// LOOPS-NOT: -> (vector<16xf32>, vector<16xf32>, vector<16xf32>) : i64
// LOOPS: scf.for {{.*}} -> (vector<16xf32>, vector<16xf32>) : i64

// Its target and role alone.
// IR: rt.kernel @attn_output
// IR-SAME: "avx2/decode" = #lm.tile<rows = 2, prefetch = 1024>
// IR-SAME: "avx2/prefill" = #lm.tile<rows = 3, prefetch = 4096>

// Other files, and dumps that are behind the phase, are refused.
// RUN: not quern-compile compile %S/phases.mlir --target=avx2 --tuning=%s --compile-to=lower -q 2>&1 | FileCheck %s --check-prefix=OTHER
// OTHER: error: {{.*}}tuning.mlir:1: seen '// A record {{.*}}', wanted '# quern tuning 1'
// RUN: sed 's/rows=1/rows=one/' %t/db > %t/bad
// RUN: not quern-compile compile %S/phases.mlir --target=avx2 --tuning=%t/bad --compile-to=lower -q 2>&1 | FileCheck %s --check-prefix=BAD
// BAD: error: {{.*}}bad:2: field 6 is 'rows=one', wanted rows=a number from 1; correct or remove the line
// RUN: not quern-compile compile %S/phases.mlir --tuning=%t/none --compile-to=lower -q 2>&1 | FileCheck %s --check-prefix=NONE
// NONE: error: cannot read {{.*}}none
// RUN: not quern-compile compile %t/lower.mlir --compile-from=lower --tuning=%t/db --compile-to=memory -q 2>&1 | FileCheck %s --check-prefix=LATE
// LATE: error: --tuning gives tiles in the lower phase, which is done in a dump of lower; go on from an earlier one
