// The first 64 bytes of an artifact, and the constants of the file format (docs/artifact.md).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace quern {

static_assert(std::endian::native == std::endian::little, "artifacts are little-endian");

/// A text transfer that changes line ends breaks the magic, as PNG's does.
inline constexpr unsigned char kFileMagic[8] = {'Q', 'U', 'E', 'R', 'N', '\r', '\n', 0x1a};

/// Version of the file as a whole: header, segments, kernel ABI. A reader takes its own only.
inline constexpr uint32_t kFileVersion = 3;
/// Version of the manifest's meaning (Manifest.version).
inline constexpr uint32_t kManifestVersion = 1;

/// Segments and the manifest begin at multiples of so many bytes.
inline constexpr uint64_t kSegmentAlignment = 4096;
/// Bytes of a digest: BLAKE2b-256.
inline constexpr size_t kHashBytes = 32;

// Limits that bound what a reader allocates before it knows more. Writers keep them too.
inline constexpr uint64_t kMaxManifestBytes = uint64_t{256} << 20;
inline constexpr uint32_t kMaxShares = 256;
inline constexpr uint32_t kMaxKernelArgs = 64;
inline constexpr uint32_t kMaxRangeSegments = 64;

/// Little-endian, at offset 0.
struct FileHeader {
  unsigned char magic[8];
  uint32_t version;
  /// No flag is defined yet; a reader refuses those it does not know.
  uint32_t flags;
  /// From the start of the file, a multiple of kSegmentAlignment.
  uint64_t manifest_offset;
  uint64_t manifest_size;
  /// Digest of the manifest's `manifest_size` bytes.
  unsigned char manifest_hash[kHashBytes];
};
static_assert(sizeof(FileHeader) == 64);

}  // namespace quern
