"""A desk for tests: a store in a folder of its own, a study, a draft made by hand.

A test module asks for the fixtures with ``pytest_plugins = ["tests.desk"]``, and imports the rest.
PYTEST_DONT_REWRITE: pytest would warn of the one before the other.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from medvlm.records import (
    Draft,
    Evidence,
    Finding,
    InputCheck,
    ModelRecord,
    Reason,
    Region,
    StudyRecord,
    Withheld,
)
from medvlm.review.people import signed_in
from medvlm.review.records import Patient, Person, Role
from medvlm.review.store import Store, new_id, open_store
from medvlm.review.worklist import NewImage, NewStudy, add_study

MODEL = ModelRecord(name="by-hand", version="1.2.3", weights_sha256="ab" * 32)
POSTGRESQL = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty desk on SQLite."""
    with open_store(f"sqlite:///{tmp_path}/desk.sqlite3", tmp_path / "files") as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgresql"])
def any_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database in which nothing is yet, once of each kind."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql_database"))
    return f"sqlite:///{tmp_path}/desk.sqlite3"


@pytest.fixture
def any_store(any_database: str, tmp_path: Path) -> Iterator[Store]:
    """An empty desk, once on SQLite and once on PostgreSQL."""
    with open_store(any_database, tmp_path / "files") as opened:
        yield opened


@pytest.fixture
def postgresql_store(postgresql_database: str, tmp_path: Path) -> Iterator[Store]:
    """An empty desk on PostgreSQL."""
    with open_store(postgresql_database, tmp_path / "files") as opened:
        yield opened


def url_of(store: Store) -> str:
    """With which another process opens the same desk."""
    return store.engine.url.render_as_string(hide_password=False)


class Clock:
    """The desk's time, which stands still."""

    def __init__(self) -> None:
        self.time = datetime(2026, 3, 2, 9, tzinfo=UTC)

    def pass_by(self, **time: float) -> None:
        """Keywords of timedelta."""
        self.time += timedelta(**time)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Sets the desk's clock: 2 March 2026, 9:00 UTC."""
    clock = Clock()
    monkeypatch.setattr("medvlm.review.store.now", lambda: clock.time)
    return clock


def somebody(store: Store, id: str = "sato", role: Role = "reviewer") -> Person:
    """A person with an account."""
    return signed_in(store, id, f"Dr {id.title()}", role)


def a_study(store: Store, images: int = 2, **told: object) -> str:
    """A study of one stack of chest radiographs, with files that hold their own number.

    `told` replaces fields of NewStudy. Gives the study's id.
    """
    id = new_id()
    study = NewStudy(
        **{
            "id": id,
            "content_key": id * 2,
            "study_instance_uid": "1.2.826.0.1.3680043.8.498.1",
            "patient_key": "5" * 64,
            "patient": Patient(
                name="Yamada^Taro=山田^太郎=やまだ^たろう",
                patient_id="PAT-1",
                sex="F",
                age_years=61.0,
            ),
            "accession_number": "ACC-7",
            "modality": "DX",
            "body_part": "CHEST",
            "view": "PA",
            "description": "Chest PA",
            "taken": "20260301101500",
            **told,
        }
    )
    made = [_image(store, study.id, number) for number in range(images)]
    with store.transaction() as session:
        return add_study(session, study, made)[0]


def _image(store: Store, study_id: str, number: int) -> NewImage:
    id = new_id()
    path = store.files / study_id / f"{id}.dcm"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(number))
    return NewImage(
        id=id,
        path=f"{study_id}/{id}.dcm",
        stack=0,
        number=number,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1",
        sop_instance_uid=f"1.2.826.0.1.3680043.8.498.1.1.{number + 1}",
        series_instance_uid="1.2.826.0.1.3680043.8.498.1.1",
        modality="DX",
        view_position="PA",
        rows=2500,
        columns=2000,
        sha256=f"{number:064x}",
    )


def a_draft(
    *findings: Finding,
    accepted: bool = True,
    impression: str = "Possible left pleural effusion.",
    withheld: tuple[Withheld, ...] | None = None,
    **told: object,
) -> Draft:
    """A draft of `a_study`: an effusion on the left, no pneumothorax, a nodule held back.

    Not `accepted`: the gate refused it, and it says nothing.
    """
    kept = (
        Withheld(
            finding="Nodule",
            text="Possible nodule in the right lung.",
            probability=0.31,
            reason="erasing the region changes nothing",
        ),
    )
    refusal = [] if accepted else [Reason(code="not_a_chest", message="It is no chest radiograph.")]
    return Draft(
        **{
            "study": StudyRecord(
                study_instance_uid="1.2.826.0.1.3680043.8.498.1", modality="DX", view="PA"
            ),
            "model": MODEL,
            "input_check": InputCheck(accepted=accepted, reasons=refusal),
            "findings": list(findings or (effusion(), no_pneumothorax())) if accepted else [],
            "impression": impression if accepted else "",
            "withheld": list(kept if withheld is None else withheld) if accepted else [],
            "stability": 0.9,
            **told,
        }
    )


def effusion(**told: object) -> Finding:
    """Left (on the right of the picture), with a box and evidence."""
    return Finding(
        **{
            "text": "Possible left pleural effusion.",
            "finding": "Effusion",
            "polarity": "uncertain",
            "probability": 0.62,
            "evidence": Evidence(
                status="supported", p_image=0.62, p_erased=0.2, p_blank=0.1, p_other=0.1
            ),
            "regions": [
                Region(
                    sop_instance_uid="1.2.826.0.1.3680043.8.498.1.1.1",
                    x=1300,
                    y=1500,
                    width=400,
                    height=600,
                )
            ],
            **told,
        }
    )


def no_pneumothorax(**told: object) -> Finding:
    """Said to be absent, with no region."""
    return Finding(
        **{
            "text": "No pneumothorax.",
            "finding": "Pneumothorax",
            "polarity": "absent",
            "probability": 0.02,
            **told,
        }
    )


def a_pneumothorax(**told: object) -> Finding:
    """What cannot wait."""
    return no_pneumothorax(
        **{
            "text": "Right pneumothorax.",
            "polarity": "present",
            "probability": 0.9,
            "regions": [
                Region(
                    sop_instance_uid="1.2.826.0.1.3680043.8.498.1.1.1",
                    x=300,
                    y=300,
                    width=300,
                    height=500,
                )
            ],
            **told,
        }
    )


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A throw-away PostgreSQL on a socket of its own: the URL of its one database."""
    if not (POSTGRESQL / "initdb").is_file():
        pytest.skip(f"needs PostgreSQL, which is not in {POSTGRESQL}")
    # Not below pytest's own folder: a socket's path has little room, and another user than root
    # must get there.
    folder = Path(tempfile.mkdtemp(prefix="medvlm-pg-"))
    as_user: list[str] = []
    if os.geteuid() == 0:  # which the server refuses
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        shutil.chown(folder, "postgres", "postgres")
    data = folder / "data"

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [*as_user, POSTGRESQL / program, *arguments],
            check=True,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            timeout=120,
        )

    try:
        run("initdb", "-D", str(data), "-U", "desk", "--auth=trust", "--no-sync", "-E", "UTF8")
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        run("pg_ctl", "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")
    except (subprocess.SubprocessError, OSError) as error:
        shutil.rmtree(folder)
        pytest.skip(f"PostgreSQL does not start here: {error}")
    try:
        yield f"postgresql://desk@/postgres?host={folder}"
    finally:
        run("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder)


@pytest.fixture
def postgresql_database(postgresql_server: str) -> str:
    """The URL of a database in which nothing is."""
    import psycopg

    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return postgresql_server
