"""Token ids of a text for a GGUF vocabulary, by the `tokenizers` library: independent of Quern."""

import functools
import pathlib

import gguf
import tokenizers
from tokenizers import Regex, models, pre_tokenizers

# Split patterns as the model families publish them in their tokenizer.json.
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _smollm():
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False)])


def _qwen2():
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


# GGUF's tokenizer.ggml.pre -> pre-tokenizer
PRE_TOKENIZERS = {"smollm": _smollm, "qwen2": _qwen2}


@functools.cache
def _tokenizer(path: pathlib.Path) -> tokenizers.Tokenizer:
    """Read once: a vocabulary of 150,000 tokens takes seconds."""
    fields = gguf.GGUFReader(str(path)).fields
    kind, pre = (fields[f"tokenizer.ggml.{key}"].contents() for key in ("model", "pre"))
    if kind != "gpt2" or pre not in PRE_TOKENIZERS:
        raise ValueError(f"{path.name}: tokenizer {kind}/{pre} has no reference here, "
                         f"only gpt2 with {', '.join(PRE_TOKENIZERS)}")
    vocabulary = {token: index
                  for index, token in enumerate(fields["tokenizer.ggml.tokens"].contents())}
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[pre]()
    return tokenizer


def encode(path: pathlib.Path, text: str) -> list[int]:
    """The ids of `text`, special tokens not recognised, none added."""
    return _tokenizer(path).encode(text, add_special_tokens=False).ids
