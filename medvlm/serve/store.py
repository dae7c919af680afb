"""The studies that were uploaded, in a folder that survives restarts.

    STORE/.lock                          held by the service that works here
    STORE/.incoming-*/                   uploads that are being read
    STORE/<uid>/study.json               which files are the study's: without it there is no study
    STORE/<uid>/<sha256>.dcm|.png|.jpg   each image once, under a name that says nothing
    STORE/<uid>/drafts/<key>.json        a draft, as `medvlm draft` writes it
    STORE/<uid>/drafts/<key>.failed      why there is none
    STORE/<uid>/drafts/wanted            a draft was asked for and is not made yet; "begun" in it:
                                         making it was begun

Each file is written in one step; `study.json` comes after the images that it lists. What a removal
or a crash leaves is named `.incoming-*` or has no `study.json`, and goes at the next start.

`<uid>` is the StudyInstanceUID, with the patient's pseudonym where another patient's study has it
already, or a name made of an image's hash. Names of files are not kept.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock
from uuid import uuid4

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from medvlm.desk.files import copy_whole, sync_folder, write_whole
from medvlm.dicom.instance import PICTURES, Instance
from medvlm.dicom.read import Reading, read_instance
from medvlm.dicom.study import Study, group_studies
from medvlm.errors import InputError, InputNotFound, StoreError, Undecodable, UsageError
from medvlm.serve.disk import disk_errors

INCOMING = ".incoming-"
STUDY, DRAFTS, WANTED, FAILED = "study.json", "drafts", "wanted", ".failed"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SUFFIXES = {"PNG": ".png", "JPEG": ".jpg"}
_BEGUN = b"begun"
# All that lies in a study's folder. A folder of anybody else is none of ours to sweep.
_OWN = re.compile(rf"[0-9a-f]{{64}}\.(dcm|png|jpg)|{DRAFTS}|\.{STUDY}\.[0-9a-f]+\.partial")


class _Listed(BaseModel):
    """Contents of `study.json`: names of files."""

    model_config = ConfigDict(extra="forbid")

    files: list[str]


class Store:
    """An open store. Raises UsageError if another service works in the folder, or none can."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = FileLock(folder / ".lock", timeout=0, mode=0o600, thread_local=False)
            self._lock.acquire()
        except Timeout:
            raise UsageError(
                "another service works in the store", remedy="give each a --store of its own"
            ) from None
        except OSError as error:
            raise UsageError(
                f"nothing can be kept in {folder}", remedy="choose another --store"
            ) from error
        self._writing = Lock()
        for left in folder.iterdir():
            if left.name.startswith(INCOMING) or _is_half(left):
                shutil.rmtree(left, ignore_errors=True)

    def close(self) -> None:
        """Leaves the folder to another service."""
        self._lock.release()

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """A private folder for the files of an upload, gone afterwards. Raises StoreError."""
        with disk_errors("the upload"):
            place = Path(tempfile.mkdtemp(prefix=INCOMING, dir=self.folder))
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def add(self, study: Study) -> tuple[str, list[InputError]]:
        """Keeps a study's images and gives its name, and the errors of images that it refused.

        Images of a study that is here already join it. Raises StoreError if the disk will not have
        them, InputError if a file went away.
        """
        with self.incoming() as place:
            # Copying takes long, and others want to write, too.
            copies = {instance.sha256: _copied(instance, place) for instance in study.instances}
            with self._writing, disk_errors("the study"):
                name, known = self._place(study)
                taken, refused = _told_apart(study.instances, known)
                folder = self.folder / name
                folder.mkdir(mode=0o700, exist_ok=True)
                names = dict.fromkeys(self._files(name))
                for copy in (copies[instance.sha256] for instance in taken):
                    if copy.name not in names:
                        copy.replace(folder / copy.name)
                        names[copy.name] = None
                listed = _Listed(files=list(names)).model_dump_json()
                write_whole(folder / STUDY, listed.encode(), durable=True)
                sync_folder(self.folder)
        return name, refused

    def has(self, name: str) -> bool:
        """Whether there is such a study."""
        return bool(self._files(name))

    def study(self, name: str) -> Study:
        """A study that is here; its images under neutral names. Raises InputNotFound."""
        files = self._files(name)
        if not files:
            raise InputNotFound("There is no such study.", remedy="Upload it first.")
        instances = []
        for file in files:
            try:
                instances.append(read_instance(self.folder / name / file))
            except InputError as error:
                error.file = None  # a path of the store's own
                raise
        (study, *others) = group_studies(Reading(instances, []))
        if others:
            raise StoreError("the study's files are not one study's", remedy="upload it anew")
        return replace(study, name=name)

    def remove(self, name: str) -> None:
        """Removes a study and its drafts. Raises InputNotFound, StoreError.

        Once its folder has another name it is no study; what the disk does not let go is told, and
        tried again at the next start.
        """
        gone = self.folder / f"{INCOMING}{uuid4().hex}"
        with self._writing:
            if not self._files(name):
                raise InputNotFound("There is no such study.")
            with disk_errors("the study", "removed", "see to the store"):
                (self.folder / name).rename(gone)
                sync_folder(self.folder)
        remedy = "see to the store, and restart the service"
        with disk_errors("all of the study", "removed", remedy):
            shutil.rmtree(gone)

    def draft_key(self, name: str, fingerprint: str) -> str:
        """What tells a draft from others: the model's fingerprint and the images.

        Raises InputNotFound.
        """
        files = self._files(name)
        if not files:
            raise InputNotFound("There is no such study.", remedy="Upload it first.")
        return _key(fingerprint, files)

    def key_of(self, study: Study, fingerprint: str) -> str:
        """The same of a study that `study` gave: images that joined it since are not in it."""
        return _key(fingerprint, [one.path.name for one in study.instances])

    def draft(self, name: str, key: str) -> bytes | None:
        """The draft by this key, if it was made."""
        return _read(self._drafts(name) / f"{key}.json")

    def failure(self, name: str, key: str) -> bytes | None:
        """Why there is no draft by this key, if making it failed."""
        return _read(self._drafts(name) / f"{key}{FAILED}")

    def put_draft(self, name: str, key: str, content: bytes, *, failed: bool = False) -> None:
        """Keeps a draft, or why it failed; nothing if the study was removed meanwhile.

        Raises StoreError. The draft is not wanted any more in either case.
        """
        with self._writing, disk_errors("the draft"):
            if not self._files(name):
                return
            drafts = self._drafts(name)
            try:
                own = drafts / f"{key}{FAILED if failed else '.json'}"
                write_whole(own, content, durable=True)
                (drafts / (f"{key}.json" if failed else f"{key}{FAILED}")).unlink(missing_ok=True)
            finally:
                (drafts / WANTED).unlink(missing_ok=True)

    def want_draft(self, name: str, *, begun: bool = False) -> None:
        """Notes that a draft was asked for, so that a restart does not forget it; or was begun.

        Raises StoreError.
        """
        with self._writing, disk_errors("the wish for a draft"):
            if self._files(name):
                content = _BEGUN if begun else b""
                write_whole(self._drafts(name) / WANTED, content, durable=True)

    def wanted(self) -> list[str]:
        """The studies whose drafts were asked for and are not made yet."""
        found = self.folder.glob(f"*/{DRAFTS}/{WANTED}")
        names = sorted(path.parent.parent.name for path in found)
        return [name for name in names if self._files(name)]

    def is_wanted(self, name: str) -> bool:
        """Whether the study is among them."""
        return bool(self._files(name)) and (self._drafts(name) / WANTED).exists()

    def was_begun(self, name: str) -> bool:
        """Whether the draft that is wanted was begun."""
        return self.has(name) and _read(self._drafts(name) / WANTED) == _BEGUN

    def _drafts(self, name: str) -> Path:
        return self.folder / name / DRAFTS

    def _files(self, name: str) -> list[str]:
        """The study's files; none if there is no such study."""
        if _NAME.fullmatch(name) is None:
            return []
        content = _read(self.folder / name / STUDY)
        try:
            return [] if content is None else _Listed.model_validate_json(content).files
        except ValidationError:
            return []

    def _place(self, study: Study) -> tuple[str, list[Instance]]:
        """Under which name the study belongs, and what is there already."""
        first = study.instances[0]
        if not first.is_dicom:
            study = replace(study, name=f"image-{first.sha256[:16]}")
        plain = study.study_instance_uid or study.name
        own = f"{plain}-{study.patient or 'unknown'}"
        for name in dict.fromkeys((plain, own)):
            try:
                there = self.study(name)
            except InputNotFound:
                continue
            if there.patient == study.patient:
                return name, list(there.instances)
        # Of two patients who share the UID in one upload, neither has the plain name.
        return (own if self._files(plain) else study.name), []


def _copied(instance: Instance, place: Path) -> Path:
    """The image in `place` under the name that it has in the store. Raises InputNotFound."""
    with disk_errors("the study"):
        try:
            copy = place / f"{instance.sha256}{_suffix(instance)}"
            if not copy.exists():
                copy_whole(instance.path, copy)
            return copy
        except FileNotFoundError as error:
            raise InputNotFound("The file is gone.") from error


def _is_half(folder: Path) -> bool:
    """Whether it is what a crash left of a study: files of ours without a list of them.

    Drafts alone are no sign: anybody may have a folder of that name.
    """
    with suppress(OSError):
        names = {path.name for path in folder.iterdir()}
        return bool(names - {DRAFTS}) and all(_OWN.fullmatch(name) for name in names)
    return False


def _key(fingerprint: str, files: Iterable[str]) -> str:
    return hashlib.sha256("\n".join([fingerprint, *sorted(files)]).encode()).hexdigest()


def _told_apart(
    instances: Iterable[Instance], known: Iterable[Instance]
) -> tuple[list[Instance], list[InputError]]:
    """Without images that have another one's UID: a region names its image by that."""
    first = {one.sop_instance_uid: one.sha256 for one in known if one.sop_instance_uid}
    taken: list[Instance] = []
    refused: list[InputError] = []
    for instance in instances:
        uid = instance.sop_instance_uid
        if uid is None or first.setdefault(uid, instance.sha256) == instance.sha256:
            taken.append(instance)
            continue
        error = Undecodable(
            "Another image of the study has the same UID.",
            file=instance.file,
            remedy="Give the image a UID of its own where it was made.",
            code="same_uid",
        )
        refused.append(error)
    return taken, refused


def _suffix(instance: Instance) -> str:
    if instance.is_dicom:
        return ".dcm"
    with instance.path.open("rb") as file:
        head = file.read(8)
    return next(_SUFFIXES[kind] for start, kind in PICTURES.items() if head.startswith(start))


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
