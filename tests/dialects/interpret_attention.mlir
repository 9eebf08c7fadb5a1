// Positions, caches and attention, by hand.
// RUN: quern-interpret %s --print | FileCheck %s

!kv = !lm.kv_cache<heads = 1, head_dim = 2, page = 32, f16>
!kv2 = !lm.kv_cache<heads = 2, head_dim = 1, page = 32, f32>

// Position 0 turns nothing. At position 1 pair 0 turns by 1, pair 1 by 0.01.
// CHECK-LABEL: rope_interleaved result 0: 2x4xf32
// CHECK-NEXT: [1, 0, 1, 0]
// CHECK-NEXT: [0.540302, 0.841471, 0.99995, 0.00999983]
func.func @rope_interleaved() -> tensor<2x4xf32> {
  %x = arith.constant dense<[[1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0]]> : tensor<2x4xf32>
  %p = arith.constant dense<[0, 1]> : tensor<2xi32>
  %y = lm.rope %x, %p heads = 1, head_dim = 4, rotary_dim = 4, base = 1.0e+04, mode = interleaved
      : (tensor<2x4xf32>, tensor<2xi32>) -> tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// Pairs (0, 2) and (1, 3).
// CHECK-LABEL: rope_half result 0: 1x4xf32
// CHECK-NEXT: [0.540302, 0.99995, 0.841471, 0.00999983]
func.func @rope_half() -> tensor<1x4xf32> {
  %x = arith.constant dense<[[1.0, 1.0, 0.0, 0.0]]> : tensor<1x4xf32>
  %p = arith.constant dense<[1]> : tensor<1xi32>
  %y = lm.rope %x, %p heads = 1, head_dim = 4, rotary_dim = 4, base = 1.0e+04, mode = half
      : (tensor<1x4xf32>, tensor<1xi32>) -> tensor<1x4xf32>
  return %y : tensor<1x4xf32>
}

// A factor of 100 turns pair 0 by 0.01; each head's tail stays.
// CHECK-LABEL: rope_partial result 0: 1x6xf32
// CHECK-NEXT: [0.99995, 0.00999983, 7, -0.00999983, 0.99995, 8]
func.func @rope_partial() -> tensor<1x6xf32> {
  %x = arith.constant dense<[[1.0, 0.0, 7.0, 0.0, 1.0, 8.0]]> : tensor<1x6xf32>
  %p = arith.constant dense<[1]> : tensor<1xi32>
  %f = arith.constant dense<[100.0]> : tensor<1xf32>
  %y = lm.rope %x, %p factors %f heads = 2, head_dim = 3, rotary_dim = 2, base = 1.0e+04, mode = half
      : (tensor<1x6xf32>, tensor<1xi32>, tensor<1xf32>) -> tensor<1x6xf32>
  return %y : tensor<1x6xf32>
}

// The cache holds f16.
// CHECK-LABEL: kv_append result 0: kv_cache of 3 rows
// CHECK-NEXT: [1, 2]
// CHECK-NEXT: [5, 6]
// CHECK-NEXT: [3, 2048]
// CHECK-NEXT: [7, 8]
// CHECK-NEXT: [1, 2]
// CHECK-NEXT: [1, 2]
func.func @kv_append(%kv: !kv) -> !kv {
  %k = arith.constant dense<[[1.0, 2.0], [3.0, 2049.0]]> : tensor<2x2xf32>
  %v = arith.constant dense<[[5.0, 6.0], [7.0, 8.0]]> : tensor<2x2xf32>
  %one = arith.constant dense<[[1.0, 2.0]]> : tensor<1x2xf32>
  %0 = lm.kv_append %kv, %k, %v : (!kv, tensor<2x2xf32>, tensor<2x2xf32>) -> !kv
  %1 = lm.kv_append %0, %one, %one : (!kv, tensor<1x2xf32>, tensor<1x2xf32>) -> !kv
  return %1 : !kv
}

// An int8 cache: the largest of 32 is code 127, and a key's 254 makes the scale 2.
// CHECK-LABEL: kv_append_int8 result 0: kv_cache of 1 rows
// CHECK-NEXT: [254, 4, -2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
// CHECK-NEXT: [127, 1, -3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
func.func @kv_append_int8(%kv: !lm.kv_cache<heads = 1, head_dim = 32, page = 32, !lm.block<a8>>)
    -> !lm.kv_cache<heads = 1, head_dim = 32, page = 32, !lm.block<a8>> {
  %k = arith.constant dense<[[254.0, 4.9, -1.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]> : tensor<1x32xf32>
  %v = arith.constant dense<[[127.0, 1.4, -2.6, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]> : tensor<1x32xf32>
  %0 = lm.kv_append %kv, %k, %v
      : (!lm.kv_cache<heads = 1, head_dim = 32, page = 32, !lm.block<a8>>, tensor<1x32xf32>, tensor<1x32xf32>)
      -> !lm.kv_cache<heads = 1, head_dim = 32, page = 32, !lm.block<a8>>
  return %0 : !lm.kv_cache<heads = 1, head_dim = 32, page = 32, !lm.block<a8>>
}

// Row 0 sees slot 0 only. Row 1 head 0 has scores 0 and ln 3: weights 1/4 and
// 3/4; head 1 has equal scores. With a window of 1 each row sees its own slot.
// CHECK-LABEL: attention result 0: 2x4xf32
// CHECK-NEXT: [10, 20, 10, 20]
// CHECK-NEXT: [25, 35, 20, 30]
// CHECK-LABEL: attention result 1: 2x4xf32
// CHECK-NEXT: [10, 20, 10, 20]
// CHECK-NEXT: [30, 40, 30, 40]
// CHECK-LABEL: attention result 2: 2x4xf32
// CHECK-NEXT: [10, 20, 10, 20]
// CHECK-NEXT: [25, 35, 20, 30]
func.func @attention(%kv: !kv) -> (tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x4xf32>) {
  %k = arith.constant dense<[[1.0, 0.0], [0.0, 1.0]]> : tensor<2x2xf32>
  %v = arith.constant dense<[[10.0, 20.0], [30.0, 40.0]]> : tensor<2x2xf32>
  %q = arith.constant dense<[[5.0, 5.0, 1.0, 2.0], [0.0, 2.1972246, 0.0, 0.0]]> : tensor<2x4xf32>
  %p = arith.constant dense<[0, 1]> : tensor<2xi32>
  %0 = lm.kv_append %kv, %k, %v : (!kv, tensor<2x2xf32>, tensor<2x2xf32>) -> !kv
  %1 = lm.attention %q, %0, %p heads = 2, scale = 0.5, window = 0
      : (tensor<2x4xf32>, !kv, tensor<2xi32>) -> tensor<2x4xf32>
  %2 = lm.attention %q, %0, %p heads = 2, scale = 0.5, window = 1
      : (tensor<2x4xf32>, !kv, tensor<2xi32>) -> tensor<2x4xf32>
  %3 = lm.online_attention %q, %0, %p heads = 2, scale = 0.5, window = 0, key_tile = 1
      : (tensor<2x4xf32>, !kv, tensor<2xi32>) -> tensor<2x4xf32>
  return %1, %2, %3 : tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x4xf32>
}

// Query heads 0, 1 read KV head 0; 2, 3 read KV head 1.
// CHECK-LABEL: grouped result 0: 1x4xf32
// CHECK-NEXT: [1, 1, 2, 2]
func.func @grouped(%kv: !kv2) -> tensor<1x4xf32> {
  %k = arith.constant dense<[[1.0, 1.0]]> : tensor<1x2xf32>
  %v = arith.constant dense<[[1.0, 2.0]]> : tensor<1x2xf32>
  %q = arith.constant dense<[[1.0, 2.0, 3.0, 4.0]]> : tensor<1x4xf32>
  %p = arith.constant dense<[0]> : tensor<1xi32>
  %0 = lm.kv_append %kv, %k, %v : (!kv2, tensor<1x2xf32>, tensor<1x2xf32>) -> !kv2
  %1 = lm.attention %q, %0, %p heads = 4, scale = 1.0, window = 0
      : (tensor<1x4xf32>, !kv2, tensor<1xi32>) -> tensor<1x4xf32>
  return %1 : tensor<1x4xf32>
}
