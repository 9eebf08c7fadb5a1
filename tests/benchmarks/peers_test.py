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

TRAFFIC = run.Traffic(weights=100_000_000, kv_per_token=25_000)


def read_loop(step):
    """40 GB/s over the weights, and half of that over more."""
    share = 1 if step == TRAFFIC.weights else 2
    return {"gb_per_second": {"median": 40.0 / share, "max": 50.0 / share}}


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

    def rewind(self, length):
        self.calls.append(("rewind", length))

    def fork(self, streams):
        self.calls.append(("fork", streams))

    def step(self, tokens, position):
        self.calls.append(("step", len(tokens), position))


class Peers(unittest.TestCase):
    def rounds(self, table, args, count):
        tests = run.tests_of(args)
        with contextlib.redirect_stderr(io.StringIO()) as said:
            rounds = [run.measure_round(number, table, tests, TRAFFIC, read_loop, args)
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
        table = self.table(quern=FakeSide(300.0), other=FakeSide(100.0), best=FakeSide(200.0))
        rounds, _ = self.rounds(table, options(streams=(4,)), 2)
        summary = run.summarise(rounds, TRAFFIC)
        self.assertEqual([limit["steps_per_second"] for limit in summary["limits"]], [400])
        prefill, decode, four = summary["tests"]
        self.assertEqual(decode["sides"]["other"]["quern_ratio"], 3)
        self.assertNotIn("quern_ratio", decode["sides"]["quern"])
        for test in summary["tests"]:
            self.assertEqual(test["sides"]["quern"]["best_peer"], "best")
            self.assertEqual(test["sides"]["quern"]["best_peer_ratio"], 1.5)
        self.assertAlmostEqual(decode["sides"]["quern"]["share_of_read_limit"], 0.75)
        self.assertAlmostEqual(decode["sides"]["quern"]["share_at_best"], 0.6)
        # A step of four streams reads the weights once.
        self.assertAlmostEqual(four["sides"]["quern"]["share_of_read_limit"], 0.75 / 4)
        self.assertNotIn("share_of_read_limit", prefill["sides"]["quern"])

    def test_a_step_behind_a_context_reads_its_keys_and_values_too(self):
        table = self.table(quern=FakeSide(30.0))
        rounds, _ = self.rounds(table, options(prompts=(), depths=(0, 16384)), 1)
        summary = run.summarise(rounds, TRAFFIC)
        self.assertEqual([limit["streamed_bytes"] for limit in summary["limits"]],
                         [100_000_000, 509_600_000])
        plain, deep = summary["tests"]
        self.assertAlmostEqual(plain["sides"]["quern"]["share_of_read_limit"], 30 * 0.1 / 40)
        self.assertAlmostEqual(deep["sides"]["quern"]["share_of_read_limit"], 30 * 0.5096 / 20)
        self.assertNotIn("best_peer", deep["sides"]["quern"])

    def test_keys_and_values_of_a_token(self):
        facts = {"block_count": 24, "embedding_length": 896, "attention.head_count": 14,
                 "attention.head_count_kv": 2}
        self.assertEqual(run.kv_bytes(facts), 24 * 2 * (64 + 64) * 2)
        self.assertEqual(run.kv_bytes({**facts, "attention.key_length": 96}), 24 * 2 * 192 * 2)
        del facts["attention.head_count_kv"]
        self.assertEqual(run.kv_bytes(facts), 24 * 14 * 128 * 2)

    def test_what_a_side_costs_is_compared_the_other_way_round(self):
        rows = run.summarise_startup({
            "quern": sides.Startup(0.1, 20_000_000, 98_000_000, 2.0),
            "slow": sides.Startup(0.8, 100_000_000, 98_000_000, None),
            "quick": sides.Startup(0.2, 300_000_000, 98_000_000, None)})
        self.assertEqual([row["title"] for row in rows],
                         ["first token, s", "memory, MB", "file, MB", "compile, s"])
        first, memory, file, compiled = (row["sides"] for row in rows)
        self.assertAlmostEqual(first["slow"]["quern_ratio"], 8)
        self.assertEqual(first["quern"]["best_peer"], "quick")
        self.assertAlmostEqual(first["quern"]["best_peer_ratio"], 2)
        self.assertEqual(memory["quern"]["best_peer"], "slow")
        self.assertAlmostEqual(memory["quern"]["median"], 20)
        self.assertEqual(file["quern"]["best_peer_ratio"], 1)
        self.assertEqual(list(compiled), ["quern"])

    def test_all_rows_stand_in_one_table(self):
        table = self.table(quern=FakeSide(300.0), other=FakeSide(100.0))
        rounds, _ = self.rounds(table, options(depths=(0, 4096)), 1)
        startup = {"quern": sides.Startup(0.1, 20_000_000, 98_000_000, 2.0),
                   "other": sides.Startup(0.8, 100_000_000, 98_000_000, None)}
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            run.print_table({**run.summarise(rounds, TRAFFIC),
                             "startup": run.summarise_startup(startup)})
        self.assertEqual(printed.getvalue().splitlines(), """
read limit 40.0 GB/s (best 50.0), 100.0 MB a step: 400 steps/s
read limit 20.0 GB/s (best 25.0), 202.4 MB a step: 99 steps/s
test                  side            median       min       max  of limit   at best   ratio
prefill 512           quern            300.0     300.0     300.0                        3.00 to other
prefill 512           other            100.0     100.0     100.0                        3.00
decode 64             quern            300.0     300.0     300.0       75%       60%    3.00 to other
decode 64             other            100.0     100.0     100.0       25%       20%    3.00
decode 64 @ 4096      quern            300.0     300.0     300.0      304%      243%    3.00 to other
decode 64 @ 4096      other            100.0     100.0     100.0      101%       81%    3.00
first token, s        quern            0.100                                            8.00 to other
first token, s        other            0.800                                            8.00
memory, MB            quern             20.0                                            5.00 to other
memory, MB            other            100.0                                            5.00
file, MB              quern             98.0                                            1.00 to other
file, MB              other             98.0                                            1.00
compile, s            quern            2.000
""".strip("\n").splitlines())

    def test_who_cannot_is_left_out_once_with_the_reason(self):
        alone = FakeSide(50.0, streams=False)
        rounds, said = self.rounds(self.table(quern=FakeSide(300.0), alone=alone),
                                   options(streams=(4,)), 3)
        self.assertEqual(said.count("alone, decode 64 x 4, is left out: one sequence only"), 1)
        self.assertEqual(alone.asked, 4)
        tests = run.summarise(rounds, TRAFFIC)["tests"]
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
        peer.decode_seconds(2, 7, 3)  # the same depth is not fed again
        peer.decode_seconds(1, 0, 1)
        peer.prefill_seconds(1, 7)
        self.assertEqual(peer.calls, ["clear", ("feed", 5), "clear", ("feed", 7), ("feed", 1),
                                      ("feed", 1), ("rewind", 7), ("fork", 3), ("step", 3, 7),
                                      ("step", 3, 8), "clear", ("feed", 1), "clear", ("feed", 7),
                                      ("feed", 1)])


if __name__ == "__main__":
    unittest.main()
