//===- ManifestProgram.h - The program's part of the manifest ---*- C++ -*-===//
//
// Buffers, bodies and what their dispatches say of kernels and caches.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_ARTIFACT_MANIFESTPROGRAM_H
#define QUERN_CODEGEN_ARTIFACT_MANIFESTPROGRAM_H

#include "codegen/artifact/CompileError.h"
#include "codegen/artifact/WeightLayout.h"
#include "runtime/schema/artifact_generated.h"
#include "llvm/ADT/StringMap.h"

#include <optional>
#include <vector>

namespace quern {

/// Writes the records of one program. Errors: Malformed, for a program whose
/// parts do not fit each other.
class ProgramTranslator {
public:
  /// What dispatches found out about a kernel.
  struct KernelRef {
    rt::KernelOp op;
    /// Pointers that a dispatch gives.
    uint32_t arguments;
    /// Range segments of its dispatches; unset before the first.
    std::optional<uint32_t> ranges;
  };

  ProgramTranslator(mlir::ModuleOp module, rt::ProgramOp program,
                    flatbuffers::FlatBufferBuilder &fbb)
      : module(module), program(program), fbb(fbb) {}

  /// Finds buffers and kernels; comes before everything else.
  llvm::Error collect();
  /// A body whose slots take `sizes` bytes, [slot][share].
  llvm::Expected<flatbuffers::Offset<schema::Body>>
  body(const ProgramBody &body, llvm::ArrayRef<uint64_t> sizes);
  /// The cache of a layer with this body, from the type that its kernels take.
  llvm::Expected<schema::KvLayer> kvLayer(const ProgramBody &body) const;

  /// In the order of the module; complete once all bodies are written.
  llvm::ArrayRef<KernelRef> kernels() const { return kernelRefs; }
  const std::vector<flatbuffers::Offset<schema::Buffer>> &buffers() const {
    return bufferRecords;
  }

private:
  /// What a buffer's symbol means to a dispatch.
  struct BufferRef {
    rt::BufferKind kind;
    uint32_t index;
    bool partial;
  };

  llvm::Expected<flatbuffers::Offset<schema::Instruction>>
  dispatch(rt::DispatchOp op, const ProgramBody &body);
  llvm::Expected<schema::Arg> argument(rt::DispatchOp op, size_t position,
                                       KernelRef &kernel,
                                       const ProgramBody &body);
  flatbuffers::Offset<schema::WeightSlot> slot(rt::WeightSlotOp op,
                                               llvm::ArrayRef<uint64_t> sizes);

  mlir::ModuleOp module;
  rt::ProgramOp program;
  flatbuffers::FlatBufferBuilder &fbb;
  std::vector<flatbuffers::Offset<schema::Buffer>> bufferRecords;
  llvm::StringMap<BufferRef> bufferRefs;
  std::vector<KernelRef> kernelRefs;
  llvm::StringMap<uint32_t> kernelIndex;
};

} // namespace quern

#endif // QUERN_CODEGEN_ARTIFACT_MANIFESTPROGRAM_H
