"""Triton's PTX for tiles like Quern's, as a yardstick of static code. No GPU is needed.

    python triton_kernels.py SPECS.json OUT        run with triton 3.9.0; benchmarks/ptx/report calls it

SPECS.json: [{"name", "kind": "matmul" | "matmul_fp8" | "matmul_w4" | "attention", "target": "sm_80", "rows", "columns",
"depth", "head_dim", "warps", "stages"}]. Writes OUT/NAME.ptx and OUT/NAME.json (threads, shared bytes).
The kernels are plain ones: whole tiles, no masks, the loop that the compiler makes of a textbook program.
"""

import json
import pathlib
import sys

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

# The newest PTX that ptxas 13.0 reads.
PTX_VERSION = 90


@triton.jit
def matmul(x, w, y, rows, columns, k, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr):
    """y (rows, columns) = x (rows, k) times w (columns, k) transposed; f16 or e4m3, summed in f32."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    depth = tl.arange(0, DEPTH)
    x_at = x + row[:, None] * k + depth[None, :]
    w_at = w + column[None, :] * k + depth[:, None]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for _ in range(0, k, DEPTH):
        total = tl.dot(tl.load(x_at), tl.load(w_at), total)
        x_at += DEPTH
        w_at += DEPTH
    tl.store(y + row[:, None] * columns + column[None, :], total)


@triton.jit
def matmul_w4(x, w, scales, y, rows, columns, k, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
              DEPTH: tl.constexpr):
    """The same with w in 4 bits: byte (column, i) holds elements 2i and 2i + 1; a scale per 32."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    depth = tl.arange(0, DEPTH)
    half = tl.arange(0, DEPTH // 2)
    x_at = x + row[:, None] * k + depth[None, :]
    w_at = w + column[:, None] * (k // 2) + half[None, :]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for begin in range(0, k, DEPTH):
        packed = tl.load(w_at)
        codes = tl.interleave((packed & 15).to(tl.int8) - 8, (packed >> 4).to(tl.int8) - 8)
        groups = (begin + depth) // 32
        scale = tl.load(scales + column[:, None] * (k // 32) + groups[None, :])
        values = codes.to(tl.float16) * scale
        total = tl.dot(tl.load(x_at), tl.trans(values), total)
        x_at += DEPTH
        w_at += DEPTH // 2
    tl.store(y + row[:, None] * columns + column[None, :], total)


@triton.jit
def attention(q, keys, values, out, scale, tokens, HEAD: tl.constexpr, ROWS: tl.constexpr,
              KEYS: tl.constexpr):
    """out = softmax(q keys^T scale) values, online over tiles of keys, without a mask; f16."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    dim = tl.arange(0, HEAD)
    key = tl.arange(0, KEYS)
    query = tl.load(q + row[:, None] * HEAD + dim[None, :])
    largest = tl.full((ROWS,), float("-inf"), tl.float32)
    weight = tl.zeros((ROWS,), tl.float32)
    total = tl.zeros((ROWS, HEAD), tl.float32)
    k_at = keys + key[None, :] * HEAD + dim[:, None]
    v_at = values + key[:, None] * HEAD + dim[None, :]
    for _ in range(0, tokens, KEYS):
        score = tl.dot(query, tl.load(k_at)) * scale
        now = tl.maximum(largest, tl.max(score, 1))
        share = tl.exp2(score - now[:, None])
        decay = tl.exp2(largest - now)
        weight = weight * decay + tl.sum(share, 1)
        total = tl.dot(share.to(tl.float16), tl.load(v_at), total * decay[:, None])
        largest = now
        k_at += KEYS * HEAD
        v_at += KEYS * HEAD
    tl.store(out + row[:, None] * HEAD + dim[None, :], (total / weight[:, None]).to(tl.float16))


def matmul_of(element: str) -> tuple:
    return (matmul, {"x": element, "w": element, "y": "*fp32", "rows": "i32", "columns": "i32", "k": "i32"},
            lambda s: {"ROWS": s["rows"], "COLUMNS": s["columns"], "DEPTH": s["depth"]})


# Arguments of each kernel by type, and how its compile-time constants follow from a spec.
KERNELS = {
    "matmul": matmul_of("*fp16"),
    "matmul_fp8": matmul_of("*fp8e4nv"),
    "matmul_w4": (matmul_w4, {"x": "*fp16", "w": "*u8", "scales": "*fp16", "y": "*fp32", "rows": "i32",
                              "columns": "i32", "k": "i32"},
                  lambda s: {"ROWS": s["rows"], "COLUMNS": s["columns"], "DEPTH": s["depth"]}),
    "attention": (attention, {"q": "*fp16", "keys": "*fp16", "values": "*fp16", "out": "*fp16",
                              "scale": "fp32", "tokens": "i32"},
                  lambda s: {"HEAD": s["head_dim"], "ROWS": s["rows"], "KEYS": s["depth"]}),
}


def compile_kernel(spec: dict, folder: pathlib.Path) -> None:
    function, types, constants_of = KERNELS[spec["kind"]]
    constants = constants_of(spec)
    signature = types | {name: "constexpr" for name in constants}
    # All pointers and sizes are multiples of 16, as Quern's are.
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(types.values())
               if kind != "fp32"}
    capability = int("".join(filter(str.isdigit, spec["target"])))
    compiled = triton.compile(
        ASTSource(fn=function, signature=signature, constexprs=constants, attrs=aligned),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": spec["warps"], "num_stages": spec["stages"],
                 "ptx_version": PTX_VERSION})
    (folder / f"{spec['name']}.ptx").write_text(compiled.asm["ptx"])
    (folder / f"{spec['name']}.json").write_text(json.dumps(
        {"threads": 32 * compiled.metadata.num_warps, "shared_bytes": compiled.metadata.shared}))


if __name__ == "__main__":
    out = pathlib.Path(sys.argv[2])
    for each in json.loads(pathlib.Path(sys.argv[1]).read_text()):
        compile_kernel(each, out)
