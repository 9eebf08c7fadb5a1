#!/usr/bin/env python3
"""Holds every #include against the table of who may include whom (docs/architecture.md).

    tests/architecture/check_includes.py [ROOT]

Also holds every file of code against the length limit. Prints what breaks a rule, one line each,
and exits 1 when there is anything to print.
"""

import pathlib
import re
import sys

HARD_LINE_LIMIT = 800
SOURCES = {".h", ".cc", ".cpp", ".td", ".fbs", ".py"}
TOP_FOLDERS = ("dialects", "passes", "codegen", "compiler", "runtime", "plugins")

# The runtime's folders in data order: each may include itself and those before it.
RUNTIME_ORDER = ["base", "schema", "device", "loader", "executor", "llm", "api", "serve"]

# Folder -> what its includes may begin with; the longest matching folder counts. System headers
# and third-party headers other than these two are not this test's matter.
UPSTREAM = ("mlir/", "llvm/")
ALLOWED = {
    "dialects": ("dialects/", "mlir/", "llvm/"),
    "passes": ("passes/", "dialects/", "codegen/target/", "mlir/", "llvm/ADT/", "llvm/Support/"),
    "codegen": ("codegen/", "dialects/", "runtime/schema/", "mlir/", "llvm/"),
    "codegen/target": ("codegen/target/", "llvm/"),
    "compiler": ("compiler/", "codegen/", "passes/", "dialects/", "runtime/schema/", "quern.h",
                 "mlir/", "llvm/"),
    "compiler/import": ("compiler/import/", "codegen/artifact/", "dialects/", "runtime/schema/",
                        "mlir/", "llvm/"),
    "plugins": ("plugins/", "quern.h"),
}
# The command line uses nothing of the runtime but its C interface.
ALLOWED["runtime/tools"] = ("runtime/tools/", "quern.h")
for position, folder in enumerate(RUNTIME_ORDER):
    ALLOWED[f"runtime/{folder}"] = ("quern.h", *(f"runtime/{f}/" for f in RUNTIME_ORDER[: position + 1]))

# Files that must stay free of MLIR and LLVM inside folders that may use them.
PURE = ("dialects/lm/BlockFormat", "codegen/host/PackedLayout", "codegen/target/Target.h")

INCLUDE = re.compile(r'^\s*#\s*include\s+[<"]([^">]+)[">]')


def rule_for(path: str):
    folder = path.rpartition("/")[0]
    while folder:
        if folder in ALLOWED:
            return ALLOWED[folder]
        folder = folder.rpartition("/")[0]
    return None


def is_ours(include: str) -> bool:
    return include == "quern.h" or include.startswith(UPSTREAM) or include.split("/")[0] in TOP_FOLDERS


def check(path: str, text: str):
    """Yields one line per broken rule."""
    lines = text.splitlines()
    if len(lines) > HARD_LINE_LIMIT:
        yield f"{path}: {len(lines)} lines, at most {HARD_LINE_LIMIT}"
    allowed = rule_for(path)
    if allowed is None:
        return
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if not match or not is_ours(match.group(1)):
            continue
        include = match.group(1)
        if not include.startswith(allowed):
            yield f"{path}:{number}: may not include {include}"
        if path.startswith(PURE) and include.startswith(UPSTREAM):
            yield f"{path}:{number}: must stay free of MLIR and LLVM, includes {include}"


def main() -> int:
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[2])
    broken = []
    for top in (*TOP_FOLDERS, "tests", "benchmarks", "scripts"):
        for file in sorted((root / top).rglob("*")):
            if file.is_file() and file.suffix in SOURCES:
                path = file.relative_to(root).as_posix()
                broken += check(path, file.read_text(encoding="utf-8"))
    print("\n".join(broken) if broken else "every include and every length is within its rule")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
