"""Makes and changes the desk's tables, by Alembic, from inside the installed package.

A change to `tables.py` needs a new file in `versions/`; a test holds the two to each other.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from medvlm.errors import StoreError

VERSION_TABLE = "desk_version"


def config(connection: Connection | None = None) -> Config:
    """Alembic's settings, without a file; `env.py` works on the connection that is given."""
    # Alembic interpolates %, which a folder's name may hold.
    folder = str(Path(__file__).resolve().parent).replace("%", "%%")
    settings = Config(attributes={"connection": connection})
    settings.set_main_option("script_location", folder)
    settings.set_main_option("path_separator", "os")
    return settings


def migrate(connection: Connection, *, make: bool = True) -> None:
    """Brings the tables to what this program knows, in the caller's transaction.

    Raises StoreError if a newer program made them, or if there are none that it should not `make`.
    """
    settings = config(connection)
    scripts = ScriptDirectory.from_config(settings)
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    found = context.get_current_heads()
    if set(found) == set(scripts.get_heads()):
        return
    if not set(found) <= {script.revision for script in scripts.walk_revisions()}:
        raise StoreError(
            "the database was made by a newer medvlm than this",
            remedy="Update medvlm, or give another database.",
            code="newer_store",
        )
    if not found and not make:
        raise StoreError(
            "the database holds no desk", remedy="Give the URL with which the page is opened."
        )
    command.upgrade(settings, "head")
