// Builds GGUF files in memory for tests, sound or with any field damaged.
#pragma once

#include <cstdint>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

namespace quern::testing {

using Bytes = std::vector<uint8_t>;

/// Time that this thread worked: what others do on the machine does not count.
inline double CpuSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

template <typename T>
void Append(Bytes& bytes, T value) {
  const auto* raw = reinterpret_cast<const uint8_t*>(&value);
  bytes.insert(bytes.end(), raw, raw + sizeof(T));
}

inline void AppendString(Bytes& bytes, const std::string& text) {
  Append<uint64_t>(bytes, text.size());
  bytes.insert(bytes.end(), text.begin(), text.end());
}

/// A metadata value: its type number and its bytes.
struct Value {
  uint32_t type;
  Bytes bytes;
};

inline Value U32(uint32_t value) {
  Value out{4, {}};
  Append(out.bytes, value);
  return out;
}
inline Value I32(int32_t value) {
  Value out{5, {}};
  Append(out.bytes, value);
  return out;
}
inline Value F32(float value) {
  Value out{6, {}};
  Append(out.bytes, value);
  return out;
}
inline Value Bool(uint8_t value) { return {7, {value}}; }
inline Value Text(const std::string& value) {
  Value out{8, {}};
  AppendString(out.bytes, value);
  return out;
}
inline Value U64(uint64_t value) {
  Value out{10, {}};
  Append(out.bytes, value);
  return out;
}
inline Value Texts(const std::vector<std::string>& values) {
  Value out{9, {}};
  Append<uint32_t>(out.bytes, 8);
  Append<uint64_t>(out.bytes, values.size());
  for (const std::string& value : values) AppendString(out.bytes, value);
  return out;
}
inline Value I32s(const std::vector<int32_t>& values) {
  Value out{9, {}};
  Append<uint32_t>(out.bytes, 5);
  Append<uint64_t>(out.bytes, values.size());
  for (int32_t value : values) Append(out.bytes, value);
  return out;
}
/// An array that only claims its length.
inline Value HollowArray(uint32_t element_type, uint64_t count) {
  Value out{9, {}};
  Append(out.bytes, element_type);
  Append(out.bytes, count);
  return out;
}

struct Key {
  std::string name;
  Value value;
};

struct Tensor {
  std::string name;
  std::vector<uint64_t> dims;  // fastest first
  uint32_t type = 0;           // F32
  uint64_t bytes = 0;
  uint64_t offset = UINT64_MAX;  // default: after the tensor before
};

/// The fields of a file. `Build()` also says where each field lies.
struct GgufBuilder {
  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t alignment = 32;
  std::vector<Key> keys;
  std::vector<Tensor> tensors;
  /// Counts that the header claims, when not the true ones.
  uint64_t claimed_tensors = UINT64_MAX;
  uint64_t claimed_keys = UINT64_MAX;
  uint8_t fill = 0;

  /// Offsets in the last file built: where key `i` starts, its value, tensor `i`'s description.
  std::vector<uint64_t> key_offsets, value_offsets, tensor_offsets;

  void Set(const std::string& name, Value value) {
    for (Key& key : keys)
      if (key.name == name) {
        key.value = std::move(value);
        return;
      }
    keys.push_back({name, std::move(value)});
  }
  void Remove(const std::string& name) {
    std::erase_if(keys, [&](const Key& key) { return key.name == name; });
    std::erase_if(tensors, [&](const Tensor& tensor) { return tensor.name == name; });
  }
  Tensor& Find(const std::string& name) {
    for (Tensor& tensor : tensors)
      if (tensor.name == name) return tensor;
    return tensors.emplace_back(Tensor{name, {32}, 0, 128});
  }

  Bytes Build() {
    key_offsets.clear(), value_offsets.clear(), tensor_offsets.clear();
    Bytes out(magic.begin(), magic.end());
    Append(out, version);
    Append<uint64_t>(out, claimed_tensors == UINT64_MAX ? tensors.size() : claimed_tensors);
    Append<uint64_t>(out, claimed_keys == UINT64_MAX ? keys.size() : claimed_keys);
    for (const Key& key : keys) {
      key_offsets.push_back(out.size());
      AppendString(out, key.name);
      Append(out, key.value.type);
      value_offsets.push_back(out.size());
      out.insert(out.end(), key.value.bytes.begin(), key.value.bytes.end());
    }
    uint64_t next = 0, end = 0;
    for (const Tensor& tensor : tensors) {
      tensor_offsets.push_back(out.size());
      AppendString(out, tensor.name);
      Append<uint32_t>(out, tensor.dims.size());
      for (uint64_t dim : tensor.dims) Append(out, dim);
      Append(out, tensor.type);
      uint64_t offset = tensor.offset == UINT64_MAX ? next : tensor.offset;
      Append(out, offset);
      next = (offset + tensor.bytes + alignment - 1) / alignment * alignment;
      if (tensor.offset == UINT64_MAX) end = std::max(end, offset + tensor.bytes);
    }
    if (!tensors.empty()) out.resize((out.size() + alignment - 1) / alignment * alignment);
    out.resize(out.size() + end, fill);
    return out;
  }
};

}  // namespace quern::testing
