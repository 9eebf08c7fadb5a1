#include <cstring>
#include <new>

#include "runtime/device/ptx_emulator/emulator.h"

namespace quern::ptx {
namespace {

constexpr uint64_t kFirstAddress = uint64_t{1} << 36;
constexpr uint64_t kGranule = 512;  // Also the least gap between buffers.
constexpr uint8_t kPoison = 0xCD;

std::string Hex(uint64_t value) {
  char text[20];
  std::snprintf(text, sizeof text, "%#llx", static_cast<unsigned long long>(value));
  return text;
}

}  // namespace

Memory::Memory(uint64_t capacity) : capacity_(capacity), next_(kFirstAddress) {}
Memory::~Memory() = default;

Result<uint64_t> Memory::Allocate(uint64_t bytes) {
  if (bytes == 0) return UsageError("allocation of 0 bytes of device memory");
  const std::lock_guard lock(mutex_);
  if (bytes > capacity_ || used_ > capacity_ - bytes)
    return OutOfMemory("device memory: " + std::to_string(bytes) + " bytes wanted, " +
                       std::to_string(used_) + " of " + std::to_string(capacity_) + " in use");
  Buffer buffer;
  buffer.host.reset(new (std::nothrow) uint8_t[bytes]);
  if (!buffer.host)
    return OutOfMemory("the host has no " + std::to_string(bytes) + " bytes for device memory");
  std::memset(buffer.host.get(), kPoison, bytes);
  buffer.address = next_;
  buffer.bytes = bytes;
  next_ += (bytes + 2 * kGranule - 1) / kGranule * kGranule;
  used_ += bytes;
  const uint64_t address = buffer.address;
  buffers_.emplace(address, std::move(buffer));
  return address;
}

Status Memory::Free(uint64_t address) {
  const std::lock_guard lock(mutex_);
  const auto found = buffers_.find(address);
  if (found == buffers_.end())
    return UsageError("no buffer of device memory begins at " + Hex(address));
  used_ -= found->second.bytes;
  if (freed_.size() < 4096) freed_.emplace_back(address, found->second.bytes);
  buffers_.erase(found);
  return {};
}

const Memory::Buffer* Memory::Find(uint64_t address) const {
  auto after = buffers_.upper_bound(address);
  return after == buffers_.begin() ? nullptr : &std::prev(after)->second;
}

uint8_t* Memory::Translate(uint64_t address, uint64_t bytes) const {
  const std::lock_guard lock(mutex_);
  const Buffer* buffer = Find(address);
  if (!buffer) return nullptr;
  const uint64_t offset = address - buffer->address;
  if (offset > buffer->bytes || bytes > buffer->bytes - offset) return nullptr;
  return buffer->host.get() + offset;
}

std::string Memory::Describe(uint64_t address) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [begin, bytes] : freed_)
    if (address >= begin && address - begin < bytes)
      return "inside a freed buffer of " + std::to_string(bytes) + " bytes at " + Hex(begin);
  const Buffer* buffer = Find(address);
  if (!buffer) {
    if (address < kFirstAddress) return "below every buffer (a null pointer?)";
    return "below every buffer";
  }
  const std::string of =
      " the buffer of " + std::to_string(buffer->bytes) + " bytes at " + Hex(buffer->address);
  const uint64_t offset = address - buffer->address;
  if (offset < buffer->bytes) return std::to_string(offset) + " bytes into" + of;
  return std::to_string(offset - buffer->bytes) + " bytes past the end of" + of;
}

uint64_t Memory::used() const {
  const std::lock_guard lock(mutex_);
  return used_;
}

namespace {

Status OutOfRange(const Memory& memory, const char* what, uint64_t address, uint64_t bytes) {
  return UsageError(std::string(what) + " of " + std::to_string(bytes) + " bytes at " +
                    Hex(address) + ": the range begins " + memory.Describe(address));
}

}  // namespace

Status Memory::CopyToDevice(uint64_t destination, const void* source, uint64_t bytes) {
  if (bytes == 0) return {};
  uint8_t* to = Translate(destination, bytes);
  if (!to) return OutOfRange(*this, "copy to device memory", destination, bytes);
  std::memcpy(to, source, bytes);
  return {};
}

Status Memory::CopyToHost(void* destination, uint64_t source, uint64_t bytes) const {
  if (bytes == 0) return {};
  const uint8_t* from = Translate(source, bytes);
  if (!from) return OutOfRange(*this, "copy from device memory", source, bytes);
  std::memcpy(destination, from, bytes);
  return {};
}

Status Memory::Copy(uint64_t destination, uint64_t source, uint64_t bytes) {
  if (bytes == 0) return {};
  uint8_t* to = Translate(destination, bytes);
  if (!to) return OutOfRange(*this, "copy to device memory", destination, bytes);
  const uint8_t* from = Translate(source, bytes);
  if (!from) return OutOfRange(*this, "copy from device memory", source, bytes);
  std::memmove(to, from, bytes);
  return {};
}

Status Memory::Fill(uint64_t destination, uint32_t value, uint32_t element_bytes, uint64_t count) {
  if (element_bytes != 1 && element_bytes != 2 && element_bytes != 4)
    return UsageError("fill with elements of " + std::to_string(element_bytes) +
                      " bytes; 1, 2 and 4 are possible");
  if (count == 0) return {};
  uint8_t* to = count > UINT64_MAX / 4 ? nullptr : Translate(destination, count * element_bytes);
  if (!to) return OutOfRange(*this, "fill of device memory", destination, count * element_bytes);
  for (uint64_t i = 0; i < count; ++i) std::memcpy(to + i * element_bytes, &value, element_bytes);
  return {};
}

}  // namespace quern::ptx
