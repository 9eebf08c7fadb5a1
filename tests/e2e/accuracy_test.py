"""The accuracy contract: measured, recorded in the artifact, measured again."""

import hashlib
import json
import math
import pathlib
import shutil
import struct
import tempfile
import unittest

from support import (MALFORMED, OK, TARGET, USAGE, E2eTest, machine,
                     make_gguf, quern, read_npy)

ACCURACY = 7
POSITIONS = 40


def log_softmax(row):
    top = max(row)
    total = math.log(sum(math.exp(value - top) for value in row)) + top
    return [value - total for value in row]


class Accuracy(E2eTest):
    @classmethod
    def setUpClass(cls):
        if machine()["compiler"] is None:
            raise unittest.SkipTest("quern-compile is not built")
        folder = tempfile.TemporaryDirectory(prefix="quern-e2e-")
        cls.addClassCleanup(folder.cleanup)
        cls.made = pathlib.Path(folder.name)
        cls.gguf = cls.made / "m.gguf"
        make_gguf.write_model(str(cls.gguf))
        cls.sound = cls.compiled("model")
        cls.precise = cls.compiled("precise", "--precise")

    def setUp(self):
        super().setUp()
        self.model = self.folder / "model.quern"
        shutil.copy(self.sound, self.model)
        self.text = self.folder / "essay.txt"
        self.text.write_text("A quern grinds grain between two stones. " * 20)

    @classmethod
    def compiled(cls, name, *options, model=None):
        out = cls.made / f"{name}.quern"
        target = () if any(each.startswith("--target") for each in options) else (f"--target={TARGET}",)
        result = quern("compile", model or cls.gguf, "-o", out, "-q", *target, *options)
        assert result.returncode == OK, result.stderr
        return out

    def eval(self, *options):
        return quern("eval", self.model, "--positions", POSITIONS, *options)

    def record(self):
        """Measures and records; the figures."""
        return json.loads(self.assertWorks(self.eval(
            "--text", self.text, "--reference", self.precise, "--record", "--json")))

    def verify(self, *options):
        result = quern("verify", self.model, "--accuracy", "--json", *options)
        report = json.loads(result.stdout)
        self.assertEqual(report["ok"], result.returncode == OK)
        return result.returncode, report["checks"][-1]

    def logits(self, path, tokens):
        out = self.folder / "logits.npy"
        self.assertWorks(quern("run", path, "--tokens", tokens, "-n", 0, "-q", "--logits", out))
        (rows, columns), data = read_npy(out)
        values = struct.unpack(f"<{rows * columns}f", data)
        return [values[row * columns:(row + 1) * columns] for row in range(rows)]

    def test_the_figures_are_what_they_are_called(self):
        figures = self.record()["measured"]
        tokens = self.assertWorks(quern("tokenize", self.model, "-p", self.text.read_text())).strip()
        ids = [int(each) for each in tokens.split(",")][:POSITIONS]
        given = ",".join(map(str, ids))
        ours, wanted = (self.logits(path, given) for path in (self.model, self.precise))
        kl, same, loss = 0.0, 0, 0.0
        for position, (row, reference) in enumerate(zip(ours, wanted)):
            q, p = log_softmax(row), log_softmax(reference)
            best = sorted(range(len(p)), key=lambda i: -p[i])[:128]
            rest = [1 - sum(math.exp(each[i]) for i in best) for each in (p, q)]
            kl += sum(math.exp(p[i]) * (p[i] - q[i]) for i in best)
            kl += rest[0] * math.log(rest[0] / rest[1])
            same += row.index(max(row)) == reference.index(max(reference))
            if position + 1 < len(ids):
                loss -= q[ids[position + 1]]
        self.assertEqual(figures["positions"], POSITIONS)
        self.assertGreater(figures["mean_kl"], 0)
        self.assertAlmostEqual(figures["mean_kl"], kl / POSITIONS, delta=1e-5 + 0.001 * kl)
        self.assertEqual(figures["top1"], same / POSITIONS)
        self.assertAlmostEqual(figures["perplexity"], math.exp(loss / (POSITIONS - 1)), delta=0.01)

    def test_recorded_and_measured_again(self):
        before = self.model.read_bytes()
        recorded = self.record()
        self.assertEqual(self.model.read_bytes()[:len(before)], before)
        self.assertEqual((recorded["device"], recorded["target"]), ("cpu", TARGET))
        code, check = self.verify()
        self.assertEqual((code, check["name"], check["ok"]), (OK, "accuracy", True))
        # The stored reference serves later measurements, which come to the same.
        again = json.loads(self.assertWorks(self.eval("--json", "-t", 1)))
        self.assertEqual(again["measured"], recorded["measured"])
        self.assertFalse(again["recorded"])
        text = self.assertWorks(quern("inspect", self.model))
        self.assertRegex(text, rf"accuracy +{TARGET} on cpu: mean KL 0\.\d+ .*over {POSITIONS} "
                               "positions of essay.txt")
        self.assertEqual(
            json.loads(quern("inspect", self.model, "--json").stdout)["accuracy"][0]["measured"],
            recorded["measured"])
        self.assertWorks(quern("run", self.model, "-p", "hi", "-n", 2))
        self.assertWorks(quern("verify", self.model, "--full"))

    def test_every_device_has_its_own_record(self):
        both = self.compiled("both", f"--target={TARGET},sm_80")
        shutil.copy(both, self.model)
        self.record()
        code, check = self.verify("--device", "ptx-emulator")
        self.assertEqual(code, ACCURACY)
        self.assertIn("not measured for sm_80 on ptx-emulator", check["detail"])
        self.assertWorks(self.eval("--device", "ptx-emulator", "--record"))
        for options in ((), ("--device", "ptx-emulator:sm_80")):
            self.assertEqual(self.verify(*options)[0], OK)
        records = json.loads(quern("inspect", self.model, "--json").stdout)["accuracy"]
        self.assertEqual([(each["device"], each["target"], each["reference"]) for each in records],
                         [("cpu", TARGET, 0), ("ptx-emulator", "sm_80", 0)])

    def test_not_measured(self):
        self.assertIn("not measured", self.assertWorks(quern("inspect", self.model)))
        self.assertEqual(self.eval().returncode, USAGE)
        code, check = self.verify()
        self.assertEqual(code, ACCURACY)
        self.assertIn("not measured", check["detail"])
        self.assertWorks(quern("verify", self.model))

    def rewrite_record(self, change):
        """Puts another accuracy record behind the one that is there."""
        self.record()
        data = bytearray(self.model.read_bytes())
        at = data.rfind(b"QRNREC\r\n")
        size = int.from_bytes(data[at + 16:at + 24], "little")
        record = json.loads(bytes(data[at + 64:at + 64 + size]))
        body = change(record)
        body = body if isinstance(body, bytes) else json.dumps(record).encode()
        data[at + 16:at + 24] = len(body).to_bytes(8, "little")
        data[at + 32:at + 64] = hashlib.blake2b(body, digest_size=32).digest()
        self.model.write_bytes(data[:at + 64] + body)

    def test_a_promise_that_is_not_kept(self):
        self.rewrite_record(lambda record: record["contract"].update(max_mean_kl=1e-9))
        code, check = self.verify()
        self.assertEqual(code, ACCURACY)
        self.assertIn("wanted at most 0.00000", check["detail"])
        result = quern("verify", self.model, "--accuracy")
        self.assertEqual(result.returncode, ACCURACY)
        self.assertIn(b"FAILED  accuracy", result.stdout)

    def test_hostile_records(self):
        for change in (lambda record: b"{", lambda record: b"[" * 100000, lambda record: b"[]",
                       lambda record: record.update(artifact="00"),
                       lambda record: record.update(measured=[1]),
                       lambda record: record.update(reference=7),
                       lambda record: record.update(reference=-1)):
            shutil.copy(self.sound, self.model)
            self.rewrite_record(change)
            self.assertFails(quern("verify", self.model, "--accuracy"), MALFORMED, "record")
            # What does not ask for accuracy does not mind.
            self.assertWorks(quern("run", self.model, "-p", "hi", "-n", 1))

    def test_texts_of_records_steer_no_terminal(self):
        self.rewrite_record(lambda record: record.update(text="\x1b[2J\n\x9b2J", target="\x7f"))
        text = self.assertWorks(quern("inspect", self.model))
        self.assertIn("positions of  [2J  2J", text)
        self.assertNotRegex(text, "[\x00-\x09\x0b-\x1f\x7f-\x9f]")

    def test_references_that_are_none(self):
        def refused(reference, code, *words):
            self.assertFails(self.eval("--text", self.text, "--reference", reference), code, *words)
        refused(self.model, USAGE, "--precise")
        other = self.folder / "other.gguf"
        make_gguf.write_model(str(other), "--layers", "1")
        refused(self.compiled("other", "--precise", model=other), USAGE,
                "model file")
        refused(self.gguf, MALFORMED, "GGUF")
        self.assertFails(self.eval("--text", self.text), USAGE, "--reference")
        self.text.write_text("x")
        refused(self.precise, USAGE, "tokens")

    def test_an_artifact_that_cannot_be_written(self):
        target = self.folder / "locked.quern"
        shutil.copy(self.model, target)
        before = target.read_bytes()
        result = quern("eval", target, "--text", self.text, "--reference", self.precise, "--record",
                       "--positions", 8, preexec_fn=limit_file_size)
        self.assertFails(result, 1, "cannot add a record")
        self.assertEqual(target.read_bytes()[:len(before)].rstrip(b"\0"), before.rstrip(b"\0"))
        self.assertWorks(quern("verify", target, "--full"))


def limit_file_size():
    """In the child: files may not grow beyond 1 KiB."""
    import resource
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))


if __name__ == "__main__":
    unittest.main()
