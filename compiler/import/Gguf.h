// GGUF files: metadata and a directory of tensors. Parsing is a pure function
// of the bytes; every length, count, type and offset is checked here, so that
// what follows may trust the spans. Format:
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3.
//
// Goals: no copy of the file's strings, arrays or weights (all views point into
// the input); memory in proportion to the number of keys and tensors present,
// never to a number the file claims. Non-goals: big-endian files, files in
// several shards, writing.
#ifndef QUERN_COMPILER_IMPORT_GGUF_H
#define QUERN_COMPILER_IMPORT_GGUF_H

#include "compiler/import/ImportResult.h"
#include "dialects/lm/BlockFormat.h"

#include <array>
#include <span>
#include <string_view>
#include <vector>

namespace quern::importer {

/// Types of metadata values, with GGUF's numbers.
enum class GgufType : uint32_t {
  U8 = 0,
  I8 = 1,
  U16 = 2,
  I16 = 3,
  U32 = 4,
  I32 = 5,
  F32 = 6,
  Bool = 7,
  String = 8,
  Array = 9,
  U64 = 10,
  I64 = 11,
  F64 = 12,
};

/// Name of a metadata type in messages: "uint32", "string".
std::string_view ggufTypeName(GgufType type);

/// A metadata value: a checked view of the file. The accessors give nothing
/// when the type differs.
class GgufValue {
public:
  GgufType type() const { return valueType; }
  /// Type of an array's elements; the value's own type for a scalar.
  GgufType elementType() const { return itemType; }
  /// Elements of an array; 1 for a scalar.
  uint64_t count() const { return itemCount; }
  /// Byte offset of the value in the file.
  uint64_t offset() const { return fileOffset; }

  /// Any integer type whose value is not negative.
  std::optional<uint64_t> asUnsigned() const;
  /// Any integer type that fits.
  std::optional<int64_t> asSigned() const;
  /// F32, F64 and integers.
  std::optional<double> asFloat() const;
  std::optional<bool> asBool() const;
  std::optional<std::string_view> asString() const;

  /// Array of strings, in order.
  std::optional<std::vector<std::string_view>> asStrings() const;
  /// Array of any integer type, each value fitting in int64.
  std::optional<std::vector<int64_t>> asIntegers() const;

private:
  friend class GgufParser;
  GgufType valueType = GgufType::U8;
  GgufType itemType = GgufType::U8;
  uint64_t itemCount = 1;
  uint64_t fileOffset = 0;
  /// The elements as the file stores them: fixed width, or for strings a u64
  /// length and the bytes.
  const uint8_t *payload = nullptr;
};

/// One metadata entry.
struct GgufEntry {
  std::string_view key;
  GgufValue value;
};

/// One tensor. A matrix that maps K inputs to N outputs has dims {K, N}: rows()
/// rows of columns().
struct GgufTensor {
  std::string_view name;
  /// Sizes, fastest first; 1 past the rank.
  std::array<uint64_t, 4> dims;
  int rank;
  BlockFormat format;
  /// All rows, each of blockFormatInfo(format).rowBytes(columns()) bytes.
  std::span<const uint8_t> data;
  /// Byte offset of the tensor's description in the file.
  uint64_t infoOffset;

  int64_t columns() const { return static_cast<int64_t>(dims[0]); }
  int64_t rows() const {
    return static_cast<int64_t>(dims[1] * dims[2] * dims[3]);
  }
  int64_t rowBytes() const {
    return blockFormatInfo(format).rowBytes(columns());
  }
  const uint8_t *row(int64_t index) const {
    return data.data() + index * rowBytes();
  }
};

/// A parsed file. It refers to the bytes it was parsed from, which must outlive
/// it.
class GgufFile {
public:
  uint32_t version() const { return formatVersion; }
  /// `general.alignment`, a power of two, 32 unless the file says otherwise.
  uint64_t alignment() const { return dataAlignment; }
  /// Entries in file order.
  std::span<const GgufEntry> metadata() const { return entries; }
  /// Tensors in file order.
  std::span<const GgufTensor> tensors() const { return tensorInfos; }

  /// The value of `key`, or nullptr.
  const GgufValue *find(std::string_view key) const;
  /// The tensor called `name`, or nullptr.
  const GgufTensor *findTensor(std::string_view name) const;

private:
  friend class GgufParser;
  uint32_t formatVersion = 0;
  uint64_t dataAlignment = 32;
  std::vector<GgufEntry> entries;
  std::vector<GgufTensor> tensorInfos;
  /// Indices into entries and tensorInfos, sorted by name.
  std::vector<uint32_t> entriesByKey;
  std::vector<uint32_t> tensorsByName;
};

/// Parses a whole GGUF file. Errors: Malformed with the byte offset of the
/// offending field; Unsupported for big-endian files, other versions and tensor
/// types that Quern does not know.
ImportResult<GgufFile> parseGguf(std::span<const uint8_t> bytes);

} // namespace quern::importer

#endif // QUERN_COMPILER_IMPORT_GGUF_H
