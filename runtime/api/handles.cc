#include "runtime/api/handles.h"

#include <algorithm>
#include <cstdlib>

namespace quern::api {
namespace {

/// Copies `message`, cut at a whole UTF-8 character.
void CopyMessage(std::string_view message, char* out, size_t capacity) {
  size_t length = std::min(message.size(), capacity - 1);
  if (length < message.size()) {
    while (length > 0 && (static_cast<unsigned char>(message[length]) & 0xc0) == 0x80) --length;
  }
  std::copy_n(message.begin(), length, out);
  out[length] = '\0';
}

}  // namespace

quern_status_code Report(const Status& status, quern_error* error) {
  if (error) {
    error->code = static_cast<int32_t>(status.code());
    CopyMessage(status.message(), error->message, sizeof(error->message));
  }
  return static_cast<quern_status_code>(status.code());
}

Status Require(const void* pointer, const char* name) {
  if (pointer) return {};
  return UsageError(std::string(name) + " is NULL");
}

Status CopyOut(std::string_view text, char** out) {
  auto* copy = static_cast<char*>(std::malloc(text.size() + 1));
  if (!copy) return OutOfMemory("no memory for " + std::to_string(text.size()) + " bytes of text");
  std::copy(text.begin(), text.end(), copy);
  copy[text.size()] = '\0';
  *out = copy;
  return {};
}

Status CopyOut(std::span<const int32_t> tokens, int32_t** out) {
  auto* copy = static_cast<int32_t*>(std::malloc(tokens.size_bytes() + sizeof(int32_t)));
  if (!copy) return OutOfMemory("no memory for " + std::to_string(tokens.size()) + " tokens");
  std::copy(tokens.begin(), tokens.end(), copy);
  *out = copy;
  return {};
}

}  // namespace quern::api
