#!/usr/bin/env python3
"""Compares `quern run --logits` with golden logits of the float32 oracle. Needs python3 alone.

    check_logits.py GOLDEN.json --tokens                      # one line of token ids for each text
    check_logits.py GOLDEN.json TEXT0.npy TEXT1.npy ...       # one file for each text, in order
    check_logits.py GOLDEN.json --precise TEXT0.npy ...       # compiled with --precise

The golden files come from benchmarks/accuracy/make_golden. Checked, over all rows of all texts:

  top-1     where the oracle's best logit leads the next by more than 0.5, the token is the same
  error     mean |logit - oracle| over the stored logits
  KL        mean over rows of the KL divergence between the eight likeliest tokens plus one bucket
            for all others; merging tokens never raises a KL, so this is at most the full one
  relative  with --precise: max |logit - oracle| of a row / max |oracle| of that row, and the same
            for logsumexp, which every logit of the row takes part in

Exit codes: 0 all within bounds, 1 a file cannot be read, 2 usage, 7 out of bounds.

The bounds come from llama.cpp's figures on these very rows, which make_golden measures and stores:
its 8-bit activations make noise of the same kind as Quern's. Quern may have twice its mean error
and, since a KL grows with the square of the error, four times its KL. A wrong scale, a wrong rope
or a swapped head is far outside: its logits are off by whole units.
"""

import array
import json
import math
import re
import struct
import sys

TOP1_MARGIN = 0.5
MAX_ERROR_OF_PEER = 2.0
MAX_KL_OF_PEER = MAX_ERROR_OF_PEER**2
MAX_PRECISE_RELATIVE = 1e-3
EXIT_FAILURE, EXIT_USAGE, EXIT_OUT_OF_BOUNDS = 1, 2, 7


class BadFile(Exception):
    """A file that is not what it should be; the text says what was seen and wanted."""


def read_npy(path: str, rows: int, columns: int) -> list:
    """The rows of a little-endian float32 C-order .npy file, each an array('f').

    Format: numpy.lib.format, versions 1 to 3.
    """
    with open(path, "rb") as file:
        data = file.read()
    if data[:6] != b"\x93NUMPY" or len(data) < 12:
        raise BadFile(f"{path}: not a .npy file")
    wide = data[6] >= 2
    (length,) = struct.unpack_from("<I" if wide else "<H", data, 8)
    start = (12 if wide else 10) + length
    header = data[start - length:start].decode("latin-1")
    shape = re.search(r"'shape':\s*\(([^)]*)\)", header)
    seen = [int(size) for size in shape.group(1).split(",") if size.strip()] if shape else None
    if "'<f4'" not in header or not re.search(r"'fortran_order':\s*False", header):
        raise BadFile(f"{path}: wanted float32 in C order, saw {header.strip()}")
    if seen != [rows, columns] or len(data) - start != 4 * rows * columns:
        raise BadFile(f"{path}: wanted shape ({rows}, {columns}), saw {seen} "
                      f"and {len(data) - start} bytes")
    values = array.array("f")
    values.frombytes(data[start:])
    if sys.byteorder == "big":
        values.byteswap()
    return [values[row * columns:(row + 1) * columns] for row in range(rows)]


def logsumexp(row) -> float:
    peak = max(row)
    return peak + math.log(math.fsum(math.exp(value - peak) for value in row))


def bucket_kl(golden: dict, row, row_logsumexp: float) -> float:
    """KL(oracle || row) over the oracle's likeliest tokens and one bucket for the rest."""
    kl, p_rest, q_rest = 0.0, 1.0, 1.0
    for index, logit in golden["top"]:
        log_p = logit - golden["logsumexp"]
        log_q = row[index] - row_logsumexp
        kl += math.exp(log_p) * (log_p - log_q)
        p_rest -= math.exp(log_p)
        q_rest -= math.exp(log_q)
    if p_rest > 1e-6:
        kl += p_rest * math.log(p_rest / max(q_rest, 1e-9))
    return kl


class Figures:
    """What the checks need, collected row by row."""

    def __init__(self):
        self.errors, self.kl, self.relative, self.top1_misses = [], [], [], []

    def add(self, place: str, golden: dict, sample_ids: list, row) -> None:
        if not all(map(math.isfinite, row)):
            raise BadFile(f"{place}: the row holds a NaN or an infinity")
        stored = golden["top"] + list(map(list, zip(sample_ids, golden["sampled"])))
        errors = [abs(row[index] - logit) for index, logit in stored]
        row_logsumexp = logsumexp(row)
        greatest = max(*errors, abs(row_logsumexp - golden["logsumexp"]))
        self.errors += errors
        self.relative.append(greatest / golden["abs_max"])
        self.kl.append(bucket_kl(golden, row, row_logsumexp))
        (best, first), (_, second) = golden["top"][:2]
        if first - second > TOP1_MARGIN and max(range(len(row)), key=row.__getitem__) != best:
            self.top1_misses.append(place)

    def mean_error(self) -> float:
        return sum(self.errors) / len(self.errors)

    def mean_kl(self) -> float:
        return sum(self.kl) / len(self.kl)

    def failures(self, peer: dict, precise: bool) -> list:
        """The checks that do not hold, as sentences."""
        found = [f"{place}: another token is likeliest" for place in self.top1_misses]
        bounds = [("mean |logit error|", self.mean_error(), MAX_ERROR_OF_PEER * peer["mean_error"]),
                  ("mean KL", self.mean_kl(), MAX_KL_OF_PEER * peer["mean_kl"])]
        if precise:
            bounds.append(("relative error", max(self.relative), MAX_PRECISE_RELATIVE))
        for name, value, bound in bounds:
            if not value <= bound:
                found.append(f"{name} is {value:.3g}, wanted at most {bound:.3g}")
        return found

    def summary(self) -> str:
        return (f"{len(self.kl)} rows: mean |logit error| {self.mean_error():.3g}, "
                f"mean KL {self.mean_kl():.3g}, "
                f"relative error {max(self.relative):.3g}, "
                f"{len(self.top1_misses)} confident tokens differ")


def check(golden: dict, paths: list, precise: bool) -> int:
    figures = Figures()
    for number, (text, path) in enumerate(zip(golden["texts"], paths)):
        rows = read_npy(path, len(text["rows"]), golden["vocabulary"])
        for position, (want, row) in enumerate(zip(text["rows"], rows)):
            figures.add(f"text {number} position {position}", want, golden["sample_ids"], row)
    print(figures.summary())
    failures = figures.failures(golden["peer"], precise)
    for failure in failures:
        print(f"check_logits: {failure}", file=sys.stderr)
    return EXIT_OUT_OF_BOUNDS if failures else 0


def main() -> int:
    arguments = sys.argv[1:]
    precise = "--precise" in arguments
    want_tokens = "--tokens" in arguments
    files = [argument for argument in arguments if not argument.startswith("--")]
    if not files or len(arguments) - len(files) != precise + want_tokens:
        print(__doc__, file=sys.stderr)
        return EXIT_USAGE
    try:
        with open(files[0], encoding="utf-8") as file:
            golden = json.load(file)
        if want_tokens:
            for text in golden["texts"]:
                print(",".join(map(str, text["tokens"])))
            return 0
        if len(files) - 1 != len(golden["texts"]):
            raise BadFile(f"wanted {len(golden['texts'])} .npy files, got {len(files) - 1}")
        return check(golden, files[1:], precise)
    except (OSError, BadFile, ValueError, KeyError, struct.error) as error:
        print(f"check_logits: {error}", file=sys.stderr)
        return EXIT_FAILURE


if __name__ == "__main__":
    sys.exit(main())
