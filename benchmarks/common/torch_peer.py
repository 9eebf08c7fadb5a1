"""A model's matmuls and attention in torch: cuBLAS in f16 and scaled_dot_product_attention.

Weights are random, f16 and not quantized, of the shapes in a GGUF file. Norms, rotary embedding and
sampling are left out, so its rates are above what a whole model would reach. Decoding replays a
CUDA graph, where there is a GPU. As a command it times one model:

    python torch_peer.py MODEL.gguf -p 512 -n 64 -d 0 -r 3 --device cuda:0      # JSON on stdout
"""

import argparse
import json
import statistics
import time

import torch
from torch.nn.functional import scaled_dot_product_attention, silu


def shape_of(path: str) -> dict:
    """The sizes of the model in a GGUF file."""
    import gguf
    reader = gguf.GGUFReader(path)
    family = str(reader.fields["general.architecture"].contents())

    def number(name, otherwise=None):
        field = reader.fields.get(f"{family}.{name}")
        return int(field.contents()) if field else otherwise

    heads, hidden = number("attention.head_count"), number("embedding_length")
    return {"layers": number("block_count"), "hidden": hidden, "heads": heads,
            "kv_heads": number("attention.head_count_kv", heads),
            "head_dim": number("attention.key_length", hidden // heads),
            "ffn": number("feed_forward_length"),
            "vocab": next(int(tensor.shape[1]) for tensor in reader.tensors
                          if tensor.name == "token_embd.weight")}


class Model:
    """Random weights of `shape`, and caches of `context` tokens."""

    def __init__(self, shape: dict, context: int, device: str):
        self.shape, self.device = shape, device
        self.kind = torch.float16 if device.startswith("cuda") else torch.float32
        columns = shape["heads"] * shape["head_dim"]
        kv_columns = shape["kv_heads"] * shape["head_dim"]
        self.layers = [{"qkv": self.weight(columns + 2 * kv_columns, shape["hidden"]),
                        "o": self.weight(shape["hidden"], columns),
                        "gate_up": self.weight(2 * shape["ffn"], shape["hidden"]),
                        "down": self.weight(shape["hidden"], shape["ffn"]),
                        "kv": self.weight(2, shape["kv_heads"], context, shape["head_dim"])}
                       for _ in range(shape["layers"])]
        self.head = self.weight(shape["vocab"], shape["hidden"])

    def weight(self, *size):
        return torch.randn(*size, device=self.device, dtype=self.kind) * 0.02

    def step(self, x, first: int):
        """Rows x (tokens, hidden) behind `first` tokens; the last one's logits."""
        shape, tokens = self.shape, x.shape[0]
        heads, kv_heads, head_dim = shape["heads"], shape["kv_heads"], shape["head_dim"]
        for layer in self.layers:
            q, k, v = (x @ layer["qkv"].T).split(
                [heads * head_dim, kv_heads * head_dim, kv_heads * head_dim], dim=1)
            for cache, rows in zip(layer["kv"], (k, v)):
                cache[:, first:first + tokens] = rows.view(tokens, kv_heads, head_dim).transpose(0, 1)
            keys, values = (each[None, :, :first + tokens] for each in layer["kv"])
            queries = q.view(1, tokens, heads, head_dim).transpose(1, 2)
            # A prompt comes first here, a decoded token sees everything.
            attended = scaled_dot_product_attention(queries, keys, values, is_causal=tokens > 1,
                                                    enable_gqa=True)
            x = x + attended.transpose(1, 2).reshape(tokens, -1) @ layer["o"].T
            gate, up = (x @ layer["gate_up"].T).chunk(2, dim=1)
            x = x + (silu(gate) * up) @ layer["down"].T
        return x[-1:] @ self.head.T


def seconds(device: str, work) -> float:
    """How long `work` takes, all of its kernels over."""
    synchronise = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    synchronise()
    start = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - start


def repeatable(model: Model, x, first: int):
    """One step as a function; on a GPU a captured graph."""
    if not model.device.startswith("cuda"):
        return lambda: model.step(x, first)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        model.step(x, first)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model.step(x, first)
    return graph.replay


def bench(shape: dict, prompt: int, generate: int, depth: int, repeats: int, device: str) -> dict:
    """Rates in tokens a second, as `quern bench --json` names them."""
    with torch.inference_mode():
        # Every decoded token attends to what the middle one sees.
        middle = depth + generate // 2
        model = Model(shape, max(prompt, middle + 1), device)
        rows = model.weight(prompt, shape["hidden"])
        decode = repeatable(model, model.weight(1, shape["hidden"]), middle)
        model.step(rows, 0)
        decode()

        def many():
            for _ in range(generate):
                decode()
        rates = {"prefill": [prompt / seconds(device, lambda: model.step(rows, 0))
                             for _ in range(repeats)],
                 "decode": [generate / seconds(device, many) for _ in range(repeats)]}
    return {f"{name}_tokens_per_second": {"median": statistics.median(values), "min": min(values),
                                          "max": max(values)} for name, values in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("-p", type=int, default=512)
    parser.add_argument("-n", type=int, default=64)
    parser.add_argument("-d", type=int, default=0)
    parser.add_argument("-r", type=int, default=3)
    parser.add_argument("--device", default="cuda:0")
    args = parser.parse_args()
    print(json.dumps({"torch": torch.__version__,
                      **bench(shape_of(args.model), args.p, args.n, args.d, args.r, args.device)}))


if __name__ == "__main__":
    main()
