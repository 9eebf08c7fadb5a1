#!/usr/bin/env python3
"""Batch invariance through the C interface: what a sequence's neighbours are never changes a bit.

Sequences of different lengths, forked in the middle of a page, decode together in one step; each
must get the logits that it gets alone. Uses libquern through ctypes, so it also proves that the
structs of quern.h are what C sees.
"""

import ctypes
import json
import os
import unittest

import support

DECODE, PREFILL = 0, 1


class Error(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int32), ("message", ctypes.c_char * 1020)]


class SessionOptions(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("threads", ctypes.c_uint32),
                ("pin_threads", ctypes.c_int32), ("isa", ctypes.c_char_p),
                ("context", ctypes.c_uint64), ("kv_tokens", ctypes.c_uint64),
                ("max_rows", ctypes.c_uint32)]


class Library:
    """quern.h by its functions; a failure raises with the library's own words."""

    def __init__(self, path):
        self.lib = ctypes.CDLL(path)
        self.lib.quern_model_vocab.restype = ctypes.c_size_t
        self.lib.quern_session_json.restype = ctypes.c_char_p
        self.lib.quern_sequence_logits.restype = ctypes.POINTER(ctypes.c_float)

    def call(self, name, *arguments):
        error = Error()
        function = getattr(self.lib, name)
        function.restype = ctypes.c_int32
        if function(*arguments, ctypes.byref(error)) != 0:
            raise RuntimeError(f"{name}: {error.message.decode()}")

    def create(self, name, *arguments):
        handle = ctypes.c_void_p()
        self.call(name, *arguments, ctypes.byref(handle))
        return handle


class Session:
    """A session of its own on an artifact."""

    def __init__(self, library, artifact, threads, max_rows=512, context=256, kv_tokens=2048):
        self.library = library
        self.model = library.create("quern_model_load", str(artifact).encode(), None)
        self.vocab = library.lib.quern_model_vocab(self.model)
        options = SessionOptions(ctypes.sizeof(SessionOptions), threads, 0,
                                 None, context, kv_tokens, max_rows)
        self.session = library.create("quern_session_create", self.model, ctypes.byref(options))

    def sequence(self, tokens):
        sequence = self.library.create("quern_sequence_create", self.session)
        self.feed(sequence, tokens)
        return sequence

    def feed(self, sequence, tokens, role=PREFILL):
        array = (ctypes.c_int32 * len(tokens))(*tokens)
        self.library.call("quern_sequence_feed", sequence, array, ctypes.c_size_t(len(tokens)), role, None)

    def fork(self, sequence):
        return self.library.create("quern_sequence_fork", sequence)

    def decode(self, sequences, tokens):
        handles = (ctypes.c_void_p * len(sequences))(*[s.value for s in sequences])
        array = (ctypes.c_int32 * len(tokens))(*tokens)
        self.library.call("quern_decode", self.session, handles, array, ctypes.c_size_t(len(tokens)))

    def truncate(self, sequence, length):
        self.library.call("quern_sequence_truncate", sequence, ctypes.c_size_t(length))

    def bytes(self):
        return json.loads(self.library.lib.quern_session_json(self.session))["bytes"]

    def logits(self, sequence):
        pointer = self.library.lib.quern_sequence_logits(sequence)
        return ctypes.string_at(pointer, 4 * self.vocab)


def library_path():
    folder = os.path.join(os.path.dirname(os.path.dirname(support.QUERN)), "runtime", "api")
    return os.environ.get("QUERN_LIBRARY") or os.path.join(folder, "libquern.so")


class BatchTest(unittest.TestCase):
    PROMPTS = [[3, 5, 8, 13] * 12 + [2], [7], [11, 4] * 16, [9, 1, 6] * 21]  # 49, 1, 32, 63 tokens
    STEPS = [[4, 9, 2, 7, 12], [1, 1, 30, 8, 5], [6, 3, 3, 14, 2]]

    def setUp(self):
        self.library = Library(library_path())

    def solo(self, artifact, tokens, steps):
        """The logits of one sequence after each step, in a session of its own on one thread."""
        session = Session(self.library, artifact, threads=1)
        sequence = session.sequence(tokens)
        seen = [session.logits(sequence)]
        for token in steps:
            session.decode([sequence], [token])
            seen.append(session.logits(sequence))
        return seen

    def check(self, artifact):
        session = Session(self.library, artifact, threads=2, max_rows=13)
        sequences = [session.sequence(tokens) for tokens in self.PROMPTS]
        # The last one is forked at 63 tokens: 31 into its second page of 32.
        fork = session.fork(sequences[-1])
        sequences.append(fork)
        prompts = [*self.PROMPTS, self.PROMPTS[-1]]
        seen = [[session.logits(sequence)] for sequence in sequences]
        for tokens in self.STEPS:
            session.decode(sequences, tokens)
            for logits, sequence in zip(seen, sequences):
                logits.append(session.logits(sequence))
        for i, (tokens, logits) in enumerate(zip(prompts, seen)):
            alone = self.solo(artifact, tokens, [step[i] for step in self.STEPS])
            for step, (together, by_itself) in enumerate(zip(logits, alone)):
                self.assertEqual(together, by_itself, f"sequence {i}, step {step}")
        self.assertNotEqual(seen[-1][-1], seen[-2][-1], "the fork went its own way")

    def test_tiny_models(self):
        self.check(support.artifact())
        self.check(support.artifact("--family", "qwen2", "--type", "q5_0"))
        self.check(support.artifact("--hidden", "256", "--ffn", "512", "--head-dim", "64", "--type", "q6_k"))

    def test_real_model(self):
        self.check(support.real_artifact())


if __name__ == "__main__":
    unittest.main()
