"""Ctrl-C, SIGTERM and broken pipes."""

import os
import pathlib
import pty
import select
import shutil
import signal
import subprocess
import time
import unittest

from support import (FAILURE, INTERRUPTED, OK, QUERN, TERMINATED, E2eTest, artifact, make_gguf,
                     read_npy, start)

# A context that takes minutes to fill.
LONG = ("--context", "100000")


class Signals(E2eTest):
    def endless(self, *extra):
        """Generates until it is stopped; returns once the first text is there."""
        process = start("run", artifact(*LONG), "-p", "a", "-n", -1, "--ignore-end", "--temp", 1,
                        *extra)
        self.addCleanup(process.kill)
        self.first = os.read(process.stdout.fileno(), 1)
        return process

    def finish(self, process):
        out, err = process.communicate(timeout=30)
        return self.first + out, err.decode()

    def test_interrupt_ends_cleanly(self):
        for sent, code in ((signal.SIGINT, INTERRUPTED), (signal.SIGTERM, TERMINATED)):
            process = self.endless()
            process.send_signal(sent)
            out, err = self.finish(process)
            self.assertEqual(process.returncode, code)
            out.decode()  # whole characters
            self.assertRegex(err, r"^prompt .*finish: interrupted\n$")

    def test_interrupt_with_json_prints_what_is_there(self):
        process = start("run", artifact(*LONG), "-p", "a", "-n", -1, "--ignore-end", "--json")
        self.addCleanup(process.kill)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
        self.assertEqual(process.returncode, INTERRUPTED)
        self.assertIn(b'"finish":"interrupted"', out)

    def test_second_interrupt_ends_at_once(self):
        # One step of many thousand rows takes seconds, and cancelling waits for a step's end.
        tokens = self.folder / "tokens.txt"
        tokens.write_text("a" * 60000)
        out = self.folder / "logits.npy"
        process = start("run", artifact(*LONG), "--prompt-file", tokens, "-n", 0, "--chunk", 60000,
                        "--logits", out)
        self.addCleanup(process.kill)
        time.sleep(0.5)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.1)
        self.assertEqual(process.wait(1), INTERRUPTED)
        process.communicate()
        self.assertFalse(out.exists())

    def test_interrupt_while_writing_logits_leaves_no_file(self):
        tokens = self.folder / "tokens.txt"
        tokens.write_text("a" * 90000)
        out = self.folder / "logits.npy"
        process = start("run", artifact(*LONG), "--prompt-file", tokens, "-n", 0, "--chunk", 4,
                        "--logits", out)
        self.addCleanup(process.kill)
        deadline = time.monotonic() + 30
        while not list(self.folder.glob("*.tmp*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        self.assertEqual(process.returncode, INTERRUPTED)
        self.assertEqual(err, b"")
        self.assertEqual([each.name for each in self.folder.iterdir()], ["tokens.txt"])

    def test_artifact_cut_while_it_is_used(self):
        path = shutil.copy(artifact(*LONG), self.folder / "model.quern")
        process = start("run", path, "-p", "a", "-n", -1, "--ignore-end", "--temp", 1)
        self.addCleanup(process.kill)
        self.first = os.read(process.stdout.fileno(), 1)
        os.truncate(path, 4096)
        out, err = self.finish(process)
        self.assertEqual(process.returncode, FAILURE, err)
        out.decode()
        self.assertRegex(err, r"^quern( run)?: error: a file became shorter or unreadable [^\n]*\n$")

    def test_model_file_cut_while_it_is_compiled(self):
        artifact()  # skips where there is no compiler
        model, out = self.folder / "model.gguf", self.folder / "model.quern"
        make_gguf.write_model(str(model))
        process = start("compile", model, "-o", out, "-q")
        self.addCleanup(process.kill)
        maps = pathlib.Path(f"/proc/{process.pid}/maps")
        deadline = time.monotonic() + 30
        while str(model) not in maps.read_text() and time.monotonic() < deadline:
            time.sleep(0.001)
        os.truncate(model, 4096)
        _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, FAILURE, err)
        self.assertRegex(err.decode(), r"^quern compile: error: the model file became shorter[^\n]*\n$")
        self.assertEqual([each.name for each in self.folder.iterdir()], ["model.gguf"])

    def test_reader_goes_away(self):
        process = self.endless("-q")
        process.stdout.close()
        self.assertEqual(process.wait(30), -signal.SIGPIPE)
        self.assertEqual(process.stderr.read(), b"")
        process.stderr.close()

    def test_ignored_interrupt_stays_ignored(self):
        process = start("run", artifact(), "-p", "a", "-n", 200, "--ignore-end",
                        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, OK)


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *arguments):
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.execv(QUERN, [QUERN, *map(str, arguments)])
        self.seen = b""

    def read_until(self, text, seconds=30):
        """Reads until `text` was seen behind what earlier calls consumed."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.file], [], [], left)[0]:
                raise AssertionError(f"no {text!r} within {seconds} s in {self.seen!r}")
            self.seen += os.read(self.file, 4096)
        before, _, self.seen = self.seen.partition(text)
        return before

    def type(self, text):
        os.write(self.file, text)

    def wait(self):
        """The exit code."""
        try:
            while os.read(self.file, 4096):
                pass
        except OSError:
            pass
        os.close(self.file)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class ChatOnATerminal(E2eTest):
    def chat(self, *arguments):
        terminal = Terminal("chat", artifact(*LONG), *arguments)
        terminal.read_until(b"> ")
        return terminal

    def test_conversation(self):
        terminal = self.chat("-n", 4, "--ignore-end")
        for message in (b"hi\n", b"there\n", b"/clear\n"):
            terminal.type(message)
            terminal.read_until(b"> ")
        terminal.type(b"/exit\n")
        self.assertEqual(terminal.wait(), OK)

    def test_end_of_input(self):
        terminal = self.chat()
        terminal.type(b"\x04")
        self.assertEqual(terminal.wait(), OK)

    def test_interrupt_ends_an_answer_then_the_program(self):
        terminal = self.chat("-n", -1, "--ignore-end", "--temp", 1)
        terminal.type(b"hi\n")
        terminal.read_until(b"\n")  # the echo
        time.sleep(0.5)
        terminal.type(b"\x03")
        terminal.read_until(b"\n> ")
        terminal.type(b"\x03")
        self.assertEqual(terminal.wait(), INTERRUPTED)


if __name__ == "__main__":
    unittest.main()
