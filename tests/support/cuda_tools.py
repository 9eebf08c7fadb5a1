"""NVIDIA's ptxas, where this machine has it: assembles PTX and says what became of each kernel.

The tools are looked for on the PATH, in the CUDA toolkit and where scripts/fetch-cuda-tools puts them.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
from typing import NamedTuple


def find(tool: str) -> str | None:
    """Path of `ptxas` or `nvdisasm`; None where there is none."""
    on_path = shutil.which(tool)
    if on_path:
        return on_path
    toolkit = pathlib.Path(os.environ.get("CUDA_HOME") or "/usr/local/cuda")
    caches = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    cache = pathlib.Path(os.environ.get("QUERN_CACHE") or pathlib.Path(caches) / "quern")
    for path in (toolkit / "bin" / tool, cache / "cuda" / tool / "nvidia/cu13/bin" / tool):
        if path.is_file():
            return str(path)
    return None


class Kernel(NamedTuple):
    """What `ptxas -v` says about an entry. Bytes are those of a thread, shared_bytes of a block."""

    entry: str
    registers: int
    barriers: int
    shared_bytes: int  # static
    stack_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int


class Assembly(NamedTuple):
    kernels: dict  # entry -> Kernel
    complaints: list  # lines that tell of slow code: warnings, and wgmma serialized or made to wait


class Refused(Exception):
    """ptxas took the text for no valid PTX; the text holds what it said."""


# Serialized wgmma and the like have a number: C7510, C7514, C7517, C7518... C7519 alone is harmless
# (ptxas adds a wgmma.fence where accumulators are zeroed).
_NUMBERED = re.compile(r"\(C75\d\d\)")
_HARMLESS = "(C7519)"


def _complaints(output: str) -> list:
    return [line for line in output.splitlines()
            if "warning" in line or (_NUMBERED.search(line) and _HARMLESS not in line)]


def _kernels(output: str) -> dict:
    kernels = {}
    for block in re.split(r"Compiling entry function '", output)[1:]:
        entry = block[: block.index("'")]

        def number(pattern, text=block):
            found = re.search(pattern, text)
            return int(found.group(1)) if found else 0

        kernels[entry] = Kernel(
            entry, number(r"Used (\d+) registers"), number(r"used (\d+) barriers"),
            number(r"(\d+) bytes smem"), number(r"(\d+) bytes stack frame"),
            number(r"(\d+) bytes spill stores"), number(r"(\d+) bytes spill loads"))
    return kernels


def assemble(ptx: bytes, target: str, cubin=None) -> Assembly:
    """Assembles one module for `target` ("sm_90a"); writes the machine code to the path `cubin`, if any.

    Raises Refused.
    """
    with tempfile.TemporaryDirectory(prefix="ptxas-") as folder:
        source = pathlib.Path(folder) / "module.ptx"
        source.write_bytes(ptx)
        run = subprocess.run([find("ptxas"), "-v", f"-arch={target}", source, "-o",
                              cubin or source.with_suffix(".cubin")], capture_output=True, text=True)
    output = run.stdout + run.stderr
    if run.returncode != 0:
        raise Refused("\n".join(output.splitlines()[:20]))
    return Assembly(_kernels(output), _complaints(output))


def ptx_segments(quern: str, artifact) -> dict:
    """The PTX text of each GPU target of an artifact: {"sm_80": bytes}."""
    report = json.loads(subprocess.run([quern, "inspect", artifact, "--json"], check=True,
                                       stdout=subprocess.PIPE).stdout)
    data = pathlib.Path(artifact).read_bytes()
    return {each["name"].removeprefix("ptx."): data[each["offset"] : each["offset"] + each["size"]]
            for each in report["segments"] if each["kind"] == "Ptx"}
