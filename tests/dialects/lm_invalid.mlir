// What the verifiers of lm refuse. Functions are named after the constraint of
// docs/spec.md that they break.
// RUN: quern-opt %s --verify-diagnostics --split-input-file

// expected-error @+1 {{unknown block format 'q9_9'}}
func.func private @block_c1(tensor<1x32x!lm.block<q9_9>>)

// -----

// expected-error @+1 {{f32, f16 and bf16 are builtin types}}
func.func private @block_c2(tensor<1x32x!lm.block<f16>>)

// -----

// expected-error @+1 {{expected positive heads and head_dim, but got 0 and 64}}
func.func private @kv_cache_c1(!lm.kv_cache<heads = 0, head_dim = 64, page = 32, f16>)

// -----

// expected-error @+1 {{expected a page of a multiple of 32 rows, but got 48}}
func.func private @kv_cache_c2(!lm.kv_cache<heads = 1, head_dim = 64, page = 48, f16>)

// -----

// expected-error @+1 {{expected element type f16, f32 or !lm.block<a8>, but got 'bf16'}}
func.func private @kv_cache_c3(!lm.kv_cache<heads = 1, head_dim = 64, page = 32, bf16>)

// -----

// expected-error @+1 {{expected head_dim to be a multiple of 32, whose codes share a scale, but got 48}}
func.func private @kv_cache_c4(!lm.kv_cache<heads = 1, head_dim = 48, page = 32, !lm.block<a8>>)

// -----

// expected-error @+1 {{expected positive rows, blocks and keys}}
func.func private @tile_c1() attributes {t = #lm.tile<rows = 0>}

// -----

// expected-error @+1 {{expected prefetch of 0 bytes or more, but got -1}}
func.func private @tile_c2() attributes {t = #lm.tile<prefetch = -1>}

// -----

// expected-error @+1 {{expected the same segments in every share}}
func.func private @ranges_c1() attributes {t = #lm.ranges<[0:1], [1:2, 0:1]>}

// -----

// expected-error @+1 {{expected share 1 of segment 0 to begin at 32 and end there or later, but got 33:64}}
func.func private @ranges_c2() attributes {t = #lm.ranges<[0:32], [33:64]>}

// -----

// expected-error @+1 {{expected 'lm.prologue' to name a function of the module, but @embed is not defined}}
module attributes {lm.prologue = @embed} {}

// -----

// expected-error @+1 {{expected 'lm.layers' to be an array}}
module attributes {lm.layers = "x"} {}

// -----

// expected-error @+1 {{expected 'lm.model' to be a dictionary}}
module attributes {lm.model = 1} {}

// -----

// expected-error @+1 {{has unknown attribute 'lm.colour'}}
module attributes {lm.colour = 1} {}

// -----

// expected-error @+1 {{expected 'lm.model' on a module only}}
func.func private @model_c1() attributes {lm.model = {}}

// -----

func.func @weight_c1() {
  // expected-error @+1 {{expected a name}}
  %0 = lm.weight "" : tensor<4xf32>
  return
}

// -----

func.func @weight_c2() {
  // expected-error @+1 {{expected a static shape}}
  %0 = lm.weight "w" : tensor<?x32xf32>
  return
}

// -----

func.func @weight_c3() {
  // expected-error @+1 {{expected the last dimension of the weight to be a multiple of the block of 256, but got 576}}
  %0 = lm.weight "w" : tensor<4x576x!lm.block<q4_k>>
  return
}

// -----

func.func @weight_c4() {
  // expected-error @+1 {{a8 is for activations}}
  %0 = lm.weight "w" : tensor<4x32x!lm.block<a8>>
  return
}

// -----

func.func @weight_c5() {
  // expected-error @+1 {{cannot store 'f16' as '!lm.block<q6_k>'}}
  %0 = lm.weight "w" source = f16 : tensor<4x256x!lm.block<q6_k>>
  return
}

// -----

func.func @weight_c6() {
  // expected-error @+1 {{expected the last dimension to be a multiple of the source's block of 256}}
  %0 = lm.weight "w" source = !lm.block<q6_k> : tensor<4x32x!lm.block<q8_0>>
  return
}

// -----

func.func @weight_c7() {
  // expected-error @+1 {{expected at most 2^40 elements}}
  %0 = lm.weight "w" : tensor<4294967296x4294967296xf32>
  return
}

// -----

func.func @embedding_c1(%t: tensor<4x33x!lm.block<q8_0>>, %i: tensor<?xi32>) {
  // expected-error @+1 {{expected the last dimension of the table to be a multiple of the block of 32, but got 33}}
  %0 = lm.embedding %t, %i : (tensor<4x33x!lm.block<q8_0>>, tensor<?xi32>) -> tensor<?x33xf32>
  return
}

// -----

func.func @embedding_c2(%t: tensor<4x32xf16>, %i: tensor<?xi32>) {
  // expected-error @+1 {{expected columns of the result to be 32, but got 31}}
  %0 = lm.embedding %t, %i : (tensor<4x32xf16>, tensor<?xi32>) -> tensor<?x31xf32>
  return
}

// -----

func.func @embedding_c3(%t: tensor<4x32xf16>, %i: tensor<3xi32>) {
  // expected-error @+1 {{expected rows of the result to be 3, but got 2}}
  %0 = lm.embedding %t, %i : (tensor<4x32xf16>, tensor<3xi32>) -> tensor<2x32xf32>
  return
}

// -----

func.func @select_rows_c1(%x: tensor<?x8xf32>, %i: tensor<?xi32>) {
  // expected-error @+1 {{expected columns of the result to be 8, but got 9}}
  %0 = lm.select_rows %x, %i : (tensor<?x8xf32>, tensor<?xi32>) -> tensor<?x9xf32>
  return
}

// -----

func.func @select_rows_c2(%x: tensor<?x8xf32>, %i: tensor<1xi32>) {
  // expected-error @+1 {{expected rows of the result to be 1, but got 2}}
  %0 = lm.select_rows %x, %i : (tensor<?x8xf32>, tensor<1xi32>) -> tensor<2x8xf32>
  return
}

// -----

func.func @matmul_c1(%x: tensor<?x8xf32>, %w: tensor<4x9xf32>) {
  // expected-error @+1 {{expected columns of the weight (K) to be 8, but got 9}}
  %0 = lm.matmul %x, %w : (tensor<?x8xf32>, tensor<4x9xf32>) -> tensor<?x4xf32>
  return
}

// -----

func.func @matmul_c2(%x: tensor<?x8xf32>, %w: tensor<4x8xf32>) {
  // expected-error @+1 {{expected columns of the result (N) to be 4, but got 5}}
  %0 = lm.matmul %x, %w : (tensor<?x8xf32>, tensor<4x8xf32>) -> tensor<?x5xf32>
  return
}

// -----

func.func @matmul_c3(%x: tensor<?x8xf32>, %w: tensor<4x8xf32>, %b: tensor<3xf32>) {
  // expected-error @+1 {{expected the bias's size (N) to be 4, but got 3}}
  %0 = lm.matmul %x, %w bias %b : (tensor<?x8xf32>, tensor<4x8xf32>, tensor<3xf32>) -> tensor<?x4xf32>
  return
}

// -----

func.func @matmul_c4(%x: tensor<?x8xf32>, %w: tensor<4x8xf32>) {
  // expected-error @+1 {{expected tiles of "avx2/decode" to be a #lm.tile, but got 4}}
  %0 = lm.matmul %x, %w {tiles = {"avx2/decode" = 4}} : (tensor<?x8xf32>, tensor<4x8xf32>) -> tensor<?x4xf32>
  return
}

// -----

func.func @matmul_k_dynamic(%x: tensor<?x?xf32>, %w: tensor<4x8xf32>) {
  // expected-error @+1 {{expected a static last dimension of x}}
  %0 = lm.matmul %x, %w : (tensor<?x?xf32>, tensor<4x8xf32>) -> tensor<?x4xf32>
  return
}

// -----

func.func @quant_matmul_c1(%x: tensor<?x32x!lm.block<q8_0>>, %w: tensor<4x32xf16>) {
  // expected-error @+1 {{expected x of f32, f16, a8 or e4m3}}
  %0 = lm.quant_matmul %x, %w : (tensor<?x32x!lm.block<q8_0>>, tensor<4x32xf16>) -> tensor<?x4xf32>
  return
}

// -----

func.func @quant_matmul_c1_weight(%x: tensor<?x32xf32>, %w: tensor<4x32x!lm.block<a8>>) {
  // expected-error @+1 {{expected a weight format, but a8 is for activations}}
  %0 = lm.quant_matmul %x, %w : (tensor<?x32xf32>, tensor<4x32x!lm.block<a8>>) -> tensor<?x4xf32>
  return
}

// -----

func.func @quant_matmul_c2(%x: tensor<?x48xf32>, %w: tensor<4x48x!lm.block<q4_0>>) {
  // expected-error @+1 {{expected the last dimension of the weight to be a multiple of the block of 32, but got 48}}
  %0 = lm.quant_matmul %x, %w : (tensor<?x48xf32>, tensor<4x48x!lm.block<q4_0>>) -> tensor<?x4xf32>
  return
}

// -----

func.func @quant_matmul_c3(%x: tensor<?x64xf32>, %w: tensor<4x32x!lm.block<q4_0>>) {
  // expected-error @+1 {{expected columns of the weight (K) to be 64, but got 32}}
  %0 = lm.quant_matmul %x, %w : (tensor<?x64xf32>, tensor<4x32x!lm.block<q4_0>>) -> tensor<?x4xf32>
  return
}

// -----

func.func @quant_matmul_c4(%x: tensor<?x32xf32>, %w: tensor<4x32x!lm.block<q4_0>>) {
  // expected-error @+1 {{expected columns of the result (N) to be 4, but got 8}}
  %0 = lm.quant_matmul %x, %w : (tensor<?x32xf32>, tensor<4x32x!lm.block<q4_0>>) -> tensor<?x8xf32>
  return
}

// -----

func.func @quant_matmul_c5(%x: tensor<?x32xf32>, %w: tensor<4x32x!lm.block<q4_0>>) {
  // expected-error @+1 {{expected a result of rank 3 when split along k}}
  %0 = lm.quant_matmul %x, %w split = k : (tensor<?x32xf32>, tensor<4x32x!lm.block<q4_0>>) -> tensor<?x4xf32>
  return
}

// -----

func.func @quant_matmul_c5_n(%x: tensor<?x32xf32>, %w: tensor<4x32x!lm.block<q4_0>>) {
  // expected-error @+1 {{expected a result of rank 2 when split along n}}
  %0 = lm.quant_matmul %x, %w : (tensor<?x32xf32>, tensor<4x32x!lm.block<q4_0>>) -> tensor<2x?x4xf32>
  return
}

// -----

func.func @quant_matmul_c6(%x: tensor<?x64xf32>, %w: tensor<4x64x!lm.block<q4_0>>) {
  // expected-error @+1 {{expected the extent of the ranges to be 64, but got 32}}
  %0 = lm.quant_matmul %x, %w split = k {ranges = #lm.ranges<[0:32]>}
      : (tensor<?x64xf32>, tensor<4x64x!lm.block<q4_0>>) -> tensor<1x?x4xf32>
  return
}

// -----

func.func @quant_matmul_c6_shares(%x: tensor<?x64xf32>, %w: tensor<4x64x!lm.block<q4_0>>) {
  // expected-error @+1 {{expected the shares of the result to be 1, but got 2}}
  %0 = lm.quant_matmul %x, %w split = k {ranges = #lm.ranges<[0:64]>}
      : (tensor<?x64xf32>, tensor<4x64x!lm.block<q4_0>>) -> tensor<2x?x4xf32>
  return
}

// -----

func.func @quant_matmul_c6_block(%x: tensor<?x512xf32>, %w: tensor<4x512x!lm.block<q4_k>>) {
  // expected-error @+1 {{expected ranges of k at multiples of the weight's block of 256, but got 32}}
  %0 = lm.quant_matmul %x, %w split = k {ranges = #lm.ranges<[0:32], [32:512]>}
      : (tensor<?x512xf32>, tensor<4x512x!lm.block<q4_k>>) -> tensor<2x?x4xf32>
  return
}

// -----

func.func @quant_matmul_c7(%x: tensor<?x64xf32>, %w: tensor<4x64x!lm.block<q4_0>>) {
  // expected-error @+1 {{expected a static number of shares in the result}}
  %0 = lm.quant_matmul %x, %w split = k : (tensor<?x64xf32>, tensor<4x64x!lm.block<q4_0>>) -> tensor<?x?x4xf32>
  return
}

// -----

func.func @quant_matmul_c8(%x: tensor<?x64xf32>, %w: tensor<4x64x!lm.block<q4_0>>) {
  // expected-error @+1 {{to be a #lm.tile}}
  %0 = lm.quant_matmul %x, %w {tiles = {a = "b"}} : (tensor<?x64xf32>, tensor<4x64x!lm.block<q4_0>>) -> tensor<?x4xf32>
  return
}

// -----

func.func @qkv_proj_c1(%x: tensor<?x32xf32>, %w: tensor<32x32x!lm.block<a8>>) {
  // expected-error @+1 {{expected a weight format, but a8 is for activations}}
  %q, %k, %v = lm.qkv_proj %x, %w, %w, %w
      : (tensor<?x32xf32>, tensor<32x32x!lm.block<a8>>, tensor<32x32x!lm.block<a8>>, tensor<32x32x!lm.block<a8>>)
      -> (tensor<?x32xf32>, tensor<?x32xf32>, tensor<?x32xf32>)
  return
}

// -----

func.func @qkv_proj_c2(%x: tensor<?x32xf32>, %w: tensor<32x32xf16>) {
  // expected-error @+1 {{expected columns of the result (N) to be 32, but got 16}}
  %q, %k, %v = lm.qkv_proj %x, %w, %w, %w : (tensor<?x32xf32>, tensor<32x32xf16>, tensor<32x32xf16>, tensor<32x32xf16>)
      -> (tensor<?x32xf32>, tensor<?x32xf32>, tensor<?x16xf32>)
  return
}

// -----

func.func @qkv_proj_c3(%x: tensor<?x32xf32>, %w: tensor<32x32xf16>, %b: tensor<32xf32>) {
  // expected-error @+1 {{expected all three biases or none}}
  %q, %k, %v = "lm.qkv_proj"(%x, %w, %w, %w, %b) <{operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 0, 0>}>
      : (tensor<?x32xf32>, tensor<32x32xf16>, tensor<32x32xf16>, tensor<32x32xf16>, tensor<32xf32>)
      -> (tensor<?x32xf32>, tensor<?x32xf32>, tensor<?x32xf32>)
  return
}

// -----

func.func @qkv_proj_c4(%x: tensor<?x32xf32>, %w: tensor<32x32xf16>, %v: tensor<16x32xf16>) {
  // expected-error @+1 {{expected k and v of the same size}}
  %q, %k, %y = lm.qkv_proj %x, %w, %w, %v : (tensor<?x32xf32>, tensor<32x32xf16>, tensor<32x32xf16>, tensor<16x32xf16>)
      -> (tensor<?x32xf32>, tensor<?x32xf32>, tensor<?x16xf32>)
  return
}

// -----

func.func @qkv_proj_c5(%x: tensor<?x32xf32>, %w: tensor<32x32xf16>) {
  // expected-error @+1 {{expected ranges of three segments}}
  %q, %k, %v = lm.qkv_proj %x, %w, %w, %w {ranges = #lm.ranges<[0:32]>}
      : (tensor<?x32xf32>, tensor<32x32xf16>, tensor<32x32xf16>, tensor<32x32xf16>)
      -> (tensor<?x32xf32>, tensor<?x32xf32>, tensor<?x32xf32>)
  return
}

// -----

func.func @qkv_proj_c6(%x: tensor<?x32xf32>, %w: tensor<32x32xf16>) {
  // expected-error @+1 {{to be a #lm.tile}}
  %q, %k, %v = lm.qkv_proj %x, %w, %w, %w {tiles = {a = 1}}
      : (tensor<?x32xf32>, tensor<32x32xf16>, tensor<32x32xf16>, tensor<32x32xf16>)
      -> (tensor<?x32xf32>, tensor<?x32xf32>, tensor<?x32xf32>)
  return
}

// -----

func.func @reduce_shares_c1(%p: tensor<?x?x8xf32>) {
  // expected-error @+1 {{expected a static number of shares, at least one}}
  %0 = lm.reduce_shares %p : tensor<?x?x8xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @reduce_shares_c2(%p: tensor<2x?x8xf32>) {
  // expected-error @+1 {{expected columns of the result to be 8, but got 4}}
  %0 = lm.reduce_shares %p : tensor<2x?x8xf32> -> tensor<?x4xf32>
  return
}

// -----

func.func @quantize_c1(%x: tensor<?x32xf32>) {
  // expected-error @+1 {{expected columns of the result to be 32, but got 64}}
  %0 = lm.quantize %x : tensor<?x32xf32> -> tensor<?x64x!lm.block<a8>>
  return
}

// -----

func.func @quantize_c2(%x: tensor<?x40xf32>) {
  // expected-error @+1 {{expected the last dimension of the result to be a multiple of the block of 16, but got 40}}
  %0 = lm.quantize %x : tensor<?x40xf32> -> tensor<?x40x!lm.block<a8>>
  return
}

// -----

func.func @quantize_c3(%x: tensor<?x256xf32>) {
  // expected-error @+1 {{cannot quantize to '!lm.block<q6_k>'}}
  %0 = lm.quantize %x : tensor<?x256xf32> -> tensor<?x256x!lm.block<q6_k>>
  return
}

// -----

func.func @dequantize_c1(%x: tensor<4x32xf16>) {
  // expected-error @+1 {{expected rows of the result to be 4, but got 5}}
  %0 = lm.dequantize %x : tensor<4x32xf16> -> tensor<5x32xf32>
  return
}

// -----

func.func @dequantize_c2(%x: tensor<4x31x!lm.block<q8_0>>) {
  // expected-error @+1 {{expected the last dimension of the operand to be a multiple of the block of 32, but got 31}}
  %0 = lm.dequantize %x : tensor<4x31x!lm.block<q8_0>> -> tensor<4x31xf32>
  return
}

// -----

func.func @add_c1(%x: tensor<?x8xf32>) {
  // expected-error @+1 {{expected columns of the result to be 8, but got 9}}
  %0 = lm.add %x, %x : (tensor<?x8xf32>, tensor<?x8xf32>) -> tensor<?x9xf32>
  return
}

// -----

func.func @add_c2(%x: tensor<?x8xf32>, %d: tensor<2x?x4xf32>) {
  // expected-error @+1 {{expected columns of the delta to be 8, but got 4}}
  %0 = lm.add %x, %d : (tensor<?x8xf32>, tensor<2x?x4xf32>) -> tensor<?x8xf32>
  return
}

// -----

func.func @add_c2_shares(%x: tensor<?x8xf32>, %d: tensor<?x?x8xf32>) {
  // expected-error @+1 {{expected a static number of shares in the delta}}
  %0 = lm.add %x, %d : (tensor<?x8xf32>, tensor<?x?x8xf32>) -> tensor<?x8xf32>
  return
}

// -----

func.func @mul_c1(%x: tensor<?x8xf32>, %y: tensor<?x9xf32>) {
  // expected-error @+1 {{requires the same type for all operands and results}}
  %0 = "lm.mul"(%x, %y) : (tensor<?x8xf32>, tensor<?x9xf32>) -> tensor<?x8xf32>
  return
}

// -----

func.func @swiglu_c1(%x: tensor<?x8xf32>, %y: tensor<?x9xf32>) {
  // expected-error @+1 {{requires the same type for all operands and results}}
  %0 = "lm.swiglu"(%x, %y) : (tensor<?x8xf32>, tensor<?x9xf32>) -> tensor<?x8xf32>
  return
}

// -----

func.func @silu_c1(%x: tensor<?x8xf32>) {
  // expected-error @+1 {{requires the same type for all operands and results}}
  %0 = "lm.silu"(%x) : (tensor<?x8xf32>) -> tensor<?x9xf32>
  return
}

// -----

func.func @softmax_c1(%x: tensor<?x8xf32>) {
  // expected-error @+1 {{requires the same type for all operands and results}}
  %0 = "lm.softmax"(%x) : (tensor<?x8xf32>) -> tensor<?x9xf32>
  return
}

// -----

func.func @rms_norm_c1(%x: tensor<?x8xf32>, %w: tensor<8xf32>) {
  // expected-error @+1 {{expected columns of the result to be 8, but got 9}}
  %0 = lm.rms_norm %x, %w eps = 1.0e-05 : (tensor<?x8xf32>, tensor<8xf32>) -> tensor<?x9xf32>
  return
}

// -----

func.func @rms_norm_c2(%x: tensor<?x8xf32>, %w: tensor<9xf32>) {
  // expected-error @+1 {{expected the weight's size to be 8, but got 9}}
  %0 = lm.rms_norm %x, %w eps = 1.0e-05 : (tensor<?x8xf32>, tensor<9xf32>) -> tensor<?x8xf32>
  return
}

// -----

func.func @rms_norm_c3(%x: tensor<?x8xf32>, %w: tensor<8xf32>) {
  // expected-error @+1 {{expected eps to be finite and not negative}}
  %0 = lm.rms_norm %x, %w eps = -1.0 : (tensor<?x8xf32>, tensor<8xf32>) -> tensor<?x8xf32>
  return
}

// -----

func.func @add_rms_norm_c1(%x: tensor<?x8xf32>, %w: tensor<8xf32>) {
  // expected-error @+1 {{expected columns of the result to be 8, but got 9}}
  %0, %1 = lm.add_rms_norm %x, %x, %w eps = 1.0e-05
      : (tensor<?x8xf32>, tensor<?x8xf32>, tensor<8xf32>) -> (tensor<?x9xf32>, tensor<?x8xf32>)
  return
}

// -----

func.func @add_rms_norm_c2(%x: tensor<?x8xf32>, %d: tensor<2x?x4xf32>, %w: tensor<8xf32>) {
  // expected-error @+1 {{expected columns of the delta to be 8, but got 4}}
  %0, %1 = lm.add_rms_norm %x, %d, %w eps = 1.0e-05
      : (tensor<?x8xf32>, tensor<2x?x4xf32>, tensor<8xf32>) -> (tensor<?x8xf32>, tensor<?x8xf32>)
  return
}

// -----

func.func @add_rms_norm_c3(%x: tensor<?x8xf32>, %w: tensor<4xf32>) {
  // expected-error @+1 {{expected the weight's size to be 8, but got 4}}
  %0, %1 = lm.add_rms_norm %x, %x, %w eps = 1.0e-05
      : (tensor<?x8xf32>, tensor<?x8xf32>, tensor<4xf32>) -> (tensor<?x8xf32>, tensor<?x8xf32>)
  return
}

// -----

func.func @add_rms_norm_c4(%x: tensor<?x8xf32>, %w: tensor<8xf32>) {
  // expected-error @+1 {{expected eps to be finite and not negative}}
  %0, %1 = lm.add_rms_norm %x, %x, %w eps = 0x7F800000
      : (tensor<?x8xf32>, tensor<?x8xf32>, tensor<8xf32>) -> (tensor<?x8xf32>, tensor<?x8xf32>)
  return
}

// -----

func.func @top_k_c1(%x: tensor<?x8xf32>) {
  // expected-error @+1 {{expected k from 1 to the number of columns, but got 9}}
  %0, %1 = lm.top_k %x k = 9 : tensor<?x8xf32> -> tensor<?x9xf32>, tensor<?x9xi32>
  return
}

// -----

func.func @top_k_c2(%x: tensor<3x8xf32>) {
  // expected-error @+1 {{expected columns of the result to be 2, but got 3}}
  %0, %1 = lm.top_k %x k = 2 : tensor<3x8xf32> -> tensor<3x2xf32>, tensor<3x3xi32>
  return
}

// -----

func.func @rope_c1(%x: tensor<?x64xf32>, %p: tensor<?xi32>) {
  // expected-error @+1 {{expected columns of x (heads * head_dim) to be 96, but got 64}}
  %0 = lm.rope %x, %p heads = 3, head_dim = 32, rotary_dim = 32, base = 1.0e+04, mode = half
      : (tensor<?x64xf32>, tensor<?xi32>) -> tensor<?x64xf32>
  return
}

// -----

func.func @rope_c2(%x: tensor<?x64xf32>, %p: tensor<?xi32>) {
  // expected-error @+1 {{expected columns of the result to be 64, but got 32}}
  %0 = lm.rope %x, %p heads = 2, head_dim = 32, rotary_dim = 32, base = 1.0e+04, mode = half
      : (tensor<?x64xf32>, tensor<?xi32>) -> tensor<?x32xf32>
  return
}

// -----

func.func @rope_c3(%x: tensor<4x64xf32>, %p: tensor<3xi32>) {
  // expected-error @+1 {{expected the number of positions to be 4, but got 3}}
  %0 = lm.rope %x, %p heads = 2, head_dim = 32, rotary_dim = 32, base = 1.0e+04, mode = half
      : (tensor<4x64xf32>, tensor<3xi32>) -> tensor<4x64xf32>
  return
}

// -----

func.func @rope_c4(%x: tensor<?x64xf32>, %p: tensor<?xi32>) {
  // expected-error @+1 {{expected rotary_dim to be even and at most 32, but got 15}}
  %0 = lm.rope %x, %p heads = 2, head_dim = 32, rotary_dim = 15, base = 1.0e+04, mode = half
      : (tensor<?x64xf32>, tensor<?xi32>) -> tensor<?x64xf32>
  return
}

// -----

func.func @rope_c4_size(%x: tensor<?x64xf32>, %p: tensor<?xi32>) {
  // expected-error @+1 {{expected rotary_dim to be even and at most 32, but got 64}}
  %0 = lm.rope %x, %p heads = 2, head_dim = 32, rotary_dim = 64, base = 1.0e+04, mode = half
      : (tensor<?x64xf32>, tensor<?xi32>) -> tensor<?x64xf32>
  return
}

// -----

func.func @rope_c5(%x: tensor<?x64xf32>, %p: tensor<?xi32>, %f: tensor<32xf32>) {
  // expected-error @+1 {{expected the number of factors (rotary_dim / 2) to be 16, but got 32}}
  %0 = lm.rope %x, %p factors %f heads = 2, head_dim = 32, rotary_dim = 32, base = 1.0e+04, mode = half
      : (tensor<?x64xf32>, tensor<?xi32>, tensor<32xf32>) -> tensor<?x64xf32>
  return
}

// -----

func.func @rope_c6(%x: tensor<?x64xf32>, %p: tensor<?xi32>) {
  // expected-error @+1 {{expected base to be finite and positive}}
  %0 = lm.rope %x, %p heads = 2, head_dim = 32, rotary_dim = 32, base = 0.0, mode = half
      : (tensor<?x64xf32>, tensor<?xi32>) -> tensor<?x64xf32>
  return
}

// -----

!f16 = !lm.kv_cache<heads = 1, head_dim = 32, page = 32, f16>
!f32 = !lm.kv_cache<heads = 1, head_dim = 32, page = 32, f32>
func.func @kv_append_c1(%kv: !f16, %k: tensor<?x32xf32>) {
  // expected-error @+1 {{expected the result to be a}}
  %0 = lm.kv_append %kv, %k, %k : (!f16, tensor<?x32xf32>, tensor<?x32xf32>) -> !f32
  return
}

// -----

!kv = !lm.kv_cache<heads = 1, head_dim = 32, page = 32, f16>
func.func @kv_append_c2(%kv: !kv, %k: tensor<?x32xf32>, %v: tensor<?x64xf32>) {
  // expected-error @+1 {{expected columns of v to be 32, but got 64}}
  %0 = lm.kv_append %kv, %k, %v : (!kv, tensor<?x32xf32>, tensor<?x64xf32>) -> !kv
  return
}

// -----

!kv = !lm.kv_cache<heads = 1, head_dim = 32, page = 32, f16>
func.func @kv_append_c3(%kv: !kv, %k: tensor<2x32xf32>, %v: tensor<3x32xf32>) {
  // expected-error @+1 {{expected rows of v to be 2, but got 3}}
  %0 = lm.kv_append %kv, %k, %v : (!kv, tensor<2x32xf32>, tensor<3x32xf32>) -> !kv
  return
}

// -----

!kv = !lm.kv_cache<heads = 2, head_dim = 32, page = 32, f16>
func.func @attention_c1(%q: tensor<?x96xf32>, %kv: !kv, %p: tensor<?xi32>) {
  // expected-error @+1 {{expected heads to be a multiple of the cache's 2, but got 3}}
  %0 = lm.attention %q, %kv, %p heads = 3, scale = 1.0, window = 0
      : (tensor<?x96xf32>, !kv, tensor<?xi32>) -> tensor<?x96xf32>
  return
}

// -----

!kv = !lm.kv_cache<heads = 2, head_dim = 32, page = 32, f16>
func.func @attention_c2(%q: tensor<?x64xf32>, %kv: !kv, %p: tensor<?xi32>) {
  // expected-error @+1 {{expected columns of q (heads * head_dim) to be 128, but got 64}}
  %0 = lm.attention %q, %kv, %p heads = 4, scale = 1.0, window = 0
      : (tensor<?x64xf32>, !kv, tensor<?xi32>) -> tensor<?x64xf32>
  return
}

// -----

!kv = !lm.kv_cache<heads = 2, head_dim = 32, page = 32, f16>
func.func @attention_c3(%q: tensor<?x64xf32>, %kv: !kv, %p: tensor<?xi32>) {
  // expected-error @+1 {{expected columns of the result to be 64, but got 32}}
  %0 = lm.attention %q, %kv, %p heads = 2, scale = 1.0, window = 0
      : (tensor<?x64xf32>, !kv, tensor<?xi32>) -> tensor<?x32xf32>
  return
}

// -----

!kv = !lm.kv_cache<heads = 2, head_dim = 32, page = 32, f16>
func.func @attention_c4(%q: tensor<4x64xf32>, %kv: !kv, %p: tensor<3xi32>) {
  // expected-error @+1 {{expected the number of positions to be 4, but got 3}}
  %0 = lm.attention %q, %kv, %p heads = 2, scale = 1.0, window = 0
      : (tensor<4x64xf32>, !kv, tensor<3xi32>) -> tensor<4x64xf32>
  return
}

// -----

!kv = !lm.kv_cache<heads = 2, head_dim = 32, page = 32, f16>
func.func @attention_c5(%q: tensor<?x64xf32>, %kv: !kv, %p: tensor<?xi32>) {
  // expected-error @+1 {{expected a finite scale}}
  %0 = lm.attention %q, %kv, %p heads = 2, scale = 0x7F800000, window = 0
      : (tensor<?x64xf32>, !kv, tensor<?xi32>) -> tensor<?x64xf32>
  return
}

// -----

!kv = !lm.kv_cache<heads = 2, head_dim = 32, page = 32, f16>
func.func @attention_c6(%q: tensor<?x64xf32>, %kv: !kv, %p: tensor<?xi32>) {
  // expected-error @+1 {{to be a #lm.tile}}
  %0 = lm.attention %q, %kv, %p heads = 2, scale = 1.0, window = 0 {tiles = {a = 1}}
      : (tensor<?x64xf32>, !kv, tensor<?xi32>) -> tensor<?x64xf32>
  return
}

// -----

!kv = !lm.kv_cache<heads = 2, head_dim = 32, page = 32, f16>
func.func @online_attention_c1(%q: tensor<?x96xf32>, %kv: !kv, %p: tensor<?xi32>) {
  // expected-error @+1 {{expected heads to be a multiple of the cache's 2, but got 3}}
  %0 = lm.online_attention %q, %kv, %p heads = 3, scale = 1.0, window = 0, key_tile = 32
      : (tensor<?x96xf32>, !kv, tensor<?xi32>) -> tensor<?x96xf32>
  return
}

// -----

!kv = !lm.kv_cache<heads = 2, head_dim = 32, page = 32, f16>
func.func @online_attention_c2(%q: tensor<?x64xf32>, %kv: !kv, %p: tensor<?xi32>) {
  // expected-error @+1 {{expected columns of q (heads * head_dim) to be 128, but got 64}}
  %0 = lm.online_attention %q, %kv, %p heads = 4, scale = 1.0, window = 0, key_tile = 32
      : (tensor<?x64xf32>, !kv, tensor<?xi32>) -> tensor<?x64xf32>
  return
}

// -----

!kv = !lm.kv_cache<heads = 2, head_dim = 32, page = 32, f16>
func.func @online_attention_c3(%q: tensor<?x64xf32>, %kv: !kv, %p: tensor<?xi32>) {
  // expected-error @+1 {{expected columns of the result to be 64, but got 32}}
  %0 = lm.online_attention %q, %kv, %p heads = 2, scale = 1.0, window = 0, key_tile = 32
      : (tensor<?x64xf32>, !kv, tensor<?xi32>) -> tensor<?x32xf32>
  return
}

// -----

!kv = !lm.kv_cache<heads = 2, head_dim = 32, page = 32, f16>
func.func @online_attention_c4(%q: tensor<4x64xf32>, %kv: !kv, %p: tensor<3xi32>) {
  // expected-error @+1 {{expected the number of positions to be 4, but got 3}}
  %0 = lm.online_attention %q, %kv, %p heads = 2, scale = 1.0, window = 0, key_tile = 32
      : (tensor<4x64xf32>, !kv, tensor<3xi32>) -> tensor<4x64xf32>
  return
}

// -----

!kv = !lm.kv_cache<heads = 2, head_dim = 32, page = 32, f16>
func.func @online_attention_c5(%q: tensor<?x64xf32>, %kv: !kv, %p: tensor<?xi32>) {
  // expected-error @+1 {{expected a finite scale}}
  %0 = lm.online_attention %q, %kv, %p heads = 2, scale = 0x7F800000, window = 0, key_tile = 32
      : (tensor<?x64xf32>, !kv, tensor<?xi32>) -> tensor<?x64xf32>
  return
}

// -----

!kv = !lm.kv_cache<heads = 2, head_dim = 32, page = 32, f16>
func.func @online_attention_c6(%q: tensor<?x64xf32>, %kv: !kv, %p: tensor<?xi32>) {
  // expected-error @+1 {{to be a #lm.tile}}
  %0 = lm.online_attention %q, %kv, %p heads = 2, scale = 1.0, window = 0, key_tile = 32 {tiles = {a = 1}}
      : (tensor<?x64xf32>, !kv, tensor<?xi32>) -> tensor<?x64xf32>
  return
}

// -----

!kv = !lm.kv_cache<heads = 2, head_dim = 32, page = 32, f16>
func.func @online_attention_c7(%q: tensor<?x64xf32>, %kv: !kv, %p: tensor<?xi32>) {
  // expected-error @+1 {{expected key_tile to divide the page of 32 rows, but got 24}}
  %0 = lm.online_attention %q, %kv, %p heads = 2, scale = 1.0, window = 0, key_tile = 24
      : (tensor<?x64xf32>, !kv, tensor<?xi32>) -> tensor<?x64xf32>
  return
}

// -----

func.func @kernel_c1(%x: tensor<?x8xf32>) {
  // expected-error @+1 {{expected a name}}
  %0 = lm.kernel "" split(rows) (%a = %x : tensor<?x8xf32>) -> tensor<?x8xf32> {
    lm.yield %a : tensor<?x8xf32>
  }
  return
}

// -----

func.func @kernel_c2(%x: tensor<?x8xf32>) {
  %0 = lm.kernel "k" split(rows) (%a = %x : tensor<?x8xf32>) -> tensor<?x8xf32> {
    // expected-error @+1 {{is not allowed in a kernel}}
    %w = lm.weight "w" : tensor<8xf32>
    lm.yield %a : tensor<?x8xf32>
  }
  return
}

// -----

func.func @kernel_c2_tiles(%x: tensor<?x8xf32>, %w: tensor<4x8xf32>) {
  %0 = lm.kernel "k" split(rows) (%a = %x : tensor<?x8xf32>, %b = %w : tensor<4x8xf32>) -> tensor<?x4xf32> {
    // expected-error @+1 {{expected its tiles on the kernel around it}}
    %y = lm.matmul %a, %b {tiles = {"avx2/decode" = #lm.tile<rows = 4>}} : (tensor<?x8xf32>, tensor<4x8xf32>) -> tensor<?x4xf32>
    lm.yield %y : tensor<?x4xf32>
  }
  return
}

// -----

func.func @kernel_c3(%x: tensor<?x8xf32>) {
  // expected-error @+1 {{expected the region to yield values of the results' types}}
  %0 = lm.kernel "k" split(rows) (%a = %x : tensor<?x8xf32>) -> tensor<?x9xf32> {
    lm.yield %a : tensor<?x8xf32>
  }
  return
}

// -----

func.func @kernel_c3_arguments(%x: tensor<?x8xf32>) {
  // expected-error @+1 {{expected the region's arguments to have the operands' types}}
  %0 = "lm.kernel"(%x) <{name = "k", split = #lm<kernel_split rows>}> ({
  ^bb0(%a: tensor<?x9xf32>):
    lm.yield %a : tensor<?x9xf32>
  }) : (tensor<?x8xf32>) -> tensor<?x9xf32>
  return
}

// -----

func.func @kernel_c4(%x: tensor<?x8xf32>) {
  // expected-error @+1 {{expected no ranges when rows are split}}
  %0 = lm.kernel "k" split(rows) (%a = %x : tensor<?x8xf32>) -> tensor<?x8xf32>
      attributes {ranges = #lm.ranges<[0:8]>} {
    lm.yield %a : tensor<?x8xf32>
  }
  return
}

// -----

func.func @kernel_c5(%x: tensor<?x64xf32>, %w: tensor<8x64xf16>) {
  %0 = lm.kernel "k" split(shares) (%a = %x : tensor<?x64xf32>, %b = %w : tensor<8x64xf16>) -> tensor<2x?x8xf32>
      attributes {ranges = #lm.ranges<[0:64]>} {
    // expected-error @+1 {{expected ranges of one segment over 64 columns in 2 shares, its own or the kernel's}}
    %y = lm.quant_matmul %a, %b split = k : (tensor<?x64xf32>, tensor<8x64xf16>) -> tensor<2x?x8xf32>
    lm.yield %y : tensor<2x?x8xf32>
  }
  return
}

// -----

!kv = !lm.kv_cache<heads = 1, head_dim = 8, page = 32, f16>
func.func @kernel_c6(%x: !kv, %y: !kv) {
  // expected-error @+1 {{expected at most one cache among the operands}}
  %0 = lm.kernel "k" split(rows) (%a = %x : !kv, %b = %y : !kv) -> !kv {
    lm.yield %a : !kv
  }
  return
}

// -----

func.func @kernel_c7(%x: tensor<?x8xf32>) {
  // expected-error @+1 {{to be a #lm.tile}}
  %0 = lm.kernel "k" split(rows) (%a = %x : tensor<?x8xf32>) -> tensor<?x8xf32> attributes {tiles = {a = 1}} {
    lm.yield %a : tensor<?x8xf32>
  }
  return
}

// -----

func.func @kernel_syntax(%x: tensor<?x8xf32>) {
  // expected-error @+1 {{expected rows or shares, but got 'columns'}}
  %0 = lm.kernel "k" split(columns) (%a = %x : tensor<?x8xf32>) -> tensor<?x8xf32> {
    lm.yield %a : tensor<?x8xf32>
  }
  return
}

// -----

func.func @yield_c1() {
  // expected-error @+1 {{expected to end a kernel, but is in func.func}}
  lm.yield
}
