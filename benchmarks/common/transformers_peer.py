"""transformers in bfloat16 on this CPU, from the dequantised weights of a GGUF file.

What torch reads is bfloat16 whatever the file's types, so it streams several times the bytes.
"""

import pathlib
import sys

import peer_bench
import torch
import transformers

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "accuracy"))

import reference  # noqa: E402


class Session(peer_bench.Stepwise):
    """One model and one sequence."""

    def __init__(self, path, context: int, threads: int, streams: int = 1):
        if streams != 1:
            raise ValueError("one sequence only")
        torch.set_num_threads(threads)
        self.model = reference.build_model(pathlib.Path(path), "sdpa").to(torch.bfloat16)
        inner = self.model.model
        # Frequencies stay float32.
        inner.rotary_emb = type(inner.rotary_emb)(config=self.model.config)
        self.vocabulary_size = self.model.config.vocab_size
        self.about = f"transformers {transformers.__version__}, torch {torch.__version__}, bfloat16"
        self.clear()

    def clear(self) -> None:
        """Forgets the sequence."""
        self.cache = transformers.DynamicCache()

    def rewind(self, length: int) -> None:
        """Leaves the first `length` tokens."""
        self.cache.crop(length - self.cache.get_seq_length())

    def feed(self, tokens) -> None:
        """Appends tokens to the sequence; logits of the last one only."""
        with torch.inference_mode():
            self.model(torch.tensor([list(tokens)]), past_key_values=self.cache, logits_to_keep=1)


if __name__ == "__main__":
    peer_bench.main(__doc__, Session)
