"""How deep sequences are nested in a piece of a data set, found without building them.

Sequences of defined length cost a parser nothing until somebody walks over them, and then a level
of its stack for each of theirs.
"""

from __future__ import annotations

from struct import unpack_from

from medvlm.dicom.limits import limits
from medvlm.errors import TooDeep, TooLarge

LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_ITEM_BYTES = {"<": b"\xfe\xff\x00\xe0", ">": b"\xff\xfe\xe0\x00"}


def too_deep() -> TooDeep:
    """The error of sequences nested beyond the limit."""
    return TooDeep(f"Its sequences are nested more than {limits().sequence_depth} deep.")


def too_many() -> TooLarge:
    """The error of a data set with more elements than the limit."""
    return TooLarge(f"It has more than {limits().elements} elements.")


def refuse_deep(value: bytes, order: str = "<") -> None:
    """Raises TooDeep if the value of a sequence holds others beyond the limit.

    Args:
        value: anything that may be a sequence, as it lies in the file.
        order: "<" for little endian, ">" for big.
    """
    deepest, item = limits().sequence_depth, _ITEM_BYTES[order]
    # Every level opens an item: nearly all there is goes no further than this line.
    if not value.startswith(item) or value.count(item) <= deepest:
        return
    ends, position = [len(value)], 0  # where the items and sequences end in which we are
    for _ in range(limits().elements):
        while len(ends) > 1 and position >= ends[-1]:
            ends.pop()
        if position + 12 > len(value):
            return
        group, number, length = unpack_from(f"{order}HHI", value, position)
        tag, vr = group << 16 | number, value[position + 4 : position + 6]
        position += 8
        if tag in (ITEM_END, SEQUENCE_END):
            del ends[max(1, len(ends) - 1) :]
            continue
        if tag != ITEM:
            if vr in LONG_VRS:
                (length,) = unpack_from(f"{order}I", value, position)
                position += 4
            elif vr in SHORT_VRS:
                (length,) = unpack_from(f"{order}H", value, position - 2)
            if length != UNDEFINED and not value.startswith(item, position):
                position += length
                continue
        ends.append(len(value) if length == UNDEFINED else position + length)
        if len(ends) > 2 * deepest:
            raise too_deep()
    raise too_many()
