"""Damaged files: whatever is wrong with them, typed refusals come of them and nothing else.

The quick test tries the same few hundred inputs every time. `python -m fuzz.reading` tries others
for as long as it is told to.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fuzz.reading import Choose, damaged, film_of, read, seeds, tree, zipped
from medvlm.dicom.read import read_inputs

QUICK = settings(
    max_examples=120,
    derandomize=True,
    database=None,
    deadline=None,  # a worker may have to be started
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
LONG = settings(QUICK, max_examples=2000, derandomize=False)
FILES = seeds()


def test_there_are_seeds_of_every_encoding(tmp_path: Path) -> None:
    for number, data in enumerate(FILES):
        (tmp_path / str(number)).write_bytes(data)
    instances = read_inputs(tmp_path).instances
    assert len({instance.transfer_syntax for instance in instances}) >= 14


def choosing(data: st.DataObject) -> Choose:
    """Choices that hypothesis makes, and makes simpler where something fails."""
    return lambda below: data.draw(st.integers(0, below - 1))


def a_damaged_file(data: st.DataObject, folder: Path) -> None:
    choose = choosing(data)
    one, other = FILES[choose(len(FILES))], FILES[choose(len(FILES))]
    read(damaged(one, choose, other), folder, Counter())


def a_damaged_archive(data: st.DataObject, folder: Path) -> None:
    choose = choosing(data)
    read(zipped([FILES[choose(len(FILES))] for _ in range(2)], choose), folder, Counter())


def random_elements(data: st.DataObject, folder: Path) -> None:
    explicit = data.draw(st.booleans())
    read(film_of(tree(choosing(data), explicit=explicit), explicit=explicit), folder, Counter())


BODIES = (a_damaged_file, a_damaged_archive, random_elements)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the damaged file lies."""
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
@QUICK
@given(data=st.data())
def test_only_refusals_come_of_damage(body, folder: Path, data: st.DataObject) -> None:  # type: ignore[no-untyped-def]
    body(data, folder)


@pytest.mark.slow
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
@LONG
@given(data=st.data())
def test_only_refusals_come_of_much_damage(body, folder: Path, data: st.DataObject) -> None:  # type: ignore[no-untyped-def]
    body(data, folder)
