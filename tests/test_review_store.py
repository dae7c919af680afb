"""The store: opened by several at once, killed in the middle, wrongly addressed; its migrations."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import traceback
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from medvlm.errors import StoreError
from medvlm.review import audit
from medvlm.review.migrations import VERSION_TABLE, config
from medvlm.review.people import local_person
from medvlm.review.store import Store, desk_folder, open_store
from medvlm.review.tables import AuditTable, Base, StudyTable
from medvlm.review.worklist import set_priority, study_row, worklist
from tests.desk import a_study, url_of

pytest_plugins = ["tests.desk"]


def test_the_migrations_make_the_tables(any_store: Store) -> None:
    with any_store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, Base.metadata) == []
        assert (
            context.get_current_revision()
            == ScriptDirectory.from_config(config()).get_current_head()
        )


def test_a_transaction_is_all_or_nothing(any_store: Store) -> None:
    study = a_study(any_store)

    def fail() -> None:
        with any_store.transaction() as session:
            session.get_one(StudyTable, study).priority = "urgent"
            audit.record(session, "sato", "priority", study, {}, {})
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert study_row(any_store, study).priority == "routine"
    assert audit.verify(any_store).entries == 1  # that the study was added


def test_a_reading_session_writes_nothing(any_store: Store) -> None:
    study = a_study(any_store)
    with any_store.reading() as session:
        session.get_one(StudyTable, study).priority = "urgent"
        with pytest.raises((StoreError, sa.exc.DBAPIError)):
            session.flush()
    # And the connection, given back, serves a writer.
    set_priority(any_store, study, "high", local_person(any_store))
    assert study_row(any_store, study).priority == "high"


def test_a_reading_session_sees_one_state(any_store: Store) -> None:
    study = a_study(any_store)
    with any_store.reading() as session:
        before = session.scalar(sa.select(sa.func.count()).select_from(AuditTable))
        set_priority(any_store, study, "high", local_person(any_store))
        assert session.scalar(sa.select(sa.func.count()).select_from(AuditTable)) == before


def test_writers_queue(any_store: Store) -> None:
    """What is read in a transaction is still so when it writes: no count is lost."""
    study = a_study(any_store)

    def work() -> None:
        for _ in range(10):
            with any_store.transaction() as session:
                row = session.get_one(StudyTable, study)
                count = int(row.description or 0)
                time.sleep(0.001)
                row.description = str(count + 1)
                audit.record(session, "sato", "counted", study, {}, {"count": count + 1})

    with any_store.transaction() as session:
        session.get_one(StudyTable, study).description = "0"
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert study_row(any_store, study).description == "40"
    verdict = audit.verify(any_store)
    assert verdict.holds
    assert verdict.entries == 41


OPEN = """
import sys
from pathlib import Path
from medvlm.review.people import local_person
from medvlm.review.store import open_store
print("ready", flush=True)
sys.stdin.readline()
with open_store(sys.argv[1], Path(sys.argv[2])) as store:
    local_person(store)
"""


def test_processes_open_a_fresh_desk_at_once(any_database: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", OPEN, any_database, str(tmp_path / "files")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0, 0]
    with open_store(any_database, tmp_path / "files") as store, store.reading() as session:
        versions = session.scalars(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).all()
        people = session.scalar(sa.text("SELECT count(*) FROM people"))
    assert len(versions) == 1
    assert people == 1


WRITE = """
import sys
from pathlib import Path
from medvlm.review.people import local_person
from medvlm.review.store import open_store
from medvlm.review.worklist import set_priority
store = open_store(sys.argv[1], Path(sys.argv[2]))
by = local_person(store)
for number in range(100000):
    set_priority(store, sys.argv[3], ("urgent", "high")[number % 2], by)
    print(number, flush=True)
"""


def test_a_killed_process_loses_nothing_that_was_confirmed(
    any_store: Store, tmp_path: Path
) -> None:
    study = a_study(any_store)
    command = [*(sys.executable, "-c", WRITE, url_of(any_store), str(tmp_path / "files"), study)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 40:
                os.kill(process.pid, signal.SIGKILL)
                break
        confirmed = 41 + sum(line.endswith("\n") for line in process.stdout)
    url, files = url_of(any_store), any_store.files
    any_store.close()
    with open_store(url, files) as again:
        with again.reading() as session:
            done = session.scalar(sa.select(sa.func.count()).where(AuditTable.action == "priority"))
        # The last one may have been written and not confirmed yet.
        assert done in (confirmed, confirmed + 1)
        assert study_row(again, study).priority == ("high", "urgent")[done % 2]
        assert audit.verify(again).holds


def test_the_desk_is_for_its_user_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDVLM_DESK", str(tmp_path / "a" / "desk"))
    monkeypatch.delenv("MEDVLM_DATABASE", raising=False)
    with open_store() as store:
        local_person(store)
        desk = tmp_path / "a" / "desk"
        assert store.files == desk / "files"
        made = [tmp_path / "a", desk, *desk.iterdir()]
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in made}
    assert modes.pop("a") == modes.pop("desk") == modes.pop("files") == 0o700
    assert set(modes.values()) == {0o600}
    assert "desk.sqlite3" in modes


def test_where_a_desk_lives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MEDVLM_DESK", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert desk_folder() == tmp_path / "medvlm"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert desk_folder() == tmp_path / ".local" / "share" / "medvlm"
    monkeypatch.setenv("MEDVLM_DATABASE", f"sqlite:///{tmp_path}/elsewhere.sqlite3")
    with open_store():
        assert (tmp_path / "elsewhere.sqlite3").is_file()


@pytest.mark.parametrize(
    "url",
    [
        "desk.sqlite3",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///x?password=hunter2",
        "mysql://sato:hunter2@host/desk",
        "postgresql://sato:hunter2@host:port/desk",
        "postgresql://sato:hunter2@127.0.0.1:1/desk",
        "postgresql://sato:pass?hunter2@127.0.0.1:1/desk",
        "postgresql://sato:pass@hunter2@127.0.0.1:1/desk",
        "postgresql://127.0.0.1:1/desk?password=hunter2",
        "postgresql://127.0.0.1:1/desk?hunter2=hunter2",
    ],
)
def test_a_wrong_url_is_refused_without_being_told(url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        open_store(url, tmp_path / "files")
    assert caught.value.remedy
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_wrong_database_is_told(postgresql_database: str, tmp_path: Path) -> None:
    wrong = postgresql_database.replace("/postgres?", "/nowhere?")
    with pytest.raises(StoreError, match="no such database"):
        open_store(wrong, tmp_path / "files")
    with pytest.raises(StoreError, match="refuses the log-in"):
        open_store(postgresql_database.replace("desk@", "nobody@"), tmp_path / "files")


def test_a_database_of_a_newer_program_is_refused(any_store: Store, tmp_path: Path) -> None:
    with any_store.transaction() as session:
        session.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(StoreError, match="newer medvlm") as caught:
        open_store(url_of(any_store), tmp_path / "files")
    assert caught.value.code == "newer_store"


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "desk.sqlite3"
    file.write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(StoreError, match="no database of a desk"):
        open_store(f"sqlite:///{file}", tmp_path / "files")
    assert file.read_bytes().startswith(b"not a database")


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be kept") as caught:
        open_store(f"sqlite:///{tmp_path}/file/desk.sqlite3", tmp_path / "files")
    assert "MEDVLM_DESK" in (caught.value.remedy or "")


def test_a_desk_is_not_made_by_looking_for_it(tmp_path: Path, any_database: str) -> None:
    with pytest.raises(StoreError, match="no desk"):
        open_store(any_database, tmp_path / "files", make=False)
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_went_away_is_told(store: Store) -> None:
    a_study(store)
    with closing(sqlite3.connect(str(store.engine.url.database))) as connection:
        connection.execute("DROP TABLE images")
        connection.commit()
    with pytest.raises(StoreError, match="damaged"):
        worklist(store)
