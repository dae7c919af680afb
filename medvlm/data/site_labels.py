"""What is known of a study: its report's labels, boxes that were drawn, and a reviewer's word.

The reviewer wins over the boxes, the boxes over the report. Sentences are kept without what
identifies anybody, and only those that state something about one of the findings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from medvlm.data.site import Site, SiteStudy, clipped
from medvlm.findings import FINDINGS
from medvlm.reports.corrections import boxes_of, labels_of, unsettled
from medvlm.reports.known import Known
from medvlm.reports.labels import Labels, combine, read_sentences
from medvlm.reports.read import SiteBox
from medvlm.reports.redact import names_somebody, redact
from medvlm.reports.report import Problem
from medvlm.reports.statements import Statement, statements

BoxSource = Literal["site", "accepted", "edited", "rejected", "added"]


@dataclass(frozen=True)
class KeptSentence:
    """A redacted sentence of a report (`section`) or of a review ("review")."""

    section: str
    text: str
    statements: tuple[Statement, ...]


@dataclass(frozen=True)
class KnownBox:
    """A finding's box in fractions of its image; `source`: who drew it or what was done to it."""

    finding: str
    x: float
    y: float
    width: float
    height: float
    source: BoxSource


@dataclass
class StudyLabels:
    """What is known of one study; `boxes` by SOPInstanceUID."""

    labels: Labels
    sentences: list[KeptSentence] = field(default_factory=list)
    boxes: dict[str, list[KnownBox]] = field(default_factory=dict)
    redacted: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)

    @property
    def is_known(self) -> bool:
        """Whether anything is."""
        return any(self.labels.values())


def study_labels(site: Site, study: SiteStudy, known: Known) -> StudyLabels:
    """The labels, sentences and boxes of a study.

    Args:
        known: all that is known to identify the patient and those around them.
    """
    sentences = read_sentences(study.report.sections) if study.report else []
    result = StudyLabels(combine(one for sentence in sentences for one in sentence.statements))
    _add_boxes(site, study, result)
    reviewed: set[str] = set()
    if study.review:
        own = labels_of(study.review)
        # What was rejected for some other reason is not known any more.
        reviewed = {finding for finding, label in own.items() if label} | unsettled(study.review)
        result.labels |= {finding: own[finding] for finding in reviewed}
        _replace_boxes(study, result)
    for sentence in sentences:
        contradicts = any(
            one.finding in reviewed and one.polarity != result.labels[one.finding]
            for one in sentence.statements
        )
        if contradicts:
            result.dropped["contradicts_review"] += 1
        elif sentence.statements:
            _keep(result, sentence.section, sentence.text, sentence.statements, known)
    for one in study.review.sentences if study.review else ():
        if one.text_left and one.stated:
            _keep(result, "review", one.text_left, (Statement(*one.stated),), known)
    return result


def _keep(
    result: StudyLabels, section: str, text: str, said: Sequence[Statement], known: Known
) -> None:
    """Keeps the sentence if it still says the same without identifiers, and names nobody."""
    clean, counts = redact(text, known)
    if names_somebody(clean, known):
        result.dropped["identifier_left"] += 1
    elif counts and statements(clean) != statements(text):
        result.dropped["changed_by_redaction"] += 1
    else:
        result.redacted.update(counts)
        result.sentences.append(KeptSentence(section, clean, tuple(said)))


def _add_boxes(site: Site, study: SiteStudy, result: StudyLabels) -> None:
    """Boxes of the site's own; where one is, the finding is."""
    for film in study.films:
        uid = film.instance.sop_instance_uid or ""
        for box in site.boxes.get(uid, ()):
            _place(result, uid, box, film.instance.columns, film.instance.rows, "site")
            if result.labels[box.finding] == "absent":
                message = "A box is drawn around a finding that the report denies; the box counts."
                result.problems.append(Problem(box.source, "box_against_report", message))
            result.labels[box.finding] = "present"


def _replace_boxes(study: SiteStudy, result: StudyLabels) -> None:
    """The reviewer's boxes in the place of all others of the findings that were reviewed."""
    review = study.review
    assert review is not None
    spoken_of = {name for one in review.sentences for name in (one.finding, one.finding_after)}
    for uid, boxes in result.boxes.items():
        result.boxes[uid] = [box for box in boxes if box.finding not in spoken_of]
    films = {film.instance.sop_instance_uid: film.instance for film in study.films}
    for finding, region, action in ((b.finding, b.region, b.action) for b in boxes_of(review)):
        only = next(iter(films)) if len(films) == 1 else None
        place = region.sop_instance_uid or only
        instance = films.get(place)
        raw = SiteBox("a review", finding, region.x, region.y, region.width, region.height)
        cut = clipped(raw, instance) if instance else None
        if place is None or instance is None or cut is None:
            message = "A reviewed region lies on none of the study's images."
            result.problems.append(Problem("a review", "unmatched_box", message))
        else:
            _place(result, place, cut, instance.columns, instance.rows, action)


def _place(
    result: StudyLabels, uid: str, box: SiteBox, columns: int, rows: int, source: BoxSource
) -> None:
    result.boxes.setdefault(uid, []).append(
        KnownBox(
            box.finding,
            box.x / columns,
            box.y / rows,
            box.width / columns,
            box.height / rows,
            source,
        )
    )


def nih_labels(labels: Mapping[str, str | None]) -> str:
    """The column `labels` of the NIH layout: what is present; `No Finding` only where it is said.

    That is: heart, lungs and pleura are all spoken of, and nothing is present or uncertain.
    """
    present = [name for name in FINDINGS if labels[name] == "present"]
    if present or any(label == "uncertain" for label in labels.values()):
        return "|".join(present)
    spoken_of = all(labels[name] for name in ("Cardiomegaly", "Consolidation", "Effusion"))
    return "No Finding" if spoken_of else ""


def known_of_patients(studies: Iterable[SiteStudy]) -> dict[str, Known]:
    """What identifies each patient, from all of their files and reports."""
    found: dict[str, Known] = {}
    for study in studies:
        own = found.setdefault(study.patient, {})
        for film in study.films:
            own |= film.facts.known
        if study.report:
            own |= study.report.known
    return found
