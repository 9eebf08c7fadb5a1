#!/usr/bin/env python3
"""NVIDIA's assembler takes every kernel of every GPU target, without spilling a register.

The PTX is what an artifact holds. Where there is no ptxas the test says so and exits with 77;
scripts/fetch-cuda-tools gets one. With QUERN_FULL_MATRIX the kernels of the real
models in the folder QUERN_TEST_MODELS are assembled too.
"""

import concurrent.futures
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))
import cuda_tools  # noqa: E402
import make_gguf  # noqa: E402

QUERN = os.environ.get("QUERN") or str(ROOT / "build/dev/bin/quern")
TARGETS = ("sm_80", "sm_89", "sm_90a", "sm_100a", "sm_120a")
JOBS = 2
OF_COMPILE = ("--precise", "--kv=int8", "--quantize=fp8")  # all other options are make_gguf's
SKIPPED = 77

FORMATS = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "f16",
           "bf16", "f32")
# The weights of a layer by kernel, with how many of the formats a layer uses up.
KERNELS = ((("attn_q", "attn_k", "attn_v"), 3), (("ffn_gate", "ffn_up"), 2),
           (("attn_output", "ffn_down"), 2))


def mixed(layers):
    """Options of a model in which these layers of a row of seven have their turn of the formats.

    Over all seven, every format comes to every kind of matmul.
    """
    options = ["--layers", len(layers), "--hidden", 256, "--ffn", 512, "--untied"]
    for index, layer in enumerate(layers):
        for slots, used in KERNELS:
            for number, slot in enumerate(slots):
                name = FORMATS[(layer * used + number) % len(FORMATS)]
                options += ["--set", f"blk.{index}.{slot}.weight={name}"]
    return options


MODELS = {
    "formats, heads of 64": [*mixed(range(4)), "--head-dim", 64, "--embedding-type", "q6_k"],
    "formats, heads of 128": [*mixed(range(4, 7)), "--head-dim", 128, "--embedding-type", "bf16"],
    "heads of 96, one group, tied": "--head-dim 96 --layers 1 --ffn 96 --vocab 321".split(),
    "eight heads of 128 a key, int8 pages": ("--head-dim 128 --heads 8 --kv-heads 1 --layers 1"
                                             " --type q8_0 --kv=int8").split(),
    "three heads of 256 a key": "--head-dim 256 --heads 3 --kv-heads 1 --layers 1 --type f16".split(),
    "seven heads a key, biases": ("--family qwen2 --heads 14 --kv-heads 2 --head-dim 64 --layers 1"
                                  " --type q5_0 --vocab 333").split(),
    "rotary factors, f32 activations": ["--rope-factors", "--layers", 1, "--precise"],
    "weights in e4m3": ("--layers 1 --hidden 256 --ffn 512 --untied --type f16 --head-dim 64"
                        " --quantize=fp8").split(),
}


def assemble(gguf, *options):
    """Compiles the model for every target: {target: (entries in the PTX, Assembly or Refused)}."""
    with tempfile.TemporaryDirectory(prefix="quern-ptxas-") as folder:
        artifact = pathlib.Path(folder) / "m.quern"
        subprocess.run([QUERN, "compile", gguf, "-o", artifact, "-q",
                        f"--target={','.join(TARGETS)}", *options], check=True, timeout=600)
        segments = cuda_tools.ptx_segments(QUERN, artifact)
    results = {}
    for target, text in segments.items():
        try:
            result = cuda_tools.assemble(text, target)
        except cuda_tools.Refused as refused:
            result = refused
        results[target] = (text.count(b".visible .entry"), result)
    return results


def assemble_tiny(options):
    with tempfile.TemporaryDirectory(prefix="quern-ptxas-") as folder:
        gguf = pathlib.Path(folder) / "m.gguf"
        of_compile = [option for option in options if option in OF_COMPILE]
        make_gguf.write_model(gguf, *[each for each in options if each not in of_compile])
        return assemble(gguf, *of_compile)


def faults(entries, result):
    """What is wrong with the code of one target, a line each."""
    if isinstance(result, cuda_tools.Refused):
        return [f"ptxas refuses it: {result}"]
    lines = list(result.complaints)
    if len(result.kernels) != entries:
        lines.append(f"{entries} entries, of which ptxas compiled {len(result.kernels)}")
    for kernel in result.kernels.values():
        if kernel.stack_bytes or kernel.spill_store_bytes or kernel.spill_load_bytes:
            lines.append(f"{kernel.entry}: {kernel.registers} registers, {kernel.stack_bytes} bytes of "
                         f"stack, spills {kernel.spill_store_bytes} and loads "
                         f"{kernel.spill_load_bytes}")
    return lines


class PtxasTest(unittest.TestCase):
    def check(self, name, results):
        self.assertEqual(set(results), set(TARGETS))
        for target, (entries, result) in results.items():
            with self.subTest(model=name, target=target):
                found = faults(entries, result)
                self.assertFalse(found, "\n" + "\n".join(found))

    def test_tiny_models(self):
        with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
            for name, results in zip(MODELS, pool.map(assemble_tiny, MODELS.values())):
                self.check(name, results)

    def test_real_models(self):
        folder = os.environ.get("QUERN_TEST_MODELS")
        if not folder or not os.environ.get("QUERN_FULL_MATRIX"):
            self.skipTest("QUERN_FULL_MATRIX and QUERN_TEST_MODELS are not both set")
        for gguf in sorted(pathlib.Path(folder).glob("*.gguf")):
            self.check(gguf.name, assemble(gguf))

    def test_refusal_and_spills_are_seen(self):
        """The test can fail: what it looks for is found in PTX that has it."""
        head = b".version 8.0\n.target sm_80\n.address_size 64\n"
        with self.assertRaises(cuda_tools.Refused):
            cuda_tools.assemble(head + b".visible .entry k() { add.s32 %r1, 1, 2; ret; }", "sm_80")
        # 200 values that live across a barrier do not fit in 64 registers.
        loads = "".join(f"ld.volatile.global.u32 %r{i}, [%rd1+{4 * i}];\n" for i in range(200))
        stores = "".join(f"st.volatile.global.u32 [%rd1+{4 * i}], %r{i};\n" for i in range(200))
        spilling = (".visible .entry k(.param .u64 p) .maxntid 1024, 1, 1 .minnctapersm 1 {\n"
                    ".reg .b32 %r<200>; .reg .b64 %rd<2>;\nld.param.u64 %rd1, [p];\n"
                    f"{loads}bar.sync 0;\n{stores}ret;\n}}\n")
        kernel = cuda_tools.assemble(head + spilling.encode(), "sm_80").kernels["k"]
        self.assertGreater(kernel.spill_store_bytes, 0)
        self.assertEqual(kernel.registers, 64)
        self.assertEqual(kernel.barriers, 1)

    def test_waiting_wgmma_is_seen(self):
        """A sum that is used while its product is under way makes ptxas wait for it (C7517)."""
        product = ("wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%f0,%f1,%f2,%f3}, %rd2, %rd2, "
                   "1, 1, 1, 0, 0;\n")
        zeros = "".join(f"mov.f32 %f{i}, 0f00000000;\n" for i in range(4))
        stores = "".join(f"st.global.f32 [%rd1+{4 * i}], %f{i};\n" for i in range(4))

        def complaints(between):
            text = (".version 8.3\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 p, "
                    ".param .u64 q) .maxntid 128, 1, 1 {\n.reg .f32 %f<4>; .reg .b64 %rd<3>;\n"
                    f"ld.param.u64 %rd1, [p];\nld.param.u64 %rd2, [q];\n{zeros}"
                    f"wgmma.fence.sync.aligned;\n{product}{between}{product}"
                    "wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n"
                    f"{stores}ret;\n}}\n")
            return cuda_tools.assemble(text.encode(), "sm_90a").complaints

        self.assertEqual(complaints(""), [])
        self.assertRegex(" ".join(complaints("add.f32 %f0, %f0, %f0;\n")), r"\(C75\d\d\)")


if __name__ == "__main__":
    if cuda_tools.find("ptxas") is None:
        print("skipped: there is no ptxas; scripts/fetch-cuda-tools gets one")
        sys.exit(SKIPPED)
    unittest.main()
