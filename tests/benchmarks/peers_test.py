#!/usr/bin/env python3
"""What benchmarks/peers/run asks of its sides and makes of their rates, with sides made up here."""

import contextlib
import importlib.machinery
import importlib.util
import io
import pathlib
import sys
import types
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks" / "peers"), str(ROOT / "benchmarks" / "common")]
import peer_bench  # noqa: E402
import sides  # noqa: E402

loader = importlib.machinery.SourceFileLoader("peers_run", str(ROOT / "benchmarks/peers/run"))
run = importlib.util.module_from_spec(importlib.util.spec_from_loader("peers_run", loader))
loader.exec_module(run)

READ = {"gb_per_second": {"median": 40.0, "max": 50.0}}


def options(prompts=(512,), depths=(0,), streams=()):
    return types.SimpleNamespace(prompts=list(prompts), depths=list(depths), streams=list(streams),
                                 max_load=1e9, busy=False)


class FakeSide:
    """Answers with one rate, and refuses several streams where it is told to."""

    def __init__(self, rate, streams=True):
        self.rate, self.streams, self.asked = rate, streams, 0

    def measure(self, test):
        self.asked += 1
        if test.streams > 1 and not self.streams:
            raise sides.Skipped("one sequence only")
        return {figure.field: {"median": self.rate} for figure in test.figures}


class Fed(peer_bench.Stepwise):
    """Writes down what it is fed."""

    vocabulary_size = 100

    def __init__(self):
        self.calls = []

    def clear(self):
        self.calls.append("clear")

    def feed(self, tokens):
        self.calls.append(("feed", len(tokens)))

    def fork(self, streams):
        self.calls.append(("fork", streams))

    def step(self, tokens, position):
        self.calls.append(("step", len(tokens), position))


class Peers(unittest.TestCase):
    def rounds(self, table, args, count):
        tests = run.tests_of(args)
        with contextlib.redirect_stderr(io.StringIO()) as said:
            rounds = [run.measure_round(number, table, tests, lambda: READ, args)
                      for number in range(count)]
        return rounds, said.getvalue()

    def table(self, **found):
        table = run.Table(types.SimpleNamespace(sides=[]), None)
        table.sides = found
        return table

    def test_one_process_takes_the_first_prompt_and_the_plain_decode(self):
        tests = run.tests_of(options(prompts=(512, 4096), depths=(0, 16384), streams=(4,)))
        self.assertEqual(tests, [sides.Test(512, 64), sides.Test(4096, 0),
                                 sides.Test(0, 64, 16384), sides.Test(0, 64, 0, 4)])
        self.assertEqual([test.title for test in tests],
                         ["prefill 512, decode 64", "prefill 4096", "decode 64 @ 16384",
                          "decode 64 x 4"])
        self.assertEqual(run.tests_of(options(prompts=())), [sides.Test(0, 64)])

    def test_ratios_and_shares_of_the_limit(self):
        table = self.table(quern=FakeSide(300.0), other=FakeSide(100.0))
        rounds, _ = self.rounds(table, options(streams=(4,)), 2)
        summary = run.summarise(rounds, 100_000_000)
        self.assertEqual(summary["limit_tokens_per_second"], 400)
        prefill, decode, four = summary["tests"]
        self.assertEqual(decode["sides"]["other"]["quern_ratio"], 3)
        self.assertNotIn("quern_ratio", decode["sides"]["quern"])
        self.assertAlmostEqual(decode["sides"]["quern"]["share_of_read_limit"], 0.75)
        self.assertAlmostEqual(decode["sides"]["quern"]["share_at_best"], 0.6)
        # A step of four streams reads the weights once.
        self.assertAlmostEqual(four["sides"]["quern"]["share_of_read_limit"], 0.75 / 4)
        self.assertNotIn("share_of_read_limit", prefill["sides"]["quern"])

    def test_who_cannot_is_left_out_once_with_the_reason(self):
        alone = FakeSide(50.0, streams=False)
        rounds, said = self.rounds(self.table(quern=FakeSide(300.0), alone=alone),
                                   options(streams=(4,)), 3)
        self.assertEqual(said.count("alone, decode 64 x 4, is left out: one sequence only"), 1)
        self.assertEqual(alone.asked, 4)
        tests = run.summarise(rounds, 100_000_000)["tests"]
        self.assertEqual([list(test["sides"]) for test in tests],
                         [["quern", "alone"], ["quern", "alone"], ["quern"]])

    def test_a_peer_that_fails_says_how(self):
        with self.assertRaisesRegex(sides.Skipped, "exit 3: no such weights"):
            sides.peak_anonymous([sys.executable, "-c",
                                  "import sys; sys.stderr.write('no such weights\\n'); sys.exit(3)"])

    def test_peak_memory_is_seen(self):
        code = "import time; kept = bytearray(64 << 20); time.sleep(1); print('done')"
        peak, out, _ = sides.peak_anonymous([sys.executable, "-c", code])
        self.assertEqual(out, "done\n")
        self.assertGreaterEqual(peak, 64 << 20)
        self.assertLess(peak, 128 << 20)

    def test_a_peer_is_fed_what_is_timed(self):
        peer = Fed()
        peer.prefill_seconds(5, 0)
        peer.decode_seconds(2, 7, 1)
        peer.decode_seconds(2, 7, 3)
        self.assertEqual(peer.calls, ["clear", ("feed", 5), "clear", ("feed", 7), ("feed", 1),
                                      ("feed", 1), "clear", ("feed", 7), ("fork", 3),
                                      ("step", 3, 7), ("step", 3, 8)])


if __name__ == "__main__":
    unittest.main()
