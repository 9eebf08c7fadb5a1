#!/usr/bin/env python3
"""What benchmarks/ptx reads out of machine code, and its bounds, against cases worked out by hand."""

import pathlib
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks" / "ptx"))
import bounds  # noqa: E402
import gpus  # noqa: E402
import sass  # noqa: E402


def function(text):
    """SASS from lines of instructions and labels."""
    lines, address = [], 0
    for line in text.strip().splitlines():
        line = line.strip()
        if line.endswith(":"):
            lines.append(line)
        else:
            lines.append(f"        /*{address:04x}*/    {line} ;")
            address += 16
    return sass._function("\n".join(lines))


# A main loop that waits in a loop of its own, whose slow path lies behind the end.
PIPELINE = function("""
    S2R R0, SR_TID.X
    .L_head:
    SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR4], R2
    @!P0 BRA `(.L_slow)
    .L_go:
    LDSM.16.M88.4 R4, [R8]
    HMMA.16816.F32 R12, R4, R6, R12
    HMMA.16816.F32 R16, R4, R7, R16
    ISETP.NE.AND P1, PT, R0, RZ, PT
    @P1 BRA `(.L_head)
    STG.E [R2], R12
    EXIT
    .L_slow:
    SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR4], R2
    @!P0 BRA `(.L_slow)
    BRA `(.L_go)
    .L_end:
    BRA `(.L_end)
""")


class Sass(unittest.TestCase):
    def test_a_natural_loop_has_its_out_of_line_blocks(self):
        loop = sass.main_loop(PIPELINE)
        self.assertEqual(loop.head, 1)
        self.assertEqual(len(loop.body), 10)
        self.assertEqual(sass.count(loop.body, sass.TENSOR), 2)
        self.assertEqual(sass.count(loop.body, sass.LOADS), 1)
        self.assertEqual(sass.count(loop.body, sass.BARRIERS), 2)

    def test_the_endless_loop_behind_the_end_is_no_loop(self):
        self.assertEqual(len(sass.loops(PIPELINE)), 2)

    def test_the_innermost_loop_with_the_most_matrix_products_is_the_main_loop(self):
        nested = function("""
            .L_outer:
            LDG.E R2, [R4]
            .L_inner:
            HMMA.16816.F32 R12, R4, R6, R12
            @P0 BRA `(.L_inner)
            @P1 BRA `(.L_outer)
            .L_rest:
            LDS R1, [R2]
            LDS R3, [R2]
            @P2 BRA `(.L_rest)
            EXIT
        """)
        loop = sass.main_loop(nested)
        self.assertEqual((loop.head, len(loop.body)), (1, 2))

    def test_without_a_loop_there_is_none(self):
        self.assertIsNone(sass.main_loop(function("LDG.E R2, [R4]\nSTG.E [R4], R2\nEXIT")))

    def test_exponentials_beside_wgmma(self):
        def body(wait):
            return function(f"""
                .L_head:
                HGMMA.64x128x16.F32 R24, gdesc[UR8], !UPT
                MUFU.EX2 R1, R2
                WARPGROUP.DEPBAR.LE gsb0, {wait}
                MUFU.EX2 R3, R4
                WARPGROUP.DEPBAR.LE gsb0, 0x0
                MUFU.EX2 R5, R6
                @P0 BRA `(.L_head)
                EXIT
            """)
        for wait, overlapped in (("0x1", 2), ("0x0", 1)):
            loop = sass.main_loop(body(wait))
            self.assertEqual(sass.overlapped_exponentials(loop.body), (overlapped, 3))


class Gpus(unittest.TestCase):
    def test_occupancy_by_what_runs_out_first(self):
        # 64 warps of room: 8 blocks of 8 warps.
        self.assertEqual(gpus.occupancy("sm_80", 256, 32, 0), 1)
        # 168 registers: 5,376 a warp, 12 warps of 65,536: one block of 12.
        self.assertEqual(gpus.occupancy("sm_90a", 384, 168, 0), 12 / 64)
        # 100 KiB and the system's one: one block of 164.
        self.assertEqual(gpus.occupancy("sm_80", 128, 32, 100 << 10), 4 / 64)
        # 32 blocks of one warp at most.
        self.assertEqual(gpus.occupancy("sm_80", 32, 16, 0), 0.5)


REPORT = {
    "model": {"heads": 4, "vocab": 100},
    "buffers": [{"name": "x", "bytes_per_row": 256, "copies": 1},
                {"name": "y", "bytes_per_row": 128, "copies": 2}],
    "kv": [{"page_bytes": 32 * 512, "page_tokens": 32, "head_dim": 64}],
    "prologue": "embed", "layers": ["layer", "layer"], "epilogue": "head",
    "bodies": [
        {"name": "embed", "weights": [{"name": "table", "n": 100, "k": 64, "bytes": 6400}],
         "dispatches": [{"kernel": "embed", "rows": "tokens", "reads": ["table", "Tokens"],
                         "writes": ["x"]}]},
        {"name": "layer", "weights": [{"name": "w", "n": 32, "k": 64, "bytes": 1280},
                                      {"name": "norm", "n": 1, "k": 64, "bytes": 256}],
         "dispatches": [
             {"kernel": "matmul", "rows": "tokens", "reads": ["x", "w", "norm"], "writes": ["y"]},
             {"kernel": "append", "rows": "tokens", "reads": ["y"], "writes": ["kv"]},
             {"kernel": "attention", "rows": "tokens", "reads": ["kv", "x"], "writes": ["x"]}]},
        {"name": "head", "weights": [{"name": "out", "n": 100, "k": 64, "bytes": 6400}],
         "dispatches": [{"kernel": "head", "rows": "logits", "reads": ["x", "out"],
                         "writes": ["logits"]}]},
    ],
}


class Bounds(unittest.TestCase):
    def test_work_of_a_step(self):
        work = bounds.step_work(REPORT, bounds.Step(rows=3, depth=10))
        self.assertEqual(work["embed"], (0, 3 * 64 + 3 * 256))
        self.assertEqual(work["matmul"], (2 * 2 * 3 * 32 * 64, 2 * (1280 + 256 + 3 * 256 + 3 * 256)))
        self.assertEqual(work["append"], (0, 2 * (3 * 256 + 3 * 512)))
        # 11 + 12 + 13 pairs of a row and a token; 13 tokens are read.
        self.assertEqual(work["attention"], (2 * 4 * 36 * 4 * 64, 2 * (13 * 512 + 2 * 3 * 256)))
        self.assertEqual(work["head"], (2 * 100 * 64, 256 + 6400 + 400))

    def test_a_kernel_is_bound_by_the_slower_of_both(self):
        gpu = gpus.Gpu("", "", f16_tflops=1, bandwidth_gbs=1)
        self.assertEqual(bounds.Work(2e12, 1e9).seconds(gpu), 2)
        self.assertEqual(bounds.Work(1e12, 3e9).seconds(gpu), 3)
        self.assertEqual(bounds.bound_seconds({"a": bounds.Work(2e12, 0), "b": bounds.Work(0, 1e9)},
                                              gpu), 3)


if __name__ == "__main__":
    unittest.main()
