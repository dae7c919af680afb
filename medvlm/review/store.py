"""The desk's database and its folder of study files.

SQLite by default, PostgreSQL where several machines share a desk. Writers queue in both: one
transaction at a time reads, decides and writes, so that no action is lost to another.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from filelock import FileLock
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    ExceptionContext,
    create_engine,
    event,
    make_url,
    text,
)
from sqlalchemy.exc import ArgumentError, DatabaseError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

from medvlm.errors import StoreError
from medvlm.review.migrations import migrate

DATABASE = "desk.sqlite3"
FILES = "files"
_BUSY_S = 30
# Any number will do that no other program takes for itself: "medvlm" in ASCII.
_WRITERS = 0x6D6564766C6D


def new_id() -> str:
    """32 hexadecimal digits that say nothing of what they name."""
    return uuid4().hex


def now() -> datetime:
    """The time in UTC; called through this module, so that a test may set the clock."""
    return datetime.now(UTC)


class Store:
    """An open desk. `engine` is the database, `files` the folder of study files.

    Whatever is done with it raises StoreError where the database cannot be used.
    """

    def __init__(self, engine: Engine, files: Path) -> None:
        self.engine = engine
        self.files = files
        options: dict[str, Any] = {"medvlm_reading": True}
        if engine.dialect.name == "postgresql":
            options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        self._readers = engine.execution_options(**options)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session to write with: committed at the end, rolled back on any error.

        Waits until no other writer is at work.
        """
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            _queue(session.connection())
            yield session

    def reading(self) -> Session:
        """A session that sees one state of the database and writes nothing; close it after use."""
        return Session(self._readers, expire_on_commit=False)

    def close(self) -> None:
        """Gives all connections back."""
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def desk_folder() -> Path:
    """Where a desk lives that was told nothing: MEDVLM_DESK, else the user's data folder."""
    if told := os.environ.get("MEDVLM_DESK"):
        return Path(told)
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "medvlm"


def open_store(url: str | None = None, files: Path | None = None, *, make: bool = True) -> Store:
    """Opens the desk's database, makes or migrates its tables, and makes its folders.

    Args:
        url: `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/NAME`; left out, MEDVLM_DATABASE,
            else the file `desk.sqlite3` in the desk's folder.
        files: the folder of study files; left out, `files` beside SQLite's file, or in the desk's
            folder where PostgreSQL is elsewhere.
        make: False to open only a desk that is there.

    Raises StoreError, which never tells the URL: it may hold a password.
    """
    told = url or os.environ.get("MEDVLM_DATABASE")
    address = (
        _address(told) if told else URL.create("sqlite", database=str(desk_folder() / DATABASE))
    )
    local = address.drivername == "sqlite"
    beside = Path(str(address.database)).parent if local else desk_folder()
    folder = files or beside / FILES
    if make:
        _private(folder)
    engine = _sqlite(address, make) if local else _postgresql(address)
    try:
        with engine.begin() as connection:
            _queue(connection)
            migrate(connection, make=make)
    except StoreError as error:
        engine.dispose()
        # What the driver said stays out of a traceback: a wrong URL may put the password anywhere.
        raise error from None
    except BaseException:
        engine.dispose()
        raise
    return Store(engine, folder)


def _private(folder: Path) -> Path:
    """Makes a folder that only this user may enter; one that is there is left as it is."""
    try:
        # `parents` would make those above it with a mode that lets others in.
        for one in (*reversed(folder.parents), folder):
            one.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from None
    return folder


def _unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"the desk cannot be kept here: {error.strerror or 'no access'}",
        file=str(path),
        remedy="Set MEDVLM_DESK to a folder that you may write into.",
    )


def _address(url: str) -> URL:
    with suppress(ArgumentError, ValueError):  # ValueError: a port that is no number
        address = make_url(url)
        if address.drivername in ("postgresql", "postgresql+psycopg"):
            return address.set(drivername="postgresql+psycopg")
        in_memory = not address.database or address.database == ":memory:"
        if address.drivername == "sqlite" and not in_memory and not address.query:
            return address
    raise StoreError(
        "the database's URL is not one that a desk can use",
        remedy="Give sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME, with what is special "
        "in the password as %XX.",
    )


def _sqlite(address: URL, make: bool) -> Engine:
    file = Path(str(address.database))
    if make:
        _private(file.parent)
    elif not file.is_file():
        raise StoreError("there is no desk here", file=str(file), remedy="Open the page first.")
    engine = create_engine(address, hide_parameters=True, connect_args={"timeout": _BUSY_S})
    event.listen(engine, "handle_error", _explain)
    event.listen(engine, "connect", _settings)
    event.listen(engine, "begin", _begin)
    try:
        # Two processes that turn on the write-ahead log at once would find each other in the way.
        with FileLock(f"{file}.opening", timeout=_BUSY_S, mode=0o600):
            _create(file)
            with closing(engine.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA journal_mode = WAL")
    except StoreError as error:
        engine.dispose()
        raise error from None
    except (OSError, sqlite3.Error) as error:
        engine.dispose()
        raise (_unwritable(file, error) if isinstance(error, OSError) else _broken(error)) from None
    return engine


def _create(file: Path) -> None:
    """Makes the file before SQLite would, for this user's eyes only."""
    # One that is there is not opened: closing it would drop SQLite's own locks on it.
    with suppress(FileExistsError):
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _settings(connection: Any, _: object) -> None:
    # The driver would begin transactions by rules of its own.
    connection.isolation_level = None
    cursor = connection.cursor()
    # FULL: what was confirmed is on the disk, whatever happens to the machine.
    for setting in ("foreign_keys = ON", "synchronous = FULL", f"busy_timeout = {_BUSY_S}000"):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()


def _begin(connection: Connection) -> None:
    reading = bool(connection.get_execution_options().get("medvlm_reading"))
    connection.exec_driver_sql(f"PRAGMA query_only = {reading:d}")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _postgresql(address: URL) -> Engine:
    engine = create_engine(
        address,
        hide_parameters=True,
        pool_pre_ping=True,
        connect_args={"connect_timeout": 10, "options": f"-c lock_timeout={_BUSY_S}s"},
    )
    event.listen(engine, "handle_error", _explain)
    try:
        engine.connect().close()
    except StoreError as error:
        raise error from None
    except Exception:  # whatever the driver makes of a URL that it does not understand
        raise StoreError(_AWAY[0], remedy=_AWAY[1]) from None
    return engine


def _queue(connection: Connection) -> None:
    """Waits for the other writers; SQLite did so when the transaction began."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _WRITERS})


def _explain(context: ExceptionContext) -> StoreError | None:
    """Puts a database that cannot be used into words; errors of the program stay as they are."""
    kind = context.sqlalchemy_exception
    # SQLite calls a file that is none of its own a DatabaseError and nothing more.
    if isinstance(kind, OperationalError | InterfaceError) or type(kind) is DatabaseError:
        return _broken(context.original_exception)
    return None


_BUSY = ("the database is busy", "Try again; if it stays so, end what else uses the database.")
_FULL = ("the database's disk is full", "Make room, then try again; what was confirmed is kept.")
_READ_ONLY = ("the database cannot be written", "Give the user who runs medvlm the right to write.")
_DAMAGED = ("the file is no database of a desk, or is damaged", "Restore it from a backup.")
_LOG_IN = ("the database refuses the log-in", "Correct the user and the password in the URL.")
_NO_DATABASE = ("the database server has no such database", "Create it, or correct the URL.")
_AWAY = ("the database cannot be reached", "Start it, or correct the URL; then try again.")
_REASONS = {
    **{"SQLITE_BUSY": _BUSY, "SQLITE_LOCKED": _BUSY, "SQLITE_FULL": _FULL},
    **{"SQLITE_READONLY": _READ_ONLY, "SQLITE_CORRUPT": _DAMAGED, "SQLITE_NOTADB": _DAMAGED},
    "SQLITE_ERROR": _DAMAGED,  # a table or column that should be there is not
    **{"55P03": _BUSY, "57014": _BUSY, "53100": _FULL, "42501": _READ_ONLY},
}
# A PostgreSQL that refuses a connection gives the driver words and no code.
_WORDS = {
    "password": _LOG_IN,
    "authentication": _LOG_IN,
    "role": _LOG_IN,
    "database": _NO_DATABASE,
}


def _broken(error: BaseException) -> StoreError:
    """What is wrong, in our words: the driver's may hold parts of the URL or of a row."""
    name = getattr(error, "sqlite_errorname", None) or getattr(error, "sqlstate", None) or ""
    # SQLite's finer codes begin with the coarse one's name.
    coarse = "_".join(name.split("_")[:2])
    reason = _REASONS.get(name) or _REASONS.get(coarse) or _AWAY
    if not name and "FATAL" in str(error):
        told = str(error).rpartition("FATAL")[2]
        reason = next((reason for word, reason in _WORDS.items() if word in told), _AWAY)
    return StoreError(reason[0], remedy=reason[1])
