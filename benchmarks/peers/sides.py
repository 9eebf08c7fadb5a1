"""Who is timed by benchmarks/peers/run, and how each is asked. A side that cannot be asked says why."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from typing import NamedTuple

HERE = pathlib.Path(__file__).resolve().parent
COMMON = HERE.parent / "common"
sys.path.insert(0, str(COMMON))

import quern_cli  # noqa: E402
import workplace  # noqa: E402

SAMPLE_SECONDS = 0.01
# The prompt and steps that peak memory is read over.
MEMORY_PROMPT, MEMORY_STEPS = 512, 16


class Skipped(Exception):
    """A side cannot do what was asked; the text says why."""


class Figure(NamedTuple):
    """One row of the table."""

    title: str
    field: str  # of the JSON of every side
    streams: int  # 0 for a prefill
    depth: int = 0


class Test(NamedTuple):
    """`prompt` tokens at once, then `generate` steps of one token a stream, behind `depth` tokens."""

    prompt: int
    generate: int
    depth: int = 0
    streams: int = 1

    @property
    def figures(self) -> list:
        figures = []
        if self.prompt:
            figures.append(Figure(f"prefill {self.prompt}", "prefill_tokens_per_second", 0))
        if self.generate:
            title = f"decode {self.generate}"
            title += f" x {self.streams}" if self.streams > 1 else ""
            title += f" @ {self.depth}" if self.depth else ""
            figures.append(Figure(title, "decode_tokens_per_second", self.streams, self.depth))
        return figures

    @property
    def title(self) -> str:
        return ", ".join(figure.title for figure in self.figures)


class Startup(NamedTuple):
    """What a side costs before and beside its speed. Bytes; seconds; None where there is no such step."""

    first_token_seconds: float  # from nothing but the page cache to the first token of a prompt of 32
    anonymous_bytes: int  # peak, of memory that no file backs
    file_bytes: int  # what it reads
    compile_seconds: float | None


def peak_anonymous(command: list, environment=None) -> tuple[int, str, float]:
    """Peak RssAnon of a command, its stdout and its seconds."""
    peak = 0
    started = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env=environment)

    def sample():
        nonlocal peak
        while process.poll() is None:
            try:
                with open(f"/proc/{process.pid}/status") as status:
                    sizes = [int(line.split()[1]) for line in status if line.startswith("RssAnon")]
            except OSError:
                return
            peak = max([peak, *sizes])
            time.sleep(SAMPLE_SECONDS)
    sampler = threading.Thread(target=sample)
    sampler.start()
    out, error = process.communicate()
    sampler.join()
    if process.returncode != 0:
        last = (error.strip().splitlines() or ["no message"])[-1]
        raise Skipped(f"exit {process.returncode}: {last[:200]}")
    return peak * 1024, out, time.perf_counter() - started


class Quern:
    """The `quern` command, on an artifact that it compiled."""

    def __init__(self, args, model: pathlib.Path):
        self.args, self.model = args, model
        self.quern = quern_cli.find(args.quern)
        self.target = args.isa or args.target
        self.artifact = quern_cli.compile_model(self.quern, model, self.target)
        self.isa = ["--force-isa", args.isa] if args.isa else []

    def measure(self, test: Test) -> dict:
        return quern_cli.bench(self.quern, self.artifact, test.prompt, test.generate, test.depth,
                               self.args.threads, self.args.repeats, streams=test.streams,
                               options=self.isa)

    def startup(self) -> Startup:
        options = ["-t", self.args.threads, *self.isa]
        started = time.perf_counter()
        quern_cli.run(self.quern, "run", self.artifact, "--tokens",
                      ",".join(str(1000 + i) for i in range(32)), "-n", 1, *options)
        first = time.perf_counter() - started
        peak, _, _ = peak_anonymous([self.quern, "bench", self.artifact, "-p", MEMORY_PROMPT, "-n",
                                     MEMORY_STEPS, "-r", 1, "--json", *options])
        with tempfile.TemporaryDirectory(dir=workplace.cache_dir()) as folder:
            started = time.perf_counter()
            quern_cli.run(self.quern, "compile", self.model, "-o", f"{folder}/model.quern",
                          f"--target={self.target}")
            seconds = time.perf_counter() - started
        return Startup(first, peak, self.artifact.stat().st_size, seconds)


class Driver(NamedTuple):
    """A peer's program, the module that it needs, and what runs it on one ISA alone."""

    program: str
    module: str
    install: str
    isa_environments: dict = {}
    streams: bool = False


def _avx2_llama_cpp() -> dict:
    folder = workplace.cache_dir() / "peers-avx2"
    if not (folder / "llama_cpp").is_dir():
        raise Skipped("no llama.cpp built for AVX2 alone; make it with benchmarks/peers/setup --with-avx2")
    return {"PYTHONPATH": str(folder)}


DRIVERS = {
    "llama.cpp": Driver("llama_cpp_peer.py", "llama_cpp", "", {"avx2": _avx2_llama_cpp}, streams=True),
    "torch": Driver("transformers_peer.py", "transformers", "", {
        "avx2": lambda: {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}}),
    "openvino": Driver("openvino_peer.py", "openvino_genai", " --with-openvino"),
}


class Peer:
    """A driver of benchmarks/common, in the peers' Python."""

    def __init__(self, name: str, args, model: pathlib.Path):
        self.args, self.model, self.driver = args, model, DRIVERS[name]
        self.environment = dict(os.environ)
        import importlib.util
        if importlib.util.find_spec(self.driver.module) is None:
            raise Skipped(f"{self.driver.module} is not installed; "
                          f"benchmarks/peers/setup{self.driver.install}")
        if args.isa:
            if args.isa not in self.driver.isa_environments:
                raise Skipped(f"it cannot be held to {args.isa} here")
            self.environment.update(self.driver.isa_environments[args.isa]())

    def _command(self, test: Test, repeats: int) -> list:
        command = [sys.executable, COMMON / self.driver.program, self.model]
        for flag, value in (("-p", test.prompt), ("-n", test.generate), ("-d", test.depth),
                            ("-s", test.streams), ("-t", self.args.threads), ("-r", repeats)):
            command += [flag, value]
        return command

    def measure(self, test: Test) -> dict:
        if test.streams > 1 and not self.driver.streams:
            raise Skipped("its driver has one sequence only")
        result = subprocess.run([str(part) for part in self._command(test, self.args.repeats)],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                env=self.environment)
        if result.returncode != 0:
            last = (result.stderr.strip().splitlines() or ["no message"])[-1]
            raise Skipped(f"exit {result.returncode}: {last[:200]}")
        return json.loads(result.stdout)

    def startup(self) -> Startup:
        peak, out, _ = peak_anonymous(self._command(Test(MEMORY_PROMPT, MEMORY_STEPS), 1),
                                      self.environment)
        said = json.loads(out)
        # Python and its modules were there before the peer loaded anything.
        return Startup(said["first_token_seconds"], peak - said["anonymous_bytes_before"],
                       self.model.stat().st_size, None)


NAMES = ("quern", *DRIVERS)


def open_side(name: str, args, model: pathlib.Path):
    """A side. Raises Skipped where it is not here."""
    return Quern(args, model) if name == "quern" else Peer(name, args, model)
