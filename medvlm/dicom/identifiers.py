"""What in a header names a patient or those around them, and whether any of it is left somewhere.

Used twice: to clean the few texts that are kept, and, independently of how that went, to search the
finished file, element by element and byte by byte.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterator
from itertools import permutations

from pydicom.charset import convert_encodings
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID
from pydicom.valuerep import PersonName

TEXT_VRS = frozenset({"AE", "LO", "LT", "SH", "ST", "UC", "UR", "UT"})
SHORTEST = 3  # characters; two letters are found everywhere
_MOST_WORDS = 5  # of a name; the pairs of more would be too many
# From here on an identifier is looked for inside words, too, and with other separators in it.
LONG = 6
# Shorter than this, bytes of numbers look like a name every so often.
SHORTEST_IN_BYTES = 5
# Public elements whose values identify somebody or something, by the end of their keyword.
IDENTIFYING = re.compile(
    r"((?<!Stack)ID|IDs|Identifier|Number|Numbers|PhoneNumber|Address|Information|Location|Residence|AETitle"
    r"|AE|Organization|InstitutionName|DepartmentName|StationName|Recorder|Transcriber|Author"
    r"|Locator|Identification|MachineName|EnteredBy|ImagingServiceRequest|URI|SiteName)$"
)
# What stands in identifying elements where nothing is known: it identifies nobody.
_PLACEHOLDERS = frozenset(
    {
        *("none", "unknown", "anonymous", "anonymized", "anonymised", "anon", "deidentified"),
        *("removed", "test", "patient", "null", "not", "other", "yes", "nos"),
        *("unspecified", "default", "empty", "undefined", "prof", "phd", "med", "the", "and"),
    }
)
_ALPHANUMERIC = re.compile(r"[^\W_]+")
_ASCII_WORD = re.compile(rb"[0-9a-z]+")
_ASCII_NUMBER = re.compile(rb"[0-9][0-9.]*")


class Identifiers:
    """The identifying values of a data set: names, numbers of documents and people, places, UIDs.

    Reads the whole data set, private elements and nested items too. Names of people are split into
    their words. Shorter values than three characters are left out.
    """

    def __init__(self, ds: Dataset) -> None:
        self._words: set[str] = set()
        self._long: set[str] = set()
        self._uids: set[str] = set()
        spellings: set[str] = set()
        for element in every_element(ds):
            for value in values(element):
                if element.VR == "UI":
                    self._uids |= {value} - {""} if UID(value).name == value else set()
                elif element.VR == "PN":
                    spellings |= self._name(value)
                elif element.keyword == "PatientBirthDate":
                    self._birth_date(value)
                elif element.VR in TEXT_VRS and IDENTIFYING.search(element.keyword):
                    spellings |= self._value(value)
        self._bytes = _encoded(spellings, ds)

    def in_text(self, text: str) -> bool:
        """Whether one of them stands in the text, in any case, with or without accents."""
        folded = fold(text)
        words = {*_ALPHANUMERIC.findall(folded), *map(squash, folded.split())}
        if not words.isdisjoint(self._words) or text in self._uids:
            return True
        squashed = squash(folded)
        return any(long in squashed for long in self._long)

    def is_number(self, text: str) -> bool:
        """Whether the digits of a number are one of them: equal, for digits repeat by chance."""
        return len(text) >= LONG and text in self._long

    def in_bytes(self, data: bytes, ours: frozenset[bytes]) -> bool:
        """Whether one of them stands in the bytes, in UTF-8, UTF-16 or the file's own encoding.

        Args:
            data: header bytes without pixel data.
            ours: digits that are known to stand there for something else, such as shifted dates.
        """
        lower = data.lower()
        numbers = {number.rstrip(b".") for number in _ASCII_NUMBER.findall(lower)} - ours
        if not numbers.isdisjoint(uid.encode("utf-8", "replace") for uid in self._uids):
            return True
        found = set(_ASCII_WORD.findall(lower))
        for spelling in self._bytes:
            if spelling.isdigit():
                if spelling in numbers:
                    return True
            elif spelling in (found if len(spelling) < LONG and spelling.isalnum() else lower):
                return True
        return False

    def _name(self, name: str) -> set[str]:
        spellings = {name} if tells(squash(name)) else set()
        for group in name.split("="):
            # Family, given and middle name; not the prefix and suffix, such as Dr and MD.
            words = list(filter(tells, _ALPHANUMERIC.findall(" ".join(group.split("^")[:3]))))
            spellings |= set(words)
            self._words |= set(map(fold, words))
            self._long |= {word for word in map(fold, words) if len(word) >= LONG}
            for first, second in permutations(words[:_MOST_WORDS], 2):
                spellings |= {first + between + second for between in ("", " ", "^", ", ")}
                if len(glued := fold(first + second)) >= LONG:
                    self._long.add(glued)
        return spellings

    def _value(self, value: str) -> set[str]:
        spellings = set()
        for part in (value, *re.split(r"[\r\n,;^]+", value)):
            squashed = squash(fold(part))
            if tells(squashed):
                (self._long if len(squashed) >= LONG else self._words).add(squashed)
                spellings |= {part.strip(), squashed}
        return spellings

    def _birth_date(self, value: str) -> None:
        digits = squash(value)
        if len(digits) == 8:
            year, month, day = digits[:4], digits[4:6], digits[6:]
            self._long |= {digits, day + month + year, month + day + year}


def every_element(ds: Dataset) -> Iterator[DataElement]:
    """All elements that can be read, nested ones too; bulk data are left alone."""
    for tag in list(ds.keys()):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                element = ds[tag]
        except Exception:  # whatever a parser makes of hostile bytes; cleaning removes these
            continue
        yield element
        if element.VR == "SQ":
            for item in element.value or ():
                yield from every_element(item)


def values(element: DataElement) -> list[str]:
    """The element's values as text, without padding."""
    value = element.value
    several = value if isinstance(value, MultiValue | list | tuple) else [value]
    return [
        str(one).strip(" \0")
        for one in several
        if isinstance(one, str | int | float | PersonName) or hasattr(one, "original_string")
    ]


def _encoded(spellings: set[str], ds: Dataset) -> set[bytes]:
    declared = ds.get("SpecificCharacterSet") or "ISO_IR 6"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = convert_encodings(declared)
    found = set()
    for spelling in spellings:
        # Look-up tables hold ascending 16-bit numbers, which read as digits in UTF-16.
        wide = () if spelling.isdigit() else ("utf-16-le", "utf-16-be")
        for encoding in {"utf-8", "latin-1", *wide, *own}:
            try:
                # Lower case as bytes: letters of the alphabet only, as `in_bytes` does it.
                found.add(spelling.encode(encoding).lower())
            except (UnicodeEncodeError, LookupError):
                continue
    return {spelling for spelling in found if len(spelling) >= SHORTEST_IN_BYTES}


def names_nobody(text: str) -> bool:
    """Whether a patient's ID is empty or stands for anybody: "ANONYMOUS", "unknown", "000000"."""
    words = _ALPHANUMERIC.findall(fold(text))
    return all(word in _PLACEHOLDERS or set(word) in ({"0"}, {"x"}) for word in words)


def tells(word: str) -> bool:
    """Whether the word is long enough to mean something, and not a placeholder."""
    folded = fold(word)
    shortest = SHORTEST if folded.isascii() else SHORTEST - 1  # two characters are a name in kanji
    return len(folded) >= shortest and folded not in _PLACEHOLDERS and len(set(folded)) > 1


# Letters that Unicode does not take apart, as people write them who lack the key.
_STROKES = str.maketrans(
    {"ł": "l", "ø": "o", "đ": "d", "ð": "d", "ħ": "h", "\u0131": "i", "ŧ": "t"}
    | {"æ": "ae", "œ": "oe", "þ": "th"}
)


def fold(text: str) -> str:
    """The text without accents and strokes, upper and lower case alike."""
    decomposed = unicodedata.normalize("NFKD", text)
    return (
        "".join(char for char in decomposed if not unicodedata.combining(char))
        .casefold()
        .translate(_STROKES)
    )


def squash(text: str) -> str:
    """Its letters and digits alone."""
    return "".join(_ALPHANUMERIC.findall(text))
