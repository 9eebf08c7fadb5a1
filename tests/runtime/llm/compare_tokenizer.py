#!/usr/bin/env python3
"""Compares Quern's tokenizer with Hugging Face's `tokenizers` on the vocabulary of a GGUF file.

    pip install tokenizers gguf
    compare_tokenizer.py MODEL.gguf TEST_BINARY [--count 5000] [--seed 1]   # exit 7 on a difference
    compare_tokenizer.py MODEL.gguf --write-golden tests/golden/tokenizer/MODEL.json

The oracle is built from the file's tokens and merges and from the normalizer and pre-tokenizer
that the model's own tokenizer.json publishes. Cases are written as golden files are, and
TEST_BINARY (quern_tokenizer_golden_test) checks them.
"""
import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def byte_level(use_regex):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=use_regex)


# name in the GGUF file -> (normalizer, pre-tokenizer) as published with the models
PUBLISHED = {
    "smollm": lambda: (None, pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), byte_level(True)])),
    "qwen2": lambda: (normalizers.NFC(), pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN2), "isolated"), byte_level(False)])),
}
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4


def load(path):
    """The oracle and the vocabulary size."""
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    vocab = {}
    for i, token in enumerate(tokens):
        vocab.setdefault(token, i)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    normalizer, pre_tokenizer = PUBLISHED[fields["tokenizer.ggml.pre"].contents()]()
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    special = [t for t, kind in zip(tokens, types) if kind in (UNKNOWN, CONTROL)]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    added = [t for t, kind in zip(tokens, types) if kind == USER_DEFINED]
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in added])
    return tokenizer, len(tokens), special + added


FIXED = """\

Hello, world!
 leading space
trailing space \

The quick brown fox jumps over the lazy dog.
I'm, you're, we've, they'll, he'd, it's, don't; I'M YOU'RE WE'VE THEY'LL
'S 'T 's't 'sa ''s o'clock rock'n'roll \u2019s
1 12 123 1234 12345 3.14159 1,000,000 2024-11-22T03:20:21Z 0xDEADBEEF 1e-9
Ⅷ ½ ² ³ ٣٤٥ 一二三 ①②③ 𝟘𝟙𝟚
int main(int argc, char **argv) { return argc > 1 ? atoi(argv[1]) : 0; }
def f(x: list[int]) -> dict[str, int]:\\n    return {str(i): i**2 for i in x if i % 2 == 0}
\\tif (a && b || !c) {\\n\\t\\t++i;\\n\\t}\\n
SELECT * FROM t WHERE a <> 'b' AND c IN (1, 2);\\n\\n\\n-- done\\r\\n
<html><body class="x">&amp; &lt;</body></html>
#!/bin/bash\\nset -euo pipefail\\nfor f in *.txt; do echo "$f"; done
{"key": [1, 2.5, null, true], "nested": {"a": "b"}}
你好，世界！今天天气怎么样？
こんにちは、世界。カタカナとひらがな。
안녕하세요 세계! 한국어 텍스트입니다.
Привет, мир! Ёжик в тумане.
مرحبا بالعالم، كيف حالك؟
שלום עולם
नमस्ते दुनिया
สวัสดีชาวโลก
Γειά σου Κόσμε ΑΒΓ
Xin chào thế giới, tiếng Việt có dấu
Straße, naïve, café, Ångström, œuvre, ﬁne ﬂow
cafe\u0301 A\u030angstro\u0308m \u1100\u1161\u11a8 e\u0323\u0302
\u0344 \u212b \u2126 \u0958 \u2adc
😀😃😄 👍🏽 👨‍👩‍👧‍👦 🇩🇪🇯🇵 ❤️ ☺ 🏳️‍🌈
a😀b 日😀本
\u200b\u200d\u200e\ufeff zero width
\u00a0nbsp\u00a0 \u3000ideographic\u3000 \u2003em \u2028line\u2029para \u0085nel \u180emvs \u1680ogham
\\x00\\x01\\x02\\x07\\x08\\x0b\\x0c\\x1b[31mred\\x1b[0m\\x1c\\x1d\\x1e\\x1f\\x7f
a\\x00b\\x00\\x00c
tab\\ttab\\t\\ttab
line\\nline\\n\\nline\\n\\n\\nline
crlf\\r\\ncrlf\\r\\n\\r\\n
mixed \\n \\t \\r\\n  \\n\\n  x
a b  c   d    e     f
  two   three    four
.......... !!!! ???? ---- ==== #### ****
$100 €50 £20 ¥1000 ₹500
x=y+z-w*v/u%t^s&r|q~p
https://example.org/path?query=1&b=%20#frag user@example.com
C:\\\\Users\\\\name\\\\file.txt
snake_case camelCase PascalCase SCREAMING_CASE kebab-case
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
Lorem ipsum dolor sit amet, consectetur adipiscing elit.
<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n
<|im_start|><|im_end|><|endoftext|>
<|im_start <|im_end| |im_end|> <| |>
text<|endoftext|>text <|endoftext|> 
<tool_call>{"name": "f"}</tool_call><|fim_prefix|>
<repo_name><file_sep><jupyter_code>
ǅ ǆ ŉ ĳ Ĳ ſ 'ſ KELVIN\u212a
\ufffd \ufffe \U0010ffff \ue000
ﷺ ꧁ ༼ つ ◕_◕ ༽つ
¿Qué? ¡Sí! «guillemets» „Anführung“ ‚x‘ …—–
∀x∈ℝ: ⌈x⌉ = −⌊−x⌋ ∑∏∫√∞
""".splitlines()

INVALID = ["ff", "c0af", "e4bd", "e4bd41", "f0908041", "eda080", "f4908080", "80", "61ff62",
           "e28228a1", "f0288cbc", "c328", "fe", "e4bda0e5", "00ff00", "efbfbe"]

PIECES = ["a", "Z", "the", "ing", " ", "  ", "    ", "\t", "\n", "\r\n", "\r", "'s", "'T", "'ll",
          "1", "42", "٣", "½", ".", ",", "!?", "(", ")", "==", "->", "_", "#", "//", "é", "e\u0301",
          "ß", "日本", "语", "한", "\u1112\u1161", "ж", "ع", "न", "ก", "😀", "👍🏽", "\u200d", "\ufe0f",
          "\u00a0", "\u3000", "\u2028", "\u0085", "\u180e", "\x00", "\x1b", "\x7f", "\ufffd",
          "def ", "return", "http://", "foo_bar", "\U0001d518", "𐍈", "\u0344", "\u212b"]


def cases(tokenizer, special, count, seed):
    """Texts and, with `hex`, bytes that are not UTF-8; with the ids that the oracle gives."""
    rng = random.Random(seed)
    texts = [line.encode("latin-1", "backslashreplace").decode("unicode-escape", "surrogatepass")
             if "\\" in line else line for line in FIXED]
    texts += [" " * n for n in (1, 2, 3, 7, 8, 16, 33, 100)]
    texts += ["\n" * n for n in (1, 2, 3, 5, 17)] + ["\t" * n for n in (1, 2, 5)]
    texts += ["a" * 1000, "ab" * 300, " a" * 200, "1" * 50, "日" * 100, "😀" * 40, "'" * 20]
    while len(texts) + len(INVALID) < count:
        kind = rng.random()
        if kind < 0.6:
            texts.append("".join(rng.choice(PIECES) for _ in range(rng.randint(1, 24))))
        elif kind < 0.7:
            texts.append("".join(rng.choice(PIECES + special) for _ in range(rng.randint(1, 12))))
        elif kind < 0.85:
            texts.append("".join(chr(rng.choice([rng.randint(0, 0x7F), rng.randint(0x80, 0x7FF),
                                                 rng.randint(0x800, 0xD7FF),
                                                 rng.randint(0xE000, 0x323AF)]))
                                 for _ in range(rng.randint(1, 16))))
        else:
            texts.append("".join(chr(rng.randint(0x20, 0x7E)) for _ in range(rng.randint(1, 60))))
    result = [{"text": t, "ids": tokenizer.encode(t, add_special_tokens=False).ids} for t in texts]
    for data in INVALID:
        text = bytes.fromhex(data).decode("utf-8", errors="replace")
        result.append({"hex": data, "ids": tokenizer.encode(text, add_special_tokens=False).ids})
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("test_binary", nargs="?")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write-golden", metavar="FILE")
    args = parser.parse_args()
    model = pathlib.Path(args.model)
    tokenizer, vocab, special = load(args.model)
    count = 170 if args.write_golden else args.count
    golden = {"model": model.name, "vocab": vocab,
              "cases": cases(tokenizer, special, count, args.seed)}
    if args.write_golden:
        lines = ",\n".join(json.dumps(c, ensure_ascii=True) for c in golden.pop("cases"))
        head = json.dumps(golden)[:-1]
        pathlib.Path(args.write_golden).write_text(f'{head}, "cases": [\n{lines}\n]}}\n')
        return 0
    if not args.test_binary:
        parser.error("name the test binary, or --write-golden FILE")
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "cases.json").write_text(json.dumps(golden))
        environment = dict(os.environ, QUERN_TEST_MODELS=str(model.parent),
                           QUERN_TOKENIZER_CASES=folder)
        done = subprocess.run([args.test_binary], env=environment, check=False)
    print(f"{len(golden['cases'])} strings: {'all agree' if done.returncode == 0 else 'DIFFERENT'}")
    return 0 if done.returncode == 0 else 7


if __name__ == "__main__":
    sys.exit(main())
