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
from medvlm.data.site_match import StudyKeys, match_reports
from medvlm.dicom.facts import is_uid
from medvlm.dicom.files import Found, printable
from medvlm.dicom.instance import Instance, read_bytes
from medvlm.dicom.read import Progress, find_once, read_found
from medvlm.dicom.workers import where_safe
from medvlm.errors import DataSetError, InputError
from medvlm.reports import known
from medvlm.reports.corrections import ReviewedStudy, latest
from medvlm.reports.read import Beside, SiteBox, is_text, read_structured, read_text
from medvlm.reports.report import Problem, Report

_REFILED = 2  # patients under whom one film was filed, for these to be taken for one


@dataclass(frozen=True)
class SiteFilm:
    """One image file and what its header says beyond an `Instance`."""

    instance: Instance = field(repr=False)
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
    root = printable(str(data_dir)).rstrip("/")  # what is above says nothing of one patient
    beside = Beside(problems=problems)
    texts = [item for item in found if is_text(item.name)]
    images = [item for item in found if not is_text(item.name)]
    numbers = {item.name: number for number, item in enumerate(found, 1)}
    for item in texts:
        _read_beside(item, numbers[item.name], root, beside, structured=False)
    reading = read_found(images, progress)
    by_name = {item.name: item for item in images}
    for refused in reading.refused:
        if refused.code == "no_pixels" and not refused.index and refused.file in by_name:
            item = by_name[refused.file]
            _read_beside(item, numbers[item.name], root, beside, structured=True)
        elif not refused.index:
            place = _mark(numbers.get(refused.file, 0), None)
            problems.append(Problem(place, refused.code, refused.message))
    films = [
        replace(
            film,
            facts=replace(
                film.facts,
                known=known.of_path(film.instance.file.removeprefix(root)) | film.facts.known,
            ),
        )
        for film in _films(reading.instances, numbers, problems)
    ]
    studies = _studies(films, problems)
    if not studies:
        raise DataSetError(
            "holds no image that could be used" + _counted(problems),
            file=str(data_dir),
            remedy="Give a folder with DICOM radiographs and their reports (docs/reports.md).",
        )
    chosen = match_reports(list(map(_keys, studies)), beside.reports, problems)
    studies = [replace(study, report=one) for study, one in zip(studies, chosen, strict=True)]
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


def _read_beside(item: Found, number: int, root: str, beside: Beside, *, structured: bool) -> None:
    try:
        data = read_bytes(item.path, "")
        source = _mark(number, hashlib.sha256(data).hexdigest())
        read = read_structured(data, source) if structured else read_text(data, item.name, source)
        named = known.of_path(item.name.removeprefix(root))
        read.reports = [replace(one, known={**named, **one.known}) for one in read.reports]
        beside.add(read)
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


def _with_path(film: SiteFilm, path: str) -> SiteFilm:
    """The film with what its folders and its name tell as known, too."""
    return replace(
        film, facts=replace(film.facts, known={**known.of_path(path), **film.facts.known})
    )


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


def _keys(study: SiteStudy) -> StudyKeys:
    return StudyKeys(
        study.study_instance_uid,
        frozenset(film.facts.accession for film in study.films if film.facts.accession),
        frozenset(film.facts.patient_id for film in study.films if film.facts.patient_id),
    )


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
