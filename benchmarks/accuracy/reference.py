"""The oracle: transformers in float32 on the dequantised weights of a GGUF file.

Tensors are dequantised with the `gguf` package and put into the transformers class of the family;
nothing of Quern takes part. A tensor that is left over on either side is an error, so that no
weight can stay at its random start.
"""

import hashlib
import json
import pathlib
from typing import NamedTuple

import gguf
import numpy

# Raise when the arithmetic of this file changes: cached logits are keyed by it.
REVISION = 1

GLOBAL_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class Family(NamedTuple):
    """How a GGUF architecture maps to transformers."""

    model: str  # class name in transformers
    config: str
    interleaved_rope: bool  # GGUF stores q and k with rotated pairs side by side


FAMILIES = {
    "llama": Family("LlamaForCausalLM", "LlamaConfig", True),
    "qwen2": Family("Qwen2ForCausalLM", "Qwen2Config", False),
}


class Source:
    """A GGUF file's metadata and float32 tensors."""

    def __init__(self, path: pathlib.Path):
        self.reader = gguf.GGUFReader(str(path))
        self.architecture = self.get("general.architecture")
        if self.architecture not in FAMILIES:
            raise ValueError(f"{path.name}: architecture {self.architecture} has no reference here, "
                             f"only {', '.join(FAMILIES)}")
        self.family = FAMILIES[self.architecture]

    def get(self, key: str, default=None):
        field = self.reader.fields.get(key)
        return default if field is None else field.contents()

    def hyper(self, key: str, default=None):
        """A value of the architecture's own section."""
        value = self.get(f"{self.architecture}.{key}", default)
        if value is None:
            raise ValueError(f"the GGUF file has no {self.architecture}.{key}")
        return value


def undo_permutation(weight, heads: int):
    """Turns rows (head, pair, 2) back into transformers' (head, 2, pair) order."""
    rows = weight.shape[0] // heads
    paired = weight.reshape(heads, rows // 2, 2, *weight.shape[1:])
    return paired.swapaxes(1, 2).reshape(weight.shape)


def transformers_name(name: str) -> str:
    if name in GLOBAL_NAMES:
        return GLOBAL_NAMES[name]
    prefix, layer, part, kind = (name.split(".") + ["", "", ""])[:4]
    if prefix != "blk" or part not in BLOCK_NAMES:
        raise ValueError(f"tensor {name} has no place in the reference model")
    return f"model.layers.{layer}.{BLOCK_NAMES[part]}.{kind}"


def state_dict(source: Source) -> dict:
    """Every tensor in float32 under its transformers name and row order."""
    import torch
    heads = {"attn_q": source.hyper("attention.head_count"),
             "attn_k": source.hyper("attention.head_count_kv")}
    state = {}
    for tensor in source.reader.tensors:
        value = gguf.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        value = value.reshape(tuple(int(size) for size in reversed(tensor.shape)))
        part = tensor.name.split(".")[2] if tensor.name.startswith("blk.") else ""
        if source.family.interleaved_rope and part in heads:
            value = undo_permutation(value, heads[part])
        state[transformers_name(tensor.name)] = torch.from_numpy(numpy.ascontiguousarray(value))
    state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    return state


def build_model(path: pathlib.Path, attention: str = "eager"):
    """The transformers model, in float32, ready for inference. `attention`: how transformers does it."""
    import torch
    import transformers
    source = Source(path)
    state = state_dict(source)
    heads = source.hyper("attention.head_count")
    width = source.hyper("embedding_length")
    theta = float(source.hyper("rope.freq_base", 10000.0))
    config = getattr(transformers, source.family.config)(
        vocab_size=state["model.embed_tokens.weight"].shape[0],
        hidden_size=width,
        intermediate_size=source.hyper("feed_forward_length"),
        num_hidden_layers=source.hyper("block_count"),
        num_attention_heads=heads,
        num_key_value_heads=source.hyper("attention.head_count_kv"),
        head_dim=source.hyper("attention.key_length", width // heads),
        rms_norm_eps=source.hyper("attention.layer_norm_rms_epsilon"),
        max_position_embeddings=source.hyper("context_length"),
        rope_theta=theta,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
        tie_word_embeddings=False,
        attn_implementation=attention,
    )
    with torch.device("meta"):
        model = getattr(transformers, source.family.model)(config)
    model = model.to_empty(device="cpu").float()
    model.load_state_dict(state, strict=True, assign=True)
    # Buffers (the inverse rope frequencies) are not in the state: make them anew on the CPU.
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config)
    return model.eval()


def _file_hash(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Reference:
    """Float32 logits of one model, cached on disk; the model is built at the first miss."""

    def __init__(self, path: pathlib.Path, cache: pathlib.Path):
        self.path = path
        self.cache = cache / "reference"
        self.cache.mkdir(parents=True, exist_ok=True)
        self.hash = _file_hash(path)
        self.model = None

    def logits(self, tokens):
        """Float32 (len(tokens), vocabulary); row i follows tokens[0..i]."""
        key = hashlib.sha256(json.dumps([REVISION, self.hash, list(tokens)]).encode()).hexdigest()
        file = self.cache / f"{self.path.stem}-{key[:16]}.npy"
        if file.exists():
            return numpy.load(file, mmap_mode="r")
        import torch
        if self.model is None:
            self.model = build_model(self.path)
        with torch.inference_mode():
            rows = self.model(torch.tensor([list(tokens)]), use_cache=False).logits[0].numpy()
        partial = file.with_suffix(".partial.npy")
        numpy.save(partial, rows.astype(numpy.float32))
        partial.rename(file)
        return numpy.load(file, mmap_mode="r")
