#include "runtime/loader/signature.h"

#include <sodium.h>

#include <algorithm>
#include <cstring>

#include "runtime/loader/hash.h"

namespace quern {
namespace {

constexpr std::string_view kSpace = " \t\r\n";

/// The key that `word` spells.
std::optional<PublicKey> ParsePublicKey(std::string_view word) {
  constexpr std::string_view kPrefix = kPublicKeyPrefix;
  PublicKey key;
  if (!word.starts_with(kPrefix)) return std::nullopt;
  word.remove_prefix(kPrefix.size());
  size_t bytes = 0;
  if (word.size() != 2 * key.size() || sodium_hex2bin(key.data(), key.size(), word.data(),
                                                      word.size(), nullptr, &bytes, nullptr) != 0) {
    return std::nullopt;
  }
  return bytes == key.size() ? std::optional(key) : std::nullopt;
}

}  // namespace

Result<std::vector<PublicKey>> ParsePublicKeys(std::string_view text) {
  std::vector<PublicKey> keys;
  while (true) {
    text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
    if (text.empty()) break;
    const std::string_view word = text.substr(0, text.find_first_of(kSpace));
    text.remove_prefix(word.size());
    const std::optional<PublicKey> key = ParsePublicKey(word);
    if (!key) {
      return UsageError("public key " + std::to_string(keys.size() + 1) + " has " +
                        std::to_string(word.size()) + " letters, wanted " + kPublicKeyPrefix +
                        " and 64 hexadecimal digits; quern keygen makes one");
    }
    keys.push_back(*key);
  }
  if (keys.empty()) {
    return UsageError("no public key was given, wanted at least one; quern keygen makes one");
  }
  return keys;
}

std::string PublicKeyText(const PublicKey& key) { return kPublicKeyPrefix + DigestText(key); }

std::optional<PublicKey> ReadSignature(std::span<const uint8_t> header,
                                       std::span<const uint8_t> signature) {
  constexpr size_t kContextBytes = sizeof(kSignatureContext) - 1;
  if (signature.size() != sizeof(SignatureRecord)) return std::nullopt;
  SignatureRecord record;
  std::memcpy(&record, signature.data(), sizeof(record));
  std::array<uint8_t, kContextBytes + sizeof(FileHeader)> message;
  std::memcpy(message.data(), kSignatureContext, kContextBytes);
  std::memcpy(message.data() + kContextBytes, header.data(), sizeof(FileHeader));
  if (crypto_sign_verify_detached(record.signature, message.data(), message.size(),
                                  record.public_key) != 0) {
    return std::nullopt;
  }
  PublicKey key;
  std::memcpy(key.data(), record.public_key, key.size());
  return key;
}

Result<std::vector<PublicKey>> ReadSigners(std::span<const uint8_t> header,
                                           const Records& records) {
  std::vector<PublicKey> signers;
  for (const Record& record : records.items) {
    if (record.kind != RecordKind::kSignature) continue;
    const std::optional<PublicKey> signer = ReadSignature(header, record.bytes);
    if (!signer) {
      return Malformed("the signature (byte " + std::to_string(record.offset) +
                       ") is not one of this artifact: the artifact or the signature was changed; "
                       "copy the artifact again");
    }
    signers.push_back(*signer);
  }
  return signers;
}

Status RequireSigner(std::span<const PublicKey> signers, std::span<const PublicKey> trusted) {
  for (const PublicKey& signer : signers) {
    if (std::find(trusted.begin(), trusted.end(), signer) != trusted.end()) return {};
  }
  if (signers.empty()) {
    return Incompatible(
        "the artifact has no signature, wanted one of a trusted key; sign it with quern compile "
        "--sign-key");
  }
  return Incompatible("the artifact is signed by " + PublicKeyText(signers.front()) +
                      ", which is no trusted key; trust that key, or get the artifact from one "
                      "who is trusted");
}

}  // namespace quern
