// RUN: quern-opt --lm-fuse-swiglu %s -o %t
// RUN: quern-interpret %s --compare=%t --tolerance=1e-6
// RUN: FileCheck %s --input-file=%t
// RUN: quern-opt --lm-fuse-swiglu %s 2>&1 >/dev/null | FileCheck %s --check-prefix=REMARK

// CHECK-LABEL: func.func @swiglu
// CHECK-NEXT: %[[Y:.*]] = lm.swiglu %arg0, %arg1 : tensor<?x96xf32>
// CHECK-NEXT: return %[[Y]]
func.func @swiglu(%gate: tensor<?x96xf32>, %up: tensor<?x96xf32>) -> tensor<?x96xf32> {
  %s = lm.silu %gate : tensor<?x96xf32>
  %y = lm.mul %s, %up : tensor<?x96xf32>
  return %y : tensor<?x96xf32>
}

// REMARK: remark: not fused: the silu has other readers
// CHECK-LABEL: func.func @read_twice
// CHECK-NOT: lm.swiglu
// CHECK: return
func.func @read_twice(%gate: tensor<?x96xf32>, %up: tensor<?x96xf32>) -> (tensor<?x96xf32>, tensor<?x96xf32>) {
  %s = lm.silu %gate : tensor<?x96xf32>
  %y = lm.mul %s, %up : tensor<?x96xf32>
  return %s, %y : tensor<?x96xf32>, tensor<?x96xf32>
}

// CHECK-LABEL: func.func @plain_product
// CHECK-NOT: lm.swiglu
// CHECK: return
func.func @plain_product(%a: tensor<?x33xf32>, %b: tensor<?x33xf32>) -> tensor<?x33xf32> {
  %y = lm.mul %a, %b : tensor<?x33xf32>
  return %y : tensor<?x33xf32>
}
