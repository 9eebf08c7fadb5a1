// Whatever optimising pass is switched off, the model agrees with what the
// importer wrote (but for the rounding of activations), and what a pass fuses
// shows in the number of dispatches of a layer (but for merges).

// DEFINE: %{model} = %S/inputs/small_model.mlir
// DEFINE: %{normalize} = --lm-normalize
// DEFINE: %{activations} = --lm-quantize-activations
// DEFINE: %{dequant} = --lm-fuse-dequant-matmul
// DEFINE: %{qkv} = --lm-fuse-qkv
// DEFINE: %{swiglu} = --lm-fuse-swiglu
// DEFINE: %{norm} = --lm-fuse-add-rms-norm
// DEFINE: %{online} = --lm-convert-attention-to-online-attention
// DEFINE: %{tile} = --lm-tile-attention --lm-tile-matmul
// DEFINE: %{split} = --lm-split-shares
// DEFINE: %{form} = --lm-form-kernels
// DEFINE: %{tolerance} = 0.03
// DEFINE: %{dispatches} = 9
// DEFINE: %{compile} = quern-opt %{normalize} %{activations} %{dequant} %{qkv} %{swiglu} %{norm} %{online} %{tile} %{split} %{form} --convert-lm-to-rt --rt-plan-memory %{model} -o %t
// DEFINE: %{agree} = quern-interpret %{model} --compare=%t --tolerance=%{tolerance}
// DEFINE: %{count} = sed -n '/rt.block/,/rt.epilogue/p' %t | grep rt.dispatch | grep -cv merge | grep -x %{dispatches}

// Everything on.
// RUN: %{compile}
// RUN: %{agree}
// RUN: %{count}

// Normalize off.
// REDEFINE: %{normalize} =
// RUN: %{compile}
// RUN: %{agree}
// RUN: %{count}

// Float activations, as with --precise: nothing is rounded.
// REDEFINE: %{normalize} = --lm-normalize
// REDEFINE: %{activations} =
// REDEFINE: %{tolerance} = 1e-6
// RUN: %{compile}
// RUN: %{agree}
// RUN: %{count}

// Activations are quantized, and read as floats.
// REDEFINE: %{activations} = --lm-quantize-activations
// REDEFINE: %{dequant} =
// REDEFINE: %{dispatches} = 15
// REDEFINE: %{tolerance} = 0.03
// RUN: %{compile}
// RUN: %{agree}
// RUN: %{count}

// Three projections.
// REDEFINE: %{dequant} = --lm-fuse-dequant-matmul
// REDEFINE: %{qkv} =
// REDEFINE: %{dispatches} = 11
// RUN: %{compile}
// RUN: %{agree}
// RUN: %{count}

// Gate, up, silu, product, quantize: five kernels for one.
// REDEFINE: %{qkv} = --lm-fuse-qkv
// REDEFINE: %{swiglu} =
// REDEFINE: %{dispatches} = 13
// RUN: %{compile}
// RUN: %{agree}
// RUN: %{count}

// Add and norm apart.
// REDEFINE: %{swiglu} = --lm-fuse-swiglu
// REDEFINE: %{norm} =
// REDEFINE: %{dispatches} = 10
// RUN: %{compile}
// RUN: %{agree}
// RUN: %{count}

// Attention with all scores at once.
// REDEFINE: %{norm} = --lm-fuse-add-rms-norm
// REDEFINE: %{online} =
// REDEFINE: %{dispatches} = 9
// RUN: %{compile}
// RUN: %{agree}
// RUN: %{count}

// No tiles.
// REDEFINE: %{online} = --lm-convert-attention-to-online-attention
// REDEFINE: %{tile} =
// RUN: %{compile}
// RUN: %{agree}
// RUN: %{count}

// One share.
// REDEFINE: %{tile} = --lm-tile-attention --lm-tile-matmul
// REDEFINE: %{split} =
// RUN: %{compile}
// RUN: %{agree}
// RUN: %{count}

// Five shares are three here: the feed-forward product sums over three groups.
// REDEFINE: %{split} = --lm-split-shares=shares=5
// RUN: %{compile}
// RUN: %{agree}
// RUN: %{count}

// One kernel per op.
// REDEFINE: %{split} = --lm-split-shares
// REDEFINE: %{form} = --lm-form-kernels=fuse=false
// REDEFINE: %{dispatches} = 17
// RUN: %{compile}
// RUN: %{agree}
// RUN: %{count}

// Nothing but what lowering needs.
// REDEFINE: %{normalize} =
// REDEFINE: %{activations} =
// REDEFINE: %{dequant} =
// REDEFINE: %{qkv} =
// REDEFINE: %{swiglu} =
// REDEFINE: %{norm} =
// REDEFINE: %{online} =
// REDEFINE: %{tile} =
// REDEFINE: %{split} =
// REDEFINE: %{tolerance} = 1e-6
// RUN: %{compile}
// RUN: %{agree}
// RUN: %{count}
