"""The page's words, in every language from one catalogue (`catalogue/*.yaml`).

Labels may hold Markdown, since Streamlit renders it; what is filled in never may: values from
files, people or the model are escaped.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import cache
from typing import get_args

import streamlit as st
import yaml

from medvlm.config.desk import desk_config
from medvlm.findings import FINDINGS, Polarity
from medvlm.resources import resource_dir
from medvlm.review.changes import OTHER
from medvlm.review.records import Rejection

LANGUAGES = {"en": "English", "ja": "日本語"}
CHOSEN = "language"
REJECTIONS: tuple[Rejection, ...] = get_args(Rejection)
POLARITIES: tuple[Polarity, ...] = ("present", "uncertain", "absent")
CHOICES = (*FINDINGS, OTHER)
"""What a sentence may be about."""
_MARKUP = re.compile(r"([\\`*_{}\[\]()#+\-.!|~:<>$&=])")


@cache
def catalogue(language: str) -> dict[str, str]:
    """Every text of a language by its key."""
    path = resource_dir("app") / "catalogue" / f"{language}.yaml"
    texts: dict[str, str] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return texts


def language() -> str:
    """The one chosen in the page, else the desk's own, else the browser's, else English."""
    for chosen in (st.session_state.get(CHOSEN), _of_the_desk()):
        if chosen in LANGUAGES:
            return str(chosen)
    browser = (st.context.locale or "en").split("-")[0].lower()
    return browser if browser in LANGUAGES else "en"


@cache
def _of_the_desk() -> str:
    return desk_config().language


def words(key: str, **values: object) -> str:
    """A text in the page's language, its placeholders filled with escaped values.

    Raises KeyError for a key that the catalogue lacks.
    """
    text = catalogue(language())[key]
    return text.format(**{name: plain(value) for name, value in values.items()}) if values else text


def plain(value: object) -> str:
    """A value such that Markdown shows it as it is."""
    return _MARKUP.sub(r"\\\1", str(value))


def finding_words(finding: str) -> str:
    """A finding's name in the page's language."""
    if finding not in FINDINGS:
        return words("finding.other")
    return words(f"finding.{finding}")


def clock(at: datetime | None) -> str:
    """A time on this machine's clock, for people."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M") if at else ""


def bare(key: str, **values: object) -> str:
    """The same for what shows text as it is (`st.text`, alternative texts)."""
    return catalogue(language())[key].format(**values)
