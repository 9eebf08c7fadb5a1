"""Quern as a user has it: the `quern` command, run as a subprocess."""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import workplace


class QuernError(Exception):
    """The command is not there, or it failed; the text holds what it wrote to stderr."""


def find(explicit: str | None = None) -> pathlib.Path:
    """The command: `explicit`, or $QUERN, or the newest build's, or the one on the PATH."""
    given = explicit or os.environ.get("QUERN")
    if given:
        if not os.access(given, os.X_OK):
            raise QuernError(f"{given} is not an executable file")
        return pathlib.Path(given).resolve()
    built = [path for path in workplace.REPOSITORY.glob("build/*/bin/quern") if path.is_file()]
    if built:
        return max(built, key=lambda path: path.stat().st_mtime)
    installed = shutil.which("quern")
    if not installed:
        raise QuernError("no quern in build/*/bin or on the PATH (build it, or give --quern)")
    return pathlib.Path(installed)


def run(quern: pathlib.Path, *arguments, environment=None) -> str:
    """Runs `quern ARGUMENTS`, returns its stdout."""
    command = [str(quern), *map(str, arguments)]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            errors="replace", env=environment)
    if result.returncode != 0:
        last = " | ".join(result.stderr.strip().splitlines()[-3:])
        raise QuernError(f"{' '.join(command)[:400]}: exit {result.returncode}: {last}")
    return result.stdout


def _fingerprint(quern: pathlib.Path, model: pathlib.Path, flags: list) -> str:
    """Changes whenever a compile could come out differently."""
    digest = hashlib.sha256(repr(flags).encode())
    binaries = [quern, quern.parent / "quern-compile", quern.parent.parent / "libexec/quern"]
    binaries += sorted((quern.parent.parent / "libexec" / "quern").glob("*"))
    for path in [*binaries, model]:
        if path.is_file():
            stat = path.stat()
            digest.update(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()


def compile_model(quern: pathlib.Path, model: pathlib.Path, target: str = "host",
                  precise: bool = False) -> pathlib.Path:
    """The artifact of `model` in the cache, compiled if the model, flags or compiler changed."""
    flags = [f"--target={target}"] + (["--precise"] if precise else [])
    folder = workplace.cache_dir() / "artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{model.stem}-{target.replace(',', '+')}{'-precise' if precise else ''}"
    artifact, stamp = folder / f"{name}.quern", folder / f"{name}.stamp"
    fingerprint = _fingerprint(quern, model, flags)
    if artifact.exists() and stamp.exists() and stamp.read_text() == fingerprint:
        return artifact
    stamp.unlink(missing_ok=True)
    run(quern, "compile", model, "-o", artifact, *flags)
    stamp.write_text(fingerprint)
    return artifact


def logits(quern: pathlib.Path, artifact: pathlib.Path, tokens, options=(), environment=None):
    """Logits of every input position: float32 array (positions, vocabulary).

    `options`: further ones of quern run. `environment`: of the command, when it is not ours.
    """
    import numpy
    with tempfile.TemporaryDirectory(dir=workplace.cache_dir()) as folder:
        out = pathlib.Path(folder) / "logits.npy"
        run(quern, "run", artifact, "--tokens", ",".join(map(str, tokens)), "-n", 0,
            "--logits", out, *options, environment=environment)
        result = numpy.load(out)
    if result.shape[0] != len(tokens) or result.dtype != numpy.float32:
        raise QuernError(f"--logits wrote {result.dtype} {result.shape} for {len(tokens)} tokens, "
                         "wanted float32 with one row per token")
    return result


def bench(quern: pathlib.Path, artifact: pathlib.Path, prompt: int, generate: int, depth: int,
          threads: int, repeats: int, device: str = "cpu", streams: int = 1, options=()) -> dict:
    """The object `quern bench --json` prints. `options`: further ones."""
    return json.loads(run(quern, "bench", artifact, "-p", prompt, "-n", generate, "-d", depth,
                          "-s", streams, "-t", threads, "-r", repeats, f"--device={device}",
                          "--json", *options))
