#!/usr/bin/env python3
"""The models of odd_models_test.py on the PTX emulator, against the float32 reference interpreter.

Logits of all positions, as one prompt and token by token through the decode kernels. They may be
wrong by twice what the reference is wrong by once its matmuls read rows and weights in f16. With
QUERN_FULL_MATRIX in the environment all models run (scripts/emulate-all), otherwise a few.
"""

import json
import math
import os
import re
import unittest

import odd_models_test as odd
import support

TARGETS = ("sm_80", "sm_90a")
if "QUERN_FULL_MATRIX" in os.environ:
    TARGETS += ("sm_89", "sm_100a", "sm_120a")
FEW = ("a vocabulary of 333, not tied", "seven queries a key, biases", "four K-quants in a layer",
       "weights in bf16")
# Largest difference of logits with e4m3, relative to the largest logit.
FP8_TOLERANCE = 1e-1

# A weight and the op that makes it floats: (name, shape, format, op).
WEIGHT = re.compile(r"lm\.weight (\"[^\"]*\") : tensor<(\d+x\d+)x(!lm\.block<\w+>)>\n"
                    r"(.* lm\.dequantize %\d+) : tensor<\2x\3>")


def errors(got, wanted):
    """Root mean square and largest of the differences; a NaN counts as infinite."""
    differences = [a - b if a == a else math.inf for a, b in zip(got[1], wanted[1])]
    return (math.sqrt(sum(each * each for each in differences) / len(differences)),
            max(map(abs, differences)))


class OddModelsGpu(odd.ModelTest):
    def references(self):
        """Logits in float32, and the errors of those of plain f16."""
        wanted = self.reference("01-import")
        text = (self.folder / "ir" / "03-quantize.mlir").read_text()
        weights = WEIGHT.sub(r"lm.weight \1 source = \3 : tensor<\2xf16>\n\4 : tensor<\2xf16>", text)
        rows = re.sub(r"(tensor<\?x\d+x)!lm\.block<a8>>", r"\1f16>", weights)
        (self.folder / "ir" / "f16.mlir").write_text(rows)
        return wanted, errors(self.reference("f16"), wanted)

    def assertAsGoodAsHalf(self, got, wanted, half):
        self.assertEqual(got[0], wanted[0])
        for what, error, of_half in zip(("mean", "largest"), errors(got, wanted), half):
            self.assertLessEqual(error, 2 * of_half, what)

    def check(self, name, options):
        model = self.folder / "model.gguf"
        support.make_gguf.write_model(model, *options.split())
        self.compile(model, f"--target={','.join(TARGETS)}", f"--shares={odd.SHARES.get(name, 2)}")
        wanted, half = self.references()
        for target in TARGETS:
            for how in ((), ("--teacher-forced",)):
                with self.subTest(model=name, target=target, how=how):
                    got = self.run_logits(f"--device=ptx-emulator:{target}", *how)
                    self.assertAsGoodAsHalf(got, wanted, half)

    def test_models(self):
        for name, options in odd.MODELS.items():
            if name in FEW or "QUERN_FULL_MATRIX" in os.environ:
                self.check(name, options)

    def forms(self, kernel):
        """(target, role, generator, arithmetic) of a kernel, as `quern inspect` has them."""
        report = json.loads(self.assertWorks(
            support.quern("inspect", "--json", self.folder / "model.quern")))
        found = next(each for each in report["kernels"] if each["name"] == kernel)
        return {(form["target"], form["role"], form["generator"], form["arithmetic"])
                for form in found["forms"]}

    def test_fp8_weights(self):
        """The interpreter rounds weights and tokens in the same way, but for sm_80, which keeps tokens in f16."""
        model = self.folder / "model.gguf"
        support.make_gguf.write_model(model, *"--type f16 --untied --layers 1 --vocab 301 --ffn 96".split())
        self.compile(model, "--target=avx2,sm_80,sm_89,sm_90a", "--quantize=fp8")
        self.assertEqual({(target, arithmetic) for target, _, _, arithmetic in self.forms("attn_output")},
                         {("avx2", "F32"), ("sm_80", "F16"), ("sm_89", "E4M3"), ("sm_90a", "E4M3")})
        rounded, unrounded = self.reference("03-quantize"), self.reference("01-import")
        self.assertClose(self.run_logits("--force-isa", "avx2"), unrounded, FP8_TOLERANCE)
        for target, wanted in (("sm_80", unrounded), ("sm_89", rounded), ("sm_90a", rounded)):
            for how in ((), ("--teacher-forced",)):
                with self.subTest(target=target, how=how):
                    got = self.run_logits(f"--device=ptx-emulator:{target}", *how)
                    self.assertClose(got, wanted, FP8_TOLERANCE)

    def test_int8_cache(self):
        """Keys and values in int8: the interpreter rounds them in the same way."""
        model = self.folder / "model.gguf"
        support.make_gguf.write_model(model, "--head-dim", "96", "--layers", "1")
        self.compile(model, "--target=sm_80", "--kv=int8")
        self.assertEqual(self.forms("attention"),
                         {("sm_80", "decode", "split-attention", "F16"),
                          ("sm_80", "prefill", "tensor-attention", "F16")})
        report = json.loads(self.assertWorks(
            support.quern("inspect", "--json", self.folder / "model.quern")))
        kv = report["kv"][0]
        self.assertEqual(kv["element"], "int8")
        self.assertEqual(kv["page_bytes"], 2 * kv["kv_heads"] * 96 // 32 * 36 * kv["page_tokens"])
        wanted, half = self.references()
        for how in ((), ("--teacher-forced",)):
            self.assertAsGoodAsHalf(self.run_logits("--device=ptx-emulator:sm_80", *how), wanted, half)

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
