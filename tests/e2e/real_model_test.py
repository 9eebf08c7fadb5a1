"""SmolLM2-135M, where QUERN_TEST_MODELS has it: it speaks, and streams whole characters."""

import json
import pathlib
import re
import socket
import subprocess
import time
import unittest

from support import E2eTest, quern, read_npy, real_artifact, start


def peak_anonymous_bytes(*arguments):
    """The most memory of its own that the command had (RssAnon)."""
    process = start(*arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    most = 0
    while process.poll() is None:
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        if found := re.search(r"RssAnon:\s+(\d+) kB", status):  # gone once the process has ended
            most = max(most, int(found[1]) * 1024)
        time.sleep(0.002)
    assert process.returncode == 0 and most > 0
    return most


class SmolLM2(E2eTest):
    def test_speaks(self):
        text = self.assertWorks(
            quern("run", real_artifact(), "-p", "The capital of France is", "-n", 8, "-q"))
        self.assertIn("Paris", text)

    def test_chats(self):
        text = self.assertWorks(
            quern("chat", real_artifact(), "-p", "What is 2+2?", "-n", 24, "-q"))
        self.assertIn("4", text)

    def test_characters_of_several_tokens_stay_whole(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        process = start("run", real_artifact(), "-p", "🙃 🙃 🙃 🙃 🙃 🙃", "-n", 32, "-q",
                        stdout=theirs.fileno())
        theirs.close()
        writes = []
        while packet := ours.recv(1 << 16):
            writes.append(packet.decode())  # each write alone
        ours.close()
        self.assertEqual(process.wait(60), 0)
        process.stderr.close()
        text = "".join(writes)
        self.assertGreater(sum(len(each.encode()) == 4 for each in text), 3, text)
        # The last character may be cut by -n; no other may.
        self.assertNotIn("\ufffd", text.removesuffix("\ufffd"))

    def test_same_bits_for_every_chunk_and_thread_count(self):
        tokens = ",".join(str(7 * i % 40000) for i in range(1, 71))
        seen = set()
        for chunk, threads in ((1, 1), (7, 2), (512, 1), (512, 2)):
            out = self.folder / "logits.npy"
            self.assertWorks(quern("run", real_artifact(), "--tokens", tokens, "-n", 0, "--logits",
                                   out, "--chunk", chunk, "-t", threads, "-q"))
            shape, values = read_npy(out)
            self.assertEqual(shape, (70, 49152))
            seen.add(values)
        self.assertEqual(len(seen), 1)

    def test_memory_is_what_inspect_says(self):
        context, generated = 2048, 16
        stated = json.loads(quern("inspect", real_artifact(), "--json", "--ctx-size", context,
                                  "--batch", 1).stdout)["peak_memory"][0]["bytes"]
        tokens = ",".join(str(7 * i % 40000) for i in range(1, context - generated + 1))
        # What the process has without a session is not the session's.
        idle = peak_anonymous_bytes("tokenize", real_artifact(), "-p", "hello " * 20000)
        busy = peak_anonymous_bytes("run", real_artifact(), "--tokens", tokens, "-n", generated,
                                    "--ignore-end", "--ctx-size", context, "-q")
        self.assertLessEqual(busy - idle, stated)
        self.assertGreaterEqual(busy - idle, 0.9 * stated)

    def test_bench(self):
        report = json.loads(self.assertWorks(
            quern("bench", real_artifact(), "-p", 64, "-n", 8, "-r", 1, "--json")))
        # Which of them is greater is for benchmarks: a neighbour may take the CPU in one of them.
        self.assertGreater(report["prefill_tokens_per_second"]["median"], 0)
        self.assertGreater(report["decode_tokens_per_second"]["median"], 0)


if __name__ == "__main__":
    unittest.main()
