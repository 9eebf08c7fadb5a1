//===- KernelArgs.h - The entry of a kernel being generated -----*- C++ -*-===//
//
// What a generator of any target asks its kernel for: the buffers of the
// `rt.kernel` by their place among the entry's arguments, facts of the step,
// ranges, and where rows lie. The order of arguments is the same for all
// targets (sections 5 and 8 of docs/architecture.md); how one is read is the
// target's.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_KERNELS_KERNELARGS_H
#define QUERN_CODEGEN_KERNELS_KERNELARGS_H

#include "codegen/kernels/IrEmitter.h"
#include "codegen/kernels/KernelFacts.h"

#include <optional>

namespace quern {

/// Pointers that an argument of type !lm.kv_cache expands to.
struct KvArgs {
  static constexpr unsigned kCount = 6;
  mlir::Value pool;      ///< this layer's pages
  mlir::Value pageTable; ///< int32 [sequences][page table stride]
  /// GPUs: int32 [tiles][4], first row, rows, sequence, 0. Hosts: the share's
  /// work items, int32 [items][kAttentionWorkFields].
  mlir::Value tiles;
  mlir::Value slots;     ///< int32 [rows]
  mlir::Value sequences; ///< int32 [rows]
  /// Hosts: f32 [rows][query heads][block stride][state], see kernel_abi.h;
  /// null on GPUs.
  mlir::Value states;
};

/// Where a row's own token lies in the KV cache.
struct KvPlace {
  mlir::Value page;  ///< pointer of the page's first KV head
  mlir::Value token; ///< i64, its place within the page
};

class KernelArgs {
public:
  using Value = mlir::Value;

  KernelArgs(IrEmitter &ir, rt::KernelOp op, const Target &target, Role role)
      : op(op), target(target), role(role), numerics(target.numericsFor(role)),
        ir(ir) {}
  virtual ~KernelArgs() = default;

  rt::KernelOp op;
  const Target &target;
  Role role;
  Numerics numerics; ///< of the role
  Tile tile;

  /// Of its products, where the generator's are in kKernelArithmetic.
  virtual Numerics arithmetic() const { return numerics; }

  mlir::Block &body() { return op.getBody().front(); }
  /// The yielded values, in order.
  mlir::ValueRange yielded() { return body().getTerminator()->getOperands(); }
  /// The one op of the body, or null when there are more.
  mlir::Operation *onlyOp();
  bool splitShares() { return op.getSplit() == lm::KernelSplit::Shares; }

  /// Pointer of the block argument `value`, which must be one.
  Value argument(Value value);
  KvArgs kvArgument(Value value);
  /// Pointer of the `i`-th result that is not a KV cache.
  Value result(unsigned i);

  /// Rows of this dispatch.
  Value rows() { return dim(0); }
  Value attentionTiles() { return dim(1); }
  Value pageTableStride() { return dim(2); }
  Value pageBytes() { return dim(3); }
  /// [begin, end) of segment `i` in elements; rows for split rows.
  Value rangeBegin(unsigned i) { return rangeEdge(2 * i); }
  Value rangeEnd(unsigned i) { return rangeEdge(2 * i + 1); }
  /// [begin, end) of the columns of segment `i`: all `width` of them when the
  /// kernel is split over rows.
  std::pair<Value, Value> columns(unsigned i, int64_t width);

  /// The rows of `value` are numeric rows: type a8, on GPUs f16 and e4m3 as
  /// well. All others are f32.
  bool hasNumericRows(Value value) const;
  /// Bytes between rows of `value`.
  int64_t rowBytes(Value value) const;
  /// The address of numeric row `row` of `columns` columns in `buffer`.
  virtual Value activationRow(Value buffer, Value row, int64_t columns);
  /// The int32 at `pointer`[i], as i64.
  Value intAt(Value pointer, Value i);
  /// The page and place of row `row` in the cache `kv`.
  KvPlace kvPlace(const KvArgs &kv, const KvLayout &layout, Value row);
  /// Bytes from the start of a pool to KV head 0 of page `page` (i64).
  Value kvPageOffset(const KvLayout &layout, Value page);

  /// Memory of this row alone, aligned to 64 bytes, until the kernel ends.
  virtual Value temporary(int64_t bytes) = 0;

  /// "kernel layer_0.attention for avx2/decode: ".
  mlir::InFlightDiagnostic emitError();

protected:
  /// The pointer argument at `position`: caches count kCount, results follow
  /// the arguments.
  virtual Value pointerAt(unsigned position) = 0;
  /// Fact `i` of the step (KernelDim).
  virtual Value dim(unsigned i) = 0;
  virtual Value rangeEdge(unsigned i) = 0;

private:
  unsigned positionOf(unsigned argument);

  IrEmitter &ir;
};

/// Pointer arguments of a kernel.
unsigned pointerCount(rt::KernelOp op);

/// Where the rows of a body's values lie: those of arguments and results in
/// their buffers, one row of anything else in temporary memory.
class RowBuffers {
public:
  RowBuffers(KernelArgs &k, IrEmitter &e);

  /// Pointer of the argument or result `value`.
  mlir::Value base(mlir::Value value) { return pointers[value]; }
  /// Pointer of row `row` of `value`.
  mlir::Value row(mlir::Value value, mlir::Value row);
  /// Pointer of row `row` of copy `share` of the partial results `partials`.
  mlir::Value shareRow(mlir::Value partials, int64_t share, mlir::Value row);

private:
  KernelArgs &k;
  IrEmitter &e;
  llvm::DenseMap<mlir::Value, mlir::Value> pointers;
};

/// Of generators whose products are in the arithmetic of each kernel.
inline constexpr std::optional<Numerics> kKernelArithmetic = std::nullopt;

/// One family of kernels of a target: which bodies it takes and how it makes
/// code of them.
template <typename Kernel> struct KernelGenerator {
  llvm::StringRef name;
  KernelFamily family; ///< whose tile applies
  bool (*matches)(Kernel &);
  mlir::LogicalResult (*generate)(Kernel &);
  llvm::StringRef reason; ///< which kernels it takes, for --explain
  /// Of its products.
  std::optional<Numerics> arithmetic = Numerics::Float;
};

/// The first of `generators` that takes `kernel`, whose tile is then set; null
/// when there is none, which is reported.
template <typename Kernel>
const KernelGenerator<Kernel> *
chooseGenerator(llvm::ArrayRef<KernelGenerator<Kernel>> generators,
                Kernel &kernel) {
  for (const KernelGenerator<Kernel> &generator : generators)
    if (generator.matches(kernel)) {
      kernel.tile =
          tileOf(kernel.op, kernel.target, kernel.role, generator.family);
      return &generator;
    }
  kernel.emitError() << "no generator makes its ops one kernel";
  return nullptr;
}

/// What the manifest says of `kernel`, which `generator` generates.
template <typename Kernel>
KernelForm formOf(const KernelGenerator<Kernel> &generator,
                  const Kernel &kernel) {
  return {generator.name, generator.arithmetic.value_or(kernel.arithmetic()),
          kernel.tile};
}

} // namespace quern

#endif // QUERN_CODEGEN_KERNELS_KERNELARGS_H
