"""The installed tree, in a folder of its own: the command line and the C library as users meet them.

ctest sets QUERN_BUILD to the build folder, CMAKE to cmake and QUERN_WRITE_FAKE_MODEL to the binary
that writes an artifact to run where the compiler is not built.
"""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = os.environ["QUERN_BUILD"]
CMAKE = os.environ["CMAKE"]
EXAMPLE = ROOT / "examples" / "c" / "generate.c"
PROJECT = """cmake_minimum_required(VERSION 3.25)
project(embedder C)
find_package(quern 0.1 REQUIRED)
add_executable(generate {example})
target_link_libraries(generate PRIVATE quern::quern)
"""


def run(*command, **kwargs):
    """Standard output of a command that must succeed."""
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, **kwargs)
    if result.returncode != 0:
        raise AssertionError(f"{command} ended with {result.returncode}:\n{result.stdout}{result.stderr}")
    return result.stdout


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="quern-install-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        run(CMAKE, "--install", BUILD, "--prefix", cls.folder / "built")
        # A tree that was moved must still find its parts.
        cls.prefix = (cls.folder / "built").rename(cls.folder / "moved here")
        cls.quern = cls.prefix / "bin" / "quern"
        (cls.library,) = cls.prefix.rglob("libquern.so")
        cls.model = cls.folder / "model.quern"
        run(os.environ["QUERN_WRITE_FAKE_MODEL"], cls.model)

    def answer(self, generate):
        environment = dict(os.environ, LD_LIBRARY_PATH=str(self.library.parent))
        return run(generate, self.model, "ab", env=environment)

    def test_nothing_points_into_the_build_folder(self):
        for path in self.prefix.rglob("*"):
            if path.is_file() and path.suffix in (".pc", ".cmake"):
                self.assertNotIn(str(BUILD), path.read_text(), path)
            elif path.is_file() and not path.is_symlink() and path.suffix != ".h":
                run_paths = [line for line in run("readelf", "-d", path).splitlines() if "PATH" in line]
                self.assertNotIn(str(BUILD), "\n".join(run_paths), path)

    def test_the_command_alone_runs(self):
        alone = shutil.copy(self.quern, self.folder / "quern")
        self.assertIn("quern ", run(alone, "version"))
        self.assertTrue(run(alone, "run", self.model, "-p", "ab", "-n", 3, "-q"))

    def test_compile_finds_its_binary(self):
        if not (self.prefix / "libexec" / "quern" / "quern-compile").exists():
            self.skipTest("quern-compile is not built")
        gguf, out = self.folder / "tiny.gguf", self.folder / "tiny.quern"
        run("python3", ROOT / "tests" / "support" / "make_gguf.py", gguf, "--type", "f16")
        # It runs what it made, through the installed library, to measure the loss.
        report = run(self.quern, "compile", gguf, "-o", out, "--target=avx2", "--quantize=int8", "--json")
        self.assertIn('"mean_kl"', report)
        self.assertTrue(run(self.quern, "run", out, "-p", "ab", "-n", 3, "-q"))

    def test_c_example_with_pkg_config(self):
        environment = dict(os.environ, PKG_CONFIG_PATH=str(self.library.parent / "pkgconfig"))
        flags = run("pkg-config", "--cflags", "--libs", "quern", env=environment)
        generate = self.folder / "generate"
        run("sh", "-c", f'cc -Wall -Werror "$1" -o "$2" {flags}', "sh", EXAMPLE, generate)
        self.assertTrue(self.answer(generate).strip())

    def test_c_example_with_cmake(self):
        source, build = self.folder / "embedder", self.folder / "embedder-build"
        source.mkdir()
        (source / "CMakeLists.txt").write_text(PROJECT.format(example=EXAMPLE))
        run(CMAKE, "-S", source, "-B", build, f"-DCMAKE_PREFIX_PATH={self.prefix}")
        run(CMAKE, "--build", build)
        self.assertTrue(self.answer(build / "generate").strip())


if __name__ == "__main__":
    unittest.main()
