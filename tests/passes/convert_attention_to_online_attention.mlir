// RUN: quern-opt --lm-convert-attention-to-online-attention %s -o %t
// RUN: quern-interpret %s --compare=%t --rows=70 --tolerance=1e-5
// RUN: FileCheck %s --input-file=%t

!x = tensor<?x48xf32>
!kv = !lm.kv_cache<heads = 1, head_dim = 16, page = 32, f16>
!wide = !lm.kv_cache<heads = 1, head_dim = 16, page = 96, f32>
!k = tensor<?x16xf32>

// CHECK-LABEL: func.func @causal
// CHECK: lm.online_attention %arg0, %{{.*}}, %arg1 heads = 3, scale = {{.*}}, window = 0, key_tile = 32
func.func @causal(%q: !x, %p: tensor<?xi32>, %kv: !kv, %k: !k, %v: !k) -> !x {
  %kv1 = lm.kv_append %kv, %k, %v : (!kv, !k, !k) -> !kv
  %y = lm.attention %q, %kv1, %p heads = 3, scale = 2.5e-01, window = 0 : (!x, !kv, tensor<?xi32>) -> !x
  return %y : !x
}

// A window that begins in mid-tile; pages of 96 have tiles of 32.
// CHECK-LABEL: func.func @window
// CHECK: lm.online_attention {{.*}} window = 37, key_tile = 32
func.func @window(%q: !x, %p: tensor<?xi32>, %kv: !wide, %k: !k, %v: !k) -> !x {
  %kv1 = lm.kv_append %kv, %k, %v : (!wide, !k, !k) -> !wide
  %y = lm.attention %q, %kv1, %p heads = 3, scale = 1.0, window = 37 : (!x, !wide, tensor<?xi32>) -> !x
  return %y : !x
}
