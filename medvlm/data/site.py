"""A hospital's own folder: studies, reports, boxes and reviews, matched and checked.

Whatever cannot be used becomes a problem with a code; `docs/reports.md` lists them. Identifiers
are held in memory, to match and to redact with; nothing that this module says carries one.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from medvlm.data.site_film import FilmFacts, film_facts
from medvlm.dicom.facts import is_uid
from medvlm.dicom.files import Found
from medvlm.dicom.instance import Instance, read_bytes
from medvlm.dicom.read import Progress, find_once, read_found
from medvlm.dicom.workers import where_safe
from medvlm.errors import DataSetError, InputError
from medvlm.reports.corrections import ReviewedStudy, latest
from medvlm.reports.language import is_english
from medvlm.reports.read import Beside, SiteBox, is_text, read_structured, read_text
from medvlm.reports.report import Problem, Report

_REFILED = 2  # patients under whom one film was filed, for these to be taken for one


@dataclass(frozen=True)
class SiteFilm:
    """One image file and what its header says beyond an `Instance`."""

    instance: Instance
    facts: FilmFacts = field(repr=False)
    source: str


@dataclass(frozen=True)
class SiteStudy:
    """A study with what is known of it. `patient`: in memory only, joins the patient's studies."""

    study_instance_uid: str = field(repr=False)
    patient: str = field(repr=False)
    films: tuple[SiteFilm, ...]
    report: Report | None = None
    review: ReviewedStudy | None = None


@dataclass(frozen=True)
class Site:
    """All of a folder.

    `boxes` by SOPInstanceUID; `files`: files found; `reports`, `reviews`: read, matched or not.
    """

    studies: tuple[SiteStudy, ...]
    boxes: dict[str, list[SiteBox]] = field(repr=False)
    problems: tuple[Problem, ...]
    files: int
    reports: int
    reviews: int


def read_site(
    data_dir: Path | str, *, but: Path | None = None, progress: Progress | None = None
) -> Site:
    """Reads a folder (or archive) with DICOM images and, beside them, reports, boxes and reviews.

    Args:
        data_dir: what the caller gave; subfolders and zip archives are looked into.
        but: a folder of earlier results, left out where it lies inside.
        progress: called with (files done, files in all).

    Raises:
        DataSetError: there is not one image that could be used.
    """
    found, lost = find_once([Path(data_dir)], but)
    problems = [Problem("a file", item.code, item.message) for item in lost]
    beside = Beside(problems=problems)
    texts = [item for item in found if is_text(item.name)]
    images = [item for item in found if not is_text(item.name)]
    numbers = {item.name: number for number, item in enumerate(found, 1)}
    for item in texts:
        _read_beside(item, numbers[item.name], beside, structured=False)
    reading = read_found(images, progress)
    by_name = {item.name: item for item in images}
    for refused in reading.refused:
        if refused.code == "no_pixels" and not refused.index and refused.file in by_name:
            _read_beside(by_name[refused.file], numbers[refused.file], beside, structured=True)
        elif not refused.index:
            place = _mark(numbers.get(refused.file, 0), None)
            problems.append(Problem(place, refused.code, refused.message))
    films = list(_films(reading.instances, numbers, problems))
    studies = _studies(films, problems)
    if not studies:
        raise DataSetError(
            "holds no image that could be used" + _counted(problems),
            file=str(data_dir),
            remedy="Give a folder with DICOM radiographs and their reports (docs/reports.md).",
        )
    studies = _with_reports(studies, beside.reports, problems)
    studies = _with_reviews(studies, beside.reviews, problems)
    boxes = _boxes(studies, beside.boxes, problems)
    return Site(
        tuple(studies),
        boxes,
        tuple(problems),
        files=len(found),
        reports=len(beside.reports),
        reviews=len(beside.reviews),
    )


def _read_beside(item: Found, number: int, beside: Beside, *, structured: bool) -> None:
    try:
        data = read_bytes(item.path, "")
        source = _mark(number, hashlib.sha256(data).hexdigest())
        if structured:
            beside.add(read_structured(data, source))
        else:
            beside.add(read_text(data, item.name, source))
    except InputError as error:
        beside.problems.append(Problem(_mark(number, None), error.code, error.message))


def _mark(number: int, sha256: str | None) -> str:
    return f"file {number:04}" + (f" ({sha256[:12]})" if sha256 else "")


def _counted(problems: Sequence[Problem]) -> str:
    codes = sorted({problem.code for problem in problems})
    return f" ({', '.join(codes)})" if codes else ""


def _films(
    instances: Sequence[Instance], numbers: dict[str, int], problems: list[Problem]
) -> Iterable[SiteFilm]:
    """Each image with its facts, the copies of another left out."""
    seen: dict[str, str] = {}
    bare = [replace(instance, keep=()) for instance in instances]
    facts = where_safe(film_facts, bare, lambda instance: instance.needs_worker, chunk=8)
    for instance, fact in zip(instances, facts, strict=True):
        place = _mark(numbers.get(instance.file, 0), None)
        if isinstance(fact, InputError):
            problems.append(Problem(place, fact.code, fact.message))
            continue
        film = SiteFilm(instance, fact, _mark(numbers.get(instance.file, 0), fact.sha256))
        if fact.pixels_sha256 in seen:
            message = f"Its pixels are those of {seen[fact.pixels_sha256]}."
            problems.append(Problem(film.source, "duplicate_image", message))
            # It stays out, but joins the two patients that it is filed under.
            yield replace(film, facts=replace(fact, is_copy=True))
            continue
        seen[fact.pixels_sha256] = film.source
        yield film


def _studies(films: Sequence[SiteFilm], problems: list[Problem]) -> list[SiteStudy]:
    patients = _patients(films)
    by_uid: dict[str, list[SiteFilm]] = defaultdict(list)
    for film in films:
        uid = film.instance.study_instance_uid or ""
        if is_uid(uid):
            by_uid[uid].append(film)
        else:
            problems.append(Problem(film.source, "no_study", "The image names no study."))
    studies = []
    for uid, members in by_uid.items():
        if len({patients[id(film)] for film in members}) > 1:
            message = "Several patients share its StudyInstanceUID."
            problems += [Problem(film.source, "several_patients", message) for film in members]
        elif kept := tuple(film for film in members if not film.facts.is_copy):
            studies.append(SiteStudy(uid, patients[id(members[0])], kept))
    return studies


def _patients(films: Sequence[SiteFilm]) -> dict[int, str]:
    """One name for all films that may be of one patient, by the film's id.

    Films are joined by patient ID (whoever issued it), by name and birth date, and by pixels that
    are filed under two patients: two taken for one cost a little data, one taken for two leaks.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    filed: dict[str, set[str]] = defaultdict(set)
    for film in films:
        filed[film.facts.pixels_sha256].add(film.facts.identities[0])
    for film in films:
        first, *others = film.facts.identities
        pixels = film.facts.pixels_sha256
        # What is filed under many patients is no patient's: a black film, a test pattern.
        if len(filed[pixels]) == _REFILED:
            others.append(f"pixels\0{pixels}")
        root(first)
        for other in others:
            one, two = sorted((root(first), root(other)))
            parent[two] = one
    return {id(film): root(film.facts.identities[0]) for film in films}


def _with_reports(
    studies: list[SiteStudy], reports: Sequence[Report], problems: list[Problem]
) -> list[SiteStudy]:
    by_uid = {study.study_instance_uid: place for place, study in enumerate(studies)}
    by_accession: dict[str, set[int]] = defaultdict(set)
    for place, study in enumerate(studies):
        for film in study.films:
            if film.facts.accession:
                by_accession[film.facts.accession].add(place)
    matched: dict[int, list[Report]] = defaultdict(list)
    for report in reports:
        found = by_uid.get(report.study_instance_uid or "")
        places = by_accession[report.accession_number or ""] if found is None else {found}
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
    return [
        replace(study, report=_chosen(matched[place], problems))
        for place, study in enumerate(studies)
    ]


def _same_patient(report: Report, study: SiteStudy) -> bool:
    theirs = {film.facts.patient_id for film in study.films} - {None}
    own = (report.patient_id or "").strip().casefold()
    return not own or not theirs or own in theirs


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


def _with_reviews(
    studies: list[SiteStudy], reviews: Sequence[ReviewedStudy], problems: list[Problem]
) -> list[SiteStudy]:
    by_uid: dict[str, list[ReviewedStudy]] = defaultdict(list)
    for review in reviews:
        by_uid[review.study_instance_uid].append(review)
    for study in studies:
        if len(by_uid[study.study_instance_uid]) > 1:
            message = "A study was reviewed again; the review that was signed last counts."
            problems.append(Problem(study.films[0].source, "replaced_review", message))
    reviewed = [
        replace(study, review=latest(own)) if (own := by_uid[study.study_instance_uid]) else study
        for study in studies
    ]
    there = {study.study_instance_uid for study in studies}
    message = "A review's study is not among the images."
    problems += [
        Problem("a review", "unmatched_review", message)
        for review in reviews
        if review.study_instance_uid not in there
    ]
    return reviewed


def _boxes(
    studies: Sequence[SiteStudy], boxes: Sequence[SiteBox], problems: list[Problem]
) -> dict[str, list[SiteBox]]:
    """The boxes of each film by its SOPInstanceUID, cut to the film."""
    films = [film for study in studies for film in study.films]
    by_uid = {film.instance.sop_instance_uid: film for film in films}
    by_file: dict[str, list[SiteFilm]] = defaultdict(list)
    for film in films:
        by_file[PurePath(film.instance.file).name].append(film)
    found: dict[str, list[SiteBox]] = defaultdict(list)
    for box in boxes:
        named = by_file[PurePath(box.file).name] if box.file else []
        film_ = by_uid.get(box.sop_instance_uid) if box.sop_instance_uid else None
        if film_ is None and len(named) == 1:
            (film_,) = named
        if film_ is None or film_.instance.sop_instance_uid is None:
            message = "The box belongs to none of the images."
            problems.append(Problem(box.source, "unmatched_box", message))
        elif (cut := clipped(box, film_.instance)) is None:
            message = "The box lies outside of its image."
            problems.append(Problem(box.source, "box_outside", message))
        else:
            found[film_.instance.sop_instance_uid].append(cut)
    return dict(found)


def clipped(box: SiteBox, instance: Instance) -> SiteBox | None:
    """The part of the box on the image; None where there is none."""
    left, top = max(0.0, box.x), max(0.0, box.y)
    right = min(float(instance.columns), box.x + box.width)
    bottom = min(float(instance.rows), box.y + box.height)
    if right <= left or bottom <= top:
        return None
    return replace(box, x=left, y=top, width=right - left, height=bottom - top)
