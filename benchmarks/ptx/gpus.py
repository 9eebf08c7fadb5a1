"""GPUs as their makers describe them: limits of a multiprocessor, and peak rates.

Limits: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability". Peaks: NVIDIA's data
sheets and architecture papers, dense (no sparsity), at boost clock: no kernel reaches them.
"""

from typing import NamedTuple


class Multiprocessor(NamedTuple):
    registers: int
    warps: int
    blocks: int
    shared_bytes: int


MULTIPROCESSORS = {
    "sm_80": Multiprocessor(65536, 64, 32, 164 << 10),
    "sm_89": Multiprocessor(65536, 48, 24, 100 << 10),
    "sm_90a": Multiprocessor(65536, 64, 32, 228 << 10),
    "sm_100a": Multiprocessor(65536, 64, 32, 228 << 10),
    "sm_120a": Multiprocessor(65536, 48, 24, 100 << 10),
}
_RESERVED_SHARED = 1024  # of a block, for the system
_SHARED_GRAIN = 128
_REGISTER_GRAIN = 256  # of a warp


def _round_up(value: int, grain: int) -> int:
    return -(-value // grain) * grain


def occupancy(target: str, threads: int, registers: int, shared_bytes: int) -> float:
    """Resident warps of a multiprocessor, of those it has room for."""
    limits = MULTIPROCESSORS[target]
    warps = -(-threads // 32)
    blocks = min(limits.blocks, limits.warps // warps,
                 limits.registers // (_round_up(32 * registers, _REGISTER_GRAIN) * warps),
                 limits.shared_bytes // (_round_up(shared_bytes, _SHARED_GRAIN) + _RESERVED_SHARED))
    return blocks * warps / limits.warps


class Gpu(NamedTuple):
    name: str
    target: str
    f16_tflops: float  # tensor cores, f16 in, f32 accumulators
    bandwidth_gbs: float


GPUS = (
    Gpu("A100 SXM 80 GB", "sm_80", 312, 2039),
    Gpu("RTX 4090", "sm_89", 165.2, 1008),
    Gpu("H100 SXM", "sm_90a", 989.4, 3350),
    Gpu("H200 SXM", "sm_90a", 989.4, 4800),
    Gpu("B200 SXM", "sm_100a", 2250, 8000),
)
