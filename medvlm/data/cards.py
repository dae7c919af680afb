"""Data cards: what is known about each training set, in Markdown with YAML front matter.

A card is a person's account of a set (the text) and a promise to the program (the front matter).
Training asks for the card of every set it is given and stops where there is none.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medvlm.errors import DataCardError
from medvlm.resources import resource_dir

_FENCE = "---"


class DataCard(BaseModel):
    """The checked front matter of one card, and its text."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    title: str = Field(min_length=1)
    source: str = Field(min_length=1)
    url: str | None = Field(pattern=r"^https?://", description="null for a set not published")
    licence: str = Field(min_length=1)
    commercial_use: bool
    images: int = Field(gt=0)
    patients: int | None = Field(gt=0, description="null where the set does not name patients")
    labels: dict[str, int] = Field(min_length=1, description="how many images carry each label")
    label_origin: str = Field(min_length=1)
    known_biases: tuple[str, ...] = Field(min_length=1)
    split_rule: str = Field(min_length=1)
    citation: str = Field(min_length=1)
    text: str = Field(min_length=1, description="what stands below the front matter")


def parse_card(path: Path) -> DataCard:
    """Reads one card. Raises DataCardError that names the file and what is wrong with it."""
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataCardError(f"cannot be read ({error})", file=str(path)) from error
    head, front, text = _split(content)
    if head.strip() or not front.strip():
        raise DataCardError(
            "has no front matter",
            file=str(path),
            remedy="Begin the card with YAML between two '---'.",
        )
    try:
        fields = yaml.safe_load(front)
        if not isinstance(fields, dict):
            raise DataCardError("its front matter is not a mapping", file=str(path))
        card = DataCard.model_validate({**fields, "text": text})
    except yaml.YAMLError as error:
        raise DataCardError(f"its front matter is not YAML: {error}", file=str(path)) from error
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors()
        )
        raise DataCardError(
            f"is incomplete or wrong: {wrong}", file=str(path), remedy="Correct the keys named."
        ) from error
    if card.name != path.stem:
        raise DataCardError(f"names itself {card.name!r}, not {path.stem!r}", file=str(path))
    return card


def require_card(name: str, folder: Path | None = None) -> DataCard:
    """The card of the set `name`. Raises DataCardError when there is none or it is incomplete."""
    folder = folder or resource_dir("data_cards")
    path = folder / f"{name}.md"
    if not path.is_file():
        raise DataCardError(
            f"the set {name!r} has no data card",
            file=str(path),
            remedy="Write one (see the cards beside it) before training on the set.",
        )
    return parse_card(path)


def load_cards(folder: Path | None = None) -> dict[str, DataCard]:
    """All cards by name. Raises DataCardError at the first that is not complete."""
    folder = folder or resource_dir("data_cards")
    return {path.stem: parse_card(path) for path in sorted(folder.glob("*.md"))}


def _split(content: str) -> tuple[str, str, str]:
    """What stands before, in and after the front matter; the last two empty if there is none."""
    head: list[str] = []
    front: list[str] = []
    text: list[str] = []
    parts = iter((front, text))
    into = head
    for line in content.splitlines():
        if line.rstrip() == _FENCE and into is not text:
            into = next(parts)
        else:
            into.append(line)
    return "\n".join(head), "\n".join(front), "\n".join(text)
