"""OpenVINO GenAI on this CPU, which reads some GGUF files itself (llama and qwen2; Q4, Q6_K, Q8 types).

It generates whole answers, so times are its own metrics: to the first token, and of a token after it.
"""

import random

import numpy
import openvino
import openvino_genai
import peer_bench


class Pipeline:
    """One model; every call is a sequence of its own."""

    def __init__(self, path, context: int, threads: int, streams: int = 1):
        if streams != 1:
            raise ValueError("one sequence only")
        self.pipeline = openvino_genai.LLMPipeline(str(path), "CPU", INFERENCE_NUM_THREADS=threads)
        self.choose = random.Random(1)
        self.about = f"openvino-genai {openvino_genai.__version__}"

    def _generate(self, prompt: int, count: int):
        # Ids of plain words in any vocabulary.
        ids = numpy.array([[self.choose.randrange(1000, 30000) for _ in range(prompt)]], numpy.int64)
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids),
                                                openvino.Tensor(numpy.ones_like(ids)))
        wanted = openvino_genai.GenerationConfig(max_new_tokens=count, min_new_tokens=count,
                                                 ignore_eos=True)
        return self.pipeline.generate(inputs, wanted).perf_metrics

    def prefill_seconds(self, count: int, depth: int) -> float:
        """To the first token behind a prompt of `count`; it has no way to measure a prompt's second half."""
        if depth:
            raise ValueError("prompts begin at the beginning")
        return self._generate(count, 1).get_ttft().mean / 1e3

    def decode_seconds(self, count: int, depth: int, streams: int) -> float:
        """Of `count` tokens behind the first."""
        return self._generate(max(depth, 1), count + 1).get_tpot().mean / 1e3 * count


if __name__ == "__main__":
    peer_bench.main(__doc__, Pipeline)
