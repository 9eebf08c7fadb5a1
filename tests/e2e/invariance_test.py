"""Logits are bitwise the same under every pair of features that must not change them.

    invariance_test.py          checks the pairs, and the table of docs/status.md
    invariance_test.py --fix    writes the table

Each feature below is another way to come to the same tokens. A scenario applies any number of them;
what it gives is compared with the plain way: one prompt in one step, one thread, no neighbours.
"""

import itertools
import sys
import unittest

import support
from batch_test import PREFILL, Library, Session, library_path

PROMPT = [3, 5, 8, 13] * 12 + [2]  # 49 tokens: a page of 32, and part of another
STEPS = [4, 9, 30]
NEIGHBOURS = [[7], [11, 4] * 16, [9, 1, 6] * 21]

FEATURES = {
    "chunks of 1": "the prompt comes token by token",
    "chunks of 7": "the prompt comes in pieces of 7",
    "small steps": "a session takes at most 5 rows a step",
    "threads": "2 threads instead of 1",
    "batch": "three other sequences of 1, 32 and 63 tokens in every decode step",
    "fork": "the sequence is a fork, made in the middle of a page",
    "prefix": "another continuation went first and was cut off, so pages are reused",
}
MODELS = ((), ("--family", "qwen2", "--type", "q5_0"),
          ("--hidden", "256", "--ffn", "512", "--head-dim", "64", "--type", "q6_k"))
TARGETS = ("avx2", "avx512-vnni")
BEGIN, END = "<!-- invariance -->\n", "<!-- end of invariance -->\n"


def scenario(library, artifact, features):
    """Logits behind the prompt and behind each step."""
    session = Session(library, artifact, threads=2 if "threads" in features else 1,
                      max_rows=5 if "small steps" in features else 512)
    neighbours = [session.sequence(each) for each in NEIGHBOURS] if "batch" in features else []
    chunk = 1 if "chunks of 1" in features else 7 if "chunks of 7" in features else len(PROMPT)
    sequence = session.sequence(PROMPT[:chunk])
    for at in range(chunk, len(PROMPT), chunk):
        session.feed(sequence, PROMPT[at:at + chunk])
    if "prefix" in features:
        session.decode([sequence], [17])
        session.feed(sequence, [21, 22, 23])
        session.truncate(sequence, len(PROMPT) - 1)
        session.feed(sequence, PROMPT[-1:], PREFILL)
    if "fork" in features:
        original, sequence = sequence, session.fork(sequence)
        session.decode([original], [19])  # which writes to its copy of the page
    seen = [session.logits(sequence)]
    for step, token in enumerate(STEPS):
        session.decode([sequence, *neighbours], [token] + [step + 1] * len(neighbours))
        seen.append(session.logits(sequence))
    return seen


def artifacts():
    """One for each model and target that runs here."""
    for options, target in itertools.product(MODELS, TARGETS):
        if support.runs_here(target):
            yield support.artifact(*options, target=target)


def measure():
    """Whether each pair of features changes nothing: {(first, second): bool}."""
    library = Library(library_path())
    pairs = list(itertools.combinations_with_replacement(FEATURES, 2))
    same = dict.fromkeys(pairs, True)
    for artifact in artifacts():
        plain = scenario(library, artifact, set())
        for pair in pairs:
            if "chunks of 1" in pair and "chunks of 7" in pair:
                continue
            same[pair] &= scenario(library, artifact, set(pair)) == plain
    return same


def table(same):
    lines = ["| | " + " | ".join(FEATURES) + " |", "|---" * (len(FEATURES) + 1) + "|"]
    for i, row in enumerate(FEATURES):
        cells = []
        for j, column in enumerate(FEATURES):
            excluded = {row, column} == {"chunks of 1", "chunks of 7"}
            cells.append("" if j < i or excluded else "yes" if same[row, column] else "**no**")
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    lines += ["", *(f"- *{name}*: {meaning}." for name, meaning in FEATURES.items())]
    return "\n".join(lines) + "\n"


class Invariance(unittest.TestCase):
    def test_pairs_and_the_documented_table(self):
        same = measure()
        self.assertEqual([pair for pair, equal in same.items() if not equal], [])
        text = (support.ROOT / "docs" / "status.md").read_text()
        documented = text.split(BEGIN)[1].split(END)[0]
        self.assertEqual(documented, table(same), "run invariance_test.py --fix")

    def test_a_difference_is_seen(self):
        library = Library(library_path())
        artifact = support.artifact()
        plain = scenario(library, artifact, set())
        global STEPS
        before, STEPS = STEPS, [4, 9, 31]
        try:
            self.assertNotEqual(scenario(library, artifact, set()), plain)
        finally:
            STEPS = before


if __name__ == "__main__":
    if "--fix" in sys.argv:
        path = support.ROOT / "docs" / "status.md"
        head, rest = path.read_text().split(BEGIN)
        path.write_text(head + BEGIN + table(measure()) + END + rest.split(END)[1])
    else:
        unittest.main()
