"""The texts that accuracy is measured over."""

import pathlib

FOLDER = pathlib.Path(__file__).resolve().parent / "texts"

# File -> what it is, for figures by kind.
TEXTS = {
    "essay.txt": "English",
    "letter.txt": "English",
    "sample.py.txt": "code",
    "queue.cc.txt": "code",
    "schema.sql.txt": "code",
    "german.txt": "other languages",
    "french.txt": "other languages",
    "spanish.txt": "other languages",
    "russian.txt": "other languages",
    "chinese.txt": "other languages",
    "japanese.txt": "other languages",
    "manual.txt": "English",
    "talk.txt": "English",
    "parser.rs.txt": "code",
    "orders.js.txt": "code",
    "backup.sh.txt": "code",
    "italian.txt": "other languages",
    "portuguese.txt": "other languages",
    "polish.txt": "other languages",
    "ukrainian.txt": "other languages",
    "turkish.txt": "other languages",
    "korean.txt": "other languages",
    "arabic.txt": "other languages",
}
# Longer texts are several sequences, so that a sequence's logits fit memory.
MOST_TOKENS = 1024


def sequences(encode, positions: int | None) -> list[tuple[str, list[int]]]:
    """(kind, token ids) of every text; `positions`: so many in all, of each text its part."""
    texts = [(kind, encode((FOLDER / name).read_text())) for name, kind in TEXTS.items()]
    total = sum(len(ids) for _, ids in texts)
    share = 1 if positions is None else min(1, positions / total)
    cut = []
    for kind, ids in texts:
        kept = ids[:max(2, round(len(ids) * share))]
        pieces = -(-len(kept) // MOST_TOKENS)
        size = -(-len(kept) // pieces)
        cut += [(kind, kept[start:start + size]) for start in range(0, len(kept), size)]
    return cut
