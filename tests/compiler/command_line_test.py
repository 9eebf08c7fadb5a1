"""What `quern compile` and `quern import` promise of files, errors and exit codes.

Run by ctest with QUERN_COMPILE naming the binary. Models come from tests/support/make_gguf.py.
"""

import json
import os
import pathlib
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))
import make_gguf  # noqa: E402

TOOL = os.environ.get("QUERN_COMPILE") or str(ROOT / "build/dev/bin/quern-compile")

OK, FAILURE, USAGE, MALFORMED, UNSUPPORTED, INCOMPATIBLE = range(6)
# Every machine can cross-compile for it, and it compiles fastest.
TARGET = "--target=avx2"


class CommandLineTest(unittest.TestCase):
    def setUp(self):
        self._folder = tempfile.TemporaryDirectory()
        self.addCleanup(self._folder.cleanup)
        self.folder = pathlib.Path(self._folder.name)

    def path(self, name):
        return str(self.folder / name)

    def model(self, *arguments, name="model.gguf"):
        make_gguf.write_model(self.path(name), *arguments)
        return self.path(name)

    def quern(self, *arguments, **kwargs):
        return subprocess.run(
            [TOOL, *map(str, arguments)], capture_output=True, text=True, errors="replace",
            timeout=120, **kwargs
        )

    def compile(self, *arguments, **kwargs):
        return self.quern("compile", *arguments, TARGET, "-q", **kwargs)

    def assertFails(self, result, code, *words):
        """The exit code, and one line on standard error that has all the words."""
        self.assertEqual(result.returncode, code, result.stderr)
        lines = result.stderr.splitlines()
        self.assertEqual(len(lines), 1, result.stderr)
        self.assertIn("error: ", lines[0])
        for word in words:
            self.assertIn(word, lines[0])
        leftovers = [f.name for f in self.folder.iterdir() if f.name.endswith(".tmp")]
        self.assertEqual(leftovers, [])

    def assertCompiles(self, result):
        self.assertEqual(result.returncode, OK, result.stderr)


class Artifacts(CommandLineTest):
    def test_same_input_gives_the_same_bytes(self):
        model = self.model("--type", "q5_0", "--set", "blk.1.ffn_down.weight=q8_0")
        for out in ("a.quern", "b.quern"):
            self.assertCompiles(self.compile(model, "-o", self.path(out)))
        first = (self.folder / "a.quern").read_bytes()
        self.assertEqual(first, (self.folder / "b.quern").read_bytes())
        self.assertNotIn(str(self.folder).encode(), first)

    def test_header_and_alignment(self):
        model = self.model()
        self.assertCompiles(self.compile(model, "-o", self.path("m.quern")))
        data = (self.folder / "m.quern").read_bytes()
        magic, version, flags, offset, size = struct.unpack_from("<8sIIQQ", data)
        self.assertEqual((magic, version, flags), (b"QUERN\r\n\x1a", 3, 0))
        self.assertEqual(offset % 4096, 0)
        self.assertEqual(offset + size, len(data))
        self.assertEqual(data[offset + 4 : offset + 8], b"QRN1")

    def test_file_mode_follows_the_umask(self):
        model = self.model()
        self.assertCompiles(
            self.compile(model, "-o", self.path("m.quern"), preexec_fn=lambda: os.umask(0o027))
        )
        self.assertEqual((self.folder / "m.quern").stat().st_mode & 0o777, 0o640)

    def test_every_weight_type_compiles(self):
        for name, (_, block, _) in make_gguf.TYPES.items():
            with self.subTest(type=name):
                sizes = ["--hidden", 256, "--ffn", 512, "--heads", 8] if block == 256 else []
                model = self.model("--type", name, *sizes, "--layers", 1)
                self.assertCompiles(self.compile(model, "-o", self.path("m.quern")))

    def test_families_and_options(self):
        for arguments, flags in (
            (["--family", "qwen2", "--untied"], ["--shares=3"]),
            (["--rope-factors"], ["--precise"]),
            (["--heads", 3, "--kv-heads", 1], ["--shares=1"]),
            # Heads that share a group of 32 with their neighbour.
            (["--head-dim", 48, "--layers", 1], ["--shares=3"]),
            # Row blocks that are no multiple of 64 bytes.
            (["--type", "q4_0", "--hidden", 96], ["--shares=3"]),
        ):
            with self.subTest(model=arguments, flags=flags):
                model = self.model(*arguments)
                self.assertCompiles(self.compile(model, "-o", self.path("m.quern"), *flags))

    def test_a_tied_table_is_stored_once(self):
        # A row block of 16 rows is no multiple of 64 bytes here.
        model = self.model("--type", "q4_0", "--hidden", 96, "--vocab", 303, "--layers", 1)
        bytes_of = {}
        for shares in (1, 2, 3, 5):
            out = self.path("m.quern")
            result = self.quern("compile", model, "-o", out, TARGET, f"--shares={shares}", "--json")
            self.assertCompiles(result)
            bytes_of[shares] = json.loads(result.stdout)["artifact"]["weight_bytes"]
        table = 303 * 96 * 18 // 32
        self.assertLess(max(bytes_of.values()) - min(bytes_of.values()), table // 4, bytes_of)

    def test_code_does_not_grow_with_depth(self):
        """Code and kernels are those of the distinct layers, however often each occurs."""
        alternating = {  # Every other layer has other types, inside fused projections too.
            "attn_v": "q8_0", "ffn_up": "q5_0", "ffn_down": "f16",
        }
        for name, types, bodies in (("uniform", {}, 1), ("alternating", alternating, 2)):
            seen = set()
            for layers in (2, 8, 30):
                with self.subTest(model=name, layers=layers):
                    sets = [
                        f"--set=blk.{layer}.{tensor}.weight={kind}"
                        for layer in range(1, layers, 2)
                        for tensor, kind in types.items()
                    ]
                    model = self.model("--layers", layers, *sets)
                    ir = self.folder / "ir"
                    result = self.quern(
                        "compile", model, "-o", self.path("m.quern"), TARGET, "--json",
                        f"--dump-ir-to={ir}",
                    )
                    self.assertCompiles(result)
                    program = (ir / "08-memory.mlir").read_text()
                    self.assertEqual(program.count("rt.block @"), bodies)
                    code = json.loads(result.stdout)["targets"][0]["code_bytes"]
                    seen.add((code, program.count("rt.kernel @"), program.count("rt.dispatch @")))
            self.assertEqual(len(seen), 1, f"{name}: (code bytes, kernels, dispatches) {seen}")

    def test_import_edit_compile(self):
        model = self.model()
        text = self.quern("import", model)
        self.assertCompiles(text)
        ir = self.folder / "model.mlir"
        ir.write_text(text.stdout)
        self.assertCompiles(self.compile(model, "-o", self.path("a.quern")))
        self.assertCompiles(self.compile(ir, "--weights", model, "-o", self.path("b.quern")))
        self.assertEqual(
            (self.folder / "a.quern").read_bytes(), (self.folder / "b.quern").read_bytes()
        )

    def test_every_dump_can_be_resumed(self):
        model = self.model("--set", "blk.1.attn_v.weight=q8_0")
        out, dumps = self.folder / "a.quern", self.folder / "ir"
        self.assertCompiles(self.compile(model, "-o", out, f"--dump-ir-to={dumps}"))
        files = sorted(dumps.iterdir())
        self.assertEqual(len(files), 8)
        *earlier, planned = files
        for file in earlier:
            with self.subTest(dump=file.name):
                phase = file.stem.split("-", 1)[1]
                again = self.folder / "again.mlir"
                self.assertCompiles(
                    self.compile(file, f"--compile-from={phase}", "--compile-to=memory", "-o", again)
                )
                self.assertEqual(again.read_text(), planned.read_text())
        kernels = next(file for file in earlier if file.stem.endswith("-kernels"))
        resumed = {}
        for file, phase in ((kernels, "kernels"), (planned, "memory")):
            path = self.path(f"{phase}.quern")
            self.assertCompiles(
                self.compile(file, f"--compile-from={phase}", "--weights", model, "-o", path)
            )
            resumed[phase] = pathlib.Path(path).read_bytes()
        self.assertEqual(resumed["kernels"], out.read_bytes())
        # What is behind the kernels phase has lost the program that tuning starts from.
        self.assertLess(len(resumed["memory"]), len(resumed["kernels"]))

    def test_every_optional_pass_can_be_switched_off(self):
        model = self.model("--family", "qwen2")
        for name in (
            "normalize quantize-activations fuse-dequant-matmul fuse-qkv fuse-swiglu "
            "fuse-add-rms-norm convert-attention-to-online-attention tile-attention tile-matmul "
            "split-shares form-kernels"
        ).split():
            with self.subTest(disabled=name):
                out = self.path("m.quern")
                self.assertCompiles(self.compile(model, "-o", out, f"--disable-pass={name}"))


class Quantize(CommandLineTest):
    def report(self, model, *arguments):
        """The `quantize` object of --json; nothing but the model and the artifact is left."""
        result = self.quern("compile", model, "-o", self.path("m.quern"), "--json", *arguments)
        self.assertCompiles(result)
        names = sorted(f.name for f in self.folder.iterdir())
        self.assertEqual(names, ["m.quern", "model.gguf"])
        return json.loads(result.stdout)["quantize"]

    def test_size_and_loss(self):
        for source in ("f16", "bf16"):
            with self.subTest(source=source):
                model = self.model("--type", source, "--untied")
                losses = []
                for name, largest in (("int8", 0.56), ("fp8", 0.54), ("int4", 0.33)):
                    report = self.report(model, TARGET, f"--quantize={name}")
                    self.assertLess(report["to_bytes"] / report["from_bytes"], largest)
                    if "not_measured" in report:
                        self.skipTest(report["not_measured"])
                    self.assertEqual((report["positions"], report["target"]), (128, "avx2"))
                    losses.append(report["mean_kl"])
                int8, fp8, int4 = losses
                # Each bit less doubles the error of a weight and quadruples the loss.
                self.assertGreater(int8, 0)
                self.assertLess(int8, 0.005)
                self.assertLess(int8, fp8)
                self.assertLess(fp8, int4)
                self.assertGreater(int4, 10 * int8)
                self.assertLess(int4, 1)

    def test_heads_that_share_a_group_of_activations(self):
        for size in (48, 16):
            with self.subTest(head_dim=size):
                model = self.model("--type", "f16", "--head-dim", size)
                report = self.report(model, TARGET, "--quantize=int8", "--shares=3")
                self.assertLess(report.get("mean_kl", 0), 0.005)

    def test_short_context_bounds_the_text(self):
        model = self.model("--type", "f16", "--context", 7)
        report = self.report(model, TARGET, "--quantize=int8")
        self.assertEqual(report.get("positions", 7), 7)

    def test_the_line_for_people(self):
        model = self.model("--type", "f16")
        arguments = ["compile", model, "-o", self.path("m.quern"), TARGET, "--quantize=int8"]
        size = r"quantize: 262 kB -> 139 kB"
        loss = r", (mean KL [0-9.e-]+, top-1 [0-9.]+ % over 128 positions \(target avx2\)|not measured: .*)"
        self.assertRegex(self.quern(*arguments).stderr, rf"(?m)^{size}{loss}$")
        self.assertRegex(self.quern(*arguments, "--no-measure").stderr, rf"(?m)^{size}$")

    def test_what_cannot_be_measured(self):
        model = self.model("--type", "f16")
        report = self.report(model, TARGET, "--quantize=int8", "--no-measure")
        self.assertNotIn("mean_kl", report)
        self.assertNotIn("not_measured", report)
        with open("/proc/cpuinfo") as info:
            if "amx_int8" not in info.read():
                report = self.report(model, "--target=amx", "--quantize=int8")
                self.assertIn("amx", report["not_measured"])
        report = self.report(self.model(), TARGET, "--quantize=int8")
        self.assertEqual(report, {"format": "q8_0", "from_bytes": 0, "to_bytes": 0})

    def test_damaged_weights_are_named(self):
        model = pathlib.Path(self.model("--type", "f16"))
        data = bytearray(model.read_bytes())
        struct.pack_into("<f", data, len(data) - 4, float("nan"))  # the last norm's
        model.write_bytes(data)
        result = self.compile(model, "-o", self.path("m.quern"), "--quantize=int8")
        self.assertFails(result, 3, "NaN or infinite", "output_norm")
        self.assertFalse(pathlib.Path(self.path("m.quern")).exists())


class Interrupted(CommandLineTest):
    def test_signals_keep_the_old_file_and_leave_no_other(self):
        model = self.model("--vocab", 20000, "--hidden", 256, "--heads", 8, "--type", "f32")
        out = self.folder / "m.quern"
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(signal=number.name):
                out.write_bytes(b"old")
                process = subprocess.Popen([TOOL, "compile", model, "-o", out, TARGET, "-q"])
                deadline = time.monotonic() + 60
                while time.monotonic() < deadline and process.poll() is None:
                    if any(f.suffix == ".tmp" for f in self.folder.iterdir()):
                        break
                    time.sleep(0.0005)
                process.send_signal(number)
                code = process.wait(timeout=60)
                if code == 0:
                    continue  # The work was done before the signal came.
                self.assertEqual(code, -number)
                self.assertEqual(out.read_bytes(), b"old")
                names = sorted(f.name for f in self.folder.iterdir())
                self.assertEqual(names, ["m.quern", "model.gguf"])

    def test_full_disk(self):
        if not os.access("/dev/full", os.W_OK):
            self.skipTest("no /dev/full")
        with open("/dev/full", "w") as full:
            result = subprocess.run(
                [TOOL, "import", self.model()], stdout=full, stderr=subprocess.PIPE, text=True
            )
        self.assertFails(result, FAILURE, "standard output")

    def test_file_size_limit(self):
        def limit():
            import resource

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

        out = self.folder / "m.quern"
        out.write_bytes(b"old")
        result = self.compile(self.model(), "-o", out, preexec_fn=limit)
        self.assertFails(result, FAILURE, "m.quern", "too large")
        self.assertEqual(out.read_bytes(), b"old")


class Errors(CommandLineTest):
    def test_usage(self):
        model = self.model()
        for arguments, words in (
            ([], ["MODEL"]),
            ([model], ["-o MODEL.quern"]),
            ([model, "-o", self.path("m.quern"), "--no-such-flag"], ["--no-such-flag"]),
            ([model, "-o", self.path("m.quern"), "--quantize=int3"], ["int3"]),
            ([model, "-o", self.path("m.quern"), "--target=sparc"], ["sparc", "avx2"]),
            ([model, "-o", self.path("m.quern"), "--compile-to=nowhere"], ["nowhere", "fuse"]),
            ([model, "-o", self.path("m.quern"), "--disable-pass=x"], ["fuse-qkv"]),
            ([model, "-o", self.path("m.quern"), "--shares=0"], ["--shares=0"]),
            ([model, "-o", self.path("m.quern"), "--compile-from=tile"], [".mlir"]),
            ([model, "-o", model], ["replace the input"]),
        ):
            with self.subTest(arguments=arguments[1:]):
                self.assertFails(self.quern("compile", *arguments), USAGE, *words)
        self.assertFails(self.quern("grind"), USAGE)
        self.assertFails(self.quern(), USAGE)

    def test_usage_of_modules(self):
        ir = self.path("model.mlir")
        self.assertCompiles(self.quern("import", self.model(), "-o", ir))
        out = self.path("m.quern")
        self.assertFails(self.compile(ir, "-o", out), USAGE, "--weights")
        self.assertFails(
            self.compile(ir, "--compile-from=tile", "--compile-to=fuse"), USAGE, "later phase"
        )

    def test_help(self):
        for verb in ("compile", "import"):
            result = self.quern(verb, "--help")
            self.assertEqual(result.returncode, OK)
            self.assertIn("Examples:", result.stdout)

    def test_missing_and_unreadable_input(self):
        out = self.path("m.quern")
        self.assertFails(self.compile(self.path("no.gguf"), "-o", out), FAILURE, "no.gguf", "give the path")
        self.assertFails(self.compile(self.folder, "-o", out), FAILURE, str(self.folder), "give the path")
        result = self.compile(self.path("no.mlir"), "--compile-to=fuse")
        self.assertFails(result, FAILURE, "no.mlir", "give the path")

    def test_unwritable_output(self):
        model = self.model()
        self.assertFails(
            self.compile(model, "-o", self.path("no/m.quern")), FAILURE, "no/m.quern", "give a path"
        )
        self.assertFails(self.compile(model, "-o", self.folder), FAILURE, "directory", "give the path")
        if os.geteuid() != 0:
            self.folder.chmod(0o500)
            self.addCleanup(self.folder.chmod, 0o700)
            self.assertFails(self.compile(model, "-o", self.path("m.quern")), FAILURE)

    def test_devices_are_not_replaced(self):
        result = self.compile(self.model(), "-o", "/dev/null")
        self.assertFails(result, FAILURE, "no regular file")
        self.assertTrue(pathlib.Path("/dev/null").is_char_device())

    def test_unwritable_dumps(self):
        model = self.model()
        (self.folder / "file").touch()
        for option in ("--dump-ir-to", "--dump-kernels-to"):
            result = self.compile(
                model, "-o", self.path("m.quern"), f"{option}={self.path('file')}"
            )
            self.assertFails(result, FAILURE, "file", "give a folder")

    def test_malformed_files(self):
        whole = pathlib.Path(self.model()).read_bytes()
        out = self.path("m.quern")
        broken = {
            "empty": (b"", "a GGUF file was wanted", "fetch it again"),
            "magic": (b"GGML" + whole[4:], '"GGML"', '"GGUF" was wanted', "convert the model"),
            "header": (whole[:20], "20 bytes", "24", "fetch it again"),
            "metadata": (whole[:400], "fetch it again"),
            "weights": (whole[:-4096], "cut short", "fetch it again"),
        }
        for name, (data, *words) in broken.items():
            with self.subTest(name):
                path = self.folder / f"{name}.gguf"
                path.write_bytes(data)
                result = self.compile(path, "-o", out)
                self.assertFails(result, MALFORMED, f"{name}.gguf", *words)
        self.assertFalse(os.path.exists(out))

    def test_unsupported_models(self):
        out = self.path("m.quern")
        model = self.model("--architecture", "abacus")
        self.assertFails(self.compile(model, "-o", out), UNSUPPORTED, "abacus", "llama", "add its row")
        model = self.model("--pre", "no-such-pre-tokenizer")
        self.assertFails(
            self.compile(model, "-o", out), UNSUPPORTED, "no-such-pre-tokenizer", "smollm",
            "convert the model again", "add its row",
        )
        data = bytearray(pathlib.Path(self.model()).read_bytes())
        # The type of the first tensor is behind its name, rank and two sizes.
        at = data.index(b"token_embd.weight") + len("token_embd.weight") + 4 + 16
        struct.pack_into("<I", data, at, 23)
        path = self.folder / "type.gguf"
        path.write_bytes(data)
        self.assertFails(
            self.compile(path, "-o", out), UNSUPPORTED, "token_embd.weight", "iq4_xs", "q4_0", "convert"
        )

    def test_sizes_that_no_kernel_takes(self):
        for arguments, words in (
            (["--head-dim", 40], ["llama.attention.key_length", "40", "16"]),
            (["--head-dim", 16, "--heads", 3, "--kv-heads", 1], ["head_count", "3", "even"]),
            (["--hidden", 80], ["llama.embedding_length", "80", "32"]),
            (["--ffn", 176], ["llama.feed_forward_length", "176", "32"]),
        ):
            with self.subTest(model=arguments):
                model = self.model("--type", "f16", *arguments)
                result = self.compile(model, "-o", self.path("m.quern"))
                self.assertFails(result, UNSUPPORTED, *words)

    def test_code_generators_name_the_kernel(self):
        dumps = self.folder / "ir"
        model = self.model("--layers", 1)
        self.assertCompiles(self.compile(model, "--compile-to=tile", f"--dump-ir-to={dumps}"))
        ir = dumps / "05-tile.mlir"
        text = ir.read_text()
        self.assertIn("page = 32", text)
        ir.write_text(text.replace("page = 32", "page = 64"))
        result = self.compile(
            ir, "--compile-from=tile", "--weights", model, "-o", self.path("m.quern")
        )
        self.assertFails(
            result, UNSUPPORTED, "kernel attention for avx2/", "pages of 32 tokens, got 64", "correct"
        )

    def test_malformed_modules(self):
        ir = self.folder / "x.mlir"
        for text, word in (
            ("module {", "x.mlir:1:"),
            ("", "lm.model"),
            ("module { func.func @f() { return } }", "lm.model"),
            ("\x00\xff\x00", "x.mlir"),
        ):
            with self.subTest(text=text):
                ir.write_text(text, encoding="latin-1")
                self.assertFails(self.compile(ir, "--compile-to=fuse"), MALFORMED, word)

    def test_weights_of_another_model(self):
        ir = self.path("model.mlir")
        self.assertCompiles(self.quern("import", self.model(), "-o", ir))
        other = self.model("--type", "q8_0", name="other.gguf")
        result = self.compile(ir, "--weights", other, "-o", self.path("m.quern"))
        self.assertFails(result, INCOMPATIBLE, "token_embd.weight", "q4_1", "q8_0")
        other = self.model("--layers", 1, name="other.gguf")
        result = self.compile(ir, "--weights", other, "-o", self.path("m.quern"))
        self.assertFails(result, INCOMPATIBLE, "blk.1.")

    def test_json_errors(self):
        result = self.quern("compile", self.path("no.gguf"), "-o", self.path("m"), "--json", TARGET)
        error = json.loads(result.stdout)["error"]
        self.assertEqual((error["code"], error["kind"]), (FAILURE, "failure"))
        self.assertIn(error["message"], result.stderr)
        for arguments, code, kind in (
            (["compile", "--json"], USAGE, "usage"),
            (["compile", self.model("--pre", "nope"), "-o", self.path("m"), "--json", TARGET],
             UNSUPPORTED, "unsupported"),
            (["compile", "/dev/null/\udcff\n", "-o", self.path("m"), "--json"], FAILURE, "failure"),
        ):
            result = self.quern(*arguments)
            self.assertEqual(result.returncode, code)
            self.assertEqual(json.loads(result.stdout)["error"]["kind"], kind)

    def test_control_characters_in_names_stay_out_of_errors(self):
        result = self.compile("a\x1b[31m\nb.gguf", "-o", self.path("m"))
        self.assertFails(result, FAILURE, "a [31m b.gguf")


if __name__ == "__main__":
    unittest.main()
