"""Takes studies in: uploads, files, folders, archives onto the worklist.

A study appears whole or not at all. Its files are written and synced into a folder that nobody
sees, which is then renamed; only then come the rows. Names of files are not kept.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from medvlm.desk.files import copy_whole, sync_folder
from medvlm.desk.order import stacks
from medvlm.desk.prepare import want_pixels
from medvlm.dicom.context import NOBODY, PatientContext, patient_context
from medvlm.dicom.identifiers import names_nobody
from medvlm.dicom.instance import PICTURES, Instance
from medvlm.dicom.read import Refused, read_inputs
from medvlm.dicom.study import Study, group_studies
from medvlm.errors import InputError, InputNotFound, NotAllowed, StoreError, Undecodable
from medvlm.resources import sample_film
from medvlm.review.jobs import ask_for_draft_of
from medvlm.review.records import Patient, Person
from medvlm.review.store import Store, new_id
from medvlm.review.tables import StudyTable
from medvlm.review.worklist import NewImage, NewStudy, add_study
from medvlm.review.worklist import images as images_of_study

Progress = Callable[[int, int], None]  # (files done, files in all)

ARRIVING = ".arriving-"
_LOCK = ".lock"


@dataclass(frozen=True)
class Intake:
    """What became of the files: ids of new studies, of known ones, and what could not be used."""

    added: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


class Upload(Protocol):
    """What a page's upload gives: Streamlit's `UploadedFile`."""

    def getbuffer(self) -> memoryview:
        """The bytes."""


def take_in(
    store: Store, paths: Iterable[Path], by: Person, *, progress: Progress | None = None
) -> Intake:
    """Puts what lies behind the paths on the worklist and asks for drafts.

    Bad files are refused one by one and harm no other; the same files are not taken in twice.
    Raises NotAllowed for a reader, StoreError if the desk cannot keep them.
    """
    if by.role == "reader":
        raise NotAllowed("a reader does not add studies", remedy="Ask a reviewer to do so.")
    reading = read_inputs(list(paths), progress)
    intake = Intake(refused=list(reading.failed))
    for study in group_studies(reading):
        try:
            study, doubles = _told_apart(study)
            intake.refused.extend(doubles)
            id, new = _take(store, study, by)
        except InputError as error:  # a file went away, or was cut short, since it was read
            intake.refused.append(Refused.because(error, study.instances[0].file))
            continue
        (intake.added if new else intake.known).append(id)
    return intake


def take_uploads(
    store: Store, uploads: Sequence[Upload], by: Person, *, progress: Progress | None = None
) -> Intake:
    """The same of uploads, which pass through a private folder under names that say nothing."""
    with tempfile.TemporaryDirectory(prefix="medvlm-upload-") as folder:
        paths = []
        for number, upload in enumerate(uploads):
            path = Path(folder) / f"{number:05}"
            path.write_bytes(upload.getbuffer())
            paths.append(path)
        return take_in(store, paths, by, progress=progress)


def load_sample(store: Store, by: Person) -> Intake:
    """The real chest radiograph that comes with `pydicom-data`. Raises InputNotFound without it."""
    return take_in(store, [sample_film()], by)


def clean(store: Store) -> int:
    """Removes what intakes that were killed left behind; returns how many folders.

    An intake at work in any process holds the lock in its folder, and is left alone.
    """
    removed = 0
    for folder in sorted(store.files.iterdir()):
        lock = folder / _LOCK
        if not folder.is_dir() or not lock.exists():
            continue
        try:
            with FileLock(lock, timeout=0):
                if not folder.name.startswith(ARRIVING) and _is_known(store, folder.name):
                    lock.unlink(missing_ok=True)  # killed after the rows were written
                    continue
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
        except (Timeout, OSError):
            continue
    return removed


def _told_apart(study: Study) -> tuple[Study, list[Refused]]:
    """The study without images that have another one's UID: a region names its image by that."""
    kept: dict[str, Instance] = {}
    instances, refused = [], []
    for instance in study.instances:
        uid = instance.sop_instance_uid
        first = kept.setdefault(uid, instance) if uid is not None else instance
        if first.sha256 == instance.sha256:
            instances.append(instance)
            continue
        error = Undecodable(
            "Another image of the study has the same UID.",
            remedy="Give the image a UID of its own where it was made.",
            code="same_uid",
        )
        refused.append(Refused.because(error, instance.file))
    return replace(study, instances=tuple(instances)), refused


def _take(store: Store, study: Study, by: Person) -> tuple[str, bool]:
    digests = sorted(instance.sha256 for instance in study.instances)
    key = hashlib.sha256("\n".join(dict.fromkeys(digests)).encode()).hexdigest()
    known = _known(store, study, key, set(digests))
    if known is not None:
        return known, False
    id = new_id()
    arriving = store.files / f"{ARRIVING}{id}"
    final = store.files / id
    _make(arriving)
    try:
        with FileLock(arriving / _LOCK, mode=0o600):
            new, images = _placed(study, arriving, id, key)
            sync_folder(arriving)
            arriving.replace(final)
            sync_folder(store.files)
            with store.transaction() as session:
                kept, is_new = add_study(session, new, images, by)
                if is_new:
                    ask_for_draft_of(session, kept, by)
            if is_new:
                want_pixels(final)
    except BaseException:
        shutil.rmtree(arriving, ignore_errors=True)
        with suppress(StoreError):  # nobody can tell whether there are rows: `clean` will see
            if not _is_known(store, id):
                shutil.rmtree(final, ignore_errors=True)
        raise
    if not is_new:  # another process was quicker
        shutil.rmtree(final, ignore_errors=True)
    (final / _LOCK).unlink(missing_ok=True)
    return kept, is_new


def _known(store: Store, study: Study, key: str, digests: set[str]) -> str | None:
    """The study that holds all of these files already."""
    with store.reading() as session:
        same = session.query(StudyTable.id).filter_by(content_key=key).scalar()
        if same is not None or study.study_instance_uid is None:
            return same
        examination = session.query(StudyTable.id).filter_by(
            study_instance_uid=study.study_instance_uid
        )
        ids = [id for (id,) in examination]
    for id in ids:
        if digests <= {image.sha256 for image in images_of_study(store, id)}:
            return id
    return None


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise _cannot_keep(error) from None


def _cannot_keep(error: OSError) -> StoreError:
    return StoreError(
        f"the study's files cannot be kept: {error.strerror or 'no access'}",
        remedy="Make room in the desk's folder of files, or correct its rights; then try again.",
    )


def _is_known(store: Store, study_id: str) -> bool:
    with store.reading() as session:
        return session.get(StudyTable, study_id) is not None


def _placed(study: Study, folder: Path, id: str, key: str) -> tuple[NewStudy, list[NewImage]]:
    """Copies the files, each once, and says what the rows are to hold."""
    images, seen, context = [], set(), NOBODY
    for stack, series in enumerate(stacks(study.instances)):
        number = 0
        for instance in series:
            if instance.sha256 in seen:
                continue
            seen.add(instance.sha256)
            own = patient_context(instance.path) if instance.is_dicom else NOBODY
            context = own if context == NOBODY else context
            image = _image(instance, own, id, stack, number)
            _copy(instance, folder / Path(image.path).name)
            images.append(image)
            number += 1
    return _study(study, context, id, key), images


def _copy(instance: Instance, target: Path) -> None:
    """Copies the file; one that changed since it was read is refused."""
    try:
        copy_whole(instance.path, target)
        with target.open("rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == instance.sha256
    except FileNotFoundError as error:
        raise InputNotFound("The file is gone.", file=instance.file) from error
    except OSError as error:
        raise _cannot_keep(error) from None
    if not same:
        raise InputNotFound(
            "The file changed while it was read.", file=instance.file, remedy="Give it again."
        )


def _study(study: Study, context: PatientContext, id: str, key: str) -> NewStudy:
    date, time = study.taken
    return NewStudy(
        id=id,
        content_key=key,
        study_instance_uid=study.study_instance_uid,
        patient_key=_patient_key(context),
        patient=Patient(
            name=context.name,
            patient_id=context.patient_id,
            issuer=context.issuer,
            birth_date=context.birth_date,
            sex=context.sex,
            age_years=context.age_years,
        ),
        accession_number=_cut(context.accession_number),
        modality=_cut(study.modality or study.instances[0].modality, 16),
        body_part=_cut(study.body_part),
        view=_cut(study.view, 16),
        description=_cut(context.study_description, 200),
        taken=f"{date}{time}" if len(time) == 6 else date,
    )


def _image(
    instance: Instance, context: PatientContext, study_id: str, stack: int, number: int
) -> NewImage:
    id = new_id()
    return NewImage(
        id=id,
        path=f"{study_id}/{id}{_suffix(instance)}",
        rows=instance.rows,
        columns=instance.columns,
        sha256=instance.sha256,
        frames=instance.frames,
        stack=stack,
        number=number,
        sop_class_uid=instance.sop_class_uid,
        sop_instance_uid=instance.sop_instance_uid,
        series_instance_uid=instance.series_instance_uid,
        description=_cut(context.series_description, 200),
        modality=_cut(instance.modality, 16),
        view_position=_cut(instance.view_position, 64),
    )


def _suffix(instance: Instance) -> str:
    if instance.is_dicom:
        return ".dcm"
    with instance.path.open("rb") as file:
        head = file.read(8)
    kind = next((kind for start, kind in PICTURES.items() if head.startswith(start)), "PNG")
    return {"PNG": ".png", "JPEG": ".jpg"}[kind]


def _patient_key(context: PatientContext) -> str | None:
    """The same for studies of one patient; None for an ID that is anybody's.

    Kept only beside the patient's name, in the desk's own database.
    """
    identity = (context.patient_id or "").strip()
    if names_nobody(identity):
        return None
    identified = f"{(context.issuer or '').strip()}\0{identity}"
    return hashlib.sha256(identified.encode("utf-8", "replace")).hexdigest()


def _cut(text: str | None, most: int = 64) -> str | None:
    """What fits into the database's column."""
    return text[:most] if text else None
