"""Data cards: what is committed is complete and true, and anything less is refused."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from medvlm.data.cards import DataCard, load_cards, parse_card, require_card
from medvlm.errors import DataCardError
from medvlm.resources import resource_dir

SETS = ["kermany_cxr", "nih_cxr", "vqa_rad"]


def test_every_set_used_has_a_card() -> None:
    cards = load_cards()
    assert sorted(cards) == SETS
    for name, card in cards.items():
        assert card == require_card(name)
        assert f"medvlm:{name}:" in card.split_rule


def test_a_set_without_a_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataCardError, match="'chexpert' has no data card") as caught:
        require_card("chexpert", tmp_path)
    assert caught.value.remedy
    assert caught.value.file == str(tmp_path / "chexpert.md")


def _edited(tmp_path: Path, old: str, new: str) -> Path:
    content = (resource_dir("data_cards") / "vqa_rad.md").read_text(encoding="utf-8")
    assert old in content
    path = tmp_path / "vqa_rad.md"
    path.write_text(content.replace(old, new, 1), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("commercial_use: true\n", "", "commercial_use: Field required"),
        ("images: 251", "images: many", "images"),
        ("images: 251", "images: 0", "images"),
        ("images: 251", "images: 251\nnotes: extra", "notes"),
        ("licence: Released", "licence: [Released", "not YAML"),
        ("---\n", "", "no front matter"),
        ("name: vqa_rad", "name: other", "names itself 'other'"),
        ("citation:", "citation: ''\nx_citation:", "citation"),
    ],
)
def test_an_incomplete_card_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(DataCardError, match=said) as caught:
        parse_card(_edited(tmp_path, old, new))
    assert caught.value.file


def test_a_card_without_text_or_not_a_mapping_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("---\njust words\n---\ntext\n", encoding="utf-8")
    with pytest.raises(DataCardError, match="not a mapping"):
        parse_card(path)
    content = (resource_dir("data_cards") / "vqa_rad.md").read_text(encoding="utf-8")
    cut = tmp_path / "vqa_rad.md"
    cut.write_text("---".join(content.split("---")[:2]) + "---\n", encoding="utf-8")
    with pytest.raises(DataCardError, match="text"):
        parse_card(cut)


@pytest.mark.parametrize("name", ["nih_cxr", "kermany_cxr"])
def test_film_counts_are_those_of_the_data(data_pack: Path, name: str) -> None:
    with (data_pack / name / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    labels = Counter(
        label for row in rows for label in row.get("labels", row.get("label", "")).split("|")
    )
    _compare(require_card(name), len(rows), len({row["patient_id"] for row in rows}), labels)


def test_question_counts_are_those_of_the_data(data_pack: Path) -> None:
    lines = (data_pack / "vqa_rad" / "qa.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    organs = Counter(row["organ"] for row in rows)
    _compare(require_card("vqa_rad"), len({row["image"] for row in rows}), None, organs)


def _compare(card: DataCard, images: int, patients: int | None, labels: Counter[str]) -> None:
    assert (card.images, card.patients, card.labels) == (images, patients, dict(labels))


@pytest.mark.parametrize("name", SETS)
def test_the_split_on_the_card_is_the_one_the_code_makes(data_pack: Path, name: str) -> None:
    from medvlm.data.sets import load_set

    found = load_set(data_pack / name)
    items = found.films or found.questions
    kept = sum(item.validation for item in items)
    rule = require_card(name).split_rule
    assert f"{kept:,} " in rule
    assert f"{len(items) - kept:,} " in rule
