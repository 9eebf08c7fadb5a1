#!/usr/bin/env python3
"""Runs Quern on the golden texts and checks its logits. Needs python3 alone.

    run_golden.py QUERN ARTIFACT GOLDEN.json [--precise] [--threads 1,2] [-- OPTIONS OF quern run]

Every text goes through `quern run --logits` as one prompt and token by token (--teacher-forced),
with each number of threads. Both ways must pass check_logits.py, and a way's logits must have the
same bytes whatever the number of threads. Exit code: 0, or the first failure's.
"""

import argparse
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile

import check_logits

WAYS = {"prompt": [], "teacher-forced": ["--teacher-forced"]}


def run_text(args, tokens: list, out: pathlib.Path, options: list) -> bool:
    """Writes the logits of one text; on failure says what quern said."""
    command = [args.quern, "run", args.artifact, "--tokens", ",".join(map(str, tokens)), "-n", "0",
               "--logits", str(out), *options, *args.options]
    result = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if result.returncode != 0:
        print(f"run_golden: {' '.join(command)}: exit {result.returncode}\n{result.stderr}",
              file=sys.stderr)
    return result.returncode == 0


def check_way(way: str, args, golden: dict, folder: pathlib.Path) -> int:
    digests = {}
    for threads in args.threads:
        paths = []
        for number, text in enumerate(golden["texts"]):
            paths.append(folder / f"{way}-{number}.npy")
            if not run_text(args, text["tokens"], paths[-1], [*WAYS[way], "-t", threads]):
                return check_logits.EXIT_FAILURE
        contents = b"".join(path.read_bytes() for path in paths)
        digests[threads] = hashlib.sha256(contents).hexdigest()
    print(f"{way}: ", end="", flush=True)
    status = check_logits.check(golden, list(map(str, paths)), args.precise)
    if len(set(digests.values())) > 1:
        print(f"run_golden: {way}: logits depend on the number of threads: {digests}",
              file=sys.stderr)
        status = status or check_logits.EXIT_OUT_OF_BOUNDS
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("quern")
    parser.add_argument("artifact")
    parser.add_argument("golden")
    parser.add_argument("--precise", action="store_true")
    parser.add_argument("--threads", default="1,2", type=lambda text: text.split(","))
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    args = parser.parse_args(words[:cut])
    args.options = words[cut + 1:]
    with open(args.golden, encoding="utf-8") as file:
        golden = json.load(file)
    worst = 0
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            try:
                worst = worst or check_way(way, args, golden, pathlib.Path(folder))
            except (OSError, check_logits.BadFile) as error:
                print(f"run_golden: {way}: {error}", file=sys.stderr)
                worst = worst or check_logits.EXIT_FAILURE
    return worst


if __name__ == "__main__":
    sys.exit(main())
