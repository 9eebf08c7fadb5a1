// Ed25519 signatures of artifacts (SignatureRecord), by libsodium.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/loader/records.h"

namespace quern {

using PublicKey = std::array<uint8_t, kPublicKeyBytes>;

/// Keys as key files hold them, separated by white space: "quern-public-key:" and 64 hexadecimal
/// digits each, at least one. Error: kUsage.
Result<std::vector<PublicKey>> ParsePublicKeys(std::string_view text);

/// "quern-public-key:" and the digits.
std::string PublicKeyText(const PublicKey& key);

/// Who made `signature`, a SignatureRecord, of a file with the 64 bytes `header`; nobody when it is
/// none.
std::optional<PublicKey> ReadSignature(std::span<const uint8_t> header,
                                       std::span<const uint8_t> signature);

/// Who signed a file with these 64 bytes of `header`. Error: kMalformed for a signature that is not
/// one of this header.
Result<std::vector<PublicKey>> ReadSigners(std::span<const uint8_t> header, const Records& records);

/// Whether one of `signers` is in `trusted`. Error: kIncompatible.
Status RequireSigner(std::span<const PublicKey> signers, std::span<const PublicKey> trusted);

}  // namespace quern
