#!/usr/bin/env python3
"""Whole models on the PTX emulator: the GPU's code gives the tokens that the CPU's gives. Tiny ones
also through the CUDA device, over a libcuda.so.1 that the emulator backs (QUERN_FAKE_CUDA names
its folder).
"""

import json
import os
import pathlib
import tempfile
import unittest

import support

TARGETS = ("sm_80", "sm_90a")
ALL_TARGETS = (*TARGETS, "sm_100a")


def with_fake_cuda(**variables):
    """The environment of a machine whose NVIDIA driver is the fake one."""
    folder = os.environ.get("QUERN_FAKE_CUDA")
    if not folder:
        raise unittest.SkipTest("QUERN_FAKE_CUDA names no folder with libcuda.so.1")
    return {**os.environ, "LD_LIBRARY_PATH": folder,
            **{f"QUERN_FAKE_CUDA_{name.upper()}": str(value) for name, value in variables.items()}}


class EmulatedGpuTest(support.E2eTest):
    def check(self, gguf, tokens, count, targets, fake_cuda=False):
        with tempfile.TemporaryDirectory(prefix="quern-gpu-") as folder:
            artifact = pathlib.Path(folder) / "m.quern"
            result = support.quern("compile", gguf, "-o", artifact, "-q",
                                   f"--target={support.TARGET},{','.join(targets)}")
            self.assertEqual(result.returncode, support.OK, result.stderr)
            texts = {}
            for device in ("cpu", *(f"ptx-emulator:{target}" for target in targets)):
                run = support.quern("run", artifact, "--tokens", ",".join(map(str, tokens)), "-n",
                                    count, "--ignore-end", "-q", f"--device={device}")
                self.assertEqual(run.returncode, support.OK, run.stderr)
                texts[device] = run.stdout
            if fake_cuda:
                run = support.quern("run", artifact, "--tokens", ",".join(map(str, tokens)), "-n",
                                    count, "--ignore-end", "-q", "--device=cuda:0",
                                    env=with_fake_cuda())
                self.assertEqual(run.returncode, support.OK, run.stderr)
                texts["cuda:0"] = run.stdout
            self.assertEqual(len(set(texts.values())), 1, texts)

    def test_tiny_models(self):
        if support.machine()["compiler"] is None:
            self.skipTest("quern-compile is not built")
        with tempfile.TemporaryDirectory(prefix="quern-gpu-") as folder:
            for i, options in enumerate(([], ["--family", "qwen2", "--type", "q5_0"])):
                gguf = pathlib.Path(folder) / f"{i}.gguf"
                support.make_gguf.write_model(str(gguf), *options)
                self.check(gguf, [5, 6, 7, 8, 9], 6, ALL_TARGETS,
                           fake_cuda="QUERN_FAKE_CUDA" in os.environ)

    def test_doctor_lists_every_device(self):
        env = with_fake_cuda(devices=3, sm=89, memory=1 << 30, driver=12040)
        text = self.assertWorks(support.quern("doctor", env=env))
        for i in range(3):
            self.assertIn(f"cuda:{i}: Fake GPU 89, compute capability 8.9, 1.07 GB, "
                          "driver for CUDA 12.4 (PTX 8.4)", text)
        gpus = json.loads(self.assertWorks(support.quern("doctor", "--json", env=env)))["gpus"]
        self.assertEqual([gpu["name"] for gpu in gpus], ["cuda:0", "cuda:1", "cuda:2"])

    def test_real_model(self):
        """Eight tokens of SmolLM2 behind "The alphabet: A, B, C, D,": in float32 the best is ahead of
        the second by 2.3 at every step, and numerics may differ."""
        folder = os.environ.get("QUERN_TEST_MODELS")
        gguf = pathlib.Path(folder or "") / "smollm2-135m.gguf"
        if not folder or not gguf.exists() or support.machine()["compiler"] is None:
            self.skipTest("QUERN_TEST_MODELS names no folder with smollm2-135m.gguf")
        self.check(gguf, [504, 12567, 42, 330, 28, 389, 28, 340, 28, 422, 28], 8, TARGETS)


if __name__ == "__main__":
    unittest.main()
