"""A call of the C library fails, somewhere in a whole compile or run: a clean error and no torn file.

    failure_injection_test.py            a few places of each class of calls
    QUERN_SAMPLES=200 ...                that many of each (scripts/inject-failures)
"""

import os
import pathlib
import struct
import subprocess
import unittest

from support import FAILURE, OK, QUERN, TARGET, TIMEOUT, E2eTest, artifact, make_gguf

PRELOAD = os.environ.get("QUERN_FAILURES_PRELOAD")
SAMPLES = int(os.environ.get("QUERN_SAMPLES", "3"))
OUT_OF_MEMORY = 6
CLASSES = ("malloc", "mmap", "read", "write")


def evenly(count, samples):
    """Up to `samples` numbers from 1 to `count`, the first and the last among them."""
    if count <= samples:
        return list(range(1, count + 1))
    return sorted({1 + round(i * (count - 1) / max(1, samples - 1)) for i in range(samples)})


@unittest.skipUnless(PRELOAD, "QUERN_FAILURES_PRELOAD names no library")
class FailureInjection(E2eTest):
    def run_with(self, fail, *command):
        """Runs the command; returns its result and the calls it made by class."""
        counts = self.folder / "counts"
        counts.unlink(missing_ok=True)
        environment = {**os.environ, "LD_PRELOAD": PRELOAD, "QUERN_FAIL_COUNTS": str(counts)}
        if fail:
            environment["QUERN_FAIL"] = fail
        result = subprocess.run([str(each) for each in command], env=environment, timeout=TIMEOUT,
                                stdin=subprocess.DEVNULL, capture_output=True)
        numbers = struct.unpack("<4Q", counts.read_bytes()[:32])
        return result, dict(zip(CLASSES, numbers))

    def assertClean(self, result, fail):
        """It worked all the same, or it says in one line, or in its report, that it did not."""
        stderr = result.stderr.decode(errors="replace")
        self.assertIn(result.returncode, (OK, FAILURE, OUT_OF_MEMORY), (fail, stderr))
        if result.returncode != OK and b"FAILED  " not in result.stdout:
            self.assertEqual(len(stderr.splitlines()), 1, (fail, stderr))
            self.assertRegex(stderr, r"^quern( [a-z]+)?: error: ", fail)

    def check(self, command, after, samples=SAMPLES):
        """Fails calls of `command`; `after` looks at what is left behind. Returns how many."""
        sound, counts = self.run_with(None, *command)
        self.assertEqual(sound.returncode, OK, sound.stderr)
        after(OK)
        failed = 0
        for kind in CLASSES:
            for nth in evenly(counts[kind], samples):
                fail = f"{kind}:{nth}"
                with self.subTest(fail=fail):
                    result, _ = self.run_with(fail, *command)
                    self.assertClean(result, fail)
                    after(result.returncode)
                    failed += result.returncode != OK
        return failed

    def test_compile(self):
        compiler = pathlib.Path(QUERN).with_name("quern-compile")
        artifact()  # skips where there is no compiler
        model, out = self.folder / "model.gguf", self.folder / "model.quern"
        make_gguf.write_model(str(model), "--layers", "1")
        wanted = b""

        def after(code):
            nonlocal wanted
            self.assertNoLeftovers()
            if code == OK:
                wanted = wanted or out.read_bytes()
                self.assertEqual(out.read_bytes(), wanted)
                out.unlink()
            else:
                self.assertFalse(out.exists())

        command = (compiler, "compile", model, "-o", out, f"--target={TARGET}", "-q")
        self.assertGreater(self.check(command, after), SAMPLES)

    def test_run(self):
        logits = self.folder / "logits.npy"
        wanted = b""

        def after(code):
            nonlocal wanted
            self.assertNoLeftovers()
            if code == OK or logits.exists():  # what fails may come after the file is whole
                wanted = wanted or logits.read_bytes()
                self.assertEqual(logits.read_bytes(), wanted)
                logits.unlink()

        command = (QUERN, "run", artifact(), "-p", "Hello there", "-n", 3, "--logits", logits, "-q",
                   "--check-weights")
        self.assertGreater(self.check(command, after), SAMPLES)

    def test_other_commands(self):
        for command in (("inspect", artifact()), ("verify", artifact(), "--full"), ("doctor",)):
            self.check((QUERN, *command), lambda code: None)

    def test_every_call_of_tokenize(self):
        """PCRE2 takes its memory with malloc: its end is no fault of the pattern."""
        command = (QUERN, "tokenize", artifact(), "-p", "Hello")
        self.assertGreater(self.check(command, lambda code: None, samples=10**6), 0)


if __name__ == "__main__":
    unittest.main()
