"""A compiled artifact, damaged: every damage is refused with a reason, or shown to be harmless."""

import hashlib
import json
import time
import unittest

from support import INCOMPATIBLE, MALFORMED, OK, E2eTest, artifact, quern

HEADER_BYTES = 64
SEGMENT_ALIGNMENT = 4096


class Mutations(E2eTest):
    @classmethod
    def setUpClass(cls):
        cls.sound = artifact().read_bytes()
        cls.report = json.loads(quern("inspect", artifact(), "--json").stdout)
        cls.segments = cls.report["segments"]
        cls.manifest = int.from_bytes(cls.sound[16:24], "little")
        cls.manifest_bytes = int.from_bytes(cls.sound[24:32], "little")

    def verify(self, data, *flags):
        """The report on `data` as a file: quick, on one line, with a code that a refusal may have."""
        path = self.folder / "damaged.quern"
        path.write_bytes(data)
        start = time.monotonic()
        result = quern("verify", path, "--json", *flags)
        self.assertLess(time.monotonic() - start, 10)  # the promise is 1 s, on a quiet machine
        report = json.loads(result.stdout)
        self.assertEqual(report["ok"], result.returncode == OK)
        failed = [each for each in report["checks"] if not each["ok"]]
        if failed:
            self.assertIn(result.returncode, (MALFORMED, INCOMPATIBLE), failed)
            self.assertEqual(result.returncode, failed[0]["code"])
            self.assertEqual(len(failed[0]["detail"].splitlines()), 1)
            self.assertRegex(failed[0]["detail"], r"byte \d+|empty", failed[0]["detail"])
        return report, " ".join(each["detail"] for each in failed)

    def assertRefused(self, data, *words, flags=()):
        report, detail = self.verify(data, *flags)
        self.assertFalse(report["ok"])
        for word in words:
            self.assertIn(word, detail)

    def flipped(self, *positions):
        data = bytearray(self.sound)
        for position in positions:
            data[position] ^= 1 << position % 8
        return data

    def with_fitting_hash(self, data):
        """With the manifest's hash made to fit: the checks stand alone."""
        end = self.manifest + self.manifest_bytes
        data[32:64] = hashlib.blake2b(data[self.manifest:end], digest_size=32).digest()
        return data

    def test_cut_at_every_64th(self):
        for part in range(64):
            self.assertRefused(self.sound[: len(self.sound) * part // 64])

    def test_a_bit_of_the_header(self):
        for position in range(HEADER_BYTES):
            self.assertRefused(self.flipped(position))

    def test_a_bit_of_each_segment(self):
        for segment in self.segments:
            for position in (0, segment["size"] // 2, segment["size"] - 1):
                data = self.flipped(segment["offset"] + position)
                if segment["kind"] == "Weights":
                    self.assertTrue(self.verify(data)[0]["ok"], "weights are checked on request")
                self.assertRefused(data, segment["name"], flags=("--full",))

    def test_a_bit_of_the_manifest(self):
        step = max(1, self.manifest_bytes // 64)
        for position in range(0, self.manifest_bytes, step):
            self.assertRefused(self.flipped(self.manifest + position), "manifest_hash")

    def test_padding_is_harmless(self):
        ends = [HEADER_BYTES] + [each["offset"] + each["size"] for each in self.segments]
        for end in ends:
            for position in {end, -(-end // SEGMENT_ALIGNMENT) * SEGMENT_ALIGNMENT - 1}:
                if end % SEGMENT_ALIGNMENT == 0:
                    continue
                self.assertTrue(self.verify(self.flipped(position), "--full")[0]["ok"], position)

    def test_swapped_segments(self):
        for i, first in enumerate(self.segments):
            for second in self.segments[i + 1:]:
                data = bytearray(self.sound)
                for here, there in ((first, second), (second, first)):
                    part = self.sound[there["offset"]:there["offset"] + there["size"]]
                    room = part[: here["size"]]
                    data[here["offset"]:here["offset"] + len(room)] = room
                self.assertRefused(data, "hash", flags=("--full",))

    def test_wrong_hashes(self):
        for segment in self.segments:
            data = bytearray(self.sound)
            at = data.find(bytes.fromhex(segment["hash"]), self.manifest)
            self.assertGreater(at, 0)
            data[at] ^= 1
            self.assertRefused(data, "manifest_hash")
            self.assertRefused(self.with_fitting_hash(data), segment["name"], "hash",
                               flags=("--full",))

    def test_swapped_hashes(self):
        first, second = (bytes.fromhex(each["hash"]) for each in self.segments[:2])
        data = bytearray(self.sound)
        here, there = data.find(first, self.manifest), data.find(second, self.manifest)
        data[here:here + 32], data[there:there + 32] = second, first
        self.assertRefused(self.with_fitting_hash(data), "hash", flags=("--full",))

    def test_a_manifest_that_fits_its_hash_but_not_the_file(self):
        # Bits of tables, vtables, offsets and numbers. tests/fuzz/manifest_fuzz.cc uses what is
        # accepted; here it is enough that nothing crashes and every refusal has its reason.
        accepted = 0
        step = max(1, self.manifest_bytes // 48)
        for position in range(0, self.manifest_bytes, step):
            data = self.with_fitting_hash(self.flipped(self.manifest + position))
            report, _ = self.verify(data)
            accepted += report["ok"]
        self.assertLess(accepted, 48)

    def test_wrong_identifier_and_versions(self):
        data = bytearray(self.sound)
        data[self.manifest + 4:self.manifest + 8] = b"QRNT"
        self.assertRefused(self.with_fitting_hash(data), "QRN1")
        data = bytearray(self.sound)
        data[8] += 1
        self.assertEqual(self.verify(data)[0]["checks"][0]["code"], INCOMPATIBLE)
        data = bytearray(self.sound)
        data[12] = 1
        self.assertEqual(self.verify(data)[0]["checks"][0]["code"], INCOMPATIBLE)

    def test_the_manifest_of_another_artifact(self):
        other = artifact("--layers", "1").read_bytes()
        at = int.from_bytes(other[16:24], "little")
        data = bytearray(self.sound[: self.manifest]) + other[at:]
        data[24:32] = (len(other) - at).to_bytes(8, "little")
        self.assertRefused(data, "manifest_hash")
        self.manifest_bytes = len(other) - at
        self.assertRefused(self.with_fitting_hash(data), flags=("--full",))


if __name__ == "__main__":
    unittest.main()
