"""What the drafts' text says, what the language model sees by itself, and what it makes of another
patient's image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np

from medvlm.data.sets import Film
from medvlm.draft.answer import presence_margins
from medvlm.draft.compose import describe
from medvlm.draft.parse import parse_sentence
from medvlm.draft.withhold import withhold
from medvlm.evaluate.bootstrap import resamples
from medvlm.evaluate.controls import other_patient
from medvlm.evaluate.metrics import finding_f1, paired_f1_gain
from medvlm.evaluate.references import Mention, Reference, strongest
from medvlm.evaluate.report_text import against_references, confusion
from medvlm.evaluate.scan import look_at_files
from medvlm.findings import FINDINGS
from medvlm.model.checkpoint import Checkpoint

MOST_FILMS = 200
"""Writing takes seconds a film; of a larger set, a seeded sample is drafted."""

T = TypeVar("T")


class ReportPair(NamedTuple):
    """A report that people wrote beside the draft of the same image."""

    image: str
    reference: str
    draft: str


@dataclass(frozen=True)
class Drafted:
    """Of N films and F findings: the drafts' words, what they say of each finding [N, F], margins
    of the checklist [N, F], how many findings are called uncertain [N], and counts."""

    texts: list[str]
    mentions: np.ndarray
    margins: np.ndarray
    uncertain: np.ndarray
    contradictions: int
    sentences: int


def report(
    checkpoint: Checkpoint,
    films: Sequence[Film],
    names: Sequence[str],
    references: Mapping[str, Reference],
    batch_size: int,
) -> tuple[dict[str, Any], list[ReportPair]]:
    """The `report` part of the evaluation JSON, over the findings `names`; intervals by patient.

    `prevalence_f1`: the best that can be said without an image, always the same commonest findings
    of these very films. `shuffled_f1`: every film is given the next patient's visual tokens.
    `with_possible`: the same if what is called possible counts as stated.
    `uncertain_on_normal`: how many findings a draft calls possible on a film without any.
    `label_confusion`: how the drafts speak of what the labels hold for present or absent.
    `text_contradicts_classifier` reads the drafts as released; the parser that counts is the one
    that held the sentences to their statements. `reference_reports`: see
    :func:`~medvlm.evaluate.report_text.against_references`; with it come the pairs of texts.
    """
    films = sample(films)
    said = _draft_all(checkpoint, films, names, batch_size)
    truth = np.stack([film.findings for film in films])[:, [FINDINGS.index(n) for n in names]]
    groups = [film.group for film in films]
    counts = resamples(groups)
    stated, possible = (said.mentions == mention for mention in ("present", "uncertain"))
    seen = said.margins > checkpoint.config.operating_points.checklist
    controls = {"prevalence": np.tile(best_constant(truth), (len(films), 1))}
    if (other := other_patient(groups)) is not None:
        controls["shuffled"] = seen[other]
    scores = finding_f1(truth, stated, groups)
    for name, claimed in ({"tokens_only": seen} | controls).items():
        own = finding_f1(truth, claimed, groups)
        scores |= {f"{name}_f1": own["f1"], f"{name}_f1_ci": own["f1_ci"]}
    for name, control in controls.items():
        gain = paired_f1_gain(truth, seen, control, counts)
        scores |= {f"gain_over_{name}": gain["gain"], f"gain_over_{name}_ci": gain["gain_ci"]}
    scores["with_possible"] = finding_f1(truth, stated | possible, groups)
    scores["label_confusion"] = confusion(_labels(truth), said.mentions, ("present", "absent"))
    normal = [row for row, film in enumerate(films) if film.normal]
    if normal:
        scores["uncertain_on_normal"] = float(said.uncertain[normal].mean())
    scores |= {
        "text_contradicts_classifier": said.contradictions,
        "n_sentences": said.sentences,
        "n_films": len(films),
    }
    rows = [i for i, film in enumerate(films) if film.image.name in references]
    own_references = [references[films[i].image.name] for i in rows]
    if rows:
        scores["reference_reports"] = against_references(
            own_references,
            [said.texts[i] for i in rows],
            said.mentions[rows],
            names,
            [groups[i] for i in rows],
        )
    pairs = [
        ReportPair(films[i].image.name, reference.text, said.texts[i])
        for i, reference in zip(rows, own_references, strict=True)
    ]
    return scores, pairs


def sample(films: Sequence[T], most: int = MOST_FILMS) -> list[T]:
    """All, or a seeded sample of `most` in their order."""
    if len(films) <= most:
        return list(films)
    chosen = np.random.default_rng(0).permutation(len(films))[:most]
    return [films[i] for i in sorted(chosen)]


def best_constant(truth: np.ndarray) -> np.ndarray:
    """bool [F]: the k commonest findings, k chosen for the best F1 on these films [N, F]."""
    order = np.argsort(-(truth == 1).sum(axis=0))
    best, best_f1 = np.zeros(truth.shape[1], dtype=bool), -1.0
    for k in range(1, len(order) + 1):
        said = np.zeros(truth.shape[1], dtype=bool)
        said[order[:k]] = True
        f1 = finding_f1(truth, np.tile(said, (len(truth), 1)))["f1"] or 0.0
        if f1 > best_f1:
            best, best_f1 = said, f1
    return best


def _draft_all(
    checkpoint: Checkpoint, films: Sequence[Film], names: Sequence[str], batch_size: int
) -> Drafted:
    unmentioned: Mention = "unmentioned"
    mentions = np.full((len(films), len(names)), unmentioned, dtype=object)
    margins = np.zeros((len(films), len(names)))
    uncertain = np.zeros(len(films))
    texts = []
    contradictions = sentences = 0
    paths = [film.image for film in films]
    for row, seen in enumerate(look_at_files(checkpoint, paths, batch_size, "drafting")):
        findings = describe(checkpoint, [seen])
        read = [parse_sentence(finding.text) for finding in findings]
        sentences += len(findings)
        uncertain[row] = sum(finding.polarity == "uncertain" for finding in findings)
        contradictions += sum(
            [(s.finding, s.polarity) for s in own] != [(finding.finding, finding.polarity)]
            for finding, own in zip(findings, read, strict=True)
        )
        said = strongest((s.finding, s.polarity) for own in read for s in own)
        mentions[row] = [said.get(name, unmentioned) for name in names]
        margins[row] = presence_margins(checkpoint, seen, list(names))
        texts.append(" ".join(finding.text for finding in withhold(findings).findings))
    return Drafted(texts, mentions, margins, uncertain, contradictions, sentences)


def _labels(truth: np.ndarray) -> np.ndarray:
    """Labels as mentions [N, F]; unknown stays unmentioned."""
    return np.select([truth == 1, truth == 0], ["present", "absent"], "unmentioned")
