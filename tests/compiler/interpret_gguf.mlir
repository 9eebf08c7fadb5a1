// Models of files, from import to the planned program, on the files' own weights: with float activations every phase
// computes what the import says.
// RUN: python3 %S/../support/make_gguf.py %t.gguf --family qwen2 --type q5_0 --set blk.1.ffn_down.weight=q8_0
// RUN: quern-compile compile %t.gguf --precise --target=avx2 --compile-to=import -q > %t.mlir
// RUN: quern-compile compile %t.gguf --precise --target=avx2 --compile-to=memory -q > %t.memory.mlir
// RUN: quern-interpret %t.mlir --weights=%t.gguf --tokens=5,3,8,1 --compare=%t.memory.mlir --tolerance=1e-5 | FileCheck %s
// RUN: python3 %S/../support/make_gguf.py %t.k.gguf --hidden 256 --ffn 512 --type q8_0 --set blk.0.ffn_down.weight=q4_k --set blk.1.ffn_up.weight=q6_k --untied
// RUN: quern-compile compile %t.k.gguf --precise --target=avx2 --compile-to=import -q > %t.k.mlir
// RUN: quern-compile compile %t.k.gguf --precise --target=avx2 --compile-to=memory -q > %t.k.memory.mlir
// RUN: quern-interpret %t.k.mlir --weights=%t.k.gguf --tokens=5,3 --compare=%t.k.memory.mlir --tolerance=1e-5 | FileCheck %s
// CHECK: model result 0: max error

// The logits as a NumPy file: a header of whole 64 bytes, then float32.
// RUN: quern-interpret %t.mlir --weights=%t.gguf --tokens=5,3,8 --logits=%t.npy
// RUN: python3 -c "import sys; d = open(sys.argv[1], 'rb').read(); n = d[8] + 256 * d[9] + 10; print(n %% 64, d[10:n].decode().strip(), len(d) - n)" %t.npy | FileCheck %s --check-prefix=NPY
// NPY: 0 {'descr': '<f4', 'fortran_order': False, 'shape': (3, [[VOCAB:[0-9]+]]), } {{[0-9]+}}

// RUN: not quern-interpret %t.mlir --weights=%t.none 2>&1 | FileCheck %s --check-prefix=NONE
// NONE: quern-interpret: cannot read {{.*}}.none: No such file
// A model of other sizes.
// RUN: not quern-interpret %t.mlir --weights=%t.k.gguf 2>&1 | FileCheck %s --check-prefix=OTHER
// OTHER: has no weight 'token_embd.weight'
// RUN: not quern-interpret %t.mlir --weights=%t.gguf --function=head --logits=%t.npy 2>&1 | FileCheck %s --check-prefix=FUNCTION
// FUNCTION: --logits wants a model
