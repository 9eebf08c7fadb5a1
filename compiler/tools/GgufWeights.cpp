//===- GgufWeights.cpp ----------------------------------------------------===//
#include "compiler/tools/GgufWeights.h"

#include "compiler/import/Gguf.h"
#include "compiler/import/MappedFile.h"

#include <cstring>
#include <memory>

using namespace mlir;
using namespace quern;
using namespace quern::reference;

namespace {
/// The file, and the views into it.
struct OpenGguf {
  importer::MappedFile mapping;
  importer::GgufFile file;
};
} // namespace

/// The tensor as the file stores it.
static Tensor stored(const importer::GgufTensor &source,
                     std::vector<int64_t> shape) {
  Tensor tensor = Tensor::makeStored(source.format, std::move(shape));
  const size_t bytes = source.rows() * source.rowBytes();
  void *to = source.format == BlockFormat::F32
                 ? static_cast<void *>(tensor.floats.data())
                 : tensor.bytes.data();
  std::memcpy(to, source.row(0), bytes);
  return tensor;
}

static FailureOr<Tensor> read(const importer::GgufFile &file, StringRef name,
                              RankedTensorType type) {
  const importer::GgufTensor *source = file.findTensor(std::string_view(name));
  const std::optional<BlockFormat> format = lm::formatOf(type);
  if (!source || !format || source->columns() != type.getShape().back() ||
      source->rows() * source->columns() != type.getNumElements())
    return failure();
  Tensor tensor = stored(*source, std::vector<int64_t>(type.getShape()));
  if (*format == tensor.format)
    return tensor;
  if (!canQuantize(*format))
    return failure();
  Tensor rounded = Tensor::makeStored(*format, tensor.shape);
  for (int64_t m = 0; m < tensor.rows(); ++m)
    rounded.setRow(m, tensor.row(m));
  return rounded;
}

importer::ImportResult<WeightProvider>
quern::ggufWeights(const std::string &path) {
  auto mapping = importer::MappedFile::open(path);
  if (!mapping.ok())
    return mapping.error();
  auto file = importer::parseGguf(mapping->bytes());
  if (!file.ok())
    return file.error();
  auto open = std::make_shared<OpenGguf>(
      OpenGguf{std::move(*mapping), std::move(*file)});
  return WeightProvider([open](StringRef name, RankedTensorType type, Type) {
    return read(open->file, name, type);
  });
}
