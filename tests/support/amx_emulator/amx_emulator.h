// Runs Intel AMX machine code on an x86-64 Linux machine without AMX, so that tests execute the
// `amx` target everywhere. A SIGILL handler decodes the tile instruction that trapped, does its
// work on a tile register file of the calling thread, and goes on behind it.
//
// Emulated: AMX-TILE, AMX-BF16 and AMX-INT8 with palette 1. Not emulated: segment overrides,
// 32-bit addresses, restarts from a tile configuration's start row after a page fault (the fault
// itself is reported at the emulator's own access). The arithmetic is that of the operation
// sections of Intel's Software Developer's Manual, volume 2, bit for bit; it needs AVX2 and FMA.
//
// Nothing here is for production: a trap costs about a microsecond.
#pragma once

#include <cstdint>

namespace quern {

/// A tile register: 16 rows of 64 bytes.
struct alignas(64) AmxTile {
  uint8_t row[16][64];
};

/// The 64-byte memory operand of ldtilecfg and sttilecfg.
struct AmxTileConfig {
  uint8_t palette;
  uint8_t start_row;
  uint8_t reserved_head[14];
  uint16_t row_bytes[8];
  uint16_t reserved_row_bytes[8];
  uint8_t rows[8];
  uint8_t reserved_rows[8];
};
static_assert(sizeof(AmxTileConfig) == 64);

/// Whether ldtilecfg takes `config`: palette 0, or palette 1 with zero reserved bytes and tiles of
/// at most 16 rows of 64 bytes, both zero or neither. ldtilecfg raises #GP for any other.
bool IsValidAmxTileConfig(const AmxTileConfig& config);

/// tdpbf16ps on tiles c (rows, columns) f32, a (rows, pairs) and b (pairs, columns) of bf16 pairs,
/// counts in 4-byte elements, each at most 16. Per output, the even and the odd elements of the
/// pairs each make a chain of fused multiply-adds from zero in ascending order of pairs; then
/// c = c + (even + odd). Every operation rounds to nearest even and treats denormals, read or
/// made, as zero.
void AmxDotBf16(AmxTile& c, const AmxTile& a, const AmxTile& b, int rows, int columns, int pairs);

/// tdpb{ss,su,us,uu}d on tiles c (rows, columns) int32, a (rows, quads) and b (quads, columns) of
/// four bytes each: exact sums modulo 2^32.
void AmxDotInt8(AmxTile& c, const AmxTile& a, const AmxTile& b, int rows, int columns, int quads,
                bool a_signed, bool b_signed);

/// Installs the SIGILL handler for the process; later calls do nothing. A SIGILL that is not an
/// emulated instruction, or that real AMX would raise as #UD (tile not configured, shapes that do
/// not fit), goes to the handler that was there before; what would be #GP (a bad configuration)
/// raises SIGSEGV. Returns false, with errno set, when the handler cannot be installed.
bool InstallAmxEmulator();

/// Whether this machine has AMX tiles, bf16 and int8 and the kernel lets this process use them
/// (asks for the permission). The emulator is then never entered.
bool HasHardwareAmx();

/// Tile instructions emulated so far on the calling thread; 0 where the hardware runs them.
uint64_t EmulatedAmxInstructions();

}  // namespace quern
