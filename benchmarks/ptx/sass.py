"""What NVIDIA's assembler made of a kernel: instructions, loops, and what the main loop consists of."""

import collections
import re
import subprocess
from typing import NamedTuple


class Instruction(NamedTuple):
    address: int
    predicate: str  # "@!P0", "" where there is none
    text: str  # "HMMA.16816.F32 R4, R8, R12, R4"

    @property
    def name(self) -> str:
        """ "HMMA.16816.F32" """
        return self.text.split()[0]

    @property
    def opcode(self) -> str:
        """ "HMMA" """
        return self.name.split(".")[0]


class Function(NamedTuple):
    instructions: list
    labels: dict  # name -> index of the instruction behind it


class Loop(NamedTuple):
    """A natural loop: the blocks from which its head is reached again without passing outside."""

    head: int  # index of its first instruction
    body: list  # Instruction, in the order of addresses


_INSTRUCTION = re.compile(r"\s*/\*([0-9a-f]{4,})\*/\s+(?:(@!?U?P\w+)\s+)?(.*?)\s*;")
_LABEL = re.compile(r"\s*(\.L\S*|\w[\w$]*):")
_TARGET = re.compile(r"`\((\.L\w+)\)")
# "BRA.U UP0, `(.L_x)" has its condition among the operands, BRA.DIV and the like in the warp.
_CONDITIONAL_BRANCH = re.compile(r"BRA(\S*\.(DIV|CONV|ANY)\b|\S* !?U?P\d)")
_ENDS = {"EXIT", "RET", "BRA", "BRX", "JMP", "JMX", "KILL", "RPCMOV"}

# Matrix instructions of tensor cores, in warps (HMMA...), warpgroups (HGMMA...) and blocks (UTCHMMA...).
TENSOR = re.compile(r"(UTC)?[HIQODB]G?MMA$")
# What brings operands: from global to shared memory, to registers, from shared memory.
LOADS = {"LDG", "LDS", "LDSM", "LDGSTS", "UTMALDG", "UBLKCP", "LDTM", "LD"}
# What warps meet or wait at.
BARRIERS = {"BAR", "SYNCS", "DEPBAR", "LDGDEPBAR", "WARPGROUP", "MEMBAR", "FENCE", "ARRIVES"}


def disassemble(nvdisasm: str, cubin) -> dict:
    """The functions of a cubin by name."""
    text = subprocess.run([nvdisasm, "-c", str(cubin)], check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True).stdout
    functions = {}
    for section in re.split(r"\n\s*\.section\s+\.text\.", text)[1:]:
        name = re.match(r"[\w$]+", section).group()
        functions[name] = _function(section)
    return functions


def _function(section: str) -> Function:
    instructions, labels = [], {}
    for line in section.splitlines():
        found = _INSTRUCTION.match(line)
        if found:
            instructions.append(Instruction(int(found[1], 16), found[2] or "", found[3]))
            continue
        label = _LABEL.match(line)
        if label:
            labels[label[1]] = len(instructions)
    return Function(instructions, labels)


def _successors(function: Function) -> list:
    """For each instruction the indices that may come next."""
    count, result = len(function.instructions), []
    for index, each in enumerate(function.instructions):
        following = []
        target = _TARGET.search(each.text)
        # Others name labels too, such as BSSY, where lanes meet again; only BRA goes there.
        if each.opcode == "BRA" and target:
            following.append(function.labels[target[1]])
        if each.opcode not in _ENDS or each.predicate or _CONDITIONAL_BRANCH.match(each.text):
            following.append(index + 1)
        result.append([next_ for next_ in following if next_ < count])
    return result


def _dominators(successors: list) -> list:
    """Immediate dominator of each instruction that is reached from the first; None of the others.

    Cooper, Harvey and Kennedy, "A simple, fast dominance algorithm".
    """
    order, seen, stack = [], {0}, [(0, iter(successors[0]))]
    while stack:
        node, children = stack[-1]
        child = next((each for each in children if each not in seen), None)
        if child is None:
            order.append(node)
            stack.pop()
        else:
            seen.add(child)
            stack.append((child, iter(successors[child])))
    rank = {node: number for number, node in enumerate(order)}  # postorder
    before = collections.defaultdict(list)
    for node in order:
        for child in successors[node]:
            before[child].append(node)
    immediate = [None] * len(successors)
    immediate[0] = 0

    def common(a, b):
        while a != b:
            while rank[a] < rank[b]:
                a = immediate[a]
            while rank[b] < rank[a]:
                b = immediate[b]
        return a

    changed = True
    while changed:
        changed = False
        for node in reversed(order[:-1]):
            known = [each for each in before[node] if immediate[each] is not None]
            new = known[0]
            for each in known[1:]:
                new = common(new, each)
            changed |= immediate[node] != new
            immediate[node] = new
    return immediate


def loops(function: Function) -> list:
    """All natural loops; those with the same head are one."""
    if not function.instructions:
        return []
    successors = _successors(function)
    immediate = _dominators(successors)

    def dominates(a, b):
        while b != a and b != 0:
            b = immediate[b]
        return a == b

    before = collections.defaultdict(list)
    for node, following in enumerate(successors):
        if immediate[node] is not None:
            for each in following:
                before[each].append(node)
    bodies = collections.defaultdict(set)
    for node, following in enumerate(successors):
        for head in following:
            if immediate[node] is None or not dominates(head, node):
                continue
            body, stack = bodies[head], [node]
            body.add(head)
            while stack:
                each = stack.pop()
                if each not in body:
                    body.add(each)
                    stack += before[each]
    return [Loop(head, [function.instructions[i] for i in sorted(body)])
            for head, body in sorted(bodies.items())]


def count(instructions, opcodes) -> int:
    """How many have an opcode of this set, or that this pattern matches."""
    if isinstance(opcodes, re.Pattern):
        return sum(bool(opcodes.match(each.opcode)) for each in instructions)
    return sum(each.opcode in opcodes for each in instructions)


def main_loop(function: Function) -> Loop | None:
    """The innermost loop with the most tensor-core instructions, else with the most loads."""
    found = loops(function)

    def inner(loop):
        addresses = {each.address for each in loop.body}
        return not any(other.head != loop.head and {each.address for each in other.body} < addresses
                       and (count(other.body, TENSOR) or count(other.body, LOADS)) for other in found)

    candidates = [loop for loop in found if count(loop.body, TENSOR) or count(loop.body, LOADS)]
    # A wait for an mbarrier is a loop of its own within the main loop: only loops that compute count.
    best = max(candidates, default=None, key=lambda loop: (
        count(loop.body, TENSOR), inner(loop), count(loop.body, LOADS), -len(loop.body)))
    if best and count(best.body, TENSOR):
        least = [loop for loop in candidates
                 if count(loop.body, TENSOR) == count(best.body, TENSOR)]
        best = min(least, key=lambda loop: len(loop.body))
    return best


def overlapped_exponentials(instructions) -> tuple:
    """(exponentials while a wgmma may be in flight, all exponentials) of a loop's body, in steady state.

    WARPGROUP.DEPBAR waits until at most so many groups are in flight as its last operand says.
    """
    in_flight, overlapped, total = False, 0, 0
    for again in (False, True):
        for each in instructions:
            if TENSOR.match(each.opcode) and "G" in each.opcode:
                in_flight = True
            elif each.name.startswith("WARPGROUP.DEPBAR"):
                in_flight = int(each.text.split(",")[-1], 0) > 0
            elif each.name.startswith("MUFU.EX2") and again:
                total += 1
                overlapped += in_flight
    return overlapped, total
