#include "runtime/loader/hash.h"

#include <sodium.h>

namespace quern {

Digest HashBytes(std::span<const uint8_t> bytes) {
  // Picks the fastest implementation; harmless when called again or when it fails.
  static const int initialised = sodium_init();
  (void)initialised;
  Digest digest{};
  crypto_generichash(digest.data(), digest.size(), bytes.data(), bytes.size(), nullptr, 0);
  return digest;
}

std::string DigestText(std::span<const uint8_t> digest) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (uint8_t byte : digest) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

}  // namespace quern
