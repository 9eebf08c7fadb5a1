// RUN: quern-opt --lm-fuse-add-rms-norm %s -o %t
// RUN: quern-interpret %s --compare=%t --tolerance=1e-6
// RUN: FileCheck %s --input-file=%t

// The sum has other readers, before and after the norm; the weight moves.
// CHECK-LABEL: func.func @between
// CHECK: %[[W:.*]] = lm.weight "norm"
// CHECK: %[[SUM:.*]], %[[Y:.*]] = lm.add_rms_norm %arg0, %arg1, %[[W]]
// CHECK: lm.silu %[[SUM]]
// CHECK-NOT: lm.rms_norm
// CHECK: lm.add %[[SUM]], %[[Y]]
func.func @between(%x: tensor<?x48xf32>, %d: tensor<?x48xf32>) -> (tensor<?x48xf32>, tensor<?x48xf32>) {
  %sum = lm.add %x, %d : (tensor<?x48xf32>, tensor<?x48xf32>) -> tensor<?x48xf32>
  %s = lm.silu %sum : tensor<?x48xf32>
  %w = lm.weight "norm" : tensor<48xf32>
  %y = lm.rms_norm %sum, %w eps = 1.0e-05 : (tensor<?x48xf32>, tensor<48xf32>) -> tensor<?x48xf32>
  %z = lm.add %sum, %y : (tensor<?x48xf32>, tensor<?x48xf32>) -> tensor<?x48xf32>
  return %s, %z : tensor<?x48xf32>, tensor<?x48xf32>
}

// The deltas of all shares.
// CHECK-LABEL: func.func @shares
// CHECK: lm.add_rms_norm %arg0, %arg1, {{.*}} (tensor<?x48xf32>, tensor<3x?x48xf32>, tensor<48xf32>)
func.func @shares(%x: tensor<?x48xf32>, %d: tensor<3x?x48xf32>) -> tensor<?x48xf32> {
  %sum = lm.add %x, %d : (tensor<?x48xf32>, tensor<3x?x48xf32>) -> tensor<?x48xf32>
  %w = lm.weight "norm" : tensor<48xf32>
  %y = lm.rms_norm %sum, %w eps = 1.0e-06 : (tensor<?x48xf32>, tensor<48xf32>) -> tensor<?x48xf32>
  return %y : tensor<?x48xf32>
}

// A norm of what was not added just here stays.
// CHECK-LABEL: func.func @alone
// CHECK: lm.rms_norm %arg0
func.func @alone(%x: tensor<?x48xf32>) -> tensor<?x48xf32> {
  %w = lm.weight "norm" : tensor<48xf32>
  %y = lm.rms_norm %x, %w eps = 1.0e-05 : (tensor<?x48xf32>, tensor<48xf32>) -> tensor<?x48xf32>
  return %y : tensor<?x48xf32>
}
