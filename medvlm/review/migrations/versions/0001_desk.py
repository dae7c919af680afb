"""The desk's first tables, and the triggers that keep the audit and what was signed as they are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# A time as ISO 8601 text in UTC (tables.Utc).
UTC = sa.String(32)
ID = sa.String(32)
SHA256 = sa.String(64)


def upgrade() -> None:
    """Makes everything."""
    op.create_table(
        "studies",
        sa.Column("id", ID, primary_key=True),
        sa.Column("content_key", SHA256, nullable=False, unique=True),
        sa.Column("study_instance_uid", sa.Text, index=True),
        sa.Column("patient_key", sa.Text, index=True),
        sa.Column("patient", sa.Text, nullable=False),
        sa.Column("search", sa.Text, nullable=False),
        sa.Column("accession_number", sa.Text),
        sa.Column("modality", sa.Text),
        sa.Column("body_part", sa.Text),
        sa.Column("view", sa.Text),
        sa.Column("description", sa.Text),
        sa.Column("taken", sa.String(14), nullable=False),
        sa.Column("received", UTC, nullable=False),
        sa.Column("status", sa.String(16), nullable=False, index=True),
        sa.Column("priority", sa.String(16), nullable=False),
        sa.Column("urgent", sa.Text, nullable=False),
        sa.Column("problem", sa.Text),
        sa.Column("lock_person", sa.Text),
        sa.Column("lock_name", sa.Text),
        sa.Column("lock_until", UTC),
    )
    op.create_table(
        "images",
        sa.Column("id", ID, primary_key=True),
        _study(),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("stack", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
    )
    op.create_table(
        "drafts",
        sa.Column("id", ID, primary_key=True),
        _study(),
        sa.Column("at", UTC, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("weights_sha256", SHA256, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
    )
    op.create_table(
        "jobs",
        sa.Column("id", ID, primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        _study(),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("at", UTC, nullable=False),
        sa.Column("worker", sa.Text),
        sa.Column("lease_until", UTC),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("progress", sa.Double, nullable=False),
        sa.Column("problem", sa.Text),
    )
    op.create_index("jobs_waiting", "jobs", ["state", "at"])
    op.create_table(
        "exchanges",
        sa.Column("id", ID, primary_key=True),
        _study(),
        sa.Column("at", UTC, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
    )
    op.create_table(
        "reviews",
        sa.Column("study_id", ID, sa.ForeignKey("studies.id"), primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("started", UTC, nullable=False),
        sa.Column("changed", UTC, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
    )
    op.create_table(
        "signed",
        sa.Column("id", ID, primary_key=True),
        _study(),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("at", UTC, nullable=False),
        sa.Column("person", sa.Text, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
        sa.Column("sha256", SHA256, nullable=False),
        sa.Column("review", sa.Text, nullable=False),
        sa.UniqueConstraint("study_id", "version", name="signed_version"),
    )
    op.create_table(
        "people",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("pin", sa.LargeBinary),
        sa.Column("wrong_pins", sa.Integer, nullable=False),
        sa.Column("barred_until", UTC),
    )
    op.create_table(
        "audit",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", UTC, nullable=False),
        sa.Column("person", sa.Text, nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("study_id", ID, index=True),
        sa.Column("before", sa.Text, nullable=False),
        sa.Column("after", sa.Text, nullable=False),
        sa.Column("previous", SHA256, nullable=False),
        sa.Column("hash", SHA256, nullable=False),
    )
    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("hash", SHA256, nullable=False),
    )
    op.create_table(
        "heartbeat",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("seen", UTC, nullable=False),
    )
    op.execute(f"INSERT INTO audit_head (id, number, hash) VALUES (1, 0, '{'0' * 64}')")
    if op.get_context().dialect.name == "postgresql":
        _postgresql_triggers()
    else:
        _sqlite_triggers()


def _study() -> sa.Column[str]:
    return sa.Column("study_id", ID, sa.ForeignKey("studies.id"), nullable=False, index=True)


# When a row may be written, in SQL over NEW and OLD. SQLite's INSERT OR REPLACE deletes without
# asking the trigger for DELETE, hence the conditions on what is inserted.
_REFUSED = (
    ("audit", "UPDATE", "1 = 1"),
    ("audit", "DELETE", "1 = 1"),
    ("audit", "INSERT", "NEW.number <> (SELECT number FROM audit_head) + 1"),
    ("signed", "UPDATE", "1 = 1"),
    ("signed", "DELETE", "1 = 1"),
    (
        *("signed", "INSERT"),
        "EXISTS (SELECT 1 FROM signed WHERE id = NEW.id"
        " OR (study_id = NEW.study_id AND version = NEW.version))",
    ),
    ("audit_head", "UPDATE", "NEW.id <> OLD.id OR NEW.number <> OLD.number + 1"),
    ("audit_head", "DELETE", "1 = 1"),
    ("audit_head", "INSERT", "1 = 1"),
)


def _sqlite_triggers() -> None:
    for table, what, condition in _REFUSED:
        op.execute(
            f"CREATE TRIGGER {table}_{what.lower()} BEFORE {what} ON {table} WHEN {condition}"
            f" BEGIN SELECT RAISE(ABORT, '{table} is only appended to'); END"
        )


def _postgresql_triggers() -> None:
    for table, what, condition in _REFUSED:
        name = f"{table}_{what.lower()}"
        row = "OLD" if what == "DELETE" else "NEW"
        op.execute(
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF {condition} THEN RAISE EXCEPTION '{table} is only appended to'; END IF;"
            f" RETURN {row}; END $$"
        )
        op.execute(
            f"CREATE TRIGGER {name} BEFORE {what} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()"
        )
    for table in ("audit", "signed", "audit_head"):
        op.execute(
            f"CREATE TRIGGER {table}_truncate BEFORE TRUNCATE ON {table}"
            f" FOR EACH STATEMENT EXECUTE FUNCTION {table}_delete()"
        )
