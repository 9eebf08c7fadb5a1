"""quern tune: it ends in time, what it writes is used, and what is used changes no bit."""

import json
import time
import unittest

from support import (FAILURE, MALFORMED, TARGET, UNSUPPORTED, USAGE, E2eTest, artifact,
                     quern)


class Tune(E2eTest):
    def model(self):
        return artifact().with_suffix(".gguf")

    def tune(self, *arguments):
        return quern("tune", self.model(), "--target", TARGET, *arguments)

    def records(self, text):
        lines = text.splitlines()
        self.assertEqual(lines[0], "# quern tuning 1")
        self.assertEqual(lines, sorted(lines))
        return [dict(field.split("=", 1) for field in line.split()) for line in lines[1:]]

    def inspect(self, path):
        return json.loads(self.assertWorks(quern("inspect", path, "--json")))

    def test_a_search_ends_in_time_and_its_records_are_used(self):
        database = self.folder / "model.tuning"
        start = time.monotonic()
        report = json.loads(self.assertWorks(
            self.tune("-o", database, "--budget=2s", "--json")))
        # The first compilation comes before, and a round that was begun is ended.
        self.assertLess(time.monotonic() - start, 60)
        self.assertGreaterEqual(report["rounds"], 1)
        records = self.records(database.read_text())
        self.assertEqual(len(records), report["records"])
        self.assertEqual({record["target"] for record in records},
                         {f"{TARGET}/decode", f"{TARGET}/prefill"})
        # The model's context is 256, so 512 rows are no point.
        self.assertEqual({record["rows"] for record in records}, {"1", "4", "64"})
        self.assertEqual({record["threads"] for record in records}, {str(report["threads"])})

        # As if one tile had won everywhere.
        kernels = {kernel["signature"]: kernel["name"]
                   for kernel in self.inspect(artifact())["kernels"]}
        chosen = next(record for record in records if record["types"] != "-")
        subject = [record for record in records if record["tile"] == chosen["tile"] and
                   record["kernel"] == chosen["kernel"] and record["target"] == chosen["target"]]
        for record in subject:
            record.update(ns="50", over_ns="100", noise="0", turns="5")
        lines = [" ".join(f"{name}={value}" for name, value in record.items())
                 for record in subject]
        database.write_text("\n".join(["# quern tuning 1", *sorted(lines), ""]))
        tuned = self.folder / "tuned.quern"
        self.assertWorks(quern("compile", self.model(), "-o", tuned, "--target", TARGET, "-q",
                               f"--tuning={database}"))
        report = self.inspect(tuned)
        self.assertEqual(sorted(report["tuning"]), sorted(lines))
        self.assertIn(lines[0], self.assertWorks(quern("inspect", tuned)))
        role = chosen["target"].split("/")[1]
        form = next(form for kernel in report["kernels"]
                    if kernel["name"] == kernels[chosen["kernel"]]
                    for form in kernel["forms"] if form["role"] == role)
        self.assertEqual("/".join(str(form[part]) for part in
                                  ("rows", "blocks", "keys", "prefetch")), chosen["tile"])

        logits = []
        for path in (artifact(), tuned):
            out = self.folder / "logits.npy"
            for flags in ((), ("--teacher-forced",)):
                self.assertWorks(quern("run", path, "--tokens", ",".join(map(str, range(1, 40))),
                                       "-n", 0, "--logits", out, *flags))
                logits.append(out.read_bytes())
        self.assertEqual(logits[:2], logits[2:])

        # A second search keeps what is known.
        again = json.loads(self.assertWorks(
            self.tune("-o", database, "--budget=0", "--json")))
        self.assertEqual(again["rounds"], 1)
        kept = database.read_text()
        self.assertTrue(any(record["over_ns"] == "100" for record in self.records(kept)) or
                        len(subject) < 2, kept)

    def test_without_a_file_the_database_goes_to_standard_output(self):
        self.assertTrue(self.records(self.assertWorks(self.tune("--budget=0", "-q"))))

    def test_an_artifact_is_enough(self):
        again = self.folder / "again.quern"
        self.assertWorks(quern("compile", artifact(), "-o", again, "-q"))
        self.assertEqual(again.read_bytes(), artifact().read_bytes())

        database = self.folder / "artifact.tuning"
        self.assertWorks(quern("tune", artifact(), "--target", TARGET, "-o", database,
                               "--budget=0", "-q"))
        records = self.records(database.read_text())
        signatures = {kernel["signature"] for kernel in self.inspect(artifact())["kernels"]}
        self.assertTrue({record["kernel"] for record in records} <= signatures)
        chosen = next(record for record in records if record["types"] != "-")
        chosen.update(ns="50", over_ns="100", noise="0", turns="5")
        line = " ".join(f"{name}={value}" for name, value in chosen.items())
        database.write_text(f"# quern tuning 1\n{line}\n")
        tuned = []
        for name, source in (("model", self.model()), ("artifact", artifact())):
            tuned.append(self.folder / f"{name}.quern")
            self.assertWorks(quern("compile", source, "-o", tuned[-1], "--target", TARGET, "-q",
                                   f"--tuning={database}"))
        self.assertEqual(self.inspect(tuned[1])["tuning"], [line])
        self.assertEqual(tuned[0].read_bytes(), tuned[1].read_bytes())
        # Defaults come back: the program is that without tiles of a database.
        self.assertWorks(quern("compile", tuned[1], "-o", again, "-q"))
        self.assertEqual(again.read_bytes(), artifact().read_bytes())

    def test_an_artifact_that_is_not_enough(self):
        out = self.folder / "out.quern"
        for option in ("--precise", "--quantize=int8", "--shares=3", "--compile-from=tile"):
            self.assertFails(quern("compile", artifact(), "-o", out, option), USAGE,
                             "whose phases up to kernels are done")
        for target in ("amx", "sm_80"):
            self.assertFails(quern("compile", artifact(), "-o", out, f"--target={target}"),
                             UNSUPPORTED, f"compiled for {TARGET}, not for {target}")
        dump = self.folder / "memory.mlir"
        self.assertWorks(quern("compile", self.model(), "--target", TARGET, "-o", dump, "-q",
                               "--compile-to=memory"))
        bare = self.folder / "bare.quern"
        self.assertWorks(quern("compile", dump, "--compile-from=memory", "--weights", self.model(),
                               "-o", bare, "-q"))
        self.assertFails(quern("tune", bare, "--target", TARGET), UNSUPPORTED, "no program")
        self.assertFails(quern("compile", artifact(), "-o", artifact(), "-q"), USAGE,
                         "replace the input")
        broken = self.folder / "broken.quern"
        bytes_ = bytearray(artifact().read_bytes())
        at = bytes_.index(b"lm.model")
        bytes_[at] ^= 1
        broken.write_bytes(bytes_)
        self.assertFails(quern("tune", broken, "--target", TARGET), MALFORMED, "program")
        self.assertFalse(out.exists())

    def test_refusals(self):
        broken = self.folder / "broken.tuning"
        broken.write_text("# quern tuning 1\nkernel=x\n")
        self.assertFails(self.tune("-o", broken), MALFORMED, "broken.tuning:2:")
        self.assertEqual(broken.read_text(), "# quern tuning 1\nkernel=x\n")
        self.assertEqual(self.tune("--json").returncode, USAGE)
        self.assertFails(self.tune("--budget=soon"), USAGE)
        self.assertFails(quern("tune", self.model(), "--target=sm_80"), UNSUPPORTED, "GPU")
        self.assertFails(quern("tune", self.folder / "none.gguf", "-q"), FAILURE)


if __name__ == "__main__":
    unittest.main()
