#!/usr/bin/env python3
"""The models of odd_models_test.py on the PTX emulator, against the float32 reference interpreter.

Logits of all positions, as one prompt and token by token through the decode kernels. With
QUERN_FULL_MATRIX in the environment all models run (scripts/emulate-all), otherwise a few.
"""

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


if __name__ == "__main__":
    unittest.main()
