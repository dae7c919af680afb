"""The error tree: codes, words for people, and that errors survive a process boundary."""

from __future__ import annotations

import pickle

import pytest

from medvlm import errors


def subclasses(cls: type) -> set[type]:
    return {cls}.union(*(subclasses(sub) for sub in cls.__subclasses__()))


def public_tree() -> set[type]:
    return {cls for cls in subclasses(errors.MedVLMError) if cls.__module__ == errors.__name__}


def test_every_error_has_its_own_code() -> None:
    codes = [cls.code for cls in public_tree()]
    assert len(codes) == len(set(codes)) == 31


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("InputNotFound", "not_found"),
        ("NotDicom", "not_dicom"),
        ("NoPixels", "no_pixels"),
        ("TruncatedPixels", "truncated_pixels"),
        ("Undecodable", "undecodable"),
        ("UnsafeArchive", "unsafe_archive"),
        ("TooLarge", "too_large"),
        ("TooDeep", "too_deep"),
    ],
)
def test_input_errors_carry_the_codes_of_the_contract(name: str, code: str) -> None:
    error = getattr(errors, name)("no")
    assert isinstance(error, errors.InputError)
    assert error.code == code


def test_words_are_joined() -> None:
    assert str(errors.NotDicom("No DICOM")) == "No DICOM"
    assert str(errors.NotDicom("No DICOM", file="a.txt")) == "a.txt: No DICOM"
    full = errors.NotDicom("No DICOM", file="a.txt", remedy="Give DICOM.")
    assert str(full) == "a.txt: No DICOM. Give DICOM."
    assert str(errors.NotDicom("No DICOM.", remedy="Give DICOM.")) == "No DICOM. Give DICOM."


def test_a_code_can_be_narrowed_for_one_error_only() -> None:
    assert errors.ConfigError("bad", code="unknown_key").code == "unknown_key"
    assert errors.ConfigError("bad").code == "config"


def test_errors_survive_pickling() -> None:
    error = errors.TooLarge("big", file="a.dcm", remedy="Cut it.")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.file) == (errors.TooLarge, str(error), "a.dcm")
