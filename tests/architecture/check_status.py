#!/usr/bin/env python3
"""Checks the tables of docs/status.md against the tree; --fix rewrites them.

Every cell is a fact that this script looks up: a section in the specification, a label in a verifier, a
test that names a constraint, an overload in the interpreter. Exit code 1 when a table is out of date or a
promise is broken (a constraint without a check or a test).
"""

import argparse
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Ops that no generator sees: weights are arguments, and these two hold the others.
NOT_COMPILED = {"lm.weight", "lm.kernel", "lm.yield"}
COLUMNS = {
    "lm": ["spec", "verifier", "round trip", "refusals", "reference", "numbers by hand", "host code",
           "GPU code"],
    "rt": ["spec", "verifier", "round trip", "refusals", "reference", "artifact"],
}


def read(*patterns):
    """The text of all files that match, one after the other."""
    paths = sorted(path for pattern in patterns for path in ROOT.glob(pattern))
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


class Facts:
    """What the tree says about the ops of one dialect."""

    def __init__(self, dialect):
        self.dialect = dialect
        prefix = dialect.capitalize()
        self.spec = read("docs/spec.md")
        self.verifier = read(f"dialects/{dialect}/*.cpp", f"dialects/{dialect}/*.td")
        ods = read(f"dialects/{dialect}/{prefix}Ops.td")
        pattern = rf'^def {prefix}_(\w+Op) : {prefix}_\w+<"(\w+)"'
        self.classes = {f"{dialect}.{name}": cls for cls, name in re.findall(pattern, ods, re.M)}
        self.round_trip = "\n".join(
            line for line in read(f"tests/dialects/{dialect}_ops.mlir").splitlines() if "CHECK" in line)
        self.refusals = read(f"tests/dialects/{dialect}_invalid.mlir")
        self.reference = read("dialects/reference/*.cpp")
        self.by_hand = read("tests/dialects/interpret_*.mlir")
        plans = read("codegen/kernels/*.cpp")
        self.code = {"host code": read("codegen/host/*.cpp") + plans,
                     "GPU code": read("codegen/ptx/*.cpp") + plans}
        self.artifact = read("codegen/artifact/*.cpp")

    def section(self, op):
        """The op's section of the specification, or None."""
        match = re.search(rf"^## {re.escape(op)}\n(.*?)(?=^#|\Z)", self.spec, re.M | re.S)
        return match.group(1) if match else None

    def labels(self, op):
        """Labels of the constraints in the op's section: matmul_c1, rt_buffer_c2."""
        section = self.section(op) or ""
        match = re.search(r"^- Constraints:(.*?)(?=^- |^```|\Z)", section, re.M | re.S)
        text = re.sub(r"\([^)]*\)", "", match.group(1)) if match else ""
        stem = op.removeprefix("lm.").replace(".", "_")
        return [f"{stem}_c{number}" for number in re.findall(r"\bC(\d+)\b", text)]

    def has_spec(self, op):
        section = self.section(op)
        return bool(section) and "- Constraints:" in section and "- Reference:" in section and "```mlir" in section

    def has_all(self, op, text, form):
        return all(re.search(form.format(label) + r"(?!\d)", text) for label in self.labels(op))

    def is_evaluated(self, op):
        cls = self.classes[op]
        if self.dialect == "rt":  # Joins do nothing without threads.
            return f"rt::{cls}" in self.reference or cls == "JoinOp"
        return cls == "YieldOp" or f"evaluate(lm::{cls} op" in self.reference

    def cell(self, op, column):
        """Whether the op has what the column promises; None when it does not apply."""
        cls = self.classes[op]
        if column == "spec":
            return self.has_spec(op)
        if column == "verifier":
            return self.has_all(op, self.verifier, "(?<![a-z_]){}")
        if column == "round trip":
            return re.search(rf"\b{re.escape(op)}\b", self.round_trip) is not None
        if column == "refusals":
            return self.has_all(op, self.refusals, "@{}")
        if column == "reference":
            return self.is_evaluated(op)
        if column == "numbers by hand":
            return re.search(rf"\b{re.escape(op)} ", self.by_hand) is not None
        if column == "artifact":
            return f"rt::{cls}" in self.artifact
        return None if op in NOT_COMPILED else f"lm::{cls}" in self.code[column]


def table(facts):
    """The dialect's table as lines of Markdown."""
    columns = COLUMNS[facts.dialect]
    words = {True: "yes", False: "no", None: "-"}
    lines = ["| op | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for op in facts.classes:
        cells = [words[facts.cell(op, column)] for column in columns]
        lines.append(f"| `{op}` | " + " | ".join(cells) + " |")
    return lines


def broken_promises(facts):
    """Labels in sources that the specification does not know."""
    known = {label for op in facts.classes for label in facts.labels(op)}
    stems = {op.removeprefix("lm.").replace(".", "_") for op in facts.classes}
    for label in sorted(set(re.findall(r"\b([a-z_]+_c\d+)\b", facts.verifier))):
        if label.rsplit("_c", 1)[0] in stems and label not in known:
            yield f"{label} is in dialects/{facts.dialect} but not in docs/spec.md"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fix", action="store_true", help="rewrite the tables")
    arguments = parser.parse_args()
    path = ROOT / "docs/status.md"
    text = path.read_text(encoding="utf-8")
    problems = []
    for dialect in COLUMNS:
        facts = Facts(dialect)
        problems += broken_promises(facts)
        begin, end = f"<!-- {dialect} ops -->\n", f"<!-- end of {dialect} ops -->"
        head, rest = text.split(begin)
        old, tail = rest.split(end)
        new = "\n".join(table(facts)) + "\n"
        if old != new and not arguments.fix:
            changed = [line for line in new.splitlines() if line not in old.splitlines()]
            problems += [f"docs/status.md is out of date, the tree says: {line}" for line in changed]
            problems += [] if changed else [f"docs/status.md has rows that the {dialect} dialect has not"]
        text = head + begin + new + end + tail
    if arguments.fix:
        path.write_text(text, encoding="utf-8")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
