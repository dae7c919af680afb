"""How near one text is to another: short answers, and whole reports by their words.

Words are runs of letters and digits in lower case, so that punctuation and case count for nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from medvlm.evaluate.bootstrap import Counts, Floats, ratio

BLEU_ORDERS = 4


def normalise_answer(text: str) -> str:
    """Lower case, without punctuation, articles and spare spaces, for comparison."""
    words = re.sub(r"[^\w\s]|_", " ", text.lower()).split()
    return " ".join(word for word in words if word not in {"a", "an", "the"})


def token_f1(a: str, b: str) -> float:
    """F1 of the words two answers share, after :func:`normalise_answer`; 1 if both are empty."""
    words_a, words_b = normalise_answer(a).split(), normalise_answer(b).split()
    if not words_a or not words_b:
        return float(words_a == words_b)
    shared = (Counter(words_a) & Counter(words_b)).total()
    return 2 * shared / (len(words_a) + len(words_b))


def words_of(text: str) -> list[str]:
    """The words that BLEU and ROUGE compare."""
    return re.findall(r"[a-z0-9]+", text.lower())


def bleu_of(references: Sequence[str], texts: Sequence[str], counts: Counts) -> Floats:
    """[R, 4]: corpus BLEU-1 to BLEU-4 (0..1) of N texts in each resample ``counts`` [R, N].

    Papineni et al., "BLEU" (ACL 2002), one reference a text, without smoothing: an order of which
    no n-gram agrees makes the score 0. BLEU-n is the geometric mean of the clipped precisions of
    the orders 1..n, times the brevity penalty.
    """
    columns = np.array(
        [_agreement(words_of(r), words_of(t)) for r, t in zip(references, texts, strict=True)],
        np.float64,
    ).reshape(len(texts), 2 * BLEU_ORDERS + 2)
    sums = counts @ columns
    shared, total = sums[:, :BLEU_ORDERS], sums[:, BLEU_ORDERS : 2 * BLEU_ORDERS]
    length, wanted = sums[:, -2], sums[:, -1]
    with np.errstate(divide="ignore"):  # log 0: a score of 0
        logs = np.log(np.nan_to_num(ratio(shared, total)))
    orders = np.arange(1, BLEU_ORDERS + 1)
    penalty = np.exp(np.minimum(0, 1 - np.nan_to_num(ratio(wanted, length), nan=np.inf)))
    return np.asarray(penalty[:, None] * np.exp(np.cumsum(logs, axis=1) / orders))


def rouge_l(reference: str, text: str) -> float:
    """F1 of the longest common subsequence of words, 0..1 (Lin, "ROUGE", 2004; beta 1).

    0 if either has no word.
    """
    wanted, said = words_of(reference), words_of(text)
    if not wanted or not said:
        return 0.0
    return 2 * _common_subsequence(wanted, said) / (len(wanted) + len(said))


def _agreement(reference: Sequence[str], text: Sequence[str]) -> list[int]:
    """Clipped n-grams shared, n-grams said (orders 1..4), words said, words wanted."""
    shared, total = [], []
    for order in range(1, BLEU_ORDERS + 1):
        own, wanted = _ngrams(text, order), _ngrams(reference, order)
        shared.append((own & wanted).total())
        total.append(own.total())
    return [*shared, *total, len(text), len(reference)]


def _ngrams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[i:] for i in range(order)), strict=False))


def _common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Its length, by bits: Hyyrö, "Bit-parallel LCS-length computation revisited" (2004)."""
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    everything = (1 << len(a)) - 1
    open_places = everything
    for word in b:
        met = open_places & places.get(word, 0)
        open_places = ((open_places + met) | (open_places - met)) & everything
    return len(a) - open_places.bit_count()
