"""Times one peer in a process of its own: what every *_peer.py here is as a command.

    python llama_cpp_peer.py MODEL.gguf -p 512 -n 64 -d 0 -s 1 -t 2 -r 3      # JSON on stdout

A peer is a class with `prefill_seconds` and `decode_seconds` (Stepwise has both, for peers that are
fed step by step). Token ids are random, as llama-bench's: the time does not depend on them, and no
sampling is timed.
"""

import argparse
import json
import random
import statistics
import time

FIRST_PROMPT = 32  # tokens of the prompt that load to first token is measured with


class Stepwise:
    """Times of a peer with clear(), feed(tokens), rewind(length), fork(streams) and step(tokens, position).

    feed() and step() wait for the result. `vocabulary_size` is the peer's.
    """

    choose = random.Random(1)
    vocabulary_size = 0
    kept = 0  # tokens that the sequence begins with since they were fed as a depth

    def tokens(self, count: int) -> list:
        return [self.choose.randrange(self.vocabulary_size) for _ in range(count)]

    def _timed(self, depth: int, work) -> float:
        if depth and depth == self.kept:  # long contexts take minutes to feed
            self.rewind(depth)
        else:
            self.clear()
            if depth:
                self.feed(self.tokens(depth))
            self.kept = depth
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    def prefill_seconds(self, count: int, depth: int) -> float:
        """Of `count` tokens at once behind `depth`."""
        ids = self.tokens(count)
        return self._timed(depth, lambda: self.feed(ids))

    def decode_seconds(self, count: int, depth: int, streams: int) -> float:
        """Of `count` steps of one token a stream behind `depth` tokens that all share."""
        def alone():
            for token in self.tokens(count):
                self.feed([token])

        def together():
            if depth:
                self.fork(streams)
            for position in range(depth, depth + count):
                self.step(self.tokens(streams), position)
        return self._timed(depth, alone if streams == 1 else together)


def anonymous_bytes() -> int:
    """This process's memory that no file backs."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def _spread(rates: list) -> dict:
    return {"median": statistics.median(rates), "min": min(rates), "max": max(rates), "runs": rates}


def _rates(peer, args) -> dict:
    """Tokens a second; `peer` has run already, so that nothing is done for the first time."""
    result = {}
    if args.p:
        result["prefill_tokens_per_second"] = _spread(
            [args.p / peer.prefill_seconds(args.p, args.d) for _ in range(args.r)])
    if args.n:
        result["decode_tokens_per_second"] = _spread(
            [args.s * args.n / peer.decode_seconds(args.n, args.d, args.s) for _ in range(args.r)])
    return result


def main(document: str, load) -> None:
    """`load(path, context, threads, streams)` makes the peer; its `about` says what it is."""
    parser = argparse.ArgumentParser(description=document.splitlines()[0])
    parser.add_argument("model")
    for flag, default in (("-p", 512), ("-n", 64), ("-d", 0), ("-s", 1), ("-t", 2), ("-r", 3)):
        parser.add_argument(flag, type=int, default=default)
    args = parser.parse_args()
    before = anonymous_bytes()
    started = time.perf_counter()
    peer = load(args.model, max(FIRST_PROMPT, args.d + args.p + args.s * args.n) + 32, args.t, args.s)
    peer.prefill_seconds(FIRST_PROMPT, 0)
    first = time.perf_counter() - started
    peer.decode_seconds(4, 0, 1)
    print(json.dumps({"about": peer.about, "first_token_seconds": first,
                      "anonymous_bytes_before": before, **_rates(peer, args)}))
