"""Regenerates the PTX kernels of an independent compiler, with what torch says they compute.

    pip install triton==3.9.0 torch numpy
    python make_triton.py            # writes NAME.ptx, NAME.json, NAME.bin beside this file

No GPU is needed. NAME.json says how to launch: grid, block, shared bytes, arguments. Inputs come
from a formula (see `fill`), so that only outputs are stored, in NAME.bin. The PTX version is pinned
to what ptxas 13.0 reads.
"""
import json
import math
import os
import re
import sys

import numpy as np
import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

HERE = os.path.dirname(os.path.abspath(__file__))
TORCH = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32, "e4m3": torch.float8_e4m3fn,
         "i32": torch.int32, "i8": torch.int8}
TRITON = {"f16": "*fp16", "bf16": "*bf16", "f32": "*fp32", "e4m3": "*fp8e4nv", "i32": "*i32", "i8": "*i8"}


def fill(count, seed, levels):
    """Integers 0 .. levels - 1: splitmix64 of (seed << 32) + i, modulo levels."""
    x = (np.uint64(seed) << np.uint64(32)) + np.arange(count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return (x % np.uint64(levels)).astype(np.int64)


class Buffer:
    """A tensor argument. Elements are (fill - levels // 2) / divide for floats and fill + offset for
    integers; levels = 0: zeros. Values are exact in their type."""

    def __init__(self, kind, shape, seed=0, levels=0, divide=1, offset=0):
        self.kind, self.shape, self.seed, self.levels = kind, shape, seed, levels
        self.divide, self.offset = divide, offset
        count = math.prod(shape)
        if levels == 0:
            values = torch.zeros(count, dtype=torch.float32)
        elif kind.startswith("i"):
            values = torch.from_numpy(fill(count, seed, levels) + offset)
        else:
            values = torch.from_numpy((fill(count, seed, levels) - levels // 2) / divide)
        self.tensor = values.to(TORCH[kind]).reshape(shape)

    def json(self):
        return {"buffer": self.kind, "count": math.prod(self.shape), "seed": self.seed, "levels": self.levels,
                "divide": self.divide, "offset": self.offset}

    def float(self):
        return self.tensor.to(torch.float32)


def normal(kind, shape, seed):
    """Values in [-2, 2), fine enough to find any misplaced one; exact in `kind`."""
    return Buffer(kind, shape, seed, 31 if kind == "e4m3" else 255, 8 if kind == "e4m3" else 64)


def trim(ptx):
    """Without debug sections, comments and line numbers."""
    ptx = ptx.split("\t.section")[0]
    ptx = re.sub(r"//[^\n]*", "", ptx)
    lines = [line.strip() for line in ptx.splitlines()]
    return "\n".join(l for l in lines if l and not re.match(r"\.(loc|file)\s|\$L__(tmp|func)", l)) + "\n"


def emit(name, fn, sm, args, consts, grid, expected, tolerance, warps=4, stages=2, descriptors=None):
    """Compiles `fn` and stores it. `args`: [(name, value)] of Buffer, int, float or descriptor
    tuples (Buffer, box); `expected`: {name: tensor}."""
    signature, attrs = {}, {}
    for i, (arg, value) in enumerate(args):
        if isinstance(value, Buffer):
            signature[arg] = TRITON[value.kind]
            attrs[(i,)] = [["tt.divisibility", 16]]
        elif isinstance(value, tuple):
            kind = TRITON[value[0].kind][1:]
            signature[arg] = f"tensordesc<{kind}[{','.join(map(str, value[1]))}]>"
        else:
            signature[arg] = "fp32" if isinstance(value, float) else "i32"
            if isinstance(value, int) and value % 16 == 0:
                attrs[(i,)] = [["tt.divisibility", 16]]
    for key in consts:
        signature[key] = "constexpr"
    source = ASTSource(fn=fn, signature=signature, constexprs=consts, attrs=attrs)
    version = 90 if sm >= 90 else 84 if sm == 89 else 80
    kernel = triton.compile(source, target=GPUTarget("cuda", sm, 32),
                            options=dict(num_warps=warps, num_stages=stages, ptx_version=version))
    ptx = trim(kernel.asm["ptx"])
    with open(os.path.join(HERE, name + ".ptx"), "w") as f:
        f.write(ptx)
    launch = {"kernel": kernel.metadata.name, "grid": list(grid), "block": [32 * kernel.metadata.num_warps, 1, 1],
              "shared": kernel.metadata.shared, "tolerance": tolerance, "args": [], "outputs": []}
    for arg, value in args:
        if isinstance(value, Buffer):
            launch["args"].append(value.json())
        elif isinstance(value, tuple):
            buffer, box = value
            inner = box[-1] * buffer.tensor.element_size()
            swizzle = {128: 3, 64: 2, 32: 1}.get(inner, 0)
            launch["args"].append({"tensor_map": buffer.json(), "shape": list(buffer.shape), "box": list(box),
                                   "swizzle": swizzle})
            # A host descriptor also passes the shape (i32) and the strides (i64).
            launch["args"] += [{"i32": s} for s in buffer.shape] + [{"i64": s} for s in buffer.tensor.stride()]
        elif isinstance(value, float):
            launch["args"].append({"f32": value})
        else:
            launch["args"].append({"i32": value})
    launch["args"] += [{"i64": 0}, {"i64": 0}]  # Scratch memory, not used.
    data = b""
    names = [a for a, _ in args]
    position, at = {}, 0
    for arg, value in args:
        position[arg] = at
        at += 1 + (2 * len(value[0].shape) if isinstance(value, tuple) else 0)
    for arg, tensor in expected.items():
        value = dict(args)[arg]
        kind = (value[0] if isinstance(value, tuple) else value).kind
        stored = "i32" if kind == "i32" else "f32"
        bytes_ = tensor.detach().to(TORCH[stored]).contiguous().reshape(-1).numpy().tobytes()
        launch["outputs"].append({"arg": position[arg], "type": stored, "offset": len(data), "count": tensor.numel()})
        data += bytes_
    with open(os.path.join(HERE, name + ".bin"), "wb") as f:
        f.write(data)
    with open(os.path.join(HERE, name + ".json"), "w") as f:
        json.dump(launch, f, indent=1)
        f.write("\n")
    print(f"{name}: sm_{sm}, {len(ptx)} bytes of PTX, shared {launch['shared']}")


# ---- Kernels


@triton.jit
def gemm(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, ACC: tl.constexpr):
    """c(M, N) = a(M, K) b(N, K)^T, any sizes."""
    rm = tl.program_id(0) * BM + tl.arange(0, BM)
    rn = tl.program_id(1) * BN + tl.arange(0, BN)
    acc = tl.zeros((BM, BN), ACC)
    for k in range(0, K, BK):
        rk = k + tl.arange(0, BK)
        x = tl.load(a + rm[:, None] * K + rk[None, :], mask=(rm[:, None] < M) & (rk[None, :] < K), other=0.0)
        y = tl.load(b + rn[None, :] * K + rk[:, None], mask=(rn[None, :] < N) & (rk[:, None] < K), other=0.0)
        acc = tl.dot(x, y, acc, out_dtype=ACC)
    tl.store(c + rm[:, None] * N + rn[None, :], acc.to(c.dtype.element_ty),
             mask=(rm[:, None] < M) & (rn[None, :] < N))


@triton.jit
def gemm_tma(a, b, c, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    pm = tl.program_id(0)
    pn = tl.program_id(1)
    acc = tl.zeros((BM, BN), tl.float32)
    for k in range(0, K, BK):
        x = a.load([pm * BM, k])
        y = b.load([pn * BN, k])
        acc = tl.dot(x, y.T, acc)
    c.store([pm * BM, pn * BN], acc.to(tl.float16))


@triton.jit
def gemm_int4(a, q, scales, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """c = a (16 (q - 8) scale): q packs 8 rows of K in an int32, one scale per column and 32 rows."""
    rm = tl.program_id(0) * BM + tl.arange(0, BM)
    rn = tl.program_id(1) * BN + tl.arange(0, BN)
    acc = tl.zeros((BM, BN), tl.float32)
    for k in range(0, K, BK):
        rk = k + tl.arange(0, BK)
        x = tl.load(a + rm[:, None] * K + rk[None, :])
        packed = tl.load(q + (rk[:, None] // 8) * N + rn[None, :])
        w = ((packed >> ((rk[:, None] % 8) * 4)) & 15) - 8
        s = tl.load(scales + (rk[:, None] // 32) * N + rn[None, :])
        acc = tl.dot(x, w.to(tl.float16) * s, acc)
    tl.store(c + rm[:, None] * N + rn[None, :], acc)


@triton.jit
def attention(q, k, v, o, scale, N, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, CAUSAL: tl.constexpr):
    """(heads, N, D), one program per head and BM queries."""
    pm = tl.program_id(0)
    base = tl.program_id(1) * N * D
    rm = pm * BM + tl.arange(0, BM)
    rd = tl.arange(0, D)
    x = tl.load(q + base + rm[:, None] * D + rd[None, :], mask=rm[:, None] < N, other=0.0)
    top = tl.full((BM,), float("-inf"), tl.float32)
    total = tl.zeros((BM,), tl.float32)
    acc = tl.zeros((BM, D), tl.float32)
    end = tl.minimum(N, (pm + 1) * BM) if CAUSAL else N
    for n in range(0, end, BN):
        rn = n + tl.arange(0, BN)
        y = tl.load(k + base + rn[None, :] * D + rd[:, None], mask=rn[None, :] < N, other=0.0)
        s = tl.dot(x, y) * scale
        keep = rn[None, :] < N
        if CAUSAL:
            keep = keep & (rm[:, None] >= rn[None, :])
        s = tl.where(keep, s, float("-inf"))
        most = tl.maximum(top, tl.max(s, 1))
        p = tl.exp2(s - most[:, None])
        fix = tl.exp2(top - most)
        total = total * fix + tl.sum(p, 1)
        z = tl.load(v + base + rn[:, None] * D + rd[None, :], mask=rn[:, None] < N, other=0.0)
        acc = tl.dot(p.to(tl.float16), z, acc * fix[:, None])
        top = most
    tl.store(o + base + rm[:, None] * D + rd[None, :], (acc / total[:, None]).to(tl.float16), mask=rm[:, None] < N)


@triton.jit
def softmax(x, y, N, B: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, B)
    v = tl.load(x + row * N + i, mask=i < N, other=float("-inf"))
    e = tl.exp(v - tl.max(v, 0))
    tl.store(y + row * N + i, e / tl.sum(e, 0), mask=i < N)


@triton.jit
def layer_norm(x, w, b, y, N, eps, B: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, B)
    v = tl.load(x + row * N + i, mask=i < N, other=0.0).to(tl.float32)
    mean = tl.sum(v, 0) / N
    d = tl.where(i < N, v - mean, 0.0)
    r = tl.rsqrt(tl.sum(d * d, 0) / N + eps)
    out = d * r * tl.load(w + i, mask=i < N, other=0.0) + tl.load(b + i, mask=i < N, other=0.0)
    tl.store(y + row * N + i, out.to(tl.float16), mask=i < N)


@triton.jit
def rms_norm(x, w, y, N, eps, B: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, B)
    v = tl.load(x + row * N + i, mask=i < N, other=0.0).to(tl.float32)
    r = tl.rsqrt(tl.sum(v * v, 0) / N + eps)
    tl.store(y + row * N + i, (v * r * tl.load(w + i, mask=i < N, other=0.0).to(tl.float32)).to(tl.bfloat16), mask=i < N)


@triton.jit
def rope(x, y, position, H: tl.constexpr):
    """Rotates pairs (i, i + H) of rows of 2 H by position * 10000^(-i / H)."""
    row = tl.program_id(0)
    i = tl.arange(0, H)
    angle = (position + row).to(tl.float32) * tl.exp(i.to(tl.float32) * (-9.210340371976184 / H))
    a = tl.load(x + row * 2 * H + i).to(tl.float32)
    b = tl.load(x + row * 2 * H + H + i).to(tl.float32)
    s = tl.sin(angle)
    c = tl.cos(angle)
    tl.store(y + row * 2 * H + i, (a * c - b * s).to(tl.float16))
    tl.store(y + row * 2 * H + H + i, (a * s + b * c).to(tl.float16))


@triton.jit
def arg_max(x, best, where, N, B: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, B)
    v = tl.load(x + row * N + i, mask=i < N, other=float("-inf"))
    m, at = tl.max(v, 0, return_indices=True)
    tl.store(best + row, m)
    tl.store(where + row, at)


@triton.jit
def gather(table, ids, y, N, B: tl.constexpr):
    row = tl.load(ids + tl.program_id(0))
    i = tl.arange(0, B)
    tl.store(y + tl.program_id(0) * N + i, tl.load(table + row * N + i, mask=i < N), mask=i < N)


@triton.jit
def histogram(x, counts, sums, N, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    v = tl.load(x + i, mask=i < N, other=0)
    tl.atomic_add(counts + v, 1, mask=i < N)
    tl.atomic_add(sums + (v & 3), v.to(tl.float32), mask=i < N)


@triton.jit
def scan(x, y, N, B: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, B)
    v = tl.load(x + row * N + i, mask=i < N, other=0.0)
    tl.store(y + row * N + i, tl.cumsum(v, 0), mask=i < N)


@triton.jit
def sort_rows(x, y, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    tl.store(y + i, tl.sort(tl.load(x + i)))


@triton.jit
def swiglu(gate, up, y, N, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    g = tl.load(gate + i, mask=i < N).to(tl.float32)
    u = tl.load(up + i, mask=i < N).to(tl.float32)
    tl.store(y + i, (g * tl.sigmoid(g) * u).to(tl.bfloat16), mask=i < N)


def make_gemm(name, sm, kind, M, N, K, BM, BN, BK, warps=4, stages=2):
    a, b = normal(kind, (M, K), 1), normal(kind, (N, K), 2)
    out = "f32" if kind in ("e4m3", "f32") else "i32" if kind == "i8" else kind
    if kind == "i8":
        a, b = Buffer("i8", (M, K), 1, 200, 1, -100), Buffer("i8", (N, K), 2, 200, 1, -100)
    c = Buffer(out, (M, N))
    ref = a.float() @ b.float().T
    acc = tl.int32 if kind == "i8" else tl.float32
    emit(name, gemm, sm, [("a", a), ("b", b), ("c", c), ("M", M), ("N", N), ("K", K)],
         dict(BM=BM, BN=BN, BK=BK, ACC=acc), (-(-M // BM), -(-N // BN), 1), {"c": ref},
         {"bf16": 8e-3, "f16": 1e-3, "f32": 2e-3, "e4m3": 1e-5, "i8": 0}[kind], warps, stages)


def make_attention(name, sm, heads, N, D, BM, BN, causal, warps):
    q, k, v = [normal("f16", (heads, N, D), s) for s in (1, 2, 3)]
    o = Buffer("f16", (heads, N, D))
    ref = torch.nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=causal)
    emit(name, attention, sm, [("q", q), ("k", k), ("v", v), ("o", o), ("scale", math.log2(math.e) / math.sqrt(D)), ("N", N)],
         dict(D=D, BM=BM, BN=BN, CAUSAL=causal), (-(-N // BM), heads, 1), {"o": ref}, 2e-3, warps)


def make_rows():
    rows, n = 5, 300
    x = normal("f32", (rows, n), 1)
    emit("softmax", softmax, 80, [("x", x), ("y", Buffer("f32", (rows, n))), ("N", n)], dict(B=512), (rows, 1, 1),
         {"y": torch.softmax(x.tensor, 1)}, 1e-5)
    h = normal("f16", (rows, n), 1)
    w, b = normal("f16", (n,), 2), normal("f16", (n,), 3)
    emit("layer_norm", layer_norm, 80, [("x", h), ("w", w), ("b", b), ("y", Buffer("f16", (rows, n))), ("N", n), ("eps", 1e-5)],
         dict(B=512), (rows, 1, 1), {"y": torch.nn.functional.layer_norm(h.float(), (n,), w.float(), b.float(), 1e-5)}, 1e-3)
    h, w = normal("bf16", (rows, n), 1), normal("bf16", (n,), 2)
    emit("rms_norm", rms_norm, 90, [("x", h), ("w", w), ("y", Buffer("bf16", (rows, n))), ("N", n), ("eps", 1e-6)],
         dict(B=512), (rows, 1, 1), {"y": torch.nn.functional.rms_norm(h.float(), (n,), w.float(), 1e-6)}, 8e-3)
    h = normal("f16", (7, 64), 1)
    i = torch.arange(32)
    angle = (torch.arange(7)[:, None] + 13) * torch.exp(i * (-9.210340371976184 / 32))
    first, second = h.float()[:, :32], h.float()[:, 32:]
    turned = torch.cat([first * angle.cos() - second * angle.sin(), first * angle.sin() + second * angle.cos()], 1)
    emit("rope", rope, 80, [("x", h), ("y", Buffer("f16", (7, 64))), ("position", 13)], dict(H=32), (7, 1, 1), {"y": turned}, 1e-3, 1)
    x = Buffer("f32", (rows, n), 5, 1 << 20, 1 << 10)
    emit("arg_max", arg_max, 80, [("x", x), ("best", Buffer("f32", (rows,))), ("where", Buffer("i32", (rows,))), ("N", n)],
         dict(B=512), (rows, 1, 1), {"best": x.tensor.max(1).values, "where": x.tensor.max(1).indices}, 0)
    table, ids = normal("bf16", (33, 50), 1), Buffer("i32", (9,), 2, 33)
    emit("gather", gather, 80, [("table", table), ("ids", ids), ("y", Buffer("bf16", (9, 50))), ("N", 50)], dict(B=64),
         (9, 1, 1), {"y": table.tensor[ids.tensor.long()]}, 0, 1)
    v = Buffer("i32", (1000,), 3, 17)
    sums = torch.zeros(4).index_add(0, v.tensor.long() & 3, v.tensor.float())
    emit("histogram", histogram, 80, [("x", v), ("counts", Buffer("i32", (17,))), ("sums", Buffer("f32", (4,))), ("N", 1000)],
         dict(B=256), (4, 1, 1), {"counts": torch.bincount(v.tensor, minlength=17), "sums": sums}, 0)
    x = normal("f32", (3, 200), 4)
    emit("scan", scan, 90, [("x", x), ("y", Buffer("f32", (3, 200))), ("N", 200)], dict(B=256), (3, 1, 1),
         {"y": torch.cumsum(x.tensor, 1)}, 1e-5)
    x = Buffer("f32", (2, 128), 6, 1 << 16, 1 << 6)
    emit("sort", sort_rows, 80, [("x", x), ("y", Buffer("f32", (2, 128)))], dict(B=128), (2, 1, 1),
         {"y": torch.sort(x.tensor, 1).values}, 0, 2)
    g, u = normal("bf16", (777,), 1), normal("bf16", (777,), 2)
    emit("swiglu", swiglu, 90, [("gate", g), ("up", u), ("y", Buffer("bf16", (777,))), ("N", 777)], dict(B=256), (4, 1, 1),
         {"y": torch.nn.functional.silu(g.float()) * u.float()}, 8e-3)


def make_int4():
    M, N, K = 32, 64, 96
    a, q, s = normal("f16", (M, K), 1), Buffer("i32", (K // 8, N), 2, 1 << 31), normal("f16", (K // 32, N), 3)
    k = torch.arange(K)
    w = ((q.tensor[k // 8] >> (4 * (k % 8))[:, None]) & 15) - 8
    ref = a.float() @ (w.half() * s.tensor[k // 32]).float()
    emit("gemm_int4_sm80", gemm_int4, 80, [("a", a), ("q", q), ("scales", s), ("c", Buffer("f32", (M, N))), ("M", M), ("N", N), ("K", K)],
         dict(BM=32, BN=32, BK=32), (1, 2, 1), {"c": ref}, 1e-4)


def make_tma():
    M, N, K = 128, 128, 192
    a, b, c = normal("f16", (M, K), 1), normal("f16", (N, K), 2), Buffer("f16", (M, N))
    emit("gemm_tma_sm90", gemm_tma, 90, [("a", (a, (64, 64))), ("b", (b, (64, 64))), ("c", (c, (64, 64))), ("K", K)],
         dict(BM=64, BN=64, BK=64), (2, 2, 1), {"c": a.float() @ b.float().T}, 1e-3, 4, 3)


def main():
    make_gemm("gemm_f16_sm80", 80, "f16", 100, 72, 80, 64, 64, 32, stages=3)
    make_gemm("gemm_bf16_sm80", 80, "bf16", 33, 40, 48, 32, 32, 16)
    make_gemm("gemm_tf32_sm80", 80, "f32", 40, 40, 40, 32, 32, 32)
    make_gemm("gemm_s8_sm80", 80, "i8", 40, 40, 96, 32, 32, 32)
    make_gemm("gemm_f16_sm90", 90, "f16", 96, 64, 128, 64, 64, 64, stages=3)
    make_gemm("gemm_bf16_sm90", 90, "bf16", 64, 128, 128, 64, 128, 64, stages=3)
    make_gemm("gemm_fp8_sm89", 89, "e4m3", 48, 48, 96, 32, 32, 32)
    make_gemm("gemm_fp8_sm90", 90, "e4m3", 64, 64, 128, 64, 64, 64, stages=3)
    make_int4()
    make_attention("attention_sm80", 80, 2, 75, 32, 32, 32, True, 4)
    make_attention("attention_sm90", 90, 2, 128, 64, 64, 64, False, 4)
    make_rows()
    make_tma()


if __name__ == "__main__":
    sys.exit(main())
