// What a hand-written module can get wrong is one line, with its place.
// RUN: not quern-compile compile %s --target=avx2 --compile-to=fuse 2>&1 | FileCheck %s
// CHECK: quern compile: error: {{.*}}errors.mlir:[[#@LINE+6]]:{{[0-9]+}}: lm.embedding: expected {{.*}}; correct the text there
// CHECK-NOT: error

module attributes {lm.model = {}, lm.prologue = @embed, lm.layers = [], lm.epilogue = @embed} {
  func.func @embed(%tokens: tensor<?xi32>) -> tensor<?x64xf32> {
    %table = lm.weight "token_embd.weight" : tensor<64x32xf32>
    %x = lm.embedding %table, %tokens : (tensor<64x32xf32>, tensor<?xi32>) -> tensor<?x64xf32>
    return %x : tensor<?x64xf32>
  }
}
