#include "compiler/import/Gguf.h"
#include "compiler/import/GgufText.h"
#include "compiler/import/GuardMemory.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <tuple>

namespace quern::importer {
namespace {

constexpr uint64_t kHeaderBytes = 24;
/// Bounds far above real files, so that a hostile one costs little.
constexpr uint64_t kMaxDirectoryBytes = uint64_t(256) << 20;
constexpr uint64_t kMaxKeys = 1 << 16;
constexpr uint64_t kMaxTensors = 1 << 20;
constexpr uint64_t kMaxKeyBytes = 65535;
constexpr uint64_t kMaxTensorNameBytes = 64;
constexpr uint64_t kMaxAlignment = 65536;
/// The shortest entries: a one-byte key with a one-byte value, and a one-byte
/// name with one dimension.
constexpr uint64_t kMinEntryBytes = 8 + 1 + 4 + 1;
constexpr uint64_t kMinTensorInfoBytes = 8 + 1 + 4 + 8 + 4 + 8;

constexpr const char *kDamaged = "; the file is damaged, fetch it again";

std::string number(uint64_t value) { return std::to_string(value); }

} // namespace

/// Reads the directory from front to back. Every read returns false and leaves
/// the reason in `error` when the bytes do not allow it.
class GgufParser {
public:
  explicit GgufParser(std::span<const uint8_t> bytes)
      : bytes(bytes),
        limit(std::min<uint64_t>(bytes.size(), kMaxDirectoryBytes)) {}

  ImportResult<GgufFile> parse() {
    if (readHeader() && readMetadata() && readAlignment() && readTensors() &&
        placeTensors())
      return std::move(file);
    return std::move(error);
  }

private:
  //===--------------------------------------------------------------------===//
  // Errors and primitive reads
  //===--------------------------------------------------------------------===//

  bool fail(ImportErrorCode code, uint64_t offset, std::string message) {
    error = {code, std::move(message), offset};
    return false;
  }
  bool malformed(uint64_t offset, std::string message) {
    return fail(ImportErrorCode::Malformed, offset, std::move(message));
  }

  uint64_t remaining() const { return limit - position; }

  /// Fails unless `size` more bytes of `what` are there.
  bool need(uint64_t size, const std::string &what) {
    if (size <= remaining())
      return true;
    if (limit < bytes.size())
      return malformed(position, what + " is " + number(size) +
                                     " bytes long and ends past the first " +
                                     number(kMaxDirectoryBytes >> 20) +
                                     " MiB, the most a directory may take" +
                                     kDamaged);
    return malformed(position, what + " wants " + number(size) +
                                   " bytes but the file ends after " +
                                   number(remaining()) + kDamaged);
  }

  template <typename T> bool read(T &value, const std::string &what) {
    if (!need(sizeof(T), what))
      return false;
    std::memcpy(&value, bytes.data() + position, sizeof(T));
    position += sizeof(T);
    return true;
  }

  bool readString(std::string_view &text, const std::string &what) {
    uint64_t start = position, size = 0;
    if (!read(size, "the length of " + what))
      return false;
    if (size > remaining())
      return malformed(start, what + " is " + number(size) +
                                  " bytes long but only " +
                                  number(remaining()) + " are left" + kDamaged);
    text = {reinterpret_cast<const char *>(bytes.data()) + position, size};
    position += size;
    return true;
  }

  /// Steps over a string; false, without a reason, where readString() fails.
  bool skipString() {
    uint64_t size = 0;
    if (remaining() < sizeof(size))
      return false;
    std::memcpy(&size, bytes.data() + position, sizeof(size));
    if (size > remaining() - sizeof(size))
      return false;
    position += sizeof(size) + size;
    return true;
  }

  uint64_t offsetOf(std::string_view text) const {
    return reinterpret_cast<const uint8_t *>(text.data()) - bytes.data();
  }

  //===--------------------------------------------------------------------===//
  // Header
  //===--------------------------------------------------------------------===//

  bool readHeader() {
    if (bytes.empty())
      return malformed(
          0,
          std::string("the file is empty, a GGUF file was wanted") + kDamaged);
    std::string_view start(reinterpret_cast<const char *>(bytes.data()),
                           std::min<size_t>(4, bytes.size()));
    if (start == "FUGG")
      return bigEndian(0);
    if (start != std::string_view("GGUF").substr(0, start.size()))
      return malformed(0, "the magic is " + quoted(start) +
                              ", \"GGUF\" was wanted; give a GGUF file, or "
                              "convert the model to one");
    if (bytes.size() < kHeaderBytes)
      return malformed(bytes.size(), "the file has " + number(bytes.size()) +
                                         " bytes, a GGUF header has 24" +
                                         kDamaged);
    position = 4;
    read(file.formatVersion, "the version");
    if (!checkVersion())
      return false;
    read(tensorCount, "the tensor count");
    read(keyCount, "the key count");
    return checkCount(8, "tensor", tensorCount, kMinTensorInfoBytes,
                      kMaxTensors) &&
           checkCount(16, "key", keyCount, kMinEntryBytes, kMaxKeys);
  }

  bool bigEndian(uint64_t offset) {
    return fail(ImportErrorCode::Unsupported, offset,
                "the file is big-endian, little-endian was wanted; convert it "
                "first");
  }

  bool checkVersion() {
    uint32_t version = file.formatVersion;
    if (version == 2 || version == 3)
      return true;
    if (version != 0 && (version & 0xffff) == 0)
      return bigEndian(4);
    return fail(ImportErrorCode::Unsupported, 4,
                "the GGUF version is " + number(version) +
                    ", 2 or 3 was wanted; convert the model again");
  }

  bool checkCount(uint64_t offset, const char *what, uint64_t count,
                  uint64_t minBytes, uint64_t most) {
    most = std::min(most, remaining() / minBytes);
    if (count <= most)
      return true;
    return malformed(offset, std::string("the ") + what + " count is " +
                                 number(count) + ", at most " + number(most) +
                                 " fit in this file" + kDamaged);
  }

  //===--------------------------------------------------------------------===//
  // Metadata
  //===--------------------------------------------------------------------===//

  bool readMetadata() {
    for (uint64_t i = 0; i < keyCount; ++i) {
      uint64_t start = position;
      GgufEntry entry;
      if (!readString(entry.key, "key " + number(i)) ||
          !checkKey(start, entry.key) || !readValue(entry))
        return false;
      file.entries.push_back(entry);
    }
    return indexByName(file.entries, file.entriesByKey, &GgufEntry::key, "key");
  }

  bool checkKey(uint64_t offset, std::string_view key) {
    if (key.empty() || key.size() > kMaxKeyBytes)
      return malformed(offset, "a metadata key has " + number(key.size()) +
                                   " bytes, 1 to " + number(kMaxKeyBytes) +
                                   " were wanted" + kDamaged);
    if (key.find('\0') != key.npos || !isValidUtf8(key))
      return malformed(offset, "metadata key " + quoted(key) +
                                   " is not UTF-8 without NUL" + kDamaged);
    return true;
  }

  bool readType(GgufType &type, const std::string &what) {
    uint64_t start = position;
    uint32_t value = 0;
    if (!read(value, "the type of " + what))
      return false;
    if (value > static_cast<uint32_t>(GgufType::F64))
      return malformed(start, what + " has the value type " + number(value) +
                                  ", 0 to 12 were wanted" + kDamaged);
    type = static_cast<GgufType>(value);
    return true;
  }

  bool readValue(GgufEntry &entry) {
    GgufValue &value = entry.value;
    const std::string what = "key " + quoted(entry.key);
    if (!readType(value.valueType, what))
      return false;
    value.fileOffset = position;
    value.itemType = value.valueType;
    if (value.valueType == GgufType::Array) {
      uint64_t typeOffset = position;
      if (!readType(value.itemType, what))
        return false;
      if (value.itemType == GgufType::Array)
        return fail(ImportErrorCode::Unsupported, typeOffset,
                    what + " is an array of arrays; arrays of scalars and "
                           "strings are supported");
      if (!read(value.itemCount, "the length of " + what))
        return false;
    }
    value.payload = bytes.data() + position;
    return skipElements(value, what);
  }

  /// Checks and steps over the elements of a value.
  bool skipElements(const GgufValue &value, const std::string &what) {
    uint64_t width = ggufTypeBytes(value.itemType), count = value.itemCount;
    bool isString = value.itemType == GgufType::String;
    if (count > remaining() / (isString ? 8 : width))
      return malformed(value.fileOffset,
                       what + " has " + number(count) + " elements of " +
                           std::string(ggufTypeName(value.itemType)) +
                           ", more than the " + number(remaining()) +
                           " bytes left can hold" + kDamaged);
    if (isString) {
      std::string_view text;
      for (uint64_t i = 0; i < count; ++i)
        if (!skipString())
          return readString(text, "a string of " + what); // which fails
      return true;
    }
    if (value.itemType == GgufType::Bool)
      for (uint64_t i = 0; i < count; ++i)
        if (value.payload[i] > 1)
          return malformed(position + i, what + " has the truth value " +
                                             number(value.payload[i]) +
                                             ", 0 or 1 was wanted" + kDamaged);
    position += count * width;
    return true;
  }

  bool readAlignment() {
    const GgufValue *value = file.find("general.alignment");
    if (!value)
      return true;
    const char *wanted =
        "a power of two from 1 to 65536 of type uint32 was wanted";
    if (value->type() != GgufType::U32)
      return malformed(value->offset(),
                       "general.alignment has type " +
                           std::string(ggufTypeName(value->type())) + ", " +
                           wanted + kDamaged);
    file.dataAlignment = *value->asUnsigned();
    if (!std::has_single_bit(file.dataAlignment) ||
        file.dataAlignment > kMaxAlignment)
      return malformed(value->offset(), "general.alignment is " +
                                            number(file.dataAlignment) + ", " +
                                            wanted + kDamaged);
    return true;
  }

  /// Sorts indices of `items` by name and refuses a name that comes twice.
  template <typename Item>
  bool indexByName(const std::vector<Item> &items, std::vector<uint32_t> &index,
                   std::string_view Item::*name, const char *what) {
    index.resize(items.size());
    std::iota(index.begin(), index.end(), 0u);
    std::sort(index.begin(), index.end(), [&](uint32_t a, uint32_t b) {
      return std::tie(items[a].*name, a) < std::tie(items[b].*name, b);
    });
    for (size_t i = 1; i < index.size(); ++i) {
      std::string_view text = items[index[i]].*name;
      if (text == items[index[i - 1]].*name)
        return malformed(offsetOf(text) - 8, std::string(what) + " " +
                                                 quoted(text) + " comes twice" +
                                                 kDamaged);
    }
    return true;
  }

  //===--------------------------------------------------------------------===//
  // Tensors
  //===--------------------------------------------------------------------===//

  bool readTensors() {
    for (uint64_t i = 0; i < tensorCount; ++i) {
      GgufTensor tensor{};
      tensor.infoOffset = position;
      if (!readTensorName(tensor, i))
        return false;
      const std::string what = "tensor " + quoted(tensor.name);
      uint64_t dataOffset = 0;
      if (!readShape(tensor, what) || !readFormat(tensor, what) ||
          !read(dataOffset, "the offset of " + what))
        return false;
      file.tensorInfos.push_back(tensor);
      dataOffsets.push_back(dataOffset);
    }
    return indexByName(file.tensorInfos, file.tensorsByName, &GgufTensor::name,
                       "tensor");
  }

  bool readTensorName(GgufTensor &tensor, uint64_t index) {
    if (!readString(tensor.name, "the name of tensor " + number(index)))
      return false;
    std::string_view name = tensor.name;
    if (name.empty() || name.size() > kMaxTensorNameBytes)
      return malformed(tensor.infoOffset,
                       "the name of tensor " + number(index) + " has " +
                           number(name.size()) + " bytes, 1 to 64 were wanted" +
                           kDamaged);
    if (name.find('\0') != name.npos || !isValidUtf8(name))
      return malformed(tensor.infoOffset, "tensor name " + quoted(name) +
                                              " is not UTF-8 without NUL" +
                                              kDamaged);
    return true;
  }

  bool readShape(GgufTensor &tensor, const std::string &what) {
    uint64_t start = position;
    uint32_t rank = 0;
    if (!read(rank, "the rank of " + what))
      return false;
    if (rank < 1 || rank > 4)
      return malformed(start, what + " has " + number(rank) +
                                  " dimensions, 1 to 4 were wanted" + kDamaged);
    tensor.rank = static_cast<int>(rank);
    tensor.dims = {1, 1, 1, 1};
    // Every product stays below 2^59, so that counts of bytes fit in 63 bits.
    uint64_t elements = 1;
    for (uint32_t i = 0; i < rank; ++i) {
      uint64_t offset = position, size = 0;
      if (!read(size, "a dimension of " + what))
        return false;
      if (size == 0 || size > (uint64_t(1) << 59) / elements)
        return malformed(offset, "dimension " + number(i) + " of " + what +
                                     " is " + number(size) +
                                     ", 1 or more and a product below 2^59 "
                                     "were wanted" +
                                     kDamaged);
      elements *= size;
      tensor.dims[i] = size;
    }
    return true;
  }

  bool readFormat(GgufTensor &tensor, const std::string &what) {
    uint64_t start = position;
    uint32_t type = 0;
    if (!read(type, "the type of " + what))
      return false;
    std::optional<BlockFormat> format = blockFormatFromGguf(type);
    if (!format)
      return fail(ImportErrorCode::Unsupported, start,
                  what + " has type " + ggmlTypeText(type) + "; " +
                      supportedFormatsText() +
                      " are supported, convert the model to one of them");
    tensor.format = *format;
    const BlockFormatInfo &info = blockFormatInfo(*format);
    if (tensor.dims[0] % info.blockElements == 0)
      return true;
    return malformed(
        start, what + " has rows of " + number(tensor.dims[0]) +
                   " elements, a multiple of " + number(info.blockElements) +
                   " was wanted for type " + std::string(info.name) + kDamaged);
  }

  /// Byte offset of the data-offset field of a tensor's description.
  static uint64_t offsetField(const GgufTensor &tensor) {
    return tensor.infoOffset + 8 + tensor.name.size() + 4 +
           8 * static_cast<uint64_t>(tensor.rank) + 4;
  }

  /// Turns data offsets into spans; refuses what lies outside or on another.
  bool placeTensors() {
    uint64_t align = file.dataAlignment;
    uint64_t dataStart = (position + align - 1) / align * align;
    uint64_t dataBytes =
        bytes.size() > dataStart ? bytes.size() - dataStart : 0;
    for (size_t i = 0; i < file.tensorInfos.size(); ++i) {
      GgufTensor &tensor = file.tensorInfos[i];
      const std::string what = "tensor " + quoted(tensor.name);
      uint64_t offset = dataOffsets[i];
      if (offset % align != 0)
        return malformed(offsetField(tensor),
                         "the data of " + what + " is at offset " +
                             number(offset) + ", a multiple of " +
                             number(align) + " was wanted" + kDamaged);
      uint64_t size = static_cast<uint64_t>(tensor.rows()) *
                      static_cast<uint64_t>(tensor.rowBytes());
      if (offset > dataBytes || size > dataBytes - offset)
        return malformed(offsetField(tensor),
                         "the data of " + what + " is " + number(size) +
                             " bytes at offset " + number(offset) +
                             " but the data section has " + number(dataBytes) +
                             "; the file is cut short, fetch it again");
      tensor.data = bytes.subspan(dataStart + offset, size);
    }
    return checkOverlap();
  }

  bool checkOverlap() {
    std::vector<uint32_t> order(file.tensorInfos.size());
    std::iota(order.begin(), order.end(), 0u);
    std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
      return std::tie(dataOffsets[a], a) < std::tie(dataOffsets[b], b);
    });
    for (size_t i = 1; i < order.size(); ++i) {
      const GgufTensor &first = file.tensorInfos[order[i - 1]];
      const GgufTensor &second = file.tensorInfos[order[i]];
      if (first.data.data() + first.data.size() > second.data.data())
        return malformed(offsetField(second),
                         "the data of tensor " + quoted(second.name) +
                             " at offset " + number(dataOffsets[order[i]]) +
                             " overlaps that of " + quoted(first.name) +
                             kDamaged);
    }
    return true;
  }

  std::span<const uint8_t> bytes;
  /// Where the directory must end at the latest.
  uint64_t limit;
  uint64_t position = 0;
  uint64_t tensorCount = 0;
  uint64_t keyCount = 0;
  GgufFile file;
  /// Of each tensor, from the start of the data section.
  std::vector<uint64_t> dataOffsets;
  ImportError error{};
};

ImportResult<GgufFile> parseGguf(std::span<const uint8_t> bytes) {
  return guardMemory([&] { return GgufParser(bytes).parse(); });
}

} // namespace quern::importer
