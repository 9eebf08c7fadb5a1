"""Keys, signed artifacts, and who refuses what."""

import json
import os
import unittest

from support import (FAILURE, INCOMPATIBLE, MALFORMED, OK, TARGET, USAGE, E2eTest, artifact, machine,
                     make_gguf, quern)


class Signatures(E2eTest):
    def setUp(self):
        super().setUp()
        if machine()["compiler"] is None:
            self.skipTest("quern-compile is not built")
        self.gguf = self.folder / "m.gguf"
        make_gguf.write_model(str(self.gguf))
        self.secret, self.public = self.key("mill")
        self.signed = self.compiled(self.secret)

    def key(self, name):
        self.assertWorks(quern("keygen", self.folder / name))
        return self.folder / f"{name}.key", self.folder / f"{name}.pub"

    def compiled(self, key):
        out = self.folder / "signed.quern"
        self.assertWorks(quern("compile", self.gguf, "-o", out, f"--target={TARGET}", "-q",
                               "--sign-key", key))
        return out

    def run_trusting(self, *keys):
        trust = [word for key in keys for word in ("--trust", key)]
        return quern("run", self.signed, "-p", "hi", "-n", 2, "-q", *trust)

    def test_keys_are_new_and_secret(self):
        self.assertEqual(os.stat(self.secret).st_mode & 0o777, 0o600)
        self.assertNotEqual(self.key("other")[1].read_text(), self.public.read_text())
        before = self.secret.read_text()
        self.assertFails(quern("keygen", self.folder / "mill"), FAILURE, "mill.key")
        self.assertEqual(self.secret.read_text(), before)

    def test_a_signed_artifact_runs_like_the_unsigned_one(self):
        plain = quern("run", artifact(), "-p", "hi", "-n", 2, "-q")
        self.assertEqual(self.assertWorks(self.run_trusting(self.public)), self.assertWorks(plain))
        self.assertWorks(self.run_trusting())
        other = self.key("other")[1]
        self.assertWorks(self.run_trusting(other, self.public))
        # The signature follows the artifact, which is the same but for it.
        unsigned = artifact().read_bytes()
        self.assertEqual(self.signed.read_bytes()[:len(unsigned)], unsigned)

    def test_who_signed_is_shown(self):
        key = self.public.read_text().strip()
        self.assertIn(key, self.assertWorks(quern("inspect", self.signed)))
        self.assertEqual(json.loads(quern("inspect", self.signed, "--json").stdout)["signers"], [key])
        self.assertIn(key, self.assertWorks(quern("verify", self.signed, "--trust", self.public)))

    def test_a_policy_refuses_strangers_and_nobody(self):
        other = self.key("other")[1]
        self.assertFails(self.run_trusting(other), INCOMPATIBLE, "no trusted key", "quern-public-key:")
        self.assertFails(quern("run", artifact(), "-p", "hi", "--trust", self.public), INCOMPATIBLE,
                         "no signature", "--sign-key")
        for path in (self.signed, artifact()):
            result = quern("verify", path, "--trust", other, "--json")
            self.assertEqual(result.returncode, INCOMPATIBLE)
            failed = [each["name"] for each in json.loads(result.stdout)["checks"] if not each["ok"]]
            self.assertEqual(failed, ["signature"])

    def test_every_flipped_bit_is_found(self):
        sound = self.signed.read_bytes()
        report = json.loads(quern("inspect", self.signed, "--json").stdout)
        places = {"header": 40, "signature": len(sound) - 1, "key": len(sound) - 96}
        for segment in report["segments"]:
            places[segment["name"]] = segment["offset"] + segment["size"] // 2
        for name, place in places.items():
            damaged = bytearray(sound)
            damaged[place] ^= 16
            self.signed.write_bytes(damaged)
            result = self.run_trusting(self.public)
            self.assertEqual(result.returncode, MALFORMED, (name, result.stderr))

    def test_a_cut_signature(self):
        sound = self.signed.read_bytes()
        for missing in (1, 64, 96, 100, 160):
            self.signed.write_bytes(sound[:len(sound) - missing])
            code = INCOMPATIBLE if missing == 160 else MALFORMED
            self.assertEqual(self.run_trusting(self.public).returncode, code, missing)

    def test_files_that_are_no_keys(self):
        out = self.folder / "none.quern"
        junk = self.folder / "junk"
        junk.write_bytes(os.urandom(5000))
        self.assertFails(quern("compile", self.gguf, "-o", out, "--sign-key", self.public), MALFORMED,
                         "secret key")
        self.assertFails(quern("compile", self.gguf, "-o", out, "--sign-key", junk), MALFORMED)
        self.assertFails(quern("compile", self.gguf, "-o", out, "--sign-key", self.folder / "no"),
                         FAILURE)
        self.assertFalse(out.exists())
        for key in (self.secret, junk):
            self.assertFails(self.run_trusting(key), USAGE, "public key")
        junk.write_bytes(b"")
        self.assertFails(self.run_trusting(junk), USAGE, "no public key")


if __name__ == "__main__":
    unittest.main()
