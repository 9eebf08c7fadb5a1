"""Where the benchmarks find things: the cache, the models, the peers' Python, the machine's facts."""

import os
import pathlib
import platform
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
MODEL_NAMES = ("smollm2", "qwen2.5")


def cache_dir() -> pathlib.Path:
    """The same folder as scripts/fetch-model's: $QUERN_CACHE, $XDG_CACHE_HOME/quern, ~/.cache/quern."""
    if os.environ.get("QUERN_CACHE"):
        return pathlib.Path(os.environ["QUERN_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "quern"


def use_peers_python() -> None:
    """Starts the calling script again under the environment that benchmarks/peers/setup made."""
    environment = cache_dir() / "peers"
    python = environment / "bin" / "python"
    if pathlib.Path(sys.prefix).resolve() == environment.resolve():
        return
    if not python.exists():
        sys.exit(f"{pathlib.Path(sys.argv[0]).name}: no environment at {environment}; "
                 "make it with benchmarks/peers/setup")
    os.execv(python, [str(python), *sys.argv])


def model_path(name: str) -> pathlib.Path:
    """The GGUF file of a known model (fetched if absent) or of a path given as it is."""
    if name not in MODEL_NAMES:
        path = pathlib.Path(name)
        if not path.is_file():
            sys.exit(f"no such model: {name} (a path, or one of {', '.join(MODEL_NAMES)})")
        return path
    command = [sys.executable, str(REPOSITORY / "scripts" / "fetch-model"), name]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if result.returncode != 0:
        sys.exit(result.returncode)
    return pathlib.Path(result.stdout.strip())


def _first_line(path: str, key: str) -> str:
    try:
        with open(path) as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith(key)), "")
    except OSError:
        return ""


# The CPU flags that decide which kernels either side picks.
TELLING_FLAGS = ("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16",
                 "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16")


def machine() -> dict:
    """What ran: CPU, ISA flags, cores, memory, kernel."""
    flags = _first_line("/proc/cpuinfo", "flags").split()
    return {
        "cpu": _first_line("/proc/cpuinfo", "model name") or platform.processor(),
        "isa": [flag for flag in TELLING_FLAGS if flag in flags],
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
    }


def commit() -> str:
    """The commit of the working tree, with "+changes" where tracked files differ from it."""
    def git(*arguments: str) -> str:
        result = subprocess.run(["git", "-C", str(REPOSITORY), *arguments],
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return result.stdout.strip() if result.returncode == 0 else ""
    head = git("rev-parse", "--short=12", "HEAD")
    if not head:
        return "unknown"
    return head + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
