"""Reads damaged files without end: only typed refusals may come of it.

    python -m fuzz.reading --seconds 600

With atheris installed (it has no wheel for every Python) coverage guides the damage; without it
chance does, and `--seed` repeats a run. `tests/test_fuzz.py` runs the same body for some seconds.
"""

from __future__ import annotations

import argparse
import io
import random
import struct
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from openjpeg.utils import encode_array
from PIL import Image
from pydicom.uid import HTJ2K, HTJ2KLossless, JPEG2000Lossless

from medvlm.dicom.decode import check_pixels, parse, pixel_bytes
from medvlm.dicom.facts import dicom_facts
from medvlm.dicom.header import AnyDataset, read_header
from medvlm.dicom.inspect import inspect_reading
from medvlm.dicom.nesting import LONG_VRS, SHORT_VRS
from medvlm.dicom.read import WANTED, read_inputs
from medvlm.errors import InputError
from medvlm.image.load import load_images
from tests.codestreams import LOSSLESS, LOSSY, wedge
from tests.hostile import compressed, in_jp2

Choose = Callable[[int], int]  # a whole number from 0 up to, and without, the one given

LARGEST_SEED = 60_000
SLOW = 30  # seconds; decoding alone is ended much sooner with MEDVLM_LIMIT_DECODE_SECONDS=5
EDGES = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
VRS = (*sorted(SHORT_VRS), *sorted(LONG_VRS))
# Elements that reading looks at, and some that it does not.
TAGS = (
    *(0x00080005, 0x00080008, 0x00080016, 0x00080018, 0x00080060, 0x00082218, 0x00100020),
    *(0x00180015, 0x00181164, 0x0020000D, 0x00200013, 0x00200020, 0x00200032, 0x00200037),
    *(0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280030, 0x00280100),
    *(0x00280101, 0x00280103, 0x00281050, 0x00281052, 0x00283010, 0x00090010, 0x00091001),
    *(0x52009229, 0x52009230, 0x7FE00008, 0x7FE00010, 0xFFFCFFFC),
)


def seeds() -> list[bytes]:
    """Small files of every encoding: those of pydicom's own tests, and what they lack."""
    spec = find_spec("pydicom")
    folder = Path(str(spec and spec.origin)).parent / "data" / "test_files"
    paths = sorted(path for path in folder.glob("*") if path.is_file())
    found = [path.read_bytes() for path in paths if path.stat().st_size < LARGEST_SEED]
    found = [data for data in found if data[128:132] == b"DICM" or data[:1] in (b"\x08", b"\x02")]
    image = wedge()
    for syntax, codestream in ((HTJ2KLossless, LOSSLESS), (HTJ2K, LOSSY)):
        found.append(compressed(codestream, syntax, *image.shape))
    jp2 = in_jp2(encode_array(wedge(64, 64), bits_stored=12, photometric_interpretation=2))
    found.append(compressed(jp2, JPEG2000Lossless, 64, 64))
    for kind in ("PNG", "JPEG"):
        stream = io.BytesIO()
        Image.fromarray((image // 8).astype("uint8")).save(stream, kind)
        found.append(stream.getvalue())
    return found


def damaged(data: bytes, choose: Choose, other: bytes = b"") -> bytes:
    """The bytes with up to four kinds of damage."""
    broken = bytearray(data)
    for _ in range(1 + choose(4)):
        if not broken:
            break
        # Headers are short and break more interestingly than pixels.
        at = choose(len(broken) if choose(3) == 0 else min(len(broken), 2000))
        length = min(1 + choose(64), len(broken) - at)
        kind = choose(9)
        if kind == 0:
            broken[at] ^= 1 << choose(8)
        elif kind == 1:
            broken[at] = choose(256)
        elif kind == 2 and len(broken) >= 4:  # what may be a length, a count or a size
            form, most = (("<H", 0xFFFF), ("<I", 0xFFFFFFFF))[choose(2)]
            value = EDGES[choose(len(EDGES))] & most
            struct.pack_into(form, broken, min(at, len(broken) - 4), value)
        elif kind == 3:
            del broken[at:]
        elif kind == 4:
            del broken[at : at + length]
        elif kind == 5:
            broken[at:at] = broken[at : at + length]
        elif kind == 6 and other:
            start = choose(len(other))
            broken[at : at + length] = other[start : start + 1 + choose(512)]
        elif kind == 7:  # two neighbours change places, and with them perhaps two elements
            middle, end = at + length, at + 2 * length
            broken[at:end] = broken[middle:end] + broken[at:middle]
        else:
            broken[at : at + length] = bytes([choose(256)]) * length
    return bytes(broken)


def zipped(members: list[bytes], choose: Choose) -> bytes:
    """An archive of these files, damaged too."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[choose(2)]) as out:
        for number, data in enumerate(members):
            out.writestr(("a.dcm", "b/c.dcm", "d.zip", "../e")[choose(4)] + str(number), data)
    return damaged(stream.getvalue(), choose)


def tree(choose: Choose, *, explicit: bool, depth: int = 0) -> bytes:
    """A data set of random elements, in order or not, with values of random bytes."""
    tags = [TAGS[choose(len(TAGS))] for _ in range(choose(12))]
    if choose(3):
        tags.sort()
    out = b""
    for tag in tags:
        vr = VRS[choose(len(VRS))]
        head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        if depth < 4 and choose(4) == 0:
            vr, value, length = b"SQ", *_items(choose, explicit=explicit, depth=depth + 1)
        else:
            value = _value(choose)
            length = len(value)
        if not explicit:
            out += head + struct.pack("<I", length) + value
        elif vr in LONG_VRS:
            out += head + vr + struct.pack("<HI", 0, length) + value
        else:
            out += head + vr + struct.pack("<H", length & 0xFFFF) + value
    return out


def _items(choose: Choose, *, explicit: bool, depth: int) -> tuple[bytes, int]:
    value = b""
    for _ in range(choose(3)):
        content = tree(choose, explicit=explicit, depth=depth)
        if choose(2):
            value += struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content
        else:
            value += struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + content
            value += struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
    if choose(2):
        return value, len(value)
    return value + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0), 0xFFFFFFFF


def _value(choose: Choose) -> bytes:
    kind = choose(4)
    if kind == 0:
        return b""
    if kind == 1:
        return struct.pack("<H", EDGES[choose(len(EDGES))] & 0xFFFF)
    if kind == 2:
        return (b"1", b"-1.5\\2", b"1.2.3 ", b"MR\\CT ", b"\xff\xfe\x1b$B", b"nan\\inf")[choose(6)]
    return bytes(choose(256) for _ in range(choose(20)))


def film_of(elements: bytes, *, explicit: bool) -> bytes:
    """A file of these elements, with a correct group 2 before them."""
    syntax = b"1.2.840.10008.1.2.1\0" if explicit else b"1.2.840.10008.1.2\0"
    meta = struct.pack("<HH2sH", 2, 0x0010, b"UI", len(syntax)) + syntax
    size = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta))
    return bytes(128) + b"DICM" + size + meta + elements


def read(data: bytes, folder: Path, seen: Counter[str], keep: Path | None = None) -> None:
    """Reads the bytes in all the ways of the program. Raises only where the program is wrong.

    Args:
        seen: counts what came of them.
        keep: where inputs go that a worker process did not survive.
    """
    path = folder / "input"
    path.write_bytes(data)
    agree(path, data)
    for decode in (False, True):
        reading = read_inputs(path, decode=decode)
        assert reading.instances or reading.refused
        inspect_reading(reading)
    seen.update(refused.code for refused in reading.refused)
    ended = [one for one in reading.refused if "crash" in one.message or "longer" in one.message]
    seen.update("ended a worker" for _ in ended)
    if ended and keep:  # worth a look, though nobody was harmed
        (keep / f"worker-{seen['ended a worker']}").write_bytes(data)
    for image in load_images(reading.instances):
        if isinstance(image, InputError):
            seen[f"loading: {image.code}"] += 1
        else:
            seen["pixels"] += 1
            assert image.pixels.ndim == 2
            assert 0 <= image.pixels.min() <= image.pixels.max() <= 1


def agree(path: Path, data: bytes) -> None:
    """The quick look at a header and a full parse say the same, where both say something."""
    try:
        _, header = read_header(path, WANTED)
        ds = parse(data) if header else None
    except InputError:
        return
    if header and ds is not None:
        quick, full = _said(header.ds, header.pixel_bytes), _said(ds, pixel_bytes(ds))
        assert quick == full, f"{quick} is not {full}"


def _said(ds: AnyDataset, have: int | None) -> dict[str, Any] | None:
    """The facts of an image; None for what is refused, for which there may be several reasons."""
    try:
        check_pixels(ds, have)
        return {"pixel bytes": have, **dicom_facts(ds)}
    except InputError:
        return None


def anything(choose: Choose, files: list[bytes]) -> bytes:
    """One input: a damaged file, an archive of such, or a tree of random elements."""
    one, other = files[choose(len(files))], files[choose(len(files))]
    kind = choose(10)
    if kind == 0:
        return zipped([damaged(one, choose, other), other], choose)
    if kind < 3:
        explicit = bool(choose(2))
        return film_of(tree(choose, explicit=explicit), explicit=explicit)
    return damaged(one, choose, other)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "fuzz")
    options = parser.parse_args()
    options.keep.mkdir(exist_ok=True)
    seen: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        try:
            import atheris  # type: ignore[import-not-found]
        except ImportError:
            print("atheris is not installed: damage by chance, not guided by coverage")
            _by_chance(options, Path(name), seen)
            return
        files = seeds()

        def once(raw: bytes) -> None:
            provider = atheris.FuzzedDataProvider(raw)
            data = anything(lambda n: provider.ConsumeIntInRange(0, n - 1), files)
            read(data, Path(name), seen, options.keep)

        atheris.instrument_all()
        atheris.Setup([sys.argv[0], f"-max_total_time={options.seconds:.0f}"], once)
        atheris.Fuzz()


def _by_chance(options: argparse.Namespace, folder: Path, seen: Counter[str]) -> None:
    files, started, number, found = seeds(), time.monotonic(), 0, 0
    slowest = 0.0
    while time.monotonic() - started < options.seconds:
        data = anything(random.Random(f"{options.seed}-{number}").randrange, files)
        begun = time.monotonic()
        try:
            read(data, folder, seen, options.keep)
        except Exception as error:
            found += 1
            (options.keep / f"{options.seed}-{number}").write_bytes(data)
            print(
                f"{options.seed}-{number}: {type(error).__name__}: {str(error)[:1000]}", flush=True
            )
        took = time.monotonic() - begun
        if took > SLOW:
            (options.keep / f"slow-{options.seed}-{number}").write_bytes(data)
            print(f"{options.seed}-{number}: {took:.0f} s", flush=True)
        slowest = max(slowest, took)
        number += 1
    print(f"{number} inputs, {found} findings, the slowest took {slowest:.1f} s")
    print(", ".join(f"{code} {count}" for code, count in seen.most_common()))


if __name__ == "__main__":
    main()
