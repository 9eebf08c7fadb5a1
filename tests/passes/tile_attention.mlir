// RUN: quern-opt --lm-tile-attention %s -o %t
// RUN: quern-interpret %s --compare=%t --tolerance=0
// RUN: FileCheck %s --input-file=%t
// RUN: quern-opt --lm-tile-attention=targets=amx %s | FileCheck %s --check-prefix=AMX
// RUN: not quern-opt --lm-tile-attention=targets=avx9 %s 2>&1 | FileCheck %s --check-prefix=ERROR

// ERROR: error: unknown target 'avx9' (known: host, avx2, avx512-vnni, amx, sm_80, sm_89, sm_90a, sm_100a, sm_120a)

!x = tensor<?x48xf32>
!k = tensor<?x16xf32>
!kv = !lm.kv_cache<heads = 1, head_dim = 16, page = 32, f16>

// CHECK: lm.online_attention
// CHECK-SAME: "amx/decode" = #lm.tile<rows = 8>
// CHECK-SAME: "amx/prefill"
// CHECK-SAME: "avx2/decode" = #lm.tile<rows = 4>
// CHECK-SAME: "avx512-vnni/prefill"
// AMX: lm.online_attention
// AMX-SAME: "amx/decode"
// AMX-NOT: avx2
func.func @attention(%q: !x, %p: tensor<?xi32>, %kv: !kv, %k: !k, %v: !k) -> !x {
  %kv1 = lm.kv_append %kv, %k, %v : (!kv, !k, !k) -> !kv
  %y = lm.online_attention %q, %kv1, %p heads = 3, scale = 2.5e-01, window = 0, key_tile = 32 : (!x, !kv, tensor<?xi32>) -> !x
  return %y : !x
}
