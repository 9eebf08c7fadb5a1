#!/usr/bin/env python3
"""Proves that the runtime carries no compiler: no LLVM or MLIR symbol or library, and a small size.

    tests/architecture/check_runtime_binaries.py BIN_DIR/quern LIB_DIR/libquern.so

Needs nm, ldd and strip. Exits 1 with one line per broken promise.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile

MAX_STRIPPED_BYTES = 3_000_000
COMPILER = re.compile(r"llvm|mlir", re.IGNORECASE)


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def stripped_bytes(path: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(path, folder)
        subprocess.run(["strip", copy], check=True)
        return os.path.getsize(copy)


def check(path: str):
    symbols = [s for s in output("nm", "-A", path).splitlines() if COMPILER.search(s.split(" ")[-1])]
    if symbols:
        yield f"{path}: {len(symbols)} symbols of the compiler, the first: {symbols[0]}"
    libraries = [line.strip() for line in output("ldd", path).splitlines() if COMPILER.search(line.split("=>")[0])]
    for library in libraries:
        yield f"{path}: links {library}"


def main() -> int:
    broken = [line for path in sys.argv[1:] for line in check(path)]
    sizes = {path: stripped_bytes(path) for path in sys.argv[1:]}
    broken += [f"{path}: {size} bytes stripped, at most {MAX_STRIPPED_BYTES}"
               for path, size in sizes.items() if size > MAX_STRIPPED_BYTES]
    print("\n".join(broken) if broken else f"no compiler inside; bytes stripped: {sizes}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
