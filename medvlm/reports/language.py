"""Whether a report is English: the rules read no other language."""

from __future__ import annotations

import re

from medvlm.reports.words import word_set

_WORD = re.compile(r"[^\W\d_]+")
_ENGLISH = word_set(
    """the of and is are no in with there or for to not has was on this a an at by be left
    right lung lungs heart normal clear pleural effusion"""
)
# The commonest small words of languages that are written in the same letters.
_OTHERS = word_set(
    """der die das und ist nicht mit ein eine im den kein keine links rechts le la les des du
    et est dans avec sans un une pas el los las de del y es en con sin por una se il lo gli
    e di che non nel della het een van geen niet o os da do em com sem uma nao i w z na jest
    bez och att det som inga og av ikke ja"""
)
_LEAST = 4  # words; less is no sample of a language
_FOREIGN_LETTERS = 0.1


def is_english(text: str) -> bool:
    """True unless letters or small words say otherwise; for a few words, True."""
    words = [word.lower() for word in _WORD.findall(text)]
    letters = sum(map(len, words))
    if letters and sum(not char.isascii() for word in words for char in word) > (
        _FOREIGN_LETTERS * letters
    ):
        return False
    english = sum(word in _ENGLISH for word in words)
    others = sum(word in _OTHERS for word in words)
    return len(words) < _LEAST or english >= others
