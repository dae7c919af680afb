"""The names, numbers and places that are known to identify a patient or those around them.

They come from the headers of the patient's files, from these files' names and folders, and from
what a report's file says beside its text. They stay in memory: nothing here is ever written or
shown.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import permutations
from typing import Any, Literal

from pydicom.dataset import Dataset

from medvlm.dicom.identifiers import (
    IDENTIFYING,
    LONG,
    SHORTEST,
    TEXT_VRS,
    every_element,
    fold,
    squash,
    tells,
    values,
)
from medvlm.reports.lexicon import LINKS, MEANINGS, SENTENCES
from medvlm.reports.triggers import (
    CLAUSE_ENDS,
    DENIAL_ENDS,
    HEART_WORDS,
    NORMAL,
    STUDY_WORDS,
    TRIGGERS,
)
from medvlm.reports.words import word_set

Kind = Literal["NAME", "DATE", "TIME", "PHONE", "EMAIL", "URL", "ID", "AGE", "PLACE"]
# Folded letters and digits without anything between them, and what they are.
Known = dict[str, Kind]

_MOST_WORDS = 5  # of a name
_WORD = re.compile(r"[^\W_]+")
_WRITTEN_OUT = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue"}
    | {"Ø": "Oe", "Å": "Aa"}
)
_PLACES = re.compile(r"Institution|Address|Residence|Department|SiteName")
_FILE_WORDS = word_set(
    """dicom images series studies reports report patient patients data export frontal thorax
    lung lungs pleura pleural costophrenic heart cardiac silhouette angle angles with from that
    this which there seen view views portable radiology department hospital clinic xrays"""
)
# Columns of a table and keys of FHIR, by what their values are.
_NAMES = re.compile(
    r"name$|physician|doctor|radiolog|referr|author|display|family|given|signed|reader|patient$"
    r"|consultant|clinician|dictat|transcri|guardian|contact|(^|_)(by|to|kin|first|last)$",
    re.IGNORECASE,
)
_IDS = re.compile(r"(^|[_a-z])id$|identifier|mrn|number|value$|phone|mail|line|postal", re.I)
_BIRTH = re.compile(r"birth|dob", re.IGNORECASE)


def name(text: str) -> Known:
    """The words of a person's name (DICOM's `Family^Given` too), and pairs of them run together."""
    found: Known = {}
    for group in text.split("="):
        for words in _spellings(" ".join(group.split("^")[:3])):
            found |= _words(words)
    return found


def _spellings(text: str) -> Iterator[list[str]]:
    """A name's words: as they stand, with umlauts written out, with written-out umlauts read."""
    raw = _WORD.findall(unicodedata.normalize("NFC", text))  # else accents would cut words
    folded = [fold(word) for word in raw]
    yield folded
    written = [fold(word.translate(_WRITTEN_OUT)) for word in raw]
    if written != folded:
        yield written
    read = [re.sub(r"(?<=[aou])e|(?<=a)a", "", word) for word in folded]
    if read != folded:
        yield read


def _words(words: list[str]) -> Known:
    found: Known = {}
    found |= dict.fromkeys((word for word in words if tells(word) or len(word) == 2), "NAME")
    for first, second in permutations(words[:_MOST_WORDS], 2):
        if len(first + second) >= LONG:
            found[first + second] = "NAME"
    return found


def value(text: str, kind: Kind) -> Known:
    """A number, code or place, and the parts of it that commas separate."""
    found: Known = {}
    for part in (text, *re.split(r"[\r\n,;^]+", text)):
        squashed = squash(fold(part))
        # A word of a place or code that is only letters may be any word: "CHEST 1", "Radiology".
        telling = any(char.isdigit() for char in squashed) or (kind == "PLACE" and " " in part)
        if tells(squashed) and telling:
            found[squashed] = kind
            # As people write it, and as spreadsheets store it: without the zeros in front.
            bare = squashed.lstrip("0")
            if bare.isdecimal() and len(bare) >= SHORTEST + 1:
                found[bare] = kind
    return found


def of_path(path: str) -> Known:
    """The words and numbers of folder and file names that may name somebody.

    Words that reports need, and such as any export uses, are left out.
    """
    found: Known = {}
    for part in re.split(r"[/\\]", path):
        words = [fold(word) for word in re.findall(r"[^\W_]+", part.rpartition(".")[0] or part)]
        names = [word for word in words if word.isalpha() and word not in _ordinary()]
        found |= dict.fromkeys((word for word in names if len(word) > SHORTEST), "NAME")
        found |= value(part.rpartition(".")[0] or part, "ID")
        for word in words:
            if not word.isalpha() and len(word) > SHORTEST:
                found |= value(word, "ID")
    return found


@cache
def _ordinary() -> frozenset[str]:
    """Words that name nobody where a file is called by them."""
    phrases = (*MEANINGS, *SENTENCES, *TRIGGERS, *NORMAL, *CLAUSE_ENDS, *DENIAL_ENDS)
    return LINKS | STUDY_WORDS | HEART_WORDS | _FILE_WORDS | {w for one in phrases for w in one}


def birth_date(text: str) -> Known:
    """The digits of a birth date, year first, day first and month first."""
    digits = squash(text)
    if len(digits) != 8 or not digits.isdecimal():
        return {}
    year, month, day = digits[:4], digits[4:6], digits[6:]
    found: Known = {}
    for short in (year, year[2:]):
        for order in ((short, month, day), (day, month, short), (month, day, short)):
            found["".join(order)] = "DATE"
    return found


def of_header(ds: Dataset) -> Known:
    """What a DICOM data set names: people, numbers, places, UIDs, the birth date, at any depth."""
    found: Known = {}
    for element in every_element(ds):
        for text in values(element):
            if element.VR == "PN":
                found |= name(text)
            elif element.keyword == "PatientBirthDate":
                found |= birth_date(text)
            elif element.VR == "UI" and element.keyword.endswith("InstanceUID"):
                found |= value(text, "ID")
            elif element.VR in TEXT_VRS and IDENTIFYING.search(element.keyword):
                found |= value(text, "PLACE" if _PLACES.search(element.keyword) else "ID")
    return found


def of_field(key: str, text: str) -> Known:
    """What one column of a table, or one key of FHIR, names; nothing for keys of other kinds."""
    if _BIRTH.search(key):
        return birth_date(text)
    if _NAMES.search(key):
        return name(text.replace(",", "^"))
    return value(text, "ID") if _IDS.search(key) else {}


def of_json(content: Any, key: str = "") -> Known:
    """What a FHIR resource names, at any depth; not its texts."""
    if isinstance(content, str):
        return of_field(key, content) if len(content) <= 200 else {}
    found: Known = {}
    if isinstance(content, Mapping):
        for name_, inner in content.items():
            if name_ not in ("code", "coding", "conclusion", "category", "presentedForm", "text"):
                found |= of_json(inner, name_)
        if isinstance(text := content.get("text"), str) and key == "name":
            found |= name(text)
    elif isinstance(content, list):
        for item in content:
            found |= of_json(item, key)
    return found


def together(several: Iterable[Mapping[str, Kind]]) -> Known:
    """All of them in one."""
    found: Known = {}
    for one in several:
        found |= one
    return found
