"""The lexicon is complete and finds its findings in a text."""

import pytest

from medvlm.findings import FINDINGS, LEXICON, NIH_FINDINGS, PHRASES, find_mentions


def test_the_lexicon_covers_every_finding_in_order() -> None:
    assert len(NIH_FINDINGS) == 14
    assert (*NIH_FINDINGS, "Lung_Opacity") == FINDINGS
    assert tuple(LEXICON) == tuple(PHRASES) == FINDINGS
    for name, entry in LEXICON.items():
        assert entry.name == name
        assert entry.phrase == PHRASES[name]
        assert entry.definition.endswith(".")
        assert "\n" not in entry.definition


def test_no_wording_means_two_findings() -> None:
    wordings = [word.lower() for e in LEXICON.values() for word in (e.phrase, *e.synonyms)]
    assert len(wordings) == len(set(wordings))


@pytest.mark.parametrize("finding", FINDINGS)
def test_each_wording_is_found_in_either_case_and_with_its_place(finding: str) -> None:
    entry = LEXICON[finding]
    for wording in (entry.phrase, entry.name, *entry.synonyms):
        for written in (wording, wording.upper(), wording.capitalize()):
            text = f"There is {written}, today."
            (mention,) = find_mentions(text)
            assert mention.finding == finding
            assert text[mention.start : mention.end] == written


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bilateral pleural effusions", ["Effusion"]),
        ("several masses and nodules", ["Mass", "Nodule"]),
        ("pneumothoraces, opacities", ["Pneumothorax", "Lung_Opacity"]),
        ("pneumonic infiltrate", ["Pneumonia"]),  # not also infiltration
        ("nodular opacity", ["Nodule"]),
        ("pleural\n thickening", ["Pleural_Thickening"]),
        ("a massive, amassed or nodular thing", []),
        ("pericardial effusions and subcutaneous emphysema", []),
        ("", []),
    ],
)
def test_mentions(text: str, expected: list[str]) -> None:
    assert [mention.finding for mention in find_mentions(text)] == expected
