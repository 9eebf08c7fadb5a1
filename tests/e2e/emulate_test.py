#!/usr/bin/env python3
"""quern emulate: PTX from a file, arguments from the command line, a report."""

import array
import json
import pathlib
import re
import struct
import unittest

from support import FAILURE, MALFORMED, UNSUPPORTED, USAGE, E2eTest, machine, make_gguf, quern

HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"

# x[i] *= scale for i < n
SCALE = HEAD + """
.visible .entry scale(.param .u64 x, .param .u32 n, .param .f32 by)
{
  .reg .pred %p<2>;
  .reg .b32 %r<8>;
  .reg .f32 %f<4>;
  .reg .b64 %l<4>;
  ld.param.u64 %l1, [x];
  ld.param.u32 %r1, [n];
  ld.param.f32 %f3, [by];
  mov.u32 %r2, %tid.x;
  mov.u32 %r3, %ctaid.x;
  mov.u32 %r4, %ntid.x;
  mad.lo.s32 %r5, %r3, %r4, %r2;
  setp.ge.u32 %p1, %r5, %r1;
  @%p1 bra done;
  mul.wide.u32 %l2, %r5, 4;
  add.s64 %l3, %l1, %l2;
  ld.global.f32 %f1, [%l3];
  mul.f32 %f2, %f1, %f3;
  st.global.f32 [%l3], %f2;
  bra done;
  exit;
done:
  ret;
}
"""

# Warp 1 reads what warp 0 stores. BARRIER: "bar.sync 0;" or nothing.
SHARE = HEAD + """
.visible .entry share(.param .u64 x)
{
  .reg .pred %p<2>;
  .reg .b32 %r<8>;
  .reg .b64 %l<4>;
  .shared .align 4 .b8 words[256];
  ld.param.u64 %l1, [x];
  mov.u32 %r1, %tid.x;
  shl.b32 %r2, %r1, 2;
  mov.u32 %r3, words;
  add.s32 %r4, %r3, %r2;
  st.shared.u32 [%r4], %r1;
  BARRIER
  xor.b32 %r5, %r2, 128;
  add.s32 %r6, %r3, %r5;
  ld.shared.u32 %r7, [%r6];
  cvt.u64.u32 %l2, %r2;
  add.s64 %l3, %l1, %l2;
  st.global.u32 [%l3], %r7;
  ret;
}
"""


def line_of(text, instruction):
    return 1 + next(i for i, line in enumerate(text.splitlines()) if instruction in line)


def read_array(path):
    """(type, values) of a one-dimensional .npy file."""
    data = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack_from("<H", data, 8)
    header = data[10 : 10 + length].decode()
    descr, count = re.search(r"'descr': '(.*?)'.*\((\d+),\)", header).groups()
    code = {"<f4": "f", "<f8": "d", "<f2": "e", "|i1": "b", "|u1": "B", "<i2": "h", "<u2": "H",
            "<i4": "i", "<u4": "I", "<i8": "q", "<u8": "Q"}[descr]
    return descr, list(struct.unpack_from(f"<{count}{code}", data, 10 + length))


class Emulate(E2eTest):
    def write(self, text, name="k.ptx"):
        path = self.folder / name
        path.write_text(text)
        return path

    def scale(self, *arguments):
        return quern("emulate", self.write(SCALE), "--grid", 2, "--block", 32, *arguments)

    def test_computes_and_dumps(self):
        out = self.folder / "x.npy"
        text = self.assertWorks(self.scale("--arg", "buf:f32:50:iota", "--arg", "u32:50", "--arg",
                                           "f32:0.5", "--dump", f"0={out}"))
        self.assertIn("scale (sm_80): 64 threads, ", text)
        self.assertIn("no race on shared memory", text)
        self.assertEqual(read_array(out), ("<f4", [i / 2 for i in range(50)]))

    def test_standard_input_and_files_of_bytes(self):
        source, out = self.folder / "x:1.bin", self.folder / "x.npy"
        source.write_bytes(array.array("f", [3, -1.5, 1e30]).tobytes())
        with open(self.write(SCALE)) as ptx:
            result = quern("emulate", "-", "--block", 32, "--arg", f"file:f32:{source}", "--arg",
                           "u32:3", "--arg", "f32:2", "--dump", f"0={out}", stdin=ptx)
        self.assertWorks(result)
        self.assertEqual(read_array(out)[1][:2], [6, -3])

    def test_json_and_coverage(self):
        options = ("--arg", "buf:f32:40", "--arg", "u32:40", "--arg", "f32:2", "--json")
        report = json.loads(self.assertWorks(self.scale(*options)))
        self.assertEqual((report["kernel"], report["target"], report["threads"], report["clean"]),
                         ("scale", "sm_80", 64, True))
        self.assertNotIn("lines", report)
        report = json.loads(self.assertWorks(self.scale(*options, "--coverage")))
        warps = {each["line"]: each["warps"] for each in report["lines"]}
        self.assertEqual(warps[line_of(SCALE, "mul.f32")], 2)
        self.assertEqual(warps[line_of(SCALE, "exit;")], 0)
        self.assertEqual(report["opcodes"]["mul.f32"], 2)
        self.assertEqual(report["instructions"], sum(warps.values()))

    def test_coverage_as_text(self):
        text = self.assertWorks(self.scale("--arg", "buf:f32:40", "--arg", "u32:40", "--arg",
                                           "f32:2", "--coverage"))
        self.assertRegex(text, rf"(?m)^! +{line_of(SCALE, 'exit;')} +0  exit;$")
        self.assertRegex(text, rf"(?m)^  +{line_of(SCALE, 'mul.f32')} +2  mul.f32 %f2, %f1, %f3;$")
        self.assertRegex(text, r"(?m)^16 of 17 instructions were executed$")

    def test_races_have_both_lines_and_exit_code_1(self):
        racy = SHARE.replace("BARRIER", "")
        store, load = line_of(racy, "st.shared"), line_of(racy, "ld.shared")
        result = quern("emulate", self.write(racy), "--block", 64, "--arg", "buf:u32:64")
        self.assertEqual(result.returncode, FAILURE, result.stderr)
        text = result.stdout.decode()
        self.assertRegex(text, rf"(?m)^race: .* at line {load} .* at line {store} ")
        self.assertIn(f"line {load}: ld.shared.u32 %r7, [%r6];", text)
        ignored = quern("emulate", self.write(racy), "--block", 64, "--arg", "buf:u32:64",
                        "--no-races")
        self.assertNotIn("race", self.assertWorks(ignored))
        sound = SHARE.replace("BARRIER", "bar.sync 0;")
        self.assertWorks(quern("emulate", self.write(sound), "--block", 64, "--arg", "buf:u32:64",
                               "--seed", 3))

    def test_failures_name_kernel_line_and_place(self):
        out = self.folder / "x.npy"
        result = self.scale("--arg", "buf:f32:50:ones", "--arg", "u32:51", "--arg", "f32:2",
                            "--dump", f"0={out}")
        self.assertFails(result, FAILURE, "kernel 'scale'", "ld.global.f32",
                         f"PTX line {line_of(SCALE, 'ld.global')}: ", "0 bytes past the end",
                         "CTA 1,0,0 warp 0 lane 18")
        self.assertEqual(read_array(out)[1][:32], [2] * 32)  # block 0 was done
        endless = HEAD + ".visible .entry k()\n{\nagain:\n  bra again;\n}\n"
        self.assertFails(quern("emulate", self.write(endless), "--max-steps", 1000), FAILURE,
                         "kernel 'k'", "max_steps")
        waits = HEAD + (".visible .entry k()\n{\n  .reg .pred %p1;\n  .reg .b32 %r1;\n"
                        "  mov.u32 %r1, %tid.x;\n  setp.lt.u32 %p1, %r1, 32;\n"
                        "  @%p1 bar.sync 0, 64;\n  ret;\n}\n")
        self.assertFails(quern("emulate", self.write(waits), "--block", 64), FAILURE,
                         "kernel 'k': deadlock", "PTX line 10", "barrier 0 has 32 of 64 threads")

    def test_bad_ptx(self):
        for text, code, words in (
                ("hello", MALFORMED, ("PTX line 1",)),
                ("", MALFORMED, ()),
                (HEAD, USAGE, ("no kernel",)),
                (HEAD + ".visible .entry k()\n{\n  frob.b32 1;\n}\n", UNSUPPORTED,
                 ("kernel 'k'", "PTX line 6", "frob")),
                (HEAD + ".visible .entry k()\n{\n  bra nowhere;\n}\n", MALFORMED,
                 ("PTX line 6", "nowhere"))):
            with self.subTest(text=text):
                self.assertFails(quern("emulate", self.write(text)), code, *words)
        self.assertFails(quern("emulate", self.folder / "none.ptx"), FAILURE, "none.ptx")
        result = quern("emulate", self.write("hello"), "--json")
        self.assertEqual(json.loads(result.stdout)["error"]["kind"], "malformed")

    def test_bad_arguments(self):
        good = ("--arg", "buf:f32:4", "--arg", "u32:4", "--arg", "f32:1")
        for arguments, words in (
                (good[:4], ("takes 3 arguments and got 2", ".u64 x, .u32 n, .f32 by")),
                ((*good[:4], "--arg", "f64:1"),
                 ("argument 2", "8 bytes", "'by' ", ".f32", "has 4")),
                ((*good, "--dump", "1=x.npy"), ("--dump 1=x.npy", "a buffer")),
                ((*good, "--dump", "9=x.npy"), ("--dump 9=x.npy",)),
                ((*good, "--dump", "x.npy"), ("N=FILE.npy",)),
                ((*good, "--kernel", "other"), ("'other'", "scale")),
                ((*good, "--shared", "200000"), ("200000 bytes of shared memory", "sm_80")),
                ((*good, "--grid", "0"), ("--grid",)),
                ((*good, "--grid", "1,2,3,4"), ("--grid",)),
                ((*good, "--block", "2048"), ("2048",))):
            with self.subTest(arguments=arguments):
                result = quern("emulate", self.write(SCALE), *arguments)
                self.assertFails(result, USAGE, *words)
        for text in ("5", "i32:", "i32:x", "i8:128", "u8:-1", "u16:65536", "f32:1,5", "buf:f32",
                     "buf:f32:0", "buf:f32:-1", "buf:f32:99999999999999", "buf:f32:4:odd",
                     "buf:f99:4", "file:f32:", ""):
            with self.subTest(text=text):
                result = quern("emulate", self.write(SCALE), "--arg", text)
                self.assertEqual(result.returncode, FAILURE if text == "file:f32:" else USAGE)
                self.assertEqual(result.stdout, b"")

    def test_element_types(self):
        """Every type as a value and as a buffer: stored by the kernel, or written as it is."""
        nothing = HEAD + ".visible .entry k(.param .u64 x)\n{\n  ret;\n}\n"
        out = self.folder / "x.npy"
        for name, descr in (("i8", "|i1"), ("u8", "|u1"), ("i16", "<i2"), ("u16", "<u2"),
                            ("i32", "<i4"), ("u32", "<u4"), ("i64", "<i8"), ("u64", "<u8"),
                            ("f16", "<f2"), ("bf16", "<f4"), ("f32", "<f4"), ("f64", "<f8")):
            for contents in ("iota", "ones", "zero", "random"):
                self.assertWorks(quern("emulate", self.write(nothing), "--arg",
                                       f"buf:{name}:9:{contents}", "--dump", f"0={out}"))
                got, values = read_array(out)
                self.assertEqual(got, descr)
                wanted = {"iota": list(range(9)), "ones": [1] * 9, "zero": [0] * 9}.get(contents)
                if wanted:
                    self.assertEqual(values, wanted)
                elif "f" in name:
                    self.assertTrue(all(-1 <= each < 1 for each in values), values)
                    self.assertGreater(len(set(values)), 5)
        store = HEAD + (".visible .entry k(.param .u64 x, .param .b16 v)\n{\n  .reg .b64 %l1;\n"
                        "  .reg .b16 %h1;\n  ld.param.u64 %l1, [x];\n  ld.param.b16 %h1, [v];\n"
                        "  st.global.b16 [%l1], %h1;\n  ret;\n}\n")
        for value, wanted in (("i16:-3", 0xFFFD), ("u16:65535", 0xFFFF), ("f16:1.5", 0x3E00),
                              ("f16:1e9", 0x7C00), ("f16:-0.0", 0x8000), ("bf16:1.5", 0x3FC0),
                              ("f16:6e-8", 0x0001), ("bf16:1.00390625", 0x3F80),
                              ("bf16:1.01171875", 0x3F82)):
            self.assertWorks(quern("emulate", self.write(store), "--arg", "buf:u16:1:zero", "--arg",
                                   value, "--dump", f"0={out}"))
            self.assertEqual(read_array(out)[1], [wanted], value)

    def test_structure_by_value(self):
        text = HEAD + (".visible .entry k(.param .u64 x, .param .align 8 .b8 s[12])\n{\n"
                       "  .reg .b64 %l1;\n  .reg .b32 %r1;\n  ld.param.u64 %l1, [x];\n"
                       "  ld.param.u32 %r1, [s+8];\n  st.global.u32 [%l1], %r1;\n  ret;\n}\n")
        raw, out = self.folder / "s.bin", self.folder / "x.npy"
        raw.write_bytes(struct.pack("<III", 1, 2, 77))
        self.assertWorks(quern("emulate", self.write(text), "--arg", "buf:u32:1", "--arg",
                               f"raw:{raw}", "--dump", f"0={out}"))
        self.assertEqual(read_array(out)[1], [77])

    def test_a_kernel_of_the_compiler(self):
        """What --dump-kernels-to writes runs as it is."""
        if machine()["compiler"] is None:
            self.skipTest("quern-compile is not built")
        gguf, dump = self.folder / "m.gguf", self.folder / "kernels"
        make_gguf.write_model(str(gguf), "--layers", 1)
        self.assertWorks(quern("compile", gguf, "-o", self.folder / "m.quern", "-q",
                               "--target=sm_80", "--dump-kernels-to", dump))
        # Residual rows, partial sums of two shares, the result; {rows, 0, 0, 0}; the range of rows.
        rows, hidden, out = 3, 64, self.folder / "sum.npy"
        dims = [f"--arg=i64:{each}" for each in (rows, 0, 0, 0, 0, rows)]
        self.assertWorks(quern("emulate", dump / "add.sm_80.decode.ptx", "--grid", rows,
                               "--block", 256, "--arg", f"buf:f32:{rows * hidden}:ones",
                               "--arg", f"buf:f32:{2 * rows * hidden}:ones",
                               "--arg", f"buf:f32:{rows * hidden}:zero", *dims,
                               "--dump", f"2={out}"))
        self.assertEqual(read_array(out)[1], [3] * (rows * hidden))


if __name__ == "__main__":
    unittest.main()
