"""Bad input: each case has its exit code and one line that says what was seen."""

import json
import os
import shutil
import unittest

from support import (FAILURE, INCOMPATIBLE, MALFORMED, OK, USAGE, E2eTest, artifact, quern,
                     runs_here)


class Artifacts(E2eTest):
    def broken(self, change):
        """A copy of the artifact after `change` of its bytes."""
        path = self.folder / "broken.quern"
        data = bytearray(artifact().read_bytes())
        path.write_bytes(change(data))
        return path

    def every_reader(self, path):
        """Results of all commands that open `path`."""
        yield quern("run", path, "-p", "x")
        yield quern("chat", path, "-p", "x")
        yield quern("inspect", path)
        yield quern("tokenize", path, "-p", "x")
        yield quern("bench", path)

    def assertRefused(self, path, code, *words):
        for result in self.every_reader(path):
            self.assertFails(result, code, *words)
        result = quern("verify", path, "--json")
        self.assertEqual(result.returncode, code)
        self.assertFalse(json.loads(result.stdout)["ok"])

    def test_missing(self):
        self.assertRefused(self.folder / "none.quern", FAILURE, "none.quern", "No such file",
                           "give the path")

    def test_folder(self):
        for result in self.every_reader(self.folder):
            self.assertFails(result, FAILURE, "not a regular file", "give the path")

    def test_fifo_is_not_waited_for(self):
        path = self.folder / "fifo"
        os.mkfifo(path)
        for result in self.every_reader(path):
            self.assertFails(result, FAILURE, "not a regular file", "give the path")

    def test_empty(self):
        self.assertRefused(self.broken(lambda data: b""), MALFORMED, "empty", "compile it again")

    def test_truncated(self):
        artifact()
        for part in (0.001, 0.5, 0.99):
            self.assertRefused(self.broken(lambda data: data[: int(len(data) * part)]), MALFORMED,
                               "wanted", "copy the artifact again")

    def test_wrong_magic(self):
        self.assertRefused(self.broken(lambda data: b"GGUF" + data[4:]), MALFORMED, "GGUF",
                           "quern compile")

    def test_manifest_changed(self):
        def change(data):
            manifest = int.from_bytes(data[16:24], "little")
            data[manifest + 100] ^= 1
            return data

        self.assertRefused(self.broken(change), MALFORMED, "hash")

    def test_weights_changed(self):
        report = json.loads(quern("inspect", artifact(), "--json").stdout)
        (weights,) = [each for each in report["segments"] if each["kind"] == "Weights"]

        def change(data):
            data[weights["offset"] + weights["size"] // 2] ^= 1
            return data

        path = self.broken(change)
        self.assertEqual(quern("verify", path).returncode, OK)
        self.assertEqual(quern("run", path, "-p", "x", "-n", 1).returncode, OK)
        self.assertFails(quern("run", path, "-p", "x", "--check-weights"), MALFORMED, "weights")
        for flag in ("--full", "--check-weights"):
            result = quern("verify", path, flag)
            self.assertEqual(result.returncode, MALFORMED)
            self.assertIn(b"FAILED  weights", result.stdout)

    def test_target_that_the_artifact_lacks(self):
        self.assertFails(quern("run", artifact(), "-p", "x", "--force-isa", "sparc"), USAGE,
                         "'sparc'", "avx2", "name one of these")

    def test_artifact_for_another_cpu(self):
        if runs_here("amx"):
            self.skipTest("this machine runs every target")
        path = artifact(target="amx")
        for extra in ((), ("--force-isa", "amx")):
            self.assertFails(quern("run", path, "-p", "x", *extra), INCOMPATIBLE, "amx-tile",
                             "choose another target" if extra else "--target=host")
        self.assertEqual(quern("inspect", path).returncode, OK)
        self.assertEqual(quern("verify", path, "--full").returncode, OK)


class Prompts(E2eTest):
    def test_longer_than_the_context(self):
        tokens = ",".join(["5"] * 257)
        self.assertFails(quern("run", artifact(), "--tokens", tokens), USAGE, "257", "256", "shorten it")
        self.assertFails(quern("run", artifact(), "-p", "Hello there", "--ctx-size", 2), USAGE, "2",
                         "--ctx-size up to 256")
        self.assertFails(quern("chat", artifact(), "-p", "Hello " * 500), USAGE, "256")

    def test_context_larger_than_the_model(self):
        self.assertFails(quern("run", artifact(), "-p", "x", "--ctx-size", 257), USAGE, "257", "256")

    def test_token_out_of_range(self):
        for token in (-1, 320):
            self.assertFails(quern("run", artifact(), "--tokens", f"1,{token}"), USAGE, str(token))
            self.assertFails(quern("tokenize", artifact(), "--decode", f"1,{token}"), USAGE,
                             str(token))

    def test_empty(self):
        self.assertFails(quern("run", artifact(), "-p", ""), USAGE, "empty")

    def test_missing_prompt_file(self):
        self.assertFails(quern("run", artifact(), "--prompt-file", self.folder / "none"), FAILURE,
                         "none", "No such file", "give a file")

    def test_sampling_out_of_range(self):
        for option, value in (("--temp", -1), ("--top-p", 1.5), ("--min-p", 2), ("--top-k", -3),
                              ("--temp", "nan"), ("--repeat-penalty", "inf")):
            self.assertFails(quern("run", artifact(), "-p", "x", option, value), USAGE, "expected")

    def test_messages(self):
        path = self.folder / "messages.json"
        for text, word in (("", "JSON"), ("{", "JSON"), ("{}", "object"), ('[{"role": 1', "JSON"),
                           ("[" * 100000 + "]" * 100000, "deeper")):
            path.write_text(text)
            self.assertFails(quern("chat", artifact(), "--messages", path), MALFORMED, word)


class Outputs(E2eTest):
    def test_unwritable(self):
        (self.folder / "file").touch()
        for out, reason in ((self.folder / "none" / "x.npy", "No such file"),
                            (self.folder / "file" / "x.npy", "Not a directory"),
                            (self.folder, "Is a directory"),
                            ("/proc/x.npy", "")):
            self.assertFails(quern("run", artifact(), "-p", "x", "--logits", out), FAILURE,
                             "cannot write", str(out), reason, "choose another place")

    def test_failure_keeps_the_old_file(self):
        out = self.folder / "logits.npy"
        out.write_bytes(b"precious")
        self.assertFails(quern("run", artifact(), "--tokens", "1,2,999", "--logits", out), USAGE)
        self.assertEqual(out.read_bytes(), b"precious")
        self.assertNoLeftovers()

    def test_interrupted_writer_leaves_no_half_file(self):
        copy = shutil.copy(artifact(), self.folder / "model.quern")
        out = self.folder / "logits.npy"
        # Weights are read as they are needed; cut the file's limit instead of the disk.
        result = quern("run", copy, "-p", "Hello there", "-n", 0, "--logits", out,
                       preexec_fn=limit_file_size)
        self.assertEqual(result.returncode, FAILURE, result.stderr)
        self.assertIn(b"File too large", result.stderr)
        self.assertFalse(out.exists())
        self.assertNoLeftovers()


def limit_file_size():
    """In the child: writing more than 2 KiB to a file fails."""
    import resource
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))


if __name__ == "__main__":
    unittest.main()
