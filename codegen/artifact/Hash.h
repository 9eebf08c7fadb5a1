//===- Hash.h - BLAKE2b-256 -------------------------------------*- C++ -*-===//
//
// The hash of an artifact's segments and manifest: BLAKE2b with a 32-byte
// digest and no key (RFC 7693), by libsodium.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_ARTIFACT_HASH_H
#define QUERN_CODEGEN_ARTIFACT_HASH_H

#include <sodium/crypto_generichash.h>

#include <array>
#include <cstdint>
#include <span>
#include <string>

namespace quern {

/// A BLAKE2b-256 digest.
using Digest = std::array<uint8_t, 32>;

/// Hashes a stream of bytes.
class Hasher {
public:
  Hasher() { crypto_generichash_init(&state, nullptr, 0, sizeof(Digest)); }

  void update(std::span<const uint8_t> bytes) {
    crypto_generichash_update(&state, bytes.data(), bytes.size());
  }
  /// The digest of everything so far; the hasher must not be used after it.
  Digest finish() {
    Digest digest;
    crypto_generichash_final(&state, digest.data(), digest.size());
    return digest;
  }

private:
  crypto_generichash_state state;
};

/// The digest of `bytes`.
inline Digest hashBytes(std::span<const uint8_t> bytes) {
  Hasher hasher;
  hasher.update(bytes);
  return hasher.finish();
}

/// `digest` in lower-case hexadecimal.
std::string hexDigest(const Digest &digest);

} // namespace quern

#endif // QUERN_CODEGEN_ARTIFACT_HASH_H
