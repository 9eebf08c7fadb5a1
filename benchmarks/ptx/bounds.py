"""How fast a step could be at most: the roofline of every kernel of an artifact, from published peaks.

A kernel takes at least as long as its multiplications take at the tensor cores' peak, and as the bytes that
it must read and write once (weights, keys and values, activations) take at the memory's. Kernels run one
after another, so a step takes at least their sum, unless a cache keeps something from one kernel to the
next. These are bounds, not measurements: launches, waves that do not fill a GPU and exponentials come on top.
"""

import collections
from typing import NamedTuple


class Work(NamedTuple):
    """What a kernel does in a step, all its dispatches together."""

    flops: float = 0.0
    bytes: float = 0.0

    def plus(self, other, times: int = 1):
        return Work(self.flops + times * other.flops, self.bytes + times * other.bytes)

    def seconds(self, gpu) -> float:
        return max(self.flops / (gpu.f16_tflops * 1e12), self.bytes / (gpu.bandwidth_gbs * 1e9))


class Step(NamedTuple):
    """Rows of one sequence behind `depth` tokens; the last row gets logits."""

    rows: int
    depth: int


def _dispatch_work(report: dict, body: dict, dispatch: dict, step: Step) -> Work:
    rows = step.rows if dispatch["rows"] == "tokens" else 1
    buffers = {each["name"]: each for each in report["buffers"]}
    weights = {each["name"]: each for each in body["weights"]}
    flops = moved = 0.0
    lookup = "Tokens" in dispatch["reads"]  # The embedding: a row of the table for every token.
    for name in dispatch["reads"] + dispatch["writes"]:
        if name in buffers:
            moved += rows * buffers[name]["bytes_per_row"] * buffers[name]["copies"]
        elif name in weights:
            weight = weights[name]
            if lookup:
                moved += rows * weight["bytes"] / weight["n"]
            else:
                moved += weight["bytes"]
                flops += 2.0 * rows * weight["n"] * weight["k"] if weight["n"] > 1 else 0.0
        elif name == "logits":
            moved += 4.0 * rows * report["model"]["vocab"]
    if "kv" in dispatch["reads"]:
        kv = report["kv"][0]
        token_bytes = kv["page_bytes"] / kv["page_tokens"]
        if "kv" in dispatch["writes"]:
            moved += rows * token_bytes
        else:
            # Row i sees depth + i + 1 tokens: a product with the keys and one with the values.
            pairs = rows * step.depth + rows * (rows + 1) / 2
            flops += 4.0 * pairs * report["model"]["heads"] * kv["head_dim"]
            moved += (step.depth + rows) * token_bytes
    elif "kv" in dispatch["writes"]:
        kv = report["kv"][0]
        moved += rows * kv["page_bytes"] / kv["page_tokens"]
    return Work(flops, moved)


def step_work(report: dict, step: Step) -> dict:
    """The work of every kernel in one step, by name, from what `quern inspect --json` says."""
    calls = collections.Counter([report["prologue"], *report["layers"], report["epilogue"]])
    total = collections.defaultdict(Work)
    for body in report["bodies"]:
        for dispatch in body["dispatches"]:
            work = _dispatch_work(report, body, dispatch, step)
            total[dispatch["kernel"]] = total[dispatch["kernel"]].plus(work, calls[body["name"]])
    return dict(total)


def bound_seconds(work: dict, gpu) -> float:
    return sum(each.seconds(gpu) for each in work.values())
