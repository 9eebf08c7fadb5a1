#!/usr/bin/env python3
"""Compiles a real model and checks its logits against the golden ones: a test of ctest.

    model_test.py MODEL TARGET [--precise] [--disable-passes]

MODEL is smollm2 or qwen2.5; its GGUF file is looked for in $QUERN_TEST_MODELS, and without it the
test is skipped (exit 77). $QUERN is the command line. Where the machine lacks AMX, $QUERN_AMX_EMULATOR_LIBRARY
names a library that emulates it (docs/testing.md); it is preloaded for target amx.

--disable-passes compiles once for each pass that may be switched off: the model must still agree.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
FILES = {"smollm2": "smollm2-135m.gguf", "qwen2.5": "qwen2.5-0.5b.gguf"}
SKIPPED = 77
PASSES = ["normalize", "quantize-activations", "fuse-dequant-matmul", "fuse-qkv", "fuse-swiglu",
          "fuse-add-rms-norm", "convert-attention-to-online-attention", "tile-attention",
          "tile-matmul", "split-shares", "form-kernels"]
# Passes whose absence leaves the dispatches as they are: they change what a dispatch does.
SAME_DISPATCHES = {"normalize", "quantize-activations", "convert-attention-to-online-attention",
                   "tile-attention", "tile-matmul"}


def has_amx() -> bool:
    return "amx_bf16" in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")


def environment(target: str) -> dict:
    env = dict(os.environ)
    if target == "amx" and not has_amx():
        env["LD_PRELOAD"] = env["QUERN_AMX_EMULATOR_LIBRARY"]
    return env


def run(command: list, **options) -> str:
    print("+", " ".join(map(str, command)), flush=True)
    return subprocess.run([str(word) for word in command], check=True, text=True, **options)


def golden(args, artifact: pathlib.Path) -> None:
    threads = "2" if args.disable_passes or args.target == "amx" else "1,2"
    command = [sys.executable, HERE / "run_golden.py", os.environ["QUERN"], artifact,
               HERE / "logits" / f"{args.model}.json", "--threads", threads]
    if args.precise:
        command.append("--precise")
    run([*command, "--", f"--force-isa={args.target}"], env=environment(args.target))


def dispatches(model: pathlib.Path, options: list, folder: pathlib.Path) -> int:
    out = folder / "memory.mlir"
    run([os.environ["QUERN"], "compile", model, "-o", out, "--compile-to=memory", "-q", *options])
    return out.read_text(encoding="utf-8").count("rt.dispatch")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=FILES)
    parser.add_argument("target")
    parser.add_argument("--precise", action="store_true")
    parser.add_argument("--disable-passes", action="store_true")
    args = parser.parse_args()
    model = pathlib.Path(os.environ.get("QUERN_TEST_MODELS", "/nonexistent")) / FILES[args.model]
    if not model.is_file():
        print(f"{model} is not there: set QUERN_TEST_MODELS (scripts/fetch-model {args.model} DIR)")
        return SKIPPED
    variants = [[f"--disable-pass={name}"] for name in PASSES] if args.disable_passes else [[]]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        artifact = folder / "model.quern"
        usual = dispatches(model, [], folder) if args.disable_passes else 0
        for options in variants:
            flags = [*options, *(["--precise"] if args.precise else [])]
            run([os.environ["QUERN"], "compile", model, "-o", artifact, f"--target={args.target}", "-q",
                 *flags])
            golden(args, artifact)
            if args.disable_passes:
                without = dispatches(model, flags, folder)
                same = options[0].partition("=")[2] in SAME_DISPATCHES
                if (without == usual) != same:
                    print(f"{options[0]}: {without} dispatches, {usual} with the pass")
                    return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        print(f"model_test: exit {error.returncode}", file=sys.stderr)
        sys.exit(1)
