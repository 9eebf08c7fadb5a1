#!/usr/bin/env python3
"""Whole models on the PTX emulator: the GPU's code gives the tokens that the CPU's gives."""

import os
import pathlib
import tempfile
import unittest

import support

TARGETS = ("sm_80", "sm_90a")


class EmulatedGpuTest(support.E2eTest):
    def check(self, gguf, tokens, count):
        with tempfile.TemporaryDirectory(prefix="quern-gpu-") as folder:
            artifact = pathlib.Path(folder) / "m.quern"
            result = support.quern("compile", gguf, "-o", artifact, "-q",
                                   f"--target={support.TARGET},{','.join(TARGETS)}")
            self.assertEqual(result.returncode, support.OK, result.stderr)
            texts = {}
            for device in ("cpu", *(f"ptx-emulator:{target}" for target in TARGETS)):
                run = support.quern("run", artifact, "--tokens", ",".join(map(str, tokens)), "-n",
                                    count, "--ignore-end", "-q", f"--device={device}")
                self.assertEqual(run.returncode, support.OK, run.stderr)
                texts[device] = run.stdout
            self.assertEqual(len(set(texts.values())), 1, texts)

    def test_tiny_models(self):
        if support.machine()["compiler"] is None:
            self.skipTest("quern-compile is not built")
        with tempfile.TemporaryDirectory(prefix="quern-gpu-") as folder:
            for i, options in enumerate(([], ["--family", "qwen2", "--type", "q5_0"])):
                gguf = pathlib.Path(folder) / f"{i}.gguf"
                support.make_gguf.write_model(str(gguf), *options)
                self.check(gguf, [5, 6, 7, 8, 9], 6)

    def test_real_model(self):
        """Eight tokens of SmolLM2 behind "The capital of France is"."""
        folder = os.environ.get("QUERN_TEST_MODELS")
        gguf = pathlib.Path(folder or "") / "smollm2-135m.gguf"
        if not folder or not gguf.exists() or support.machine()["compiler"] is None:
            self.skipTest("QUERN_TEST_MODELS names no folder with smollm2-135m.gguf")
        self.check(gguf, [504, 3575, 282, 4649, 314], 8)


if __name__ == "__main__":
    unittest.main()
