#!/usr/bin/env python3
"""Sizes that no tile divides, on every target, against the float32 reference interpreter.

Three comparisons a model, each with logits of all positions:

  --precise   with the module as imported: float arithmetic in another order
  int8        with the module as planned, in which activations are rounded as the kernels round them.
              Sums in another order move a value over a rounding boundary now and then, hence the
              tolerance; every target must give the same bits, prompt or teacher-forced.
  bf16        (the prompt on AMX) with the module as imported
"""

import array
import os
import pathlib
import re
import subprocess
import unittest

from support import QUERN, E2eTest, machine, make_gguf, quern, read_npy, runs_here

INTERPRET = pathlib.Path(QUERN).with_name("quern-interpret")
EMULATOR = os.environ.get("QUERN_AMX_EMULATOR_PRELOAD")

# A page is 32 tokens, a tile of attention 16 rows: 35 leave a tail of both.
TOKENS = [(7 * i + 3) % 300 for i in range(35)]

PRECISE, ROUNDED, BF16 = 1e-5, 5e-2, 5e-2  # largest difference, relative to the largest logit

K_QUANTS = ("--hidden 256 --ffn 768 --heads 12 --kv-heads 4 --head-dim 64 --type q6_k --layers 1"
            " --vocab 300 --untied --set blk.0.attn_v.weight=q2_k --set blk.0.attn_k.weight=q5_k"
            " --set blk.0.ffn_down.weight=q3_k")
MODELS = {
    "a vocabulary of 321, tied": "--vocab 321 --layers 1",
    "a vocabulary of 333, not tied": "--vocab 333 --untied --type q8_0",
    "heads of 96": "--head-dim 96 --layers 1",
    "heads of 256, one for keys": "--head-dim 256 --heads 2 --kv-heads 1 --layers 1",
    "one head": "--heads 1 --kv-heads 1 --type q5_1",
    "one head with biases": "--family qwen2 --heads 1 --kv-heads 1 --head-dim 64 --type q8_0 --untied",
    "seven queries a key, biases": "--family qwen2 --heads 14 --kv-heads 2 --head-dim 64 --type q5_0",
    "three of nine heads a share": "--heads 9 --kv-heads 3 --head-dim 64 --hidden 96 --ffn 96",
    "rotary factors": "--rope-factors --type q4_0",
    "one group of everything": "--hidden 32 --ffn 32 --heads 1 --kv-heads 1 --head-dim 32",
    "one superblock of everything": "--hidden 256 --ffn 256 --head-dim 64 --type q4_k --layers 1",
    "four K-quants in a layer": K_QUANTS,
    "float weights between quantized ones":
        "--type q8_0 --layers 1 --set blk.0.attn_v.weight=f16 --set blk.0.ffn_up.weight=f32",
    "a table in another format": "--embedding-type f16 --vocab 333 --layers 1",
    "weights in bf16": "--type bf16 --untied --vocab 301 --layers 1",
}
# Models that also run on AMX: tails of rows, of columns and of K, with and without biases.
ON_AMX = {"a vocabulary of 333, not tied", "seven queries a key, biases", "one group of everything",
          "four K-quants in a layer"}
# More shares than heads, key heads or groups of the feed-forward.
SHARES = {"seven queries a key, biases": 3, "three of nine heads a share": 7}


# Texts of the lm dialect that no importer writes: replacements in what `quern import` prints of a
# model whose feed-forward is as wide as its rows, so that one vector (%19, the norm's) fits all.
GATE_AND_UP = (r"(\"blk\.{layer}\.ffn_(?:gate|up)\.weight\".*\n.*\n.* lm\.matmul %\d+, %\d+)"
               r" : \((.*)\) ->")
EDITS = {
    "biases of gate and up": (GATE_AND_UP, r"\1 bias %19 : (\2, tensor<64xf32>) ->"),
    "a window of 8 tokens": ("window = 0", "window = 8"),
    "turning 20 of 32 elements": ("rotary_dim = 32", "rotary_dim = 20"),
    "keys as values": (r"(lm\.kv_append %\w+, )(%\d+), %\d+", r"\1\2, \2"),
}


def floats(path):
    (rows, columns), data = read_npy(path)
    values = array.array("f")
    values.frombytes(data)
    return (rows, columns), values


def environment(target):
    """What a run on `target` needs here, or None where it cannot run."""
    if runs_here(target):
        return os.environ
    # The emulator adds the tiles; bfloat16 vectors must be the machine's own.
    amx_parts = target == "amx" and EMULATOR and runs_here("avx512-vnni")
    if amx_parts and "avx512_bf16" in pathlib.Path("/proc/cpuinfo").read_text():
        return os.environ | {"LD_PRELOAD": EMULATOR}
    return None


class ModelTest(E2eTest):
    """Compiles a model and compares logits with the reference interpreter's."""

    def setUp(self):
        super().setUp()
        if machine()["compiler"] is None or not INTERPRET.exists():
            self.skipTest("the compiler is not built")

    def compile(self, model, *options):
        """The artifact and the dump of every phase, in self.folder."""
        self.assertWorks(quern("compile", model, "-o", self.folder / "model.quern", "-q",
                               "--dump-ir-to", self.folder / "ir", *options))

    def reference(self, phase):
        """Logits of the dump of `phase`, in the interpreter."""
        out = self.folder / "reference.npy"
        subprocess.run([INTERPRET, self.folder / "ir" / f"{phase}.mlir",
                        f"--weights={self.folder / 'model.gguf'}", f"--logits={out}",
                        "--tokens=" + ",".join(map(str, TOKENS))],
                       check=True, stdout=subprocess.DEVNULL, timeout=60)
        return floats(out)

    def run_logits(self, *options, env=None):
        """Logits of the artifact, for every token of the prompt."""
        out = self.folder / "logits.npy"
        self.assertWorks(quern("run", self.folder / "model.quern", "--tokens",
                               ",".join(map(str, TOKENS)), "-n", 0, "-q", "-t", 2, "--logits", out,
                               *options, env=env))
        return floats(out)

    def assertClose(self, got, wanted, tolerance):
        self.assertEqual(got[0], wanted[0])
        largest = max(map(abs, wanted[1]))
        # Written so that a NaN fails.
        worst = max((abs(a - b) if a == a else float("inf")) for a, b in zip(got[1], wanted[1]))
        self.assertLessEqual(worst / largest, tolerance)


class OddModels(ModelTest):
    def logits(self, target, *options):
        return self.run_logits("--force-isa", target, *options, env=environment(target))

    def check(self, name, options):
        model = self.folder / "model.gguf"
        make_gguf.write_model(model, *options.split())
        shares = f"--shares={SHARES.get(name, 2)}"
        self.compile(model, "--precise", "--target=avx2", shares)
        imported = self.reference("01-import")
        self.assertClose(self.logits("avx2"), imported, PRECISE)

        targets = [target for target in ("avx2", "avx512-vnni", "amx")
                   if environment(target) and (target != "amx" or name in ON_AMX)]
        self.compile(model, "--target=" + ",".join(targets), shares)
        wanted = self.logits("avx2")
        self.assertClose(wanted, self.reference("08-memory"), ROUNDED)
        for target in targets:
            self.assertEqual(self.logits(target, "--teacher-forced"), wanted, target)
            if target == "amx":
                self.assertClose(self.logits(target), imported, BF16)
            else:
                self.assertEqual(self.logits(target), wanted, target)

    def test_models(self):
        for name, options in MODELS.items():
            with self.subTest(name):
                self.check(name, options)

    def test_edited_models(self):
        model, text = self.folder / "model.gguf", self.folder / "model.mlir"
        make_gguf.write_model(model, "--layers", 1, "--ffn", 64)
        imported = quern("import", model).stdout.decode()
        for name, (pattern, replacement) in EDITS.items():
            with self.subTest(name):
                edited, count = re.subn(pattern, replacement, imported)
                self.assertGreater(count, 0)
                text.write_text(edited)
                self.compile(text, "--weights", model, "--precise", "--target=avx2")
                self.assertClose(self.logits("avx2"), self.reference("08-memory"), PRECISE)


if __name__ == "__main__":
    unittest.main()
