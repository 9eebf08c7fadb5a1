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


def log_softmax(rows):
    """Log-probabilities in float64, (rows, vocabulary)."""
    rows = rows.astype(numpy.float64)
    rows -= rows.max(axis=1, keepdims=True)
    return rows - numpy.log(numpy.exp(rows).sum(axis=1, keepdims=True))


class Accumulator:
    """Collects per-position figures over several sequences."""

    def __init__(self):
        self.kl, self.agrees, self.relative = [], [], []
        self.reference_loss, self.tested_loss = [], []

    def add(self, reference, tested, tokens) -> None:
        """Adds one sequence: two (n, vocabulary) arrays and the n token ids that gave them."""
        if reference.shape != tested.shape:
            raise ValueError(f"reference is {reference.shape}, tested is {tested.shape}")
        following = numpy.asarray(tokens[1:])
        for start in range(0, len(tokens), ROWS_AT_ONCE):
            stop = min(start + ROWS_AT_ONCE, len(tokens))
            self._add_rows(reference[start:stop], tested[start:stop], following[start:stop])

    def _add_rows(self, reference, tested, following) -> None:
        if not numpy.isfinite(tested).all():
            raise ValueError("the tested logits hold a NaN or an infinity")
        difference = numpy.abs(tested - reference).max(axis=1)
        self.relative.extend(difference / numpy.abs(reference).max(axis=1))
        self.agrees.extend(reference.argmax(axis=1) == tested.argmax(axis=1))
        log_p, log_q = log_softmax(reference), log_softmax(tested)
        self.kl.extend((numpy.exp(log_p) * (log_p - log_q)).sum(axis=1))
        rows = numpy.arange(len(following))  # the last row of a sequence has no next token
        self.reference_loss.extend(-log_p[rows, following])
        self.tested_loss.extend(-log_q[rows, following])

    def report(self) -> dict:
        """The figures over everything added."""
        return {
            "positions": len(self.kl),
            "mean_kl": float(numpy.mean(self.kl)),
            "p99_kl": float(numpy.percentile(self.kl, 99)),
            "max_kl": float(numpy.max(self.kl)),
            "top1_agreement": float(numpy.mean(self.agrees)),
            "perplexity": float(numpy.exp(numpy.mean(self.tested_loss))),
            "reference_perplexity": float(numpy.exp(numpy.mean(self.reference_loss))),
            "max_relative_error": float(numpy.max(self.relative)),
        }
