"""Help, usage errors, completion, doctor: what needs no model."""

import json
import os
import pathlib
import shutil
import subprocess
import unittest

from support import (FAILURE, OK, QUERN, UNSUPPORTED, USAGE, E2eTest, machine, quern)

COMMANDS = ["run", "chat", "inspect", "verify", "eval", "tokenize", "bench", "emulate", "doctor", "completion",
            "version"]


class Help(E2eTest):
    def test_general_help_lists_commands_and_exit_codes(self):
        for spelling in ("--help", "-h", "help"):
            text = self.assertWorks(quern(spelling))
            for command in [*COMMANDS, "compile", "import", "tune", "keygen"]:
                self.assertRegex(text, rf"(?m)^  {command} +\w")
            for code in (0, 1, 2, 3, 4, 5, 6, 7, 130, 143):
                self.assertRegex(text, rf"(?m)^  {code} +\w")

    def test_every_command_has_help_with_examples(self):
        for command in COMMANDS:
            text = self.assertWorks(quern(command, "--help"))
            self.assertIn(f"Usage: quern {command}", text)
            self.assertRegex(text, rf"Examples:\n(.*\n)*?.*quern {command}")

    def test_help_documents_the_codes_that_docs_do(self):
        docs = (pathlib.Path(__file__).parents[2] / "docs" / "commands.md").read_text()
        for code in (0, 1, 2, 3, 4, 5, 6, 7, 130, 143):
            self.assertRegex(docs, rf"(?m)^\| {code} \|")
        for command in [*COMMANDS, "compile", "import", "tune", "keygen"]:
            self.assertIn(f"quern {command}", docs)

    def test_version(self):
        self.assertRegex(self.assertWorks(quern("version")), r"^quern \d+\.\d+\.\d+\n$")
        self.assertEqual(quern("--version").stdout, quern("version").stdout)
        self.assertEqual(json.loads(quern("version", "--json").stdout)["api_version"], 1)


class UsageErrors(E2eTest):
    def test_no_command(self):
        self.assertFails(quern(), USAGE, "quern --help")

    def test_misspelt_names_get_a_suggestion(self):
        self.assertFails(quern("rnu"), USAGE, "'rnu'", "did you mean 'run'?")
        self.assertFails(quern("tokenise"), USAGE, "did you mean 'tokenize'?")
        self.assertFails(quern("run", "--tmp", "1"), USAGE, "'--tmp'", "did you mean '--temp'?")
        self.assertFails(quern("run", "--temperature=1"), USAGE, "did you mean '--temp'?")
        self.assertFails(quern("bench", "m", "--repeat", "3"), USAGE, "'--repeat'")

    def test_names_like_nothing_get_none(self):
        result = quern("frobnicate")
        self.assertFails(result, USAGE, "quern --help")
        self.assertNotIn(b"did you mean", result.stderr)

    def test_wrong_values(self):
        for arguments, word in ((("run", "m", "-p", "x", "-n", "abc"), "--max-tokens"),
                                (("run", "m", "-p", "x", "-t", "-1"), "--threads"),
                                (("run", "m", "-p", "x", "--chunk", "0"), "--chunk"),
                                (("run", "m", "--seed", "1.5", "-p", "x"), "--seed"),
                                (("bench", "m", "-r", "0"), "--repetitions"),
                                (("bench", "m", "-p", "0", "-n", "0"), "-n 0"),
                                (("completion", "tcsh"), "tcsh"),
                                (("run",), "MODEL"),
                                (("inspect", "a", "b"), "'b'")):
            self.assertFails(quern(*arguments), USAGE, word)

    def test_prompts_exclude_each_other(self):
        for arguments in (("m",), ("m", "-p", "a", "--tokens", "1"),
                          ("m", "-p", "a", "--prompt-file", "f")):
            self.assertFails(quern("run", *arguments), USAGE, "exactly one", "--tokens")

    def test_token_lists(self):
        self.assertFails(quern("run", "m", "--tokens", "1,2,x"), USAGE, "item 3", "'x'")
        self.assertFails(quern("run", "m", "--tokens", "1,99999999999"), USAGE, "item 2")
        self.assertFails(quern("run", "m", "--tokens", ","), USAGE, "no token")

    def test_json_errors(self):
        result = quern("run", "missing.quern", "-p", "x", "--json")
        self.assertEqual(result.returncode, FAILURE)
        error = json.loads(result.stdout)["error"]
        self.assertEqual((error["code"], error["kind"]), (FAILURE, "failure"))
        self.assertIn("missing.quern", error["message"])
        self.assertIn(error["message"], result.stderr.decode())

    def test_control_characters_in_names_stay_out_of_errors(self):
        self.assertFails(quern("inspect", "a\x1b[31m\nb"), FAILURE, "a [31m b")

    def test_no_colour_without_a_terminal(self):
        self.assertNotIn(b"\x1b", quern("rnu").stderr)


class Compiler(E2eTest):
    def test_without_the_second_binary(self):
        alone = shutil.copy(QUERN, self.folder / "quern")
        for command in ("compile", "import", "tune", "keygen"):
            result = subprocess.run([alone, command, "m.gguf"], capture_output=True, timeout=60)
            self.assertFails(result, UNSUPPORTED, "quern-compile", "libexec/quern")
        self.assertEqual(
            json.loads(subprocess.run([alone, "doctor", "--json"], capture_output=True,
                                      timeout=60).stdout)["compiler"], None)

    def test_found_in_libexec(self):
        (self.folder / "bin").mkdir()
        libexec = self.folder / "libexec" / "quern"
        libexec.mkdir(parents=True)
        quern_there = shutil.copy(QUERN, self.folder / "bin" / "quern")
        fake = libexec / "quern-compile"
        fake.write_text('#!/bin/sh\necho "$@"\nexit 7\n')
        fake.chmod(0o755)
        result = subprocess.run([quern_there, "compile", "a b", "-o", "c", "--json"],
                                capture_output=True, timeout=60)
        self.assertEqual((result.returncode, result.stdout), (7, b"compile a b -o c --json\n"))


class Completion(E2eTest):
    def complete(self, *words):
        """What bash would offer for the last of `words`."""
        script = ('source <("$QUERN_BINARY" completion bash) || exit 9\n'
                  'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _quern; '
                  'printf "%s\\n" "${COMPREPLY[@]}"')
        environment = dict(os.environ, QUERN_BINARY=QUERN,
                           PATH=f"{pathlib.Path(QUERN).parent}:{os.environ['PATH']}")
        result = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True,
                                text=True, env=environment, cwd=self.folder, timeout=60)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        return result.stdout.split()

    def test_commands(self):
        self.assertEqual(self.complete("quern", "ru"), ["run"])
        self.assertEqual(self.complete("quern", "com"), ["compile", "completion"])

    def test_options(self):
        self.assertEqual(sorted(self.complete("quern", "run", "--te")),
                         ["--teacher-forced", "--temp"])
        self.assertEqual(self.complete("quern", "completion", "z"), ["zsh"])

    def test_options_of_the_compiler(self):
        if machine()["compiler"] is None:
            self.skipTest("quern-compile is not built")
        self.assertIn("--target", self.complete("quern", "compile", "--ta"))

    def test_files(self):
        (self.folder / "model.quern").touch()
        self.assertEqual(self.complete("quern", "run", "mod"), ["model.quern"])
        self.assertEqual(self.complete("quern", "run", "--logits", "mod"), ["model.quern"])

    def test_other_shells(self):
        for shell in ("zsh", "fish"):
            text = self.assertWorks(quern("completion", shell))
            self.assertIn("teacher-forced", text)
            self.assertNotRegex(text, "@[A-Z]+@")
            if shutil.which(shell):
                subprocess.run([shell, "-n"], input=text, text=True, check=True, timeout=60)


class Doctor(E2eTest):
    def test_says_what_runs_and_why_not(self):
        report = machine()
        self.assertEqual([each["name"] for each in report["targets"]],
                         ["avx2", "avx512-vnni", "amx"])
        for target in report["targets"]:
            self.assertEqual(target["supported"], not target["missing"])
        text = self.assertWorks(quern("doctor"))
        for target in report["targets"]:
            wanted = "runs here" if target["supported"] else "lacks " + " ".join(target["missing"])
            self.assertIn(f"{target['name']}: {wanted}", text)

    def test_is_fine_here(self):
        self.assertEqual(quern("doctor").returncode, OK)


if __name__ == "__main__":
    unittest.main()
