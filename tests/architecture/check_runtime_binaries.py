#!/usr/bin/env python3
"""Proves that the runtime carries no compiler: no LLVM or MLIR symbol or library, and a small size;
and that the library has no means to print, to end its host or to touch its signals.

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
# What the library must not import: its host decides what is printed, when it ends and who gets signals.
HOST_ONLY = re.compile(r"^(_?_?v?f?printf(_chk)?|f?puts|f?putc|putchar|fwrite|write|perror|stdout|stderr|_ZSt4c(out|err|log)"
                       r"|_?exit|_Exit|quick_exit|abort|__assert_fail|raise|kill|signal|sigaction)(@|$)")


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
    if ".so" in os.path.basename(path):
        imports = [line.split()[-1] for line in output("nm", "-D", "--undefined-only", path).splitlines()]
        for symbol in filter(HOST_ONLY.match, imports):
            yield f"{path}: imports {symbol}, which is for its host to call"
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
