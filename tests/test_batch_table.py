"""The table of all findings against the drafts that it is made of."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from medvlm.batch import table
from medvlm.batch.drafting import draft_parcel
from medvlm.batch.files import CannotWrite
from medvlm.batch.parcel import StudyParcel
from medvlm.batch.results import ResultFolder
from medvlm.batch.table import COLUMNS, TABLE, write_table
from medvlm.dicom.read import read_inputs
from medvlm.dicom.study import group_studies
from medvlm.errors import MissingExtra
from medvlm.model.checkpoint import load_checkpoint
from medvlm.records import Draft
from tests.dicoms import shipped
from tests.night import night

parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra `batch`")


@pytest.fixture
def drafts(tiny: Path, tmp_path: Path) -> Path:
    """Three drafted studies, one that the gate refused, and what is no finished draft."""
    night(tmp_path / "in", 3, 0)
    out = ResultFolder(tmp_path / "out")
    out.path.mkdir()
    checkpoint = load_checkpoint()
    for study in group_studies(read_inputs([tmp_path / "in", shipped("CT_small.dcm")])):
        draft_parcel(checkpoint, StudyParcel(study), out)
    (out.path / "unfinished").mkdir()
    (out.path / "unfinished" / "draft.json").write_text("{}")
    (out.path / "quarantine").mkdir()
    return out.path


def read(out: Path) -> dict[str, Draft]:
    return {
        path.parent.name: Draft.model_validate_json(path.read_text())
        for path in sorted(out.glob("[0-9]*/draft.json"))
    }


def test_the_table_says_what_the_drafts_say(drafts: Path) -> None:
    count = write_table(drafts)
    found = parquet.read_table(drafts / TABLE).to_pylist()
    told = read(drafts)
    assert list(found[0]) == list(COLUMNS)
    assert count == len(found)
    assert [row["study"] for row in found] == sorted(row["study"] for row in found)
    for name, draft in told.items():
        rows = [row for row in found if row["study"] == name]
        assert {row["accepted"] for row in rows} == {draft.input_check.accepted}
        assert {row["weights_sha256"] for row in rows} == {draft.model.weights_sha256}
        stated = [row for row in rows if row["withheld"] is False]
        for row, finding in zip(stated, draft.findings, strict=True):
            assert row["finding"] == finding.finding
            assert row["text"] == finding.text
            assert row["probability"] == finding.probability
            assert row["polarity"] == finding.polarity
            assert row["regions"] == len(finding.regions)
            first = finding.regions[0] if finding.regions else None
            assert row["x"] == (first and first.x)
            assert row["sop_instance_uid"] == (first and first.sop_instance_uid)
            assert row["evidence"] == (finding.evidence and finding.evidence.status)
            assert row["p_erased"] == (finding.evidence and finding.evidence.p_erased)
        kept = [(row["finding"], row["reason"]) for row in rows if row["withheld"]]
        assert kept == [(item.finding, item.reason) for item in draft.withheld]
    (refused,) = [row for row in found if not row["accepted"]]
    assert (refused["finding"], refused["reason"]) == (None, "wrong_modality")
    assert len({row["study"] for row in found}) == len(told) == 4


def test_row_groups_bound_what_is_in_memory(drafts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(drafts)
    one = parquet.ParquetFile(drafts / TABLE)
    monkeypatch.setattr(table, "ROWS_A_GROUP", 10)
    write_table(drafts)
    several = parquet.ParquetFile(drafts / TABLE)
    assert (one.num_row_groups, several.num_row_groups) == (1, 4)
    assert one.read().equals(several.read())


def test_a_table_is_whole_or_not_there(drafts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(drafts)
    before = (drafts / TABLE).read_bytes()

    def fails(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet.ParquetWriter, "write_table", fails)
    with pytest.raises(CannotWrite):
        write_table(drafts)
    assert (drafts / TABLE).read_bytes() == before
    assert not list(drafts.glob(".*.partial"))


def test_the_same_drafts_give_the_same_bytes(drafts: Path) -> None:
    write_table(drafts)
    before = (drafts / TABLE).read_bytes()
    write_table(drafts)
    assert (drafts / TABLE).read_bytes() == before


def test_no_drafts_give_an_empty_table(tmp_path: Path) -> None:
    assert write_table(tmp_path) == 0
    assert parquet.read_table(tmp_path / TABLE).column_names == list(COLUMNS)


def test_without_pyarrow_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match="batch"):
        write_table(tmp_path)


def test_every_column_is_described() -> None:
    assert table.__doc__ is not None
    cells = [line.split("|")[1] for line in table.__doc__.splitlines() if line.startswith("|")]
    described = [name.strip() for cell in cells[2:] for name in cell.split(",")]
    assert described == list(COLUMNS)
