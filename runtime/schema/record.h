// Records: what is known about an artifact beside what it holds, such as its signatures and its
// measured accuracy (docs/artifact.md). They follow the manifest, so that adding one changes no
// byte of the artifact and not its hash.
//
// The first record begins at the first multiple of kRecordAlignment behind the manifest, each
// further one likewise behind the one before: a header, then `size` bytes. A header of zeros, or
// the end of the file, ends them: whoever adds a record writes its header last.
#pragma once

#include <cstdint>

#include "runtime/schema/file_header.h"

namespace quern {

inline constexpr uint8_t kRecordMagic[8] = {'Q', 'R', 'N', 'R', 'E', 'C', '\r', '\n'};
inline constexpr uint64_t kRecordAlignment = 64;
// Bounds that keep hostile files cheap.
inline constexpr uint64_t kMaxRecordBytes = uint64_t{16} << 20;
inline constexpr uint64_t kMaxRecords = 256;

/// The values are those of `quern_record_kind` in quern.h. Readers step over kinds that they do not
/// know.
enum class RecordKind : uint32_t {
  kSignature = 1,  ///< SignatureRecord.
  kReference = 2,  ///< JSON: what accuracy is measured against.
  kAccuracy = 3,   ///< JSON: figures measured on one device.
};

/// Little-endian.
struct RecordHeader {
  uint8_t magic[8];
  RecordKind kind;
  /// None defined; a reader refuses those it does not know.
  uint32_t flags;
  uint64_t size;
  uint8_t zeros[8];
  /// BLAKE2b-256 of the `size` bytes.
  uint8_t hash[kHashBytes];
};
static_assert(sizeof(RecordHeader) == 64);

inline constexpr size_t kPublicKeyBytes = 32;
inline constexpr size_t kSignatureBytes = 64;

/// Ed25519 (RFC 8032) over kSignatureContext, without its final zero, and the 64 bytes of the
/// file's header, whose hash stands for everything but the records.
struct SignatureRecord {
  uint8_t public_key[kPublicKeyBytes];
  uint8_t signature[kSignatureBytes];
};
static_assert(sizeof(SignatureRecord) == kPublicKeyBytes + kSignatureBytes);
inline constexpr char kSignatureContext[] = "quern artifact signature 1\n";

// How keys are written in files: one of these, then hexadecimal digits.
inline constexpr char kPublicKeyPrefix[] = "quern-public-key:";
/// The 32 bytes of the seed.
inline constexpr char kSecretKeyPrefix[] = "quern-secret-key:";

/// The place of the next record behind `end`.
constexpr uint64_t RecordOffset(uint64_t end) {
  return (end + kRecordAlignment - 1) / kRecordAlignment * kRecordAlignment;
}

}  // namespace quern
