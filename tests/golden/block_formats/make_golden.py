#!/usr/bin/env python3
"""Writes block_formats.txt: blocks of every GGUF format and the numbers they decode to.

Needs the PyPI packages gguf and numpy. One line a format: its mnemonic, the bytes of four blocks
(elements, for float formats) in hex, and the decoded float32 bits in hex, little-endian. The blocks
are random; their f16 scales are chosen to include a subnormal, zero, a negative and a large one.
"""
import pathlib

import gguf
import numpy as np

# Mnemonic -> byte offsets of the f16 scales and minima inside a block.
SCALES = {
    "q4_0": [0], "q4_1": [0, 2], "q5_0": [0], "q5_1": [0, 2], "q8_0": [0],
    "q2_k": [80, 82], "q3_k": [108], "q4_k": [0, 2], "q5_k": [0, 2], "q6_k": [208],
    "f32": [], "f16": [], "bf16": [],
}
ODD_SCALES = [0x0001, 0x8000, 0xA4D3, 0x5BFF]  # 2^-24, -0, -0.0189, 255.9


def golden_line(name: str, random: np.random.Generator) -> str:
    kind = gguf.GGMLQuantizationType[name.upper()]
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    if name == "f32":
        data = random.standard_normal(32).astype(np.float32).view(np.uint8)
        decoded = data.view(np.float32)
    else:
        blocks = 2 if elements == 256 else 4
        blocks = 64 if elements == 1 else blocks
        data = random.integers(0, 256, (blocks, size), dtype=np.uint8)
        for index, offset in enumerate(SCALES[name]):
            for block in range(blocks):
                # K-quants have two blocks: a subnormal and a negative scale.
                odd = ODD_SCALES[(2 * block + index) % 4 if elements == 256 else (block + index) % 4]
                data[block, offset:offset + 2] = np.array([odd], np.uint16).view(np.uint8)
        if name == "f16":
            # Every class of half, no NaN: random ones have no exponent of all ones.
            data[:, 1] &= 0xBB
            halves = np.array([0, 0x8000, 1, 0x83FF, 0x0400, 0x7BFF, 0xFC00], np.uint16)
            data.reshape(-1)[:14] = halves.view(np.uint8)
            decoded = data.view(np.float16).astype(np.float32)
        else:
            if name == "bf16":
                data[:, 1] &= 0xBF  # exponents below 2^1: no NaN
            decoded = gguf.quants.dequantize(data.reshape(1, -1), kind)
    bits = np.ascontiguousarray(decoded, np.float32).reshape(-1).view(np.uint8)
    return f"{name} {data.tobytes().hex()} {bits.tobytes().hex()}"


def main() -> None:
    random = np.random.default_rng(20)
    lines = [golden_line(name, random) for name in SCALES]
    path = pathlib.Path(__file__).with_name("block_formats.txt")
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
