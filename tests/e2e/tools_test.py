"""chat, inspect, verify, tokenize, bench on tiny models."""

import json
import os
import unittest
from xml.etree import ElementTree

from support import OK, TARGET, USAGE, E2eTest, artifact, machine, quern, runs_here


class Tokenize(E2eTest):
    def test_there_and_back(self):
        for text in ("Hello world", "wörld 🙂\n\ttabs", "<|im_end|>", " "):
            report = json.loads(quern("tokenize", artifact(), "-p", text, "--json").stdout)
            self.assertEqual(report["count"], len(report["tokens"]))
            self.assertEqual(len(report["pieces"]), report["count"])
            line = self.assertWorks(quern("tokenize", artifact(), "-p", text)).strip()
            self.assertEqual(line, ",".join(map(str, report["tokens"])))
            self.assertEqual(self.assertWorks(quern("tokenize", artifact(), "--decode", line)), text)

    def test_control_tokens_are_text_unless_asked_for(self):
        plain = quern("tokenize", artifact(), "-p", "<|im_end|>").stdout.split(b",")
        control = quern("tokenize", artifact(), "-p", "<|im_end|>", "--control").stdout.split(b",")
        self.assertGreater(len(plain), len(control))
        self.assertEqual(len(control), 1)
        hidden = quern("tokenize", artifact(), "--decode", control[0].decode().strip(),
                       "--skip-control")
        self.assertEqual(self.assertWorks(hidden), "")

    def test_exactly_one_input(self):
        self.assertFails(quern("tokenize", artifact()), USAGE, "exactly one")


class Inspect(E2eTest):
    def test_json_and_table_agree(self):
        report = json.loads(quern("inspect", artifact(), "--json").stdout)
        text = self.assertWorks(quern("inspect", artifact()))
        self.assertEqual(report["model"]["vocab"], 320)
        self.assertEqual([each["name"] for each in report["targets"]], [TARGET])
        self.assertEqual(report["file_bytes"], os.path.getsize(artifact()))
        wanted = [report["model"]["name"], report["hash"], report["producer"],
                  report["model"]["licence"]]
        wanted += [each["hash"] for each in report["segments"]]
        wanted += [each["name"] for each in report["segments"]]
        wanted += report["targets"][0]["features"]
        wanted += [each["name"] for each in report["kernels"]]
        for word in wanted:
            self.assertIn(word, text)

    def test_doctor_knows_what_targets_need(self):
        order = ["avx2", "avx512-vnni", "amx"]
        report = json.loads(quern("inspect", artifact(target=",".join(order)), "--json").stdout)
        self.assertEqual([each["name"] for each in report["targets"]], order)
        for here, there in zip(machine()["targets"], report["targets"]):
            self.assertEqual(here["supported"], there["supported"])
            self.assertEqual(sorted(here["missing"]), sorted(there["missing"]))


class Verify(E2eTest):
    def test_sound(self):
        for flags in ((), ("--full",)):
            text = self.assertWorks(quern("verify", artifact(), *flags))
            self.assertTrue(all(line.startswith("ok ") for line in text.splitlines()), text)
            self.assertEqual("weights" in text, bool(flags))
        report = json.loads(quern("verify", artifact(), "--full", "--json").stdout)
        self.assertTrue(report["ok"])


class Chat(E2eTest):
    def messages(self, *messages):
        path = self.folder / "messages.json"
        path.write_text(json.dumps([{"role": role, "content": text} for role, text in messages]))
        return path

    def test_one_answer(self):
        result = quern("chat", artifact(), "-p", "hi", "-n", 6)
        report = json.loads(quern("chat", artifact(), "-p", "hi", "-n", 6, "--json").stdout)
        self.assertEqual(self.assertWorks(result), report["text"])
        self.assertLessEqual(report["generated_tokens"], 6)

    def test_messages_from_a_file_are_the_same_conversation(self):
        path = self.messages(("system", "be brief"), ("user", "hi"))
        self.assertEqual(
            quern("chat", artifact(), "--messages", path, "-n", 6).stdout,
            quern("chat", artifact(), "--system", "be brief", "-p", "hi", "-n", 6).stdout)

    def test_the_template_is_applied(self):
        chat = json.loads(quern("chat", artifact(), "-p", "hi", "-n", 1, "--json").stdout)
        run = json.loads(quern("run", artifact(), "-p", "hi", "-n", 1, "--json").stdout)
        self.assertGreater(chat["prompt_tokens"], run["prompt_tokens"])

    def test_lines_are_messages_of_one_conversation(self):
        path = self.folder / "lines.txt"
        path.write_text("hi\n\nagain\n/exit\nnever\n")
        with open(path, "rb") as stdin:
            result = quern("chat", artifact(), "-n", 3, "--ignore-end", stdin=stdin)
        out = self.assertWorks(result)
        first = self.assertWorks(quern("chat", artifact(), "-p", "hi", "-n", 3, "--ignore-end"))
        self.assertTrue(out.startswith(first + "\n"), (out, first))
        path = self.messages(("user", "hi"), ("assistant", first), ("user", "again"))
        second = self.assertWorks(
            quern("chat", artifact(), "--messages", path, "-n", 3, "--ignore-end"))
        self.assertEqual(out, f"{first}\n{second}\n")
        self.assertEqual(result.stderr, b"")

    def test_json_needs_a_message(self):
        result = quern("chat", artifact(), "--json")
        self.assertEqual(result.returncode, USAGE)


class Bench(E2eTest):
    def bench(self, *arguments):
        return json.loads(self.assertWorks(quern("bench", artifact(), "--json", *arguments)))

    def test_figures(self):
        report = self.bench("-p", 20, "-n", 5, "-d", 40, "-t", 1, "-r", 3)
        for name in ("prefill_tokens_per_second", "decode_tokens_per_second"):
            figures = report[name]
            self.assertEqual(len(figures["runs"]), 3)
            self.assertEqual(figures["median"], sorted(figures["runs"])[1])
            self.assertEqual(figures["min"], min(figures["runs"]))
            self.assertEqual(figures["max"], max(figures["runs"]))
            self.assertGreater(figures["min"], 0)
        self.assertEqual((report["isa"], report["threads"]), (TARGET, 1))
        self.assertEqual(report["machine"]["cpu"], machine()["cpu"])
        self.assertRegex(report["artifact_hash"], "^[0-9a-f]{64}$")
        self.assertEqual((report["prompt"], report["generate"], report["depth"]), (20, 5, 40))

    def test_either_half_alone(self):
        self.assertIsNone(self.bench("-p", 0, "-n", 2, "-r", 1)["prefill_tokens_per_second"])
        self.assertIsNone(self.bench("-p", 8, "-n", 0, "-r", 1)["decode_tokens_per_second"])

    def test_table(self):
        text = self.assertWorks(quern("bench", artifact(), "-p", 16, "-n", 4, "-d", 8, "-r", 2))
        self.assertRegex(text, r"(?m)^pp16 @ 8 ( +\d+\.\d){3}$")
        self.assertRegex(text, r"(?m)^tg4 @ 8 ( +\d+\.\d){3}$")

    def test_streams(self):
        for streams in (2, 5):
            report = self.bench("-p", 0, "-n", 40, "-d", 33, "-s", streams, "-r", 2)
            self.assertEqual(report["streams"], streams)
            self.assertGreater(report["decode_tokens_per_second"]["min"], 0)
        text = self.assertWorks(quern("bench", artifact(), "-p", 0, "-n", 3, "-s", 3, "-r", 1))
        self.assertRegex(text, r"(?m)^tg3 x 3 ( +\d+\.\d){3}$")

    def test_profile(self):
        profile = self.bench("-p", 16, "-n", 4, "-r", 1, "--profile")["profile"]
        self.assertEqual({each["role"] for each in profile["kernels"]}, {"prefill", "decode"})
        self.assertEqual(quern("bench", artifact(), "-p", 4, "-n", 1, "-r", 1,
                               "--profile").returncode, OK)

    def test_read_limit(self):
        report = self.bench("-p", 0, "-n", 4, "-d", 20, "-t", 2, "-r", 3, "--read-limit")
        limit = report["read_limit"]
        step, = self.bench("-p", 0, "-n", 1, "-d", 20, "-r", 1, "--kernels")["kernels"]["steps"]
        self.assertEqual(limit["step_bytes"], step["bytes"])
        reads, shares = limit["gb_per_second"]["runs"], limit["share"]["runs"]
        self.assertEqual((len(reads), len(shares)), (4, 3))
        for turn, rate in enumerate(report["decode_tokens_per_second"]["runs"]):
            around = 1e9 * (reads[turn] + reads[turn + 1]) / 2
            self.assertAlmostEqual(shares[turn], rate * limit["step_bytes"] / around)
        text = self.assertWorks(
            quern("bench", artifact(), "-p", 0, "-n", 2, "-r", 1, "--read-limit"))
        self.assertRegex(text, r"(?m)^read loop, GB/s( +\d+\.\d){3}$")
        self.assertRegex(text, r"(?m)^share of it, %( +\d+\.\d){3}$")
        self.assertEqual(quern("bench", artifact(), "-n", 0, "--read-limit").returncode, USAGE)

    def kernels(self, *arguments):
        return self.bench("--kernels", "-r", 2, *arguments)["kernels"]

    def test_kernels_add_up_to_the_step(self):
        report = self.kernels("-p", 20, "-d", 40, "-t", 2)
        self.assertEqual([(step["role"], step["rows"], step["depth"]) for step in report["steps"]],
                         [("prefill", 20, 40), ("decode", 1, 40)])
        known = {each["name"] for each in
                 json.loads(quern("inspect", artifact(), "--json").stdout)["kernels"]}
        for step in report["steps"]:
            self.assertEqual({each["name"] for each in step["kernels"]}, known)
            for total, part in (("kernel_seconds", "seconds"), ("bytes", "bytes"),
                                ("flops", "flops")):
                self.assertAlmostEqual(step[total], sum(each[part] for each in step["kernels"]))
            parts = [step[part] for part in ("kernel_seconds", "join_seconds", "other_seconds")]
            self.assertGreaterEqual(min(parts), 0)
            self.assertAlmostEqual(step["seconds"], sum(parts))
            for each in step["kernels"]:
                self.assertIn(each["limited_by"], ("memory", "compute", "overhead"))
                self.assertGreater(each["bytes"], 0)
        self.assertGreater(report["limits"]["read"]["gb_per_second"], 0)
        self.assertEqual({each["unit"] for each in report["limits"]["products"]},
                         {"256-bit FMA", "256-bit int8 dots", "256-bit int16 dots"})

    def assertAttention(self, model, arithmetic, unit):
        """What inspect and bench say of its products."""
        report = json.loads(self.assertWorks(quern("bench", model, "--json", "--kernels", "-r", 2,
                                                   "-p", 64, "-d", 60, "-t", 1)))
        inspected = json.loads(self.assertWorks(quern("inspect", model, "--json")))
        forms = {each["name"]: each["forms"] for each in inspected["kernels"]}
        for step in report["kernels"]["steps"]:
            attention = next(each for each in step["kernels"] if each["name"].endswith("attention"))
            self.assertEqual((attention["arithmetic"], attention["unit"]), (arithmetic, unit))
            self.assertEqual({form["arithmetic"] for form in forms[attention["name"]]},
                             {arithmetic})
            self.assertLessEqual(attention["compute_share"], 1)

    def test_attention_is_measured_by_its_own_products(self):
        self.assertAttention(artifact(), "Int16", "256-bit int16 dots")
        if runs_here("avx512-vnni"):
            self.assertAttention(artifact(target="avx512-vnni"), "Int16", "VNNI int16 dots")
        precise = self.folder / "precise.quern"
        self.assertWorks(quern("compile", artifact().with_suffix(".gguf"), "-o", precise,
                               "--precise", f"--target={TARGET}", "-q"))
        self.assertAttention(precise, "F32", "256-bit FMA")

    def test_kernels_bytes_and_operations(self):
        """What the step must read and compute, from the model's shapes alone."""
        model = json.loads(quern("inspect", artifact(), "--json").stdout)
        weights, products = 0, 0
        for body in model["bodies"]:
            times = model["layers"].count(body["name"]) or 1
            for weight in body["weights"]:
                if body["name"] != model["prologue"]:
                    weights += times * weight["bytes"]
                    products += times * 2 * weight["n"] * weight["k"] * (weight["n"] > 1)
        step, = self.kernels("-p", 0, "-n", 1)["steps"]
        # Beside them one row of activations, and a head that reads one key.
        self.assertGreater(step["bytes"], weights)
        self.assertLess(step["bytes"], 1.5 * weights)
        self.assertGreater(step["flops"], products)
        self.assertLess(step["flops"], 1.1 * products)

    def test_kernels_of_the_last_chunk(self):
        step, = self.kernels("-p", 21, "-n", 0, "--chunk", 8, "-d", 3)["steps"]
        self.assertEqual((step["rows"], step["depth"]), (5, 19))

    def test_kernel_page_and_trace(self):
        page, trace = self.folder / "page.html", self.folder / "trace.json"
        text = self.assertWorks(quern("bench", artifact(), "--kernels", "-p", 9, "-t", 2, "-r", 1,
                                      "--html", page, "--trace", trace))
        html = page.read_text()
        events = json.loads(trace.read_text())["traceEvents"]
        self.assertNotIn("http", html)
        ElementTree.fromstring(html[html.index("<svg"):html.index("</svg>") + 6])
        model = json.loads(quern("inspect", artifact(), "--json").stdout)
        spans = [event for event in events if event["ph"] == "X"]
        for kernel in model["kernels"]:
            cell = f'<td class="text">{kernel["name"]}</td><td class="text bodies">'
            self.assertEqual(html.count(cell), 2)
            self.assertIn(kernel["name"], text)
            self.assertIn(kernel["name"], {span["name"] for span in spans})
        for process in (1, 2):
            for thread in (0, 1):
                mine = [span for span in spans if (span["pid"], span["tid"]) == (process, thread)]
                layers = [span for span in mine if "cat" not in span]
                self.assertEqual([layer["name"] for layer in layers],
                                 ["prologue", *(f"layer {i}" for i in range(len(model["layers"]))),
                                  "epilogue"])
                now = 0
                for span in mine:
                    if "cat" not in span:
                        continue
                    self.assertGreaterEqual(span["ts"], now - 1e-6)
                    self.assertGreaterEqual(span["dur"], 0)
                    now = span["ts"] + span["dur"]
                    within = next(layer for layer in layers
                                  if layer["name"] == span["args"]["layer"])
                    self.assertGreaterEqual(span["ts"], within["ts"] - 1e-6)
                    self.assertLessEqual(now, within["ts"] + within["dur"] + 1e-6)

    def test_kernel_files_need_kernels(self):
        for flag in ("--html", "--trace"):
            self.assertFails(quern("bench", artifact(), flag, self.folder / "file"), USAGE)

    def test_more_than_the_context(self):
        self.assertFails(quern("bench", artifact(), "-p", 200, "-d", 200), USAGE, "400", "256")


if __name__ == "__main__":
    unittest.main()
