"""Every file of the corpora ends as pixels or as a typed refusal with a reason.

Also the test on which trust in the quick look at a header rests: it says of every file what a full
parse says.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medvlm.dicom.decode import check_pixels, header_value, parse, pixel_bytes
from medvlm.dicom.facts import dicom_facts
from medvlm.dicom.files import Found, find_files
from medvlm.dicom.header import AnyDataset, read_header
from medvlm.dicom.read import WANTED, read_inputs
from medvlm.errors import InputError
from medvlm.image.load import load_images

CORPORA = {
    "pydicom": "data",
    "data_store": "data",  # pydicom-data
    "pynetdicom": "tests/dicom_files",
}
# Refused although they are images, and why; everything else that is refused holds no image.
BROKEN = {
    "JPEG-lossy.dcm": "undecodable",  # 12-bit JPEG
    "JPGExtended.dcm": "undecodable",  # the same
    "JPEG2000-embedded-sequence-delimiter.dcm": "too_large",  # its codestream's header is damaged
    "badVR.dcm": "undecodable",  # letters where a number belongs
    "MR_truncated.dcm": "truncated_pixels",
    "rtplan_truncated.dcm": "truncated_pixels",
    "emri_small_jpeg_2k_lossless_too_short.dcm": "truncated_pixels",
    "meta_missing_tsyntax.dcm": "undecodable",  # pixels without rows and columns
    "nested_priv_SQ.dcm": "undecodable",  # the same
}


@pytest.fixture(params=[*CORPORA, "data pack"])
def corpus(request: pytest.FixtureRequest) -> Path:
    """A folder of files that others made."""
    if request.param == "data pack":
        folder: Path = request.getfixturevalue("data_pack") / "dicom"
        if not folder.is_dir():
            pytest.skip("the data pack holds no DICOM files")
        return folder
    spec = find_spec(request.param)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / CORPORA[request.param]


def test_every_file_ends_as_pixels_or_as_a_refusal_with_a_reason(corpus: Path) -> None:
    given = sum(path.is_file() for path in corpus.rglob("*"))
    reading = read_inputs(corpus, decode=True)
    assert len(reading.instances) + len(reading.refused) == given
    for refused in reading.refused:
        assert refused.message.endswith(".")
        expected = BROKEN.get(Path(refused.file).name)
        assert refused.code == expected if expected else refused.code in {"no_pixels", "not_dicom"}
    for instance, image in zip(reading.instances, load_images(reading.instances), strict=True):
        assert not isinstance(image, InputError), image
        assert image.pixels.shape == (instance.rows, instance.columns)
        assert np.isfinite(image.pixels).all()
        assert 0 <= image.pixels.min() <= image.pixels.max() <= 1


def test_the_quick_look_at_a_header_says_what_a_full_parse_says(corpus: Path) -> None:
    looked = 0
    for found in find_files(corpus):
        if not isinstance(found, Found):
            continue
        try:
            _, header = read_header(found.path, WANTED)
        except InputError as error:
            pytest.fail(f"{found.name}: {error}")
        if header is None:
            continue
        looked += 1
        ds = parse(found.path.read_bytes())
        quick = said(header.ds, header.pixel_bytes)
        assert quick == said(ds, pixel_bytes(ds)), found.name
    assert looked >= {"pydicom": 150, "data": 40}.get(corpus.name, 4)


def said(ds: AnyDataset, have: int | None) -> dict[str, object]:
    """All that reading takes from a header."""
    try:
        check_pixels(ds, have)
        return {"pixel bytes": have, **dicom_facts(ds)}
    except InputError as error:
        return {"code": error.code, "kind": header_value(ds, "SOPClassUID")}


@pytest.mark.filterwarnings("ignore")
def test_what_is_refused_cannot_be_decoded_by_pydicom_either(corpus: Path) -> None:
    for refused in read_inputs(corpus, decode=True).refused:
        if Path(refused.file).stat().st_size:
            with pytest.raises(Exception):  # noqa: B017, PT011 - whatever it raises
                _ = pydicom.dcmread(refused.file, force=True).pixel_array
