"""quern run: streams, logits, prompts, sampling."""

import json
import os
import pty
import socket
import struct
import unittest

from support import FAILURE, E2eTest, artifact, quern, read_npy, start

PROMPT = list(range(5, 64, 3))  # 20 tokens


def numbers(tokens):
    return ",".join(map(str, tokens))


class Streams(E2eTest):
    def test_standard_output_holds_only_generated_text(self):
        model = artifact()
        result = quern("run", model, "-p", "Hello", "-n", 12)
        report = json.loads(quern("run", model, "-p", "Hello", "-n", 12, "--json").stdout)
        self.assertEqual(self.assertWorks(result), report["text"])
        self.assertEqual(len(report["tokens"]), 12)
        self.assertEqual(report["finish"], "length")
        self.assertRegex(result.stderr.decode(), r"^prompt 5 tokens .*answer 12 tokens.*length\n$")

    def test_quiet_means_silent(self):
        self.assertEqual(quern("run", artifact(), "-p", "Hello", "-n", 3, "-q").stderr, b"")

    def test_nothing_to_generate(self):
        result = quern("run", artifact(), "-p", "Hello", "-n", 0)
        self.assertEqual(self.assertWorks(result), "")

    def test_every_write_is_whole_characters(self):
        # A packet socket keeps the boundaries of writes.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        process = start("run", artifact(), "-p", "Hello", "-n", 200, "--temp", 1.5, "-q",
                        "--ignore-end",
                        stdout=theirs.fileno())
        theirs.close()
        writes = []
        while packet := ours.recv(1 << 16):
            writes.append(packet)
        ours.close()
        self.assertEqual(process.wait(60), 0)
        process.stderr.close()
        self.assertGreater(len(writes), 50)  # it does stream
        self.assertTrue(any(len(each.decode()) < len(each) for each in writes))

    def test_full_disk(self):
        with open("/dev/full", "wb") as full:
            result = quern("run", artifact(), "-p", "Hello", "-q", stdout=full)
        self.assertEqual(result.returncode, FAILURE)
        self.assertIn(b"cannot write to standard output: No space left", result.stderr)

    def test_bar_on_a_terminal_only(self):
        arguments = ("run", artifact(), "--tokens", numbers(PROMPT * 5), "-n", 0, "--chunk", 10)
        leader, follower = pty.openpty()
        process = start(*arguments, stderr=follower)
        os.close(follower)
        seen = b""
        try:
            while data := os.read(leader, 4096):
                seen += data
        except OSError:  # the other side is closed
            pass
        os.close(leader)
        process.stdout.close()
        self.assertEqual(process.wait(60), 0)
        self.assertIn(b"prompt [", seen)
        self.assertNotIn(b"[", quern(*arguments).stderr)


class Prompts(E2eTest):
    def test_text_and_its_tokens_agree(self):
        model = artifact()
        tokens = quern("tokenize", model, "-p", "Hello there").stdout.decode().strip()
        by_tokens = quern("run", model, "--tokens", tokens, "-n", 8)
        self.assertEqual(self.assertWorks(by_tokens),
                         self.assertWorks(quern("run", model, "-p", "Hello there", "-n", 8)))

    def test_from_a_file_and_from_standard_input(self):
        model, text = artifact(), "Hello\nthere"
        path = self.folder / "prompt.txt"
        path.write_text(text)
        wanted = self.assertWorks(quern("run", model, "-p", text, "-n", 8))
        self.assertEqual(
            self.assertWorks(quern("run", model, "--prompt-file", path, "-n", 8)), wanted)
        with open(path, "rb") as stdin:
            result = quern("run", model, "--prompt-file", "-", "-n", 8, stdin=stdin)
        self.assertEqual(self.assertWorks(result), wanted)

    def test_text_that_looks_like_an_option(self):
        self.assertWorks(quern("run", artifact(), "-p", "--help", "-n", 1))
        self.assertWorks(quern("run", artifact(), "-p", "[a, b]", "-n", 1))


class Generation(E2eTest):
    def test_seeds(self):
        def sample(seed):
            return quern("run", artifact(), "-p", "a", "-n", 24, "--temp", 1, "--seed", seed).stdout

        self.assertEqual(sample(7), sample(7))
        self.assertNotEqual(sample(7), sample(8))

    def test_greedy_ignores_the_seed(self):
        self.assertEqual(quern("run", artifact(), "-p", "a", "-n", 9, "--seed", 1).stdout,
                         quern("run", artifact(), "-p", "a", "-n", 9, "--seed", 2).stdout)
        self.assertEqual(quern("run", artifact(), "-p", "a", "-n", 9, "--temp", 2, "--top-k", 1,
                               "--seed", 3).stdout,
                         quern("run", artifact(), "-p", "a", "-n", 9).stdout)

    def test_stop_strings(self):
        model = artifact()
        whole = self.assertWorks(quern("run", model, "-p", "Hello", "-n", 40))
        stop = whole[len(whole) // 2 :][:3]
        report = json.loads(
            quern("run", model, "-p", "Hello", "-n", 40, "--stop", "no such text", "--stop", stop,
                  "--json").stdout)
        self.assertEqual(report["finish"], "stop")
        self.assertEqual(report["text"], whole[: whole.index(stop)])

    def test_context_fills_up(self):
        report = json.loads(quern("run", artifact(), "--tokens", "1,2,3", "-n", -1, "--ctx-size", 8,
                                  "--ignore-end", "--json").stdout)
        self.assertEqual(report["finish"], "context")
        self.assertEqual(len(report["tokens"]), 6)  # 3 + 5 fill it; the sixth needs no room


class Logits(E2eTest):
    def logits(self, *arguments, tokens=PROMPT):
        path = self.folder / "logits.npy"
        path.unlink(missing_ok=True)
        self.assertWorks(quern("run", artifact(), "--tokens", numbers(tokens), "--logits", path,
                               "-q", *arguments))
        self.assertNoLeftovers()
        return read_npy(path)

    def test_a_row_for_every_prompt_token(self):
        shape, values = self.logits("-n", 0)
        self.assertEqual(shape, (len(PROMPT), 320))
        floats = struct.unpack(f"<{len(values) // 4}f", values)
        self.assertTrue(all(abs(each) < 1e4 for each in floats))
        self.assertEqual(len(set(floats[:320])), 320)
        self.assertEqual(self.logits("-n", 5), (shape, values))

    def test_the_best_of_the_last_row_is_generated(self):
        _, values = self.logits("-n", 0)
        last = struct.unpack("<320f", values[-4 * 320 :])
        report = json.loads(quern("run", artifact(), "--tokens", numbers(PROMPT), "-n", 1,
                                  "--ignore-end", "--json").stdout)
        self.assertEqual(report["tokens"], [max(range(320), key=last.__getitem__)])

    def test_same_bits_for_every_chunk_and_thread_count(self):
        _, wanted = self.logits("-n", 0)
        for chunk in (1, 7, 512):
            for threads in (1, 2):
                _, seen = self.logits("-n", 0, "--chunk", chunk, "-t", threads)
                self.assertEqual(seen, wanted, f"--chunk {chunk} -t {threads}")

    def test_prefixes_have_the_same_rows(self):
        _, whole = self.logits("-n", 0)
        _, part = self.logits("-n", 0, tokens=PROMPT[:11])
        self.assertEqual(part, whole[: len(part)])

    def test_teacher_forced(self):
        # Both roles of this target use int8 numerics, so the bits agree.
        shape, values = self.logits("-n", 0, "--teacher-forced")
        self.assertEqual((shape, values), self.logits("-n", 0))
        self.assertEqual((shape, values), self.logits("-n", 0, "--teacher-forced", "-t", 1))

    def test_onto_what_is_no_file(self):
        self.assertWorks(quern("run", artifact(), "-p", "a", "-n", 0, "--logits", "/dev/null"))
        self.assertTrue(os.path.exists("/dev/null") and not os.path.isfile("/dev/null"))

    def test_through_a_link(self):
        target, link = self.folder / "target.npy", self.folder / "link.npy"
        target.write_bytes(b"old")
        link.symlink_to(target)
        self.assertWorks(quern("run", artifact(), "-p", "a", "-n", 0, "--logits", link))
        self.assertTrue(link.is_symlink())
        self.assertEqual(read_npy(target)[0], (1, 320))


if __name__ == "__main__":
    unittest.main()
