// BLAKE2b-256, the digest of artifacts (RFC 7693), by libsodium.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "runtime/schema/file_header.h"

namespace quern {

using Digest = std::array<uint8_t, kHashBytes>;

/// The digest of `bytes`, unkeyed.
Digest HashBytes(std::span<const uint8_t> bytes);

/// 64 lower-case hexadecimal digits.
std::string DigestText(std::span<const uint8_t> digest);

}  // namespace quern
