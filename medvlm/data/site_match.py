"""Which report is of which study: by UID and accession number, never where two could be meant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from medvlm.reports.language import is_english
from medvlm.reports.report import Problem, Report


@dataclass(frozen=True)
class StudyKeys:
    """What a report may name a study and its patient by."""

    study_instance_uid: str = field(repr=False)
    accessions: frozenset[str] = field(repr=False)
    patient_ids: frozenset[str] = field(repr=False)


def match_reports(
    studies: Sequence[StudyKeys], reports: Sequence[Report], problems: list[Problem]
) -> list[Report | None]:
    """The report of each study, None where there is none; whatever is not used is a problem."""
    by_uid = {study.study_instance_uid: place for place, study in enumerate(studies)}
    by_accession: dict[str, set[int]] = defaultdict(set)
    for place, study in enumerate(studies):
        for accession in study.accessions:
            by_accession[accession].add(place)
    matched: dict[int, list[Report]] = defaultdict(list)
    for report in reports:
        places = _places(report, by_uid, by_accession)
        if len(places) != 1:
            code = "ambiguous_report" if places else "unmatched_report"
            message = "No study has" if not places else "Several studies have"
            message += " its StudyInstanceUID or AccessionNumber."
            problems.append(Problem(report.source, code, message))
            continue
        (place,) = places
        if not _same_patient(report, studies[place]):
            message = "Its patient ID is not that of the images."
            problems.append(Problem(report.source, "other_patient", message))
        elif not is_english(report.text):
            message = "It does not look like English, which is all that the rules read."
            problems.append(Problem(report.source, "not_english", message))
        else:
            matched[place].append(report)
    return [_chosen(matched[place], problems) for place in range(len(studies))]


def _places(
    report: Report, by_uid: Mapping[str, int], by_accession: Mapping[str, set[int]]
) -> set[int]:
    """Where the studies are that the report may be of.

    One accession number may cover several studies, so that a report of a study that is not here
    is of none, whatever its accession number; where UID and number point at two studies, of both.
    """
    numbered = by_accession.get(report.accession_number or "", set())
    if report.study_instance_uid is None:
        return numbered
    place = by_uid.get(report.study_instance_uid)
    if place is None:
        return numbered if report.own_study else set()
    return {place} if place in numbered or not numbered else numbered | {place}


def _same_patient(report: Report, study: StudyKeys) -> bool:
    own = (report.patient_id or "").strip().casefold()
    return not own or not study.patient_ids or own in study.patient_ids


def _chosen(reports: list[Report], problems: list[Problem]) -> Report | None:
    """The final one, of these the newest; None where nothing tells which of two that differ."""
    distinct: dict[str, Report] = {}
    for report in reports:
        text = " ".join(report.text.split()).casefold()
        if text in distinct:
            message = f"Its text is that of {distinct[text].source}."
            problems.append(Problem(report.source, "duplicate_report", message))
        else:
            distinct[text] = report
    ordered = sorted(distinct.values(), key=_rank)
    if len(ordered) > 1:
        newest, next_to = ordered[-1], ordered[-2]
        undated = newest.issued is None or next_to.issued is None
        if _rank(newest) == _rank(next_to) or (newest.final == next_to.final and undated):
            message = "Reports of one study differ, and none is marked as the later."
            problems += [Problem(one.source, "conflicting_reports", message) for one in ordered]
            return None
        message = f"A later report of the study, {newest.source}, takes its place."
        problems += [Problem(one.source, "replaced_report", message) for one in ordered[:-1]]
    return ordered[-1] if ordered else None


def _rank(report: Report) -> tuple[bool, str]:
    return report.final, report.issued or ""
