#include "compiler/pipeline/ModelInput.h"

#include "compiler/import/GgufTokenizer.h"
#include "compiler/import/ImportLm.h"

using namespace quern;
using namespace quern::importer;

bool quern::isIrPath(llvm::StringRef path) { return path.ends_with(".mlir"); }

/// An importer's error, which has the same codes, under the file's name.
static llvm::Error importFailure(const std::string &path,
                                 const ImportError &error) {
  // Errors of opening name the file themselves.
  const std::string text = error.str();
  const bool named = text.find(path) != std::string::npos;
  return compileError(static_cast<ExitCode>(error.code),
                      named ? text : path + ": " + text);
}

llvm::Error ModelFile::error(const ImportError &error) const {
  return importFailure(filePath, error);
}

llvm::Expected<ModelFile> ModelFile::open(const std::string &path) {
  ImportResult<MappedFile> mapping = MappedFile::open(path);
  if (!mapping.ok())
    return importFailure(path, mapping.error());
  ImportResult<GgufFile> gguf = parseGguf(mapping->bytes());
  if (!gguf.ok())
    return importFailure(path, gguf.error());
  ImportResult<ModelConfig> config = readModelConfig(*gguf);
  if (!config.ok())
    return importFailure(path, config.error());
  return ModelFile(path, std::move(*mapping), std::move(*gguf),
                   std::move(*config));
}

llvm::Expected<mlir::OwningOpRef<mlir::ModuleOp>>
ModelFile::importModule(mlir::MLIRContext *context) const {
  ImportResult<ModelTensors> tensors = bindTensors(gguf, config);
  if (!tensors.ok())
    return error(tensors.error());
  return importLm(context, config, *tensors);
}

llvm::Expected<std::optional<std::vector<uint8_t>>>
ModelFile::tokenizerSegment() const {
  ImportResult<std::optional<TokenizerSpec>> spec =
      readTokenizer(gguf, config.vocab);
  if (!spec.ok())
    return error(spec.error());
  if (!spec->has_value())
    return std::nullopt;
  auto segment = buildTokenizerSegment(**spec);
  if (auto *failed = std::get_if<TokenizerError>(&segment)) {
    const std::string what = filePath + ": " + failed->message;
    if (failed->kind == TokenizerError::Kind::Unsupported)
      return compileError(ExitCode::Unsupported, what);
    return compileError(ExitCode::Malformed,
                        what + "; convert the model again with its tokenizer");
  }
  return std::get<std::vector<uint8_t>>(std::move(segment));
}

llvm::Expected<WeightSource> ModelFile::findWeight(llvm::StringRef name) const {
  const GgufTensor *tensor =
      gguf.findTensor(std::string_view(name.data(), name.size()));
  if (!tensor)
    return compileError(ExitCode::Incompatible,
                        filePath + " has no tensor \"" + name +
                            "\", which the IR names; give the model file that "
                            "the IR was made from");
  return WeightSource{name.str(), tensor->format, tensor->rows(),
                      tensor->columns(), tensor->data};
}
