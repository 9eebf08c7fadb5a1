"""How far tested logits are from reference logits. numpy only.

All arrays are (positions, vocabulary). p is the reference's softmax, q the tested side's.

    KL            sum over v of p(v) * (log p(v) - log q(v)), in nats, one number per position
    top-1         share of positions where both sides' greatest logit is at the same token
    perplexity    exp(mean over positions of -log q(next token)); needs the next token, so a
                  sequence of n tokens gives n - 1 terms
    relative error of a row   ||a - b||_inf / ||b||_inf, a tested, b reference; the report holds
                  the greatest row's
"""

import numpy

ROWS_AT_ONCE = 64  # float64 copies stay small: 64 rows of 150,000 are 78 MB
FIELDS = ("kl", "agrees", "relative", "reference_loss", "tested_loss")
# Neighbouring positions share their context, so that they are drawn together.
BLOCK = 32
RESAMPLES = 4000


def log_softmax(rows):
    """Log-probabilities in float64, (rows, vocabulary)."""
    rows = rows.astype(numpy.float64)
    rows -= rows.max(axis=1, keepdims=True)
    return rows - numpy.log(numpy.exp(rows).sum(axis=1, keepdims=True))


def _figures_of_rows(reference, tested, following) -> list:
    if not numpy.isfinite(tested).all():
        raise ValueError("the tested logits hold a NaN or an infinity")
    difference = numpy.abs(tested - reference).max(axis=1)
    log_p, log_q = log_softmax(reference), log_softmax(tested)
    rows = numpy.arange(len(following))
    losses = numpy.full((2, len(reference)), numpy.nan)
    losses[0, rows] = -log_p[rows, following]
    losses[1, rows] = -log_q[rows, following]
    return [(numpy.exp(log_p) * (log_p - log_q)).sum(axis=1),
            reference.argmax(axis=1) == tested.argmax(axis=1),
            difference / numpy.abs(reference).max(axis=1), *losses]


def figures(reference, tested, tokens) -> dict:
    """FIELDS, each (n), of one sequence: two (n, vocabulary) arrays and the tokens that gave them.

    The losses of the last token are NaN where `tokens` ends there: nothing follows it.
    """
    if reference.shape != tested.shape:
        raise ValueError(f"reference is {reference.shape}, tested is {tested.shape}")
    parts = []
    for start in range(0, len(reference), ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, len(reference))
        following = numpy.asarray(tokens[start + 1:stop + 1], dtype=int)
        parts.append(_figures_of_rows(reference[start:stop], tested[start:stop], following))
    return {field: numpy.concatenate(columns) for field, columns in zip(FIELDS, zip(*parts))}


def join(sequences: list) -> dict:
    """The figures of several sequences, one behind the other."""
    return {field: numpy.concatenate([each[field] for each in sequences]) for field in FIELDS}


def report(rows: dict) -> dict:
    """What is said of a side."""
    return {
        "positions": len(rows["kl"]),
        "mean_kl": float(numpy.mean(rows["kl"])),
        "p99_kl": float(numpy.percentile(rows["kl"], 99)),
        "max_kl": float(numpy.max(rows["kl"])),
        "top1_agreement": float(numpy.mean(rows["agrees"])),
        "perplexity": float(numpy.exp(numpy.nanmean(rows["tested_loss"]))),
        "reference_perplexity": float(numpy.exp(numpy.nanmean(rows["reference_loss"]))),
        "max_relative_error": float(numpy.max(rows["relative"])),
    }


def difference(ours, theirs) -> dict:
    """The mean of ours - theirs, (n) each at the same positions, and where it lies with 95 %.

    Paired bootstrap: blocks of BLOCK neighbouring positions are drawn with replacement, always the
    same ones for both sides.
    """
    blocks = numpy.array_split(numpy.asarray(ours, float) - numpy.asarray(theirs, float),
                               max(1, round(len(ours) / BLOCK)))
    sums = numpy.array([block.sum() for block in blocks])
    counts = numpy.array([len(block) for block in blocks])
    draws = numpy.random.default_rng(1).integers(len(blocks), size=(RESAMPLES, len(blocks)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = numpy.percentile(means, (2.5, 97.5))
    return {"mean": float(sums.sum() / counts.sum()), "low": float(low), "high": float(high)}
