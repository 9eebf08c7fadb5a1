//===- ModelInput.h - What a compilation reads ------------------*- C++ -*-===//
//
// A model file, or text of the dialects beside a model file that holds the
// weights it names.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_COMPILER_PIPELINE_MODELINPUT_H
#define QUERN_COMPILER_PIPELINE_MODELINPUT_H

#include "codegen/artifact/CompileError.h"
#include "codegen/artifact/WeightStream.h"
#include "compiler/import/Gguf.h"
#include "compiler/import/MappedFile.h"
#include "compiler/import/ModelFamilies.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/OwningOpRef.h"

#include <optional>
#include <string>
#include <vector>

namespace quern {

/// A GGUF file of a language model, mapped and parsed.
class ModelFile {
public:
  /// Errors: those of MappedFile::open(), parseGguf() and readModelConfig(),
  /// with the path.
  static llvm::Expected<ModelFile> open(const std::string &path);

  const std::string &path() const { return filePath; }
  std::span<const uint8_t> bytes() const { return mapping.bytes(); }

  /// The model as an lm module. Errors: those of bindTensors().
  llvm::Expected<mlir::OwningOpRef<mlir::ModuleOp>>
  importModule(mlir::MLIRContext *context) const;
  /// The tokenizer segment, if the file has a tokenizer.
  llvm::Expected<std::optional<std::vector<uint8_t>>> tokenizerSegment() const;
  /// The weight called `name`. Errors: Incompatible when there is none.
  llvm::Expected<WeightSource> findWeight(llvm::StringRef name) const;

private:
  ModelFile(std::string path, importer::MappedFile mapping,
            importer::GgufFile gguf, importer::ModelConfig config)
      : filePath(std::move(path)), mapping(std::move(mapping)),
        gguf(std::move(gguf)), config(std::move(config)) {}
  llvm::Error error(const importer::ImportError &error) const;

  std::string filePath;
  importer::MappedFile mapping;
  importer::GgufFile gguf;
  importer::ModelConfig config;
};

/// Whether a path names text of the dialects: it ends in ".mlir".
bool isIrPath(llvm::StringRef path);

} // namespace quern

#endif // QUERN_COMPILER_PIPELINE_MODELINPUT_H
