#!/usr/bin/env python3
"""check_logits.py must accept the oracle's own logits and refuse wrong ones."""

import copy
import math
import pathlib
import random
import struct
import tempfile
import unittest

import check_logits

VOCABULARY, ROWS = 37, 3


def npy(values, rows, columns, kind="<f4", version=1) -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': ({rows}, {columns}), }}\n"
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    magic = b"\x93NUMPY" + bytes([version, 0])
    return magic + length + header.encode() + struct.pack(f"<{len(values)}f", *values)


def golden_of(rows: list) -> dict:
    ids = [1, 5, 36]
    described = [{
        "top": sorted(map(list, enumerate(row)), key=lambda pair: -pair[1])[:8],
        "sampled": [row[index] for index in ids],
        "logsumexp": math.log(sum(map(math.exp, row))),
        "abs_max": max(map(abs, row)),
    } for row in rows]
    return {"peer": {"mean_error": 0.01, "mean_kl": 1e-4}, "vocabulary": VOCABULARY,
            "sample_ids": ids, "texts": [{"tokens": [1, 2, 3], "rows": described}]}


class CheckLogitsTest(unittest.TestCase):
    def setUp(self):
        choose = random.Random(3)
        self.rows = [[choose.gauss(0, 3) for _ in range(VOCABULARY)] for _ in range(ROWS)]
        self.golden = golden_of(self.rows)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = str(pathlib.Path(folder.name) / "logits.npy")

    def check(self, rows, precise=False, **header) -> int:
        values = [value for row in rows for value in row]
        pathlib.Path(self.path).write_bytes(npy(values, len(rows), VOCABULARY, **header))
        return check_logits.check(self.golden, [self.path], precise)

    def test_accepts_the_same_logits_in_every_header_version(self):
        self.assertEqual(self.check(self.rows, precise=True), 0)
        self.assertEqual(self.check(self.rows, precise=True, version=2), 0)

    def test_refuses_another_likeliest_token(self):
        rows = copy.deepcopy(self.rows)
        best = max(range(VOCABULARY), key=rows[1].__getitem__)
        rows[1][best], rows[1][best - 1] = rows[1][best - 1], rows[1][best]
        self.assertEqual(self.check(rows), 7)

    def test_refuses_noise_beyond_the_bounds(self):
        choose = random.Random(4)
        noisy = [[value + choose.gauss(0, 0.2) for value in row] for row in self.rows]
        self.assertEqual(self.check(noisy), 7)

    def test_precise_sees_a_change_outside_the_stored_logits(self):
        rows = copy.deepcopy(self.rows)
        stored = {index for index, _ in self.golden["texts"][0]["rows"][0]["top"]} | {1, 5, 36}
        other = next(index for index in range(VOCABULARY) if index not in stored)
        rows[0][other] = self.golden["texts"][0]["rows"][0]["top"][7][1]
        self.assertEqual(self.check(rows, precise=True), 7)

    def test_refuses_files_that_are_not_float32_rows(self):
        for rows, header in ((self.rows[:2], {}), (self.rows, {"kind": "<f8"})):
            with self.assertRaises(check_logits.BadFile):
                self.check(rows, **header)
        with self.assertRaises(check_logits.BadFile):
            self.check([[math.nan] * VOCABULARY] * ROWS)


if __name__ == "__main__":
    unittest.main()
