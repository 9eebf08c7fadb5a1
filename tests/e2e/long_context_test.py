"""Contexts of several blocks of attention: whoever computes which part of one, no bit changes.

In a small step the shares cut a long context among them and merge what they found; in a larger one
each computes whole heads. Both must give the same logits, on any number of threads.
"""

import json
import unittest

import support
from batch_test import PREFILL, Library, Session, library_path

# With 3 KV heads, 2 shares cut the one in the middle; 4 shares cut all of them.
MODEL = ("--heads", "6", "--kv-heads", "3", "--hidden", "96", "--context", "4096")
PROMPT = [(7 * i * i + 3 * i) % 300 for i in range(1400)]
STEPS = [4, 9, 30]
NEIGHBOURS = [[7], [11, 4], [9, 1, 6], [2]]


class LongContext(unittest.TestCase):
    def logits(self, artifact, threads, last_chunk=512, neighbours=()):
        """Logits behind the prompt, whose last 12 tokens come in chunks, and behind each step."""
        session = Session(Library(library_path()), artifact, threads, context=4096, kv_tokens=8192)
        others = [session.sequence(each) for each in neighbours]
        sequence = session.sequence(PROMPT[:-12])
        for at in range(len(PROMPT) - 12, len(PROMPT), last_chunk):
            session.feed(sequence, PROMPT[at:at + last_chunk], PREFILL)
        seen = [session.logits(sequence)]
        for token in STEPS:
            session.decode([sequence, *others], [token] * (1 + len(others)))
            seen.append(session.logits(sequence))
        return seen

    def test_parts_give_the_bits_of_the_whole(self):
        for target, *flags in (("avx2", "--shares", 3), ("avx512-vnni", "--shares", 2),
                               ("avx512-vnni", "--shares", 4, "--precise")):
            if not support.runs_here(target):
                continue
            with self.subTest(target=target, flags=flags):
                artifact = support.artifact(*MODEL, target=target, flags=tuple(flags))
                whole = self.logits(artifact, threads=1, neighbours=NEIGHBOURS)
                for threads, chunk in ((2, 1), (4, 3)):
                    self.assertEqual(self.logits(artifact, threads, chunk), whole,
                                     f"{threads} threads, chunks of {chunk}")

    def test_many_sequences_take_what_inspect_says(self):
        artifact = support.artifact(*MODEL, target="avx2", flags=("--shares", 3))
        for context, batch in ((4096, 1), (4096, 8), (1000, 3)):
            report = json.loads(support.quern("inspect", artifact, "--json", "--ctx-size", context,
                                              "--batch", batch).stdout)
            stated = report["peak_memory"][0]["bytes"]
            pages = -(-context // 32) * batch
            taken = Session(Library(library_path()), artifact, threads=3, context=context,
                            kv_tokens=pages * 32).bytes()
            # A session rounds up to runs of pages and, for each thread, to pages of memory.
            memory = report["memory"]
            slack = 16 * memory["kv_bytes_per_page"] + 3 * 4096
            self.assertLessEqual(stated, taken)
            self.assertLess(taken, stated + slack)


if __name__ == "__main__":
    unittest.main()
