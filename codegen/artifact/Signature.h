//===- Signature.h - Signing artifacts --------------------------*- C++ -*-===//
//
// Ed25519 signatures (RFC 8032, by libsodium) and the key files for them, as
// runtime/schema/record.h defines both. Who has the public key can have an
// artifact proven by `quern verify --trust` and `quern run --trust`.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_ARTIFACT_SIGNATURE_H
#define QUERN_CODEGEN_ARTIFACT_SIGNATURE_H

#include "codegen/artifact/CompileError.h"
#include "codegen/artifact/OutputFile.h"
#include "runtime/schema/record.h"

#include <array>
#include <string>

namespace quern {

/// A secret key and its public one. The secret is wiped from memory at the end.
class SigningKey {
public:
  /// Reads a secret key file. Errors: Failure (unreadable), Malformed.
  static llvm::Expected<SigningKey> read(const std::string &path);
  /// A new key, from the operating system's random numbers.
  static SigningKey generate();

  SigningKey(SigningKey &&other);
  SigningKey &operator=(SigningKey &&) = delete;
  ~SigningKey();

  /// The contents of the key's two files.
  std::string secretText() const;
  std::string publicText() const;

  SignatureRecord sign(const FileHeader &header) const;

private:
  using Seed = std::array<uint8_t, 32>;
  explicit SigningKey(const Seed &seed);

  std::array<uint8_t, kPublicKeyBytes> publicKey;
  /// The seed, then the public key: libsodium's form.
  std::array<uint8_t, 64> secretKey;
};

/// Appends the signature of `header` by `key` as the first record of `file`,
/// which ends with the manifest.
llvm::Error appendSignature(OutputFile &file, const FileHeader &header,
                            const SigningKey &key);

/// Writes a new key to `name`.key, which only the owner may read, and
/// `name`.pub. Errors: Failure (one of them is there already, or cannot be
/// written).
llvm::Error writeNewKey(const std::string &name);

} // namespace quern

#endif // QUERN_CODEGEN_ARTIFACT_SIGNATURE_H
