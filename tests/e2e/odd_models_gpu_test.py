#!/usr/bin/env python3
"""The models of odd_models_test.py on the PTX emulator, against the float32 reference interpreter.

Logits of all positions, as one prompt and token by token through the decode kernels. With
QUERN_FULL_MATRIX in the environment all models run (scripts/emulate-all), otherwise a few.
"""

import json
import os
import unittest

import odd_models_test as odd
import support

TARGETS = ("sm_80", "sm_90a", *(("sm_100a",) if "QUERN_FULL_MATRIX" in os.environ else ()))
FEW = ("a vocabulary of 333, not tied", "seven queries a key, biases", "four K-quants in a layer",
       "weights in bf16")
# Largest difference, relative to the largest logit.
TOLERANCE = 5e-2


class OddModelsGpu(odd.ModelTest):
    def check(self, name, options):
        model = self.folder / "model.gguf"
        support.make_gguf.write_model(model, *options.split())
        self.compile(model, f"--target={','.join(TARGETS)}", f"--shares={odd.SHARES.get(name, 2)}")
        wanted = self.reference("01-import")
        for target in TARGETS:
            for how in ((), ("--teacher-forced",)):
                with self.subTest(model=name, target=target, how=how):
                    got = self.run_logits(f"--device=ptx-emulator:{target}", *how)
                    self.assertClose(got, wanted, TOLERANCE)

    def test_models(self):
        for name, options in odd.MODELS.items():
            if name in FEW or "QUERN_FULL_MATRIX" in os.environ:
                self.check(name, options)

    def test_int8_cache(self):
        """Keys and values in int8: the interpreter rounds them in the same way."""
        model = self.folder / "model.gguf"
        support.make_gguf.write_model(model, "--head-dim", "96", "--layers", "1")
        self.compile(model, "--target=sm_80", "--kv=int8")
        report = json.loads(self.assertWorks(
            support.quern("inspect", "--json", self.folder / "model.quern")))
        attention = next(each for each in report["kernels"] if each["name"] == "attention")
        self.assertEqual({(form["role"], form["generator"], form["arithmetic"])
                          for form in attention["forms"]},
                         {("decode", "split-attention", "F16"), ("prefill", "tensor-attention", "F16")})
        kv = report["kv"][0]
        self.assertEqual(kv["element"], "int8")
        self.assertEqual(kv["page_bytes"], 2 * kv["kv_heads"] * 96 // 32 * 36 * kv["page_tokens"])
        wanted = self.reference("01-import")
        for how in ((), ("--teacher-forced",)):
            self.assertClose(self.run_logits("--device=ptx-emulator:sm_80", *how), wanted, TOLERANCE)

    def test_int8_cache_is_refused(self):
        model, out = self.folder / "model.gguf", self.folder / "model.quern"
        for options, code, words in (
                (("--target=avx2,sm_80",), support.UNSUPPORTED, "avx2 is none"),
                (("--target=sm_80", "--precise"), support.USAGE, "give one"),
                (("--target=sm_80", "--head-dim=48"), support.UNSUPPORTED, "multiple of 32")):
            shape = [option for option in options if "head-dim" in option]
            support.make_gguf.write_model(model, *(shape[0].split("=") if shape else ()))
            result = support.quern("compile", model, "-o", out, "--kv=int8",
                                   *(option for option in options if option not in shape))
            self.assertEqual(result.returncode, code, result.stderr)
            self.assertIn(words.encode(), result.stderr)


if __name__ == "__main__":
    unittest.main()
