#!/usr/bin/env python3
"""Writes a tiny random GGUF model, for tests. Needs nothing but the standard library.

    make_gguf.py OUT.gguf                                   a llama of 2 layers, Q4_1
    make_gguf.py OUT.gguf --family qwen2 --type q5_0 --set blk.1.ffn_down.weight=q8_0
    make_gguf.py OUT.gguf --hidden 256 --ffn 512 --type q6_k --untied

Codes are random and scales are chosen so that every weight has about the spread of a trained one
(1/sqrt(K)); the same options give the same bytes. The vocabulary is a byte-level BPE trained on a
few sentences. `write_model()` does the same from Python.
"""

import argparse
import math
import random
import struct
from collections import Counter

# --- Tensor types: GGUF number, elements and bytes a block -------------------------------------

TYPES = {
    "f32": (0, 1, 4),
    "f16": (1, 1, 2),
    "q4_0": (2, 32, 18),
    "q4_1": (3, 32, 20),
    "q5_0": (6, 32, 22),
    "q5_1": (7, 32, 24),
    "q8_0": (8, 32, 34),
    "q2_k": (10, 256, 84),
    "q3_k": (11, 256, 110),
    "q4_k": (12, 256, 144),
    "q5_k": (13, 256, 176),
    "q6_k": (14, 256, 210),
    "bf16": (30, 1, 2),
}


def _half(x):
    return struct.pack("<e", x)


def _scale(rng, x):
    """`x`, a little different in every block."""
    return _half(x * rng.uniform(0.75, 1.25))


def _one_level(rng, sigma, bits, has_min, high_bytes):
    """A block of 32: scale, [minimum,] [high bits,] codes of `bits` bits, spread evenly."""
    d = sigma * math.sqrt(12) / (1 << bits)
    head = _scale(rng, d)
    if has_min:
        head += _scale(rng, -d * ((1 << bits) - 1) / 2)
    return head + rng.randbytes(high_bytes) + rng.randbytes(16)


def _q8_0(rng, sigma):
    return _scale(rng, sigma / 73.9) + rng.randbytes(32)


def _q2_k(rng, sigma):
    # 16 x (4-bit scale | 4-bit minimum), 64 bytes of codes, d, dmin; the mean of a code is 1.5.
    scales = bytes((8 + rng.randrange(8)) | (11 + rng.randrange(5)) << 4 for _ in range(16))
    d = sigma / 13
    return scales + rng.randbytes(64) + _half(d) + _half(d * 1.35)


def _q3_k(rng, sigma):
    # High bits, low bits, 16 6-bit scales (value - 32) in 12 bytes, d.
    return rng.randbytes(32) + rng.randbytes(64) + rng.randbytes(12) + _scale(rng, sigma / 42)


def _k_scales(pairs):
    """Eight (scale, minimum) pairs of 6 bits in the 12 bytes of Q4_K and Q5_K."""
    out = bytearray(12)
    for j, (scale, minimum) in enumerate(pairs):
        if j < 4:
            out[j] |= scale
            out[j + 4] |= minimum
        else:
            out[j + 4] |= (scale & 15) | (minimum & 15) << 4
            out[j - 4] |= (scale >> 4) << 6
            out[j] |= (minimum >> 4) << 6
    return bytes(out)


def _q4_or_q5_k(rng, sigma, bits, high_bytes):
    pairs = [(32 + rng.randrange(32),) * 2 for _ in range(8)]
    d = sigma * math.sqrt(12) / (1 << bits) / 48
    head = _half(d) + _half(d * ((1 << bits) - 1) / 2)
    return head + _k_scales(pairs) + rng.randbytes(high_bytes) + rng.randbytes(128)


def _q6_k(rng, sigma):
    scales = bytes(rng.randrange(256) for _ in range(16))
    return rng.randbytes(128) + rng.randbytes(64) + scales + _scale(rng, sigma / (18.5 * 74))


BLOCKS = {
    "q4_0": lambda rng, s: _one_level(rng, s, 4, False, 0),
    "q4_1": lambda rng, s: _one_level(rng, s, 4, True, 0),
    "q5_0": lambda rng, s: _one_level(rng, s, 5, False, 4),
    "q5_1": lambda rng, s: _one_level(rng, s, 5, True, 4),
    "q8_0": _q8_0,
    "q2_k": _q2_k,
    "q3_k": _q3_k,
    "q4_k": lambda rng, s: _q4_or_q5_k(rng, s, 4, 0),
    "q5_k": lambda rng, s: _q4_or_q5_k(rng, s, 5, 32),
    "q6_k": _q6_k,
}


def random_tensor(rng, type_name, rows, columns, mean=0.0, sigma=None):
    """Bytes of a (rows, columns) tensor; `mean` counts for float types only."""
    _, block, size = TYPES[type_name]
    if columns % block:
        raise SystemExit(f"make_gguf: rows of {columns} are no multiple of {type_name}'s {block}")
    sigma = 1 / math.sqrt(columns) if sigma is None else sigma
    if type_name in BLOCKS:
        make = BLOCKS[type_name]
        data = b"".join(make(rng, sigma) for _ in range(rows * columns // block))
        assert len(data) == rows * columns // block * size
        return data
    values = [rng.gauss(mean, sigma) for _ in range(rows * columns)]
    if type_name == "f16":
        return struct.pack(f"<{len(values)}e", *values)
    floats = struct.pack(f"<{len(values)}f", *values)
    if type_name == "f32":
        return floats
    return b"".join(floats[i + 2 : i + 4] for i in range(0, len(floats), 4))  # bf16, truncated


# --- Vocabulary --------------------------------------------------------------------------------

TEXT = """the quick brown fox jumps over the lazy dog and then the dog sleeps in the sun
a mill grinds the grain and the stone turns with the water in the morning and the evening
there is nothing in the world that the hand of the miller would not turn into flour"""

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def byte_letters():
    """The printable letter that stands for each byte in byte-level BPE (GPT-2's map)."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters, spare = {}, 256
    for byte in range(256):
        if byte in keep:
            letters[byte] = chr(byte)
        else:
            letters[byte] = chr(spare)
            spare += 1
    return letters


def train_bpe(limit):
    """At most `limit` merges, as (left, right) letters, by pair frequency in TEXT."""
    letters = byte_letters()
    words = Counter(" " + word for word in TEXT.split())
    pieces = {w: [letters[b] for b in w.encode()] for w in words}
    merges = []
    while len(merges) < limit:
        pairs = Counter()
        for word, count in words.items():
            for pair in zip(pieces[word], pieces[word][1:]):
                pairs[pair] += count
        if not pairs:
            break
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append((left, right))
        for word, parts in pieces.items():
            i = 0
            while i < len(parts) - 1:
                if parts[i] == left and parts[i + 1] == right:
                    parts[i : i + 2] = [left + right]
                i += 1
    return merges


def vocabulary(size):
    """(tokens, token types, merges) of `size` tokens; unused ones fill what training leaves."""
    if size < 256 + len(SPECIAL):
        raise SystemExit(f"make_gguf: --vocab {size}: at least {256 + len(SPECIAL)} wanted")
    merges = train_bpe(size - 256 - len(SPECIAL))
    tokens = SPECIAL + list(byte_letters().values()) + [left + right for left, right in merges]
    types = [3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL))
    while len(tokens) < size:
        tokens.append(f"[unused{len(tokens)}]")
        types.append(5)
    return tokens, types, [f"{left} {right}" for left, right in merges]


# --- The file ----------------------------------------------------------------------------------


def _string(text):
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value):
    """A metadata value with its type: bool, int (u32), float (f32), str, lists of int and str."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    if value and isinstance(value[0], int):
        return struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)
    return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(_string(v) for v in value)


def gguf_bytes(metadata, tensors, alignment=32):
    """A GGUF v3 file. `tensors`: [(name, dims fastest first, type name, bytes)]."""
    out = bytearray(struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata)))
    for key, value in metadata.items():
        out += _string(key) + _value(value)
    offset = 0
    for name, dims, type_name, data in tensors:
        out += _string(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
        out += struct.pack("<IQ", TYPES[type_name][0], offset)
        offset += -(-len(data) // alignment) * alignment
    out += bytes(-len(out) % alignment)
    for _, _, _, data in tensors:
        out += data + bytes(-len(data) % alignment)
    return bytes(out)


def model_tensors(o):
    """The tensors of the model that the options `o` describe, in a GGUF file's usual order."""
    rng = random.Random(o.seed)
    overrides = dict(entry.split("=", 1) for entry in o.set)
    tensors = []

    def add(name, rows, columns, type_name=None, mean=0.0, sigma=None):
        type_name = overrides.get(name, type_name or o.type)
        if type_name not in TYPES:
            raise SystemExit(f"make_gguf: type {type_name} is none of {', '.join(TYPES)}")
        dims = [columns, rows] if rows else [columns]
        data = random_tensor(rng, type_name, rows or 1, columns, mean, sigma)
        tensors.append((name, dims, type_name, data))

    q, kv = o.heads * o.head_dim, o.kv_heads * o.head_dim
    add("token_embd.weight", o.vocab, o.hidden, o.embedding_type)
    for layer in range(o.layers):
        blk = f"blk.{layer}."
        add(blk + "attn_norm.weight", 0, o.hidden, "f32", 1.0, 0.1)
        for name, rows in (("q", q), ("k", kv), ("v", kv)):
            add(f"{blk}attn_{name}.weight", rows, o.hidden)
            if o.family == "qwen2":
                add(f"{blk}attn_{name}.bias", 0, rows, "f32", 0.0, 0.1)
        add(blk + "attn_output.weight", o.hidden, q)
        add(blk + "ffn_norm.weight", 0, o.hidden, "f32", 1.0, 0.1)
        add(blk + "ffn_gate.weight", o.ffn, o.hidden)
        add(blk + "ffn_up.weight", o.ffn, o.hidden)
        add(blk + "ffn_down.weight", o.hidden, o.ffn)
    add("output_norm.weight", 0, o.hidden, "f32", 1.0, 0.1)
    if o.untied:
        add("output.weight", o.vocab, o.hidden)
    if o.rope_factors:
        add("rope_freqs.weight", 0, o.head_dim // 2, "f32", 2.0, 0.2)
    return tensors


def model_metadata(o):
    tokens, types, merges = vocabulary(o.vocab)
    family = o.architecture or o.family
    return {
        "general.architecture": family,
        "general.name": f"tiny random {family}",
        "general.license": "cc0-1.0",
        f"{family}.context_length": o.context,
        f"{family}.embedding_length": o.hidden,
        f"{family}.block_count": o.layers,
        f"{family}.feed_forward_length": o.ffn,
        f"{family}.attention.head_count": o.heads,
        f"{family}.attention.head_count_kv": o.kv_heads,
        f"{family}.attention.key_length": o.head_dim,
        f"{family}.attention.value_length": o.head_dim,
        f"{family}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{family}.rope.freq_base": 10000.0,
        f"{family}.rope.dimension_count": o.head_dim,
        f"{family}.vocab_size": o.vocab,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": o.pre or ("qwen2" if o.family == "qwen2" else "smollm"),
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def parser():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("out")
    p.add_argument("--family", default="llama", choices=["llama", "qwen2"])
    p.add_argument("--architecture", help="write this name instead of the family's")
    p.add_argument("--pre", help="pre-tokenizer name (default: the family's)")
    p.add_argument("--layers", type=int, default=2)
    p.add_argument("--hidden", type=int, default=64)
    p.add_argument("--heads", type=int, default=4)
    p.add_argument("--kv-heads", type=int, default=2)
    p.add_argument("--head-dim", type=int, default=32)
    p.add_argument("--ffn", type=int, default=160)
    p.add_argument("--vocab", type=int, default=320)
    p.add_argument("--context", type=int, default=256)
    p.add_argument("--type", default="q4_1", help="type of every matrix (default: q4_1)")
    p.add_argument("--embedding-type", help="type of the embedding (default: --type)")
    p.add_argument("--set", action="append", default=[], metavar="TENSOR=TYPE")
    p.add_argument("--untied", action="store_true", help="give the output its own matrix")
    p.add_argument("--rope-factors", action="store_true")
    p.add_argument("--seed", type=int, default=1)
    return p


def write_model(*arguments):
    """`write_model("out.gguf", "--type", "q8_0")`: what the command line does."""
    options = parser().parse_args([str(a) for a in arguments])
    data = gguf_bytes(model_metadata(options), model_tensors(options))
    with open(options.out, "wb") as file:
        file.write(data)


if __name__ == "__main__":
    import sys

    write_model(*sys.argv[1:])
