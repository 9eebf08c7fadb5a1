"""Quern as a user meets it: the command line, run on tiny random models.

ctest sets QUERN to the command; QUERN_TEST_MODELS may name a folder that holds smollm2-135m.gguf.
Tests that need the compiler are skipped where quern-compile is not beside quern.
"""

import functools
import json
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))
import make_gguf  # noqa: E402

QUERN = os.environ.get("QUERN") or str(ROOT / "build/dev/bin/quern")

OK, FAILURE, USAGE, MALFORMED, UNSUPPORTED, INCOMPATIBLE = range(6)
INTERRUPTED, TERMINATED = 130, 143
# Every machine that runs Quern at all runs this target, and it compiles fastest.
TARGET = "avx2"
TIMEOUT = 120  # seconds of any one command


def quern(*arguments, **kwargs):
    """Runs the command; stdout and stderr are bytes."""
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    kwargs.setdefault("stdout", subprocess.PIPE)
    kwargs.setdefault("stderr", subprocess.PIPE)
    return subprocess.run([QUERN, *map(str, arguments)], timeout=TIMEOUT, **kwargs)


def start(*arguments, **kwargs):
    """Starts the command in the background."""
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    kwargs.setdefault("stdout", subprocess.PIPE)
    kwargs.setdefault("stderr", subprocess.PIPE)
    return subprocess.Popen([QUERN, *map(str, arguments)], bufsize=0, **kwargs)


@functools.cache
def machine():
    """What `quern doctor` says."""
    return json.loads(quern("doctor", "--json").stdout)


def runs_here(target):
    return any(each["name"] == target and each["supported"] for each in machine()["targets"])


@functools.cache
def _folder():
    return tempfile.TemporaryDirectory(prefix="quern-e2e-")


@functools.cache
def artifact(*options, target=TARGET, flags=()):
    """Path of the artifact of a tiny model with these options of make_gguf.py, compiled once."""
    if machine()["compiler"] is None:
        raise unittest.SkipTest("quern-compile is not built")
    name = re.sub(r"[^a-z0-9]+", "-", " ".join((target, *options, *map(str, flags))).lower()) or "plain"
    gguf = pathlib.Path(_folder().name) / f"{name}.gguf"
    make_gguf.write_model(str(gguf), *options)
    out = gguf.with_suffix(".quern")
    result = quern("compile", gguf, "-o", out, f"--target={target}", *flags, "-q")
    if result.returncode != 0:
        raise AssertionError(result.stderr.decode())
    return out


@functools.cache
def real_artifact():
    """SmolLM2-135M, compiled for this machine."""
    folder = os.environ.get("QUERN_TEST_MODELS")
    gguf = pathlib.Path(folder or "") / "smollm2-135m.gguf"
    if not folder or not gguf.exists():
        raise unittest.SkipTest("QUERN_TEST_MODELS names no folder with smollm2-135m.gguf")
    if machine()["compiler"] is None:
        raise unittest.SkipTest("quern-compile is not built")
    out = pathlib.Path(_folder().name) / "smollm2.quern"
    result = quern("compile", gguf, "-o", out, "-q")
    if result.returncode != 0:
        raise AssertionError(result.stderr.decode())
    return out


def read_npy(path):
    """(shape, bytes) of a float32 C-order .npy file of version 1."""
    data = pathlib.Path(path).read_bytes()
    assert data[:8] == b"\x93NUMPY\x01\x00", data[:8]
    (length,) = struct.unpack_from("<H", data, 8)
    assert (10 + length) % 64 == 0, "the values are not aligned"
    header = data[10 : 10 + length].decode()
    assert "'descr': '<f4'" in header and "'fortran_order': False" in header, header
    rows, columns = map(int, re.search(r"\((\d+), (\d+)\)", header).groups())
    values = data[10 + length :]
    assert len(values) == 4 * rows * columns
    return (rows, columns), values


class E2eTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="quern-e2e-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def assertWorks(self, result):
        """Returns standard output as text."""
        self.assertEqual(result.returncode, OK, result.stderr.decode(errors="replace"))
        return result.stdout.decode()

    def assertFails(self, result, code, *words):
        """The exit code; nothing on standard output; one line on standard error with all words."""
        stderr = result.stderr.decode()
        self.assertEqual(result.returncode, code, stderr)
        self.assertEqual(result.stdout, b"")
        self.assertEqual(len(stderr.splitlines()), 1, stderr)
        self.assertRegex(stderr, r"^quern( [a-z]+)?: error: ")
        for word in words:
            self.assertIn(word, stderr)

    def assertNoLeftovers(self):
        self.assertEqual([each.name for each in self.folder.iterdir() if ".tmp" in each.name], [])
