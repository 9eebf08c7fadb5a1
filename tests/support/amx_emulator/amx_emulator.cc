// Decodes tile instructions and carries them out for a thread that trapped on one.
#include "tests/support/amx_emulator/amx_emulator.h"

#include <cpuid.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstring>
#include <initializer_list>

namespace quern {
namespace {

// The tile state of one thread. initial-exec: no allocation on first use in a signal handler.
struct TileState {
  AmxTileConfig config;
  AmxTile tile[8];
  uint64_t instructions;
};
thread_local TileState tls_tiles __attribute__((tls_model("initial-exec")));

struct sigaction previous_action;

enum class Opcode : uint8_t {
  kNone,
  kLoadConfig,
  kStoreConfig,
  kRelease,
  kZero,
  kLoad,
  kStore,
  kDotBf16,
  kDotInt8,
};

// What memory forms an opcode has.
enum class Operand : uint8_t {
  kRegister,   // ModRM.mod = 3
  kMemory,     // any memory form
  kSibMemory,  // memory with a SIB byte: base + row * stride
};

// VEX.128, map 0F38, W0. `prefix` is VEX.pp: 0 none, 1 66, 2 F3, 3 F2.
struct Encoding {
  uint8_t byte;
  uint8_t prefix;
  Operand operand;
  Opcode opcode;
  bool a_signed = false;
  bool b_signed = false;
};
constexpr Encoding kEncodings[] = {
    {0x49, 0, Operand::kMemory, Opcode::kLoadConfig},
    {0x49, 1, Operand::kMemory, Opcode::kStoreConfig},
    {0x49, 0, Operand::kRegister, Opcode::kRelease},
    {0x49, 3, Operand::kRegister, Opcode::kZero},
    {0x4b, 3, Operand::kSibMemory, Opcode::kLoad},
    {0x4b, 1, Operand::kSibMemory, Opcode::kLoad},  // tileloaddt1: a caching hint
    {0x4b, 2, Operand::kSibMemory, Opcode::kStore},
    {0x5c, 2, Operand::kRegister, Opcode::kDotBf16},
    {0x5e, 3, Operand::kRegister, Opcode::kDotInt8, true, true},
    {0x5e, 2, Operand::kRegister, Opcode::kDotInt8, true, false},
    {0x5e, 1, Operand::kRegister, Opcode::kDotInt8, false, true},
    {0x5e, 0, Operand::kRegister, Opcode::kDotInt8, false, false},
};

// A ModRM operand: registers, or an address.
struct ModRm {
  int reg = 0;
  int rm = 0;  // of the register form
  bool is_memory = false;
  bool has_sib = false;
  uint64_t address = 0;  // without the index
  uint64_t index = 0;    // shifted by the scale
  const uint8_t* end = nullptr;
};

struct Instruction {
  const Encoding* encoding = nullptr;
  ModRm operand;
  int vvvv = 0;
};

// General register `number` (the encoding's order) of the interrupted thread.
greg_t& Register(ucontext_t& context, int number) {
  static constexpr int kSlots[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                     REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                     REG_R12, REG_R13, REG_R14, REG_R15};
  return context.uc_mcontext.gregs[kSlots[number]];
}

// Reads a ModRM byte and what belongs to it. `r`, `x` and `b` are 8 or 0: the high register bits.
ModRm DecodeModRm(ucontext_t& context, const uint8_t* at, int r, int x, int b) {
  ModRm operand;
  const uint8_t modrm = *at++;
  const int mod = modrm >> 6;
  operand.reg = ((modrm >> 3) & 7) | r;
  operand.rm = (modrm & 7) | b;
  operand.end = at;
  if (mod == 3) return operand;
  operand.is_memory = true;
  int displacement_bytes = mod == 1 ? 1 : mod == 2 ? 4 : 0;
  bool rip_relative = false;
  if ((modrm & 7) == 4) {
    operand.has_sib = true;
    const uint8_t sib = *at++;
    const int index = ((sib >> 3) & 7) | x;
    if (index != 4) operand.index = static_cast<uint64_t>(Register(context, index)) << (sib >> 6);
    if ((sib & 7) == 5 && mod == 0)
      displacement_bytes = 4;
    else
      operand.address = static_cast<uint64_t>(Register(context, (sib & 7) | b));
  } else if ((modrm & 7) == 5 && mod == 0) {
    displacement_bytes = 4;
    rip_relative = true;
  } else {
    operand.address = static_cast<uint64_t>(Register(context, operand.rm));
  }
  int32_t displacement = 0;
  if (displacement_bytes == 1) displacement = static_cast<int8_t>(*at);
  if (displacement_bytes == 4) std::memcpy(&displacement, at, 4);
  operand.end = at + displacement_bytes;
  operand.address += static_cast<uint64_t>(static_cast<int64_t>(displacement));
  if (rip_relative) operand.address += reinterpret_cast<uint64_t>(operand.end);
  return operand;
}

bool Matches(const Encoding& encoding, uint8_t byte, int prefix, const ModRm& operand) {
  if (encoding.byte != byte || encoding.prefix != prefix) return false;
  switch (encoding.operand) {
    case Operand::kRegister:
      return !operand.is_memory;
    case Operand::kMemory:
      return operand.is_memory && operand.reg == 0;
    case Operand::kSibMemory:
      return operand.has_sib;
  }
  return false;
}

// Decodes the tile instruction at `at`; its encoding is null for any other instruction.
Instruction Decode(ucontext_t& context, const uint8_t* at) {
  Instruction instruction;
  if (at[0] != 0xc4 || (at[1] & 0x1f) != 2 || (at[2] & 0x84) != 0) return instruction;
  const int r = at[1] & 0x80 ? 0 : 8, x = at[1] & 0x40 ? 0 : 8, b = at[1] & 0x20 ? 0 : 8;
  const uint8_t byte = at[3];
  if (byte != 0x49 && byte != 0x4b && byte != 0x5c && byte != 0x5e) return instruction;
  instruction.vvvv = (~at[2] >> 3) & 15;
  instruction.operand = DecodeModRm(context, at + 4, r, x, b);
  for (const Encoding& encoding : kEncodings)
    if (Matches(encoding, byte, at[2] & 3, instruction.operand)) instruction.encoding = &encoding;
  return instruction;
}

// `lea` between tile instructions is done here too: it costs nothing and saves a trap.
const uint8_t* StepOverLea(ucontext_t& context, const uint8_t* at) {
  if ((at[0] & 0xf8) != 0x48 || at[1] != 0x8d || at[2] >= 0xc0) return nullptr;
  const ModRm operand =
      DecodeModRm(context, at + 2, (at[0] & 4) << 1, (at[0] & 2) << 2, (at[0] & 1) << 3);
  Register(context, operand.reg) = static_cast<greg_t>(operand.address + operand.index);
  return operand.end;
}

enum class Outcome { kDone, kUndefinedOpcode, kGeneralProtection };

bool IsConfigured(const TileState& state, int tile) {
  return state.config.palette == 1 && tile < 8 && state.config.rows[tile] != 0 &&
         state.config.row_bytes[tile] % 4 == 0;
}

Outcome LoadConfig(TileState& state, const void* memory) {
  AmxTileConfig config;
  std::memcpy(&config, memory, sizeof config);
  if (!IsValidAmxTileConfig(config)) return Outcome::kGeneralProtection;
  if (config.palette == 0) config = {};
  state.config = config;
  std::memset(state.tile, 0, sizeof state.tile);
  return Outcome::kDone;
}

Outcome Load(TileState& state, const ModRm& operand) {
  const int rows = state.config.rows[operand.reg];
  if (state.config.start_row >= rows) return Outcome::kUndefinedOpcode;
  AmxTile& tile = state.tile[operand.reg];
  if (state.config.start_row == 0) std::memset(&tile, 0, sizeof tile);
  for (int m = state.config.start_row; m < rows; ++m)
    std::memcpy(
        tile.row[m],
        reinterpret_cast<const void*>(operand.address + operand.index * static_cast<unsigned>(m)),
        state.config.row_bytes[operand.reg]);
  state.config.start_row = 0;
  return Outcome::kDone;
}

Outcome Store(TileState& state, const ModRm& operand) {
  const int rows = state.config.rows[operand.reg];
  if (state.config.start_row >= rows) return Outcome::kUndefinedOpcode;
  for (int m = state.config.start_row; m < rows; ++m)
    std::memcpy(reinterpret_cast<void*>(operand.address + operand.index * static_cast<unsigned>(m)),
                state.tile[operand.reg].row[m], state.config.row_bytes[operand.reg]);
  state.config.start_row = 0;
  return Outcome::kDone;
}

Outcome Dot(TileState& state, const Instruction& instruction) {
  const int c = instruction.operand.reg, a = instruction.operand.rm, b = instruction.vvvv;
  if (!IsConfigured(state, a) || !IsConfigured(state, b)) return Outcome::kUndefinedOpcode;
  const AmxTileConfig& config = state.config;
  if (a == b || a == c || b == c || config.rows[c] != config.rows[a] ||
      config.row_bytes[c] != config.row_bytes[b] || config.row_bytes[a] != 4 * config.rows[b])
    return Outcome::kUndefinedOpcode;
  const int rows = config.rows[c], columns = config.row_bytes[c] / 4, depth = config.rows[b];
  if (instruction.encoding->opcode == Opcode::kDotBf16)
    AmxDotBf16(state.tile[c], state.tile[a], state.tile[b], rows, columns, depth);
  else
    AmxDotInt8(state.tile[c], state.tile[a], state.tile[b], rows, columns, depth,
               instruction.encoding->a_signed, instruction.encoding->b_signed);
  state.config.start_row = 0;
  return Outcome::kDone;
}

Outcome Execute(TileState& state, const Instruction& instruction) {
  const ModRm& operand = instruction.operand;
  const Opcode opcode = instruction.encoding->opcode;
  const bool is_dot = opcode == Opcode::kDotBf16 || opcode == Opcode::kDotInt8;
  if (!is_dot && instruction.vvvv != 0) return Outcome::kUndefinedOpcode;
  switch (opcode) {
    case Opcode::kLoadConfig:
      return LoadConfig(state, reinterpret_cast<const void*>(operand.address + operand.index));
    case Opcode::kStoreConfig:
      std::memcpy(reinterpret_cast<void*>(operand.address + operand.index), &state.config,
                  sizeof state.config);
      return Outcome::kDone;
    case Opcode::kRelease:
      if (operand.reg != 0 || operand.rm != 0) return Outcome::kUndefinedOpcode;
      state.config = {};
      std::memset(state.tile, 0, sizeof state.tile);
      return Outcome::kDone;
    default:
      break;
  }
  if (!IsConfigured(state, operand.reg)) return Outcome::kUndefinedOpcode;
  switch (opcode) {
    case Opcode::kZero:
      if (operand.rm != 0) return Outcome::kUndefinedOpcode;
      std::memset(&state.tile[operand.reg], 0, sizeof(AmxTile));
      state.config.start_row = 0;
      return Outcome::kDone;
    case Opcode::kLoad:
      return Load(state, operand);
    case Opcode::kStore:
      return Store(state, operand);
    default:
      return Dot(state, instruction);
  }
}

void PassOn(int signal, siginfo_t* info, void* context) {
  if (previous_action.sa_flags & SA_SIGINFO) {
    previous_action.sa_sigaction(signal, info, context);
  } else if (previous_action.sa_handler == SIG_DFL || previous_action.sa_handler == SIG_IGN) {
    // Returning traps again, now with the default action: the process ends where it trapped.
    struct sigaction action = {};
    action.sa_handler = SIG_DFL;
    sigaction(signal, &action, nullptr);
  } else {
    previous_action.sa_handler(signal);
  }
}

void OnIllegalInstruction(int signal, siginfo_t* info, void* opaque_context) {
  ucontext_t& context = *static_cast<ucontext_t*>(opaque_context);
  greg_t& rip = context.uc_mcontext.gregs[REG_RIP];
  const greg_t trapped_at = rip;
  while (true) {
    const uint8_t* at = reinterpret_cast<const uint8_t*>(rip);
    if (rip != trapped_at) {
      if (const uint8_t* next = StepOverLea(context, at)) {
        rip = reinterpret_cast<greg_t>(next);
        continue;
      }
    }
    const Instruction instruction = Decode(context, at);
    if (!instruction.encoding) break;
    const Outcome outcome = Execute(tls_tiles, instruction);
    // A fault behind the first instruction traps again, with its own address.
    if (outcome == Outcome::kGeneralProtection && rip == trapped_at) {
      raise(SIGSEGV);
      return;
    }
    if (outcome != Outcome::kDone) break;
    ++tls_tiles.instructions;
    rip = reinterpret_cast<greg_t>(instruction.operand.end);
  }
  if (rip == trapped_at) PassOn(signal, info, opaque_context);
}

bool Install() {
  struct sigaction action = {};
  action.sa_sigaction = OnIllegalInstruction;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigemptyset(&action.sa_mask);
  return sigaction(SIGILL, &action, &previous_action) == 0;
}

}  // namespace

bool IsValidAmxTileConfig(const AmxTileConfig& config) {
  if (config.palette == 0) return true;
  if (config.palette != 1) return false;
  for (uint8_t byte : config.reserved_head)
    if (byte != 0) return false;
  for (int t = 0; t < 8; ++t) {
    if (config.reserved_row_bytes[t] != 0 || config.reserved_rows[t] != 0) return false;
    if (config.rows[t] > 16 || config.row_bytes[t] > 64) return false;
    if ((config.rows[t] == 0) != (config.row_bytes[t] == 0)) return false;
  }
  return true;
}

bool InstallAmxEmulator() {
  static const bool installed = Install();
  return installed;
}

bool HasHardwareAmx() {
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  unsigned eax, ebx, ecx, edx;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
  const unsigned wanted = kBf16 | kTile | kInt8;
  if ((edx & wanted) != wanted) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

uint64_t EmulatedAmxInstructions() { return tls_tiles.instructions; }

}  // namespace quern
