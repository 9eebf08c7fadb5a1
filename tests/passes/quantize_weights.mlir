// RUN: quern-opt --lm-quantize-weights %s -o %t.q8
// RUN: quern-interpret %s --compare=%t.q8 --tolerance=0.02
// RUN: FileCheck %s --input-file=%t.q8 --check-prefixes=CHECK,INT8
// RUN: quern-opt --lm-quantize-weights=format=q4_0 %s -o %t.q4
// RUN: quern-interpret %s --compare=%t.q4 --tolerance=0.3
// RUN: not quern-interpret %s --compare=%t.q4 --tolerance=0.001
// RUN: FileCheck %s --input-file=%t.q4 --check-prefixes=CHECK,INT4
// RUN: quern-opt --lm-quantize-weights=format=e4m3 %s -o %t.fp8
// RUN: quern-interpret %s --compare=%t.fp8 --tolerance=0.1
// RUN: not quern-interpret %s --compare=%t.fp8 --tolerance=0.001
// RUN: FileCheck %s --input-file=%t.fp8 --check-prefixes=CHECK,FP8
// RUN: not quern-opt --lm-quantize-weights=format=q3_k %s 2>&1 | FileCheck %s --check-prefix=ERROR

// ERROR: error: cannot quantize weights to 'q3_k' (known: q8_0, q4_0, q4_1, e4m3)

// CHECK-LABEL: func.func @f16
// INT8: lm.weight "f16" source = f16 : tensor<48x64x!lm.block<q8_0>>
// FP8: lm.weight "f16" source = f16 : tensor<48x64x!lm.block<e4m3>>
// INT4: lm.weight "f16" source = f16 : tensor<48x64x!lm.block<q4_0>>
// CHECK: lm.dequantize
// CHECK: lm.matmul
func.func @f16(%x: tensor<?x64xf32>) -> tensor<?x48xf32> {
  %w = lm.weight "f16" : tensor<48x64xf16>
  %f = lm.dequantize %w : tensor<48x64xf16> -> tensor<48x64xf32>
  %y = lm.matmul %x, %f : (tensor<?x64xf32>, tensor<48x64xf32>) -> tensor<?x48xf32>
  return %y : tensor<?x48xf32>
}

// A weight that needed no dequantize gets one; its bias stays.
// CHECK-LABEL: func.func @f32
// CHECK: %[[W:.*]] = lm.weight "f32" source = f32
// CHECK: %[[F:.*]] = lm.dequantize %[[W]]
// CHECK: %[[B:.*]] = lm.weight "bias" : tensor<48xf32>
// CHECK: lm.matmul %arg0, %[[F]] bias %[[B]]
func.func @f32(%x: tensor<?x64xf32>) -> tensor<?x48xf32> {
  %w = lm.weight "f32" : tensor<48x64xf32>
  %b = lm.weight "bias" : tensor<48xf32>
  %y = lm.matmul %x, %w bias %b : (tensor<?x64xf32>, tensor<48x64xf32>, tensor<48xf32>) -> tensor<?x48xf32>
  return %y : tensor<?x48xf32>
}

// Formats of the model file are kept.
// CHECK-LABEL: func.func @stored
// CHECK: lm.weight "stored" : tensor<48x64x!lm.block<q5_1>>
func.func @stored(%x: tensor<?x64xf32>) -> tensor<?x48xf32> {
  %w = lm.weight "stored" : tensor<48x64x!lm.block<q5_1>>
  %f = lm.dequantize %w : tensor<48x64x!lm.block<q5_1>> -> tensor<48x64xf32>
  %y = lm.matmul %x, %f : (tensor<?x64xf32>, tensor<48x64xf32>) -> tensor<?x48xf32>
  return %y : tensor<?x48xf32>
}

// A table of embeddings alone stays; one that is the head as well is q8_0 in
// both places.
// CHECK-LABEL: func.func @untied
// CHECK: lm.weight "untied" : tensor<80x64xf16>
func.func @untied(%t: tensor<?xi32>) -> tensor<?x64xf32> {
  %w = lm.weight "untied" : tensor<80x64xf16>
  %y = lm.embedding %w, %t : (tensor<80x64xf16>, tensor<?xi32>) -> tensor<?x64xf32>
  return %y : tensor<?x64xf32>
}

// CHECK-LABEL: func.func @tied_embedding
// CHECK: lm.weight "tied" source = f16 : tensor<80x64x!lm.block<q8_0>>
func.func @tied_embedding(%t: tensor<?xi32>) -> tensor<?x64xf32> {
  %w = lm.weight "tied" : tensor<80x64xf16>
  %y = lm.embedding %w, %t : (tensor<80x64xf16>, tensor<?xi32>) -> tensor<?x64xf32>
  return %y : tensor<?x64xf32>
}

// CHECK-LABEL: func.func @tied_head
// CHECK: lm.weight "tied" source = f16 : tensor<80x64x!lm.block<q8_0>>
func.func @tied_head(%x: tensor<?x64xf32>) -> tensor<?x80xf32> {
  %w = lm.weight "tied" : tensor<80x64xf16>
  %f = lm.dequantize %w : tensor<80x64xf16> -> tensor<80x64xf32>
  %y = lm.matmul %x, %f : (tensor<?x64xf32>, tensor<80x64xf32>) -> tensor<?x80xf32>
  return %y : tensor<?x80xf32>
}

// Rows that are no multiple of a block stay as they are.
// CHECK-LABEL: func.func @odd
// CHECK: lm.weight "odd" : tensor<16x40xf32>
func.func @odd(%x: tensor<?x40xf32>) -> tensor<?x16xf32> {
  %w = lm.weight "odd" : tensor<16x40xf32>
  %y = lm.matmul %x, %w : (tensor<?x40xf32>, tensor<16x40xf32>) -> tensor<?x16xf32>
  return %y : tensor<?x16xf32>
}
