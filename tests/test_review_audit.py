"""The audit: appended to only, and every change behind the program's back is found."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from medvlm.cli.audit import audit as command
from medvlm.review import audit
from medvlm.review.people import local_person
from medvlm.review.store import Store, new_id
from medvlm.review.tables import AuditTable, SignedTable
from medvlm.review.worklist import set_priority
from tests.desk import a_study, url_of

pytest_plugins = ["tests.desk"]

Tamper = Callable[[str], None]
REPORT, REVIEW = '{"impression":"No effusion."}', '{"version":3}'


def act(store: Store) -> str:
    """Eight entries, the last one a signature: of a study's addition, a person, five priorities."""
    study, by = a_study(store), local_person(store)
    for number in range(5):
        set_priority(store, study, ("high", "routine")[number % 2], by)
    with store.transaction() as session:
        session.add(
            SignedTable(
                id=new_id(),
                study_id=study,
                version=1,
                at=session.get_one(AuditTable, 1).at,
                person=by.id,
                record=REPORT,
                sha256=audit.digest(REPORT),
                review=REVIEW,
            )
        )
        session.flush()
        seals = {"sha256": audit.digest(REPORT), "review_sha256": audit.digest(REVIEW)}
        audit.record(session, by.id, "signed", study, {}, {"version": 1, **seals})
    return study


@pytest.fixture
def tamper(store: Store) -> Tamper:
    """Runs SQL behind the program's back, with the triggers out of the way, on eight entries."""
    act(store)

    def run(script: str) -> None:
        with closing(sqlite3.connect(str(store.engine.url.database))) as connection:
            triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
            for (name,) in triggers.fetchall():
                connection.execute(f"DROP TRIGGER {name}")
            connection.executescript(script)
            connection.commit()

    return run


def blamed(store: Store) -> list[tuple[int | None, str]]:
    """The numbers of the entries that are broken, and the first word on each."""
    return [(one.number, one.why.split(":")[0]) for one in audit.verify(store).broken]


def test_an_untouched_audit_holds(any_store: Store) -> None:
    assert audit.verify(any_store) == audit.Verdict(0, (), audit.START)
    act(any_store)
    verdict = audit.verify(any_store)
    assert verdict.holds
    assert verdict.entries == 8
    with any_store.reading() as session:
        numbers = session.scalars(sa.select(AuditTable.number).order_by(AuditTable.number)).all()
        assert session.get_one(AuditTable, 8).hash == verdict.head
        entry = session.get_one(AuditTable, 3)
    assert list(numbers) == list(range(1, 9))
    assert (entry.person, entry.action) == ("local", "priority")
    assert (entry.before, entry.after) == ('{"priority":"routine"}', '{"priority":"high"}')


@pytest.mark.parametrize(
    "change",
    [
        "person = 'somebody'",
        "action = 'other'",
        "at = '2026-01-01T00:00:00.000000+00:00'",
        "study_id = NULL",
        "before = '{\"a\":1}'",
        'after = \'{"priority":"urgent"}\'',
        "after = NULL",
        "after = x'00ff'",
        f"hash = '{'a' * 64}'",
    ],
)
@pytest.mark.parametrize("number", [1, 4, 8])
def test_a_changed_entry_is_found(store: Store, tamper: Tamper, change: str, number: int) -> None:
    nullable = change.replace("NULL", "''")
    tamper(f"UPDATE audit SET {nullable} WHERE number = {number}")
    assert (number, "changed") in blamed(store)


def test_an_entry_that_was_changed_and_sealed_anew_is_found(store: Store, tamper: Tamper) -> None:
    with store.reading() as session:
        entry = session.execute(sa.text("SELECT * FROM audit WHERE number = 4")).mappings().one()
    forged = {**entry, "person": "somebody"}
    seal = audit._seal(forged)
    tamper(f"UPDATE audit SET person = 'somebody', hash = '{seal}' WHERE number = 4")
    assert blamed(store) == [(4, "replaced")]
    # Also where the next entry is bent to it, and so on to the end: the head knows.
    tamper(f"UPDATE audit SET previous = '{seal}' WHERE number = 5")
    assert (5, "changed") in blamed(store)


def test_the_last_entry_sealed_anew_is_found(store: Store, tamper: Tamper) -> None:
    with store.reading() as session:
        entry = session.execute(sa.text("SELECT * FROM audit WHERE number = 8")).mappings().one()
    seal = audit._seal({**entry, "at": "2026-01-01T00:00:00.000000+00:00"})
    tamper(
        "UPDATE audit SET at = '2026-01-01T00:00:00.000000+00:00',"
        f" hash = '{seal}' WHERE number = 8"
    )
    assert blamed(store) == [(8, "replaced")]


@pytest.mark.parametrize("number", [1, 4])
def test_a_removed_entry_is_found(store: Store, tamper: Tamper, number: int) -> None:
    tamper(f"DELETE FROM audit WHERE number = {number}")
    assert blamed(store) == [(number, "removed")]


def test_a_removed_entry_is_found_though_the_rest_moved_up(store: Store, tamper: Tamper) -> None:
    tamper(
        "DELETE FROM audit WHERE number = 4;"
        "UPDATE audit SET number = number - 1 WHERE number > 4;"
        "UPDATE audit_head SET number = 7"
    )
    assert {number for number, _ in blamed(store)} >= {4, 5, 6, 7}


def test_an_audit_cut_short_is_found(store: Store, tamper: Tamper) -> None:
    tamper("DELETE FROM audit WHERE number IN (6, 7)")
    assert (6, "removed") in blamed(store)
    tamper("DELETE FROM audit WHERE number = 8")
    assert (6, "removed") in blamed(store)
    tamper("DELETE FROM audit")
    assert (1, "removed") in blamed(store)


@pytest.mark.parametrize(
    "head",
    ["DELETE FROM audit_head", "UPDATE audit_head SET hash = 'x'"],
)
def test_a_changed_head_is_found(store: Store, tamper: Tamper, head: str) -> None:
    tamper(head)
    assert len(blamed(store)) == 1


def test_an_inserted_entry_is_found(store: Store, tamper: Tamper) -> None:
    with store.reading() as session:
        entry = session.execute(sa.text("SELECT * FROM audit WHERE number = 8")).mappings().one()
    forged = {**entry, "number": 9, "previous": entry["hash"], "action": "priority"}
    tamper(
        "INSERT INTO audit SELECT 9, at, person, 'priority', study_id, before, after, hash,"
        f" '{audit._seal(forged)}' FROM audit WHERE number = 8"
    )
    assert blamed(store) == [(9, "inserted")]


def test_swapped_entries_are_found(store: Store, tamper: Tamper) -> None:
    tamper(
        "UPDATE audit SET number = 100 WHERE number = 4;"
        "UPDATE audit SET number = 4 WHERE number = 5;"
        "UPDATE audit SET number = 5 WHERE number = 100"
    )
    assert {(4, "changed"), (5, "changed")} <= set(blamed(store))


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ('UPDATE signed SET record = \'{"impression":"Effusion."}\'', "was changed"),
        ("UPDATE signed SET review = '{\"version\":4}'", "was changed"),
        ("UPDATE signed SET person = 'somebody'", "is not the one"),
        ("UPDATE signed SET version = 2", "is in no entry"),
        ("DELETE FROM signed", "was removed"),
        (
            f"UPDATE signed SET record = '{{}}', sha256 = '{audit.digest('{}')}'",
            "is not the one that was signed",
        ),
    ],
)
def test_a_changed_signed_report_is_found(
    store: Store, tamper: Tamper, script: str, why: str
) -> None:
    tamper(script)
    broken = audit.verify(store).broken
    assert any(why in one.why for one in broken)
    assert {one.number for one in broken} <= {8, None}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET person = 'somebody' WHERE number = 1",
        "DELETE FROM audit WHERE number = 8",
        "DELETE FROM audit",
        "INSERT INTO audit SELECT number + 1, at, person, action, study_id, before, after,"
        " previous, hash FROM audit WHERE number = 2",
        "INSERT INTO audit SELECT number + 2, at, person, action, study_id, before, after,"
        " previous, hash FROM audit WHERE number = 8",
        "UPDATE signed SET record = '{}'",
        "DELETE FROM signed",
        "UPDATE audit_head SET number = 3",
        "DELETE FROM audit_head",
        f"INSERT INTO audit_head VALUES (2, 9, '{'0' * 64}')",
    ],
)
def test_the_database_refuses_to_change_what_was_written(any_store: Store, statement: str) -> None:
    act(any_store)
    with any_store.transaction() as session, pytest.raises(sa.exc.DBAPIError, match="appended"):
        session.execute(sa.text(statement))
    assert audit.verify(any_store).holds


@pytest.mark.parametrize("table", ["audit", "signed"])
def test_sqlite_refuses_to_replace(store: Store, table: str) -> None:
    act(store)
    with store.transaction() as session, pytest.raises(sa.exc.DBAPIError, match="appended"):
        session.execute(sa.text(f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}"))


@pytest.mark.parametrize("table", ["audit", "signed", "audit_head"])
def test_postgresql_refuses_to_truncate(postgresql_store: Store, table: str) -> None:
    act(postgresql_store)
    with (
        postgresql_store.transaction() as session,
        pytest.raises(sa.exc.DBAPIError, match="appended"),
    ):
        session.execute(sa.text(f"TRUNCATE {table}"))


def test_what_cannot_be_written_down_is_refused(store: Store) -> None:
    with store.transaction() as session, pytest.raises(TypeError, match="not for the audit"):
        audit.record(session, "sato", "other", None, {}, {"value": object()})
    assert audit.verify(store).entries == 0


def test_the_audit_names_no_patient(store: Store) -> None:
    act(store)
    with store.reading() as session:
        rows = session.execute(sa.select(AuditTable.before, AuditTable.after)).all()
    told = json.dumps([tuple(row) for row in rows], ensure_ascii=False)
    for secret in ("Yamada", "山田", "PAT-1", "ACC-7"):
        assert secret not in told


def test_the_command_tells_that_the_chain_holds(any_store: Store) -> None:
    act(any_store)
    result = CliRunner().invoke(command, ["verify", "--database", url_of(any_store)])
    assert result.exit_code == 0
    assert result.stdout.startswith("8 entries, the chain holds\n")
    assert audit.verify(any_store).head in result.stdout


def test_the_command_tells_what_is_broken(store: Store, tamper: Tamper) -> None:
    tamper("UPDATE audit SET person = 'somebody' WHERE number = 4")
    result = CliRunner().invoke(command, ["verify", "--database", url_of(store)])
    assert result.exit_code == 1
    assert "entry 4: changed" in result.stdout
    result = CliRunner().invoke(command, ["verify", "--json", "--database", url_of(store)])
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert (told["entries"], told["holds"]) == (8, False)
    assert [one["number"] for one in told["broken"]] == [4]
