"""llama.cpp through llama-cpp-python's C bindings, driven as its own llama-bench drives it.

The high-level Python class copies logits at every call and halves the speed; this file calls
llama_decode itself and synchronises before it reads the clock. As a command it times one model:

    python llama_cpp_peer.py MODEL.gguf -p 512 -n 64 -d 0 -t 2 -r 3      # JSON on stdout
"""

import contextlib
import ctypes

import llama_cpp
import numpy
import peer_bench

FLASH_ATTENTION_ON = 1  # llama_flash_attn_type
MICRO_BATCH = 512


@llama_cpp.llama_log_callback
def _silent(level, text, user_data):
    """Drops llama.cpp's log. A module-level name: the library keeps only the bare pointer."""


class _PoolParameters(ctypes.Structure):
    """ggml_threadpool_params of ggml.h."""

    _fields_ = [("cpumask", ctypes.c_bool * 512), ("n_threads", ctypes.c_int),
                ("prio", ctypes.c_int), ("poll", ctypes.c_uint32),
                ("strict_cpu", ctypes.c_bool), ("paused", ctypes.c_bool)]


def _loaded(library: str) -> ctypes.CDLL:
    """The library of that name as llama_cpp loaded it.

    The wheel holds each library under three names, as three files: opening another one would load
    it a second time, with lookup tables that nobody has filled.
    """
    with open("/proc/self/maps") as maps:
        paths = {line.split(maxsplit=5)[-1].strip() for line in maps if f"/{library}.so" in line}
    if len(paths) != 1:
        raise RuntimeError(f"wanted one {library} in this process, found {sorted(paths)}")
    return ctypes.CDLL(paths.pop())


class _ThreadPool:
    """Threads that outlive a step, as llama-bench attaches them.

    Without this, a build without OpenMP starts its threads anew for every token. The bindings do
    not cover these functions, so they are looked up in the libraries.
    """

    def __init__(self, context, threads: int):
        self.cpu = _loaded("libggml-cpu")
        self.cpu.ggml_threadpool_new.restype = ctypes.c_void_p
        self.cpu.ggml_threadpool_free.argtypes = [ctypes.c_void_p]
        parameters = _PoolParameters()
        _loaded("libggml-base").ggml_threadpool_params_init(ctypes.byref(parameters), threads)
        self.pool = self.cpu.ggml_threadpool_new(ctypes.byref(parameters))
        if not self.pool:
            raise RuntimeError(f"llama.cpp could not start {threads} threads")
        llama = _loaded("libllama")
        llama.llama_attach_threadpool.argtypes = [ctypes.c_void_p] * 3
        llama.llama_attach_threadpool(context, self.pool, None)

    def close(self) -> None:
        self.cpu.ggml_threadpool_free(self.pool)


def system_info() -> str:
    """The CPU features this build of llama.cpp uses, in its own words."""
    return llama_cpp.llama_print_system_info().decode().strip()


class Session(peer_bench.Stepwise):
    """One model and one context."""

    def __init__(self, path, context: int, threads: int, streams: int = 1):
        llama_cpp.llama_log_set(_silent, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        if not self.model:
            raise RuntimeError(f"llama.cpp could not load {path}")
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = context
        options.n_seq_max = streams
        options.kv_unified = True
        options.n_batch = max(context, MICRO_BATCH)
        options.n_ubatch = MICRO_BATCH
        options.n_threads = options.n_threads_batch = threads
        options.flash_attn_type = FLASH_ATTENTION_ON
        self.context = llama_cpp.llama_init_from_model(self.model, options)
        if not self.context:
            raise RuntimeError(f"llama.cpp could not make a context of {context}")
        self.pool = _ThreadPool(self.context, threads)
        vocabulary = llama_cpp.llama_model_get_vocab(self.model)
        self.vocabulary_size = llama_cpp.llama_vocab_n_tokens(vocabulary)
        self.about = f"llama-cpp-python {llama_cpp.__version__}: {system_info()}"

    def close(self) -> None:
        llama_cpp.llama_free(self.context)
        self.pool.close()
        llama_cpp.llama_model_free(self.model)

    def clear(self) -> None:
        """Forgets the sequence."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def rewind(self, length: int) -> None:
        """Leaves the first `length` tokens of sequence 0."""
        memory = llama_cpp.llama_get_memory(self.context)
        llama_cpp.llama_memory_seq_keep(memory, 0)
        if not llama_cpp.llama_memory_seq_rm(memory, 0, length, -1):
            raise RuntimeError(f"llama.cpp could not go back to {length} tokens")

    def _decode(self, batch) -> None:
        status = llama_cpp.llama_decode(self.context, batch)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")

    def _decode_rows(self, rows) -> None:
        """Decodes `rows` of (token, position, sequence) with the logits of all. Waits for the result."""
        batch = llama_cpp.llama_batch_init(len(rows), 0, 1)
        batch.n_tokens = len(rows)
        for row, (token, position, sequence) in enumerate(rows):
            batch.token[row] = token
            batch.pos[row] = position
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = sequence
            batch.logits[row] = 1
        try:
            self._decode(batch)
        finally:
            llama_cpp.llama_batch_free(batch)
        llama_cpp.llama_synchronize(self.context)

    def feed(self, tokens) -> None:
        """Appends tokens to the sequence; logits of the last one only. Waits for the result."""
        ids = (llama_cpp.llama_token * len(tokens))(*tokens)
        self._decode(llama_cpp.llama_batch_get_one(ids, len(tokens)))
        llama_cpp.llama_synchronize(self.context)

    def fork(self, streams: int) -> None:
        """Gives sequences 1 to `streams` - 1 what sequence 0 holds."""
        memory = llama_cpp.llama_get_memory(self.context)
        for stream in range(1, streams):
            llama_cpp.llama_memory_seq_cp(memory, 0, stream, -1, -1)

    def step(self, tokens, position: int) -> None:
        """One token of each sequence, all at `position`, with the logits of all."""
        self._decode_rows([(token, position, stream) for stream, token in enumerate(tokens)])

    def logits(self, tokens, one_by_one: bool = False):
        """Float32 (len(tokens), vocabulary) of a fresh sequence, as one prompt or token by token."""
        self.clear()
        if one_by_one:
            rows = numpy.empty((len(tokens), self.vocabulary_size), numpy.float32)
            for position, token in enumerate(tokens):
                self.feed([token])
                rows[position] = self._rows(1)[0]
            return rows
        self._decode_rows([(token, position, 0) for position, token in enumerate(tokens)])
        return self._rows(len(tokens)).copy()

    def _rows(self, count: int):
        pointer = llama_cpp.llama_get_logits(self.context)
        return numpy.ctypeslib.as_array(pointer, shape=(count, self.vocabulary_size))


@contextlib.contextmanager
def session(path, context: int, threads: int, streams: int = 1):
    opened = Session(path, context, threads, streams)
    try:
        yield opened
    finally:
        opened.close()


if __name__ == "__main__":
    peer_bench.main(__doc__, Session)
