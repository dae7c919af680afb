"""The pictures beside a draft: all regions on the films, and each sentence's region by itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medvlm.draft.ground import OPACITIES, finding_heat
from medvlm.draft.look import Seen
from medvlm.draft.overlay import beside, draw_overlay
from medvlm.findings import PHRASES
from medvlm.image.geometry import Box
from medvlm.records import Draft, Finding, PriorFinding, Region

LARGEST = 1200
"""A crop's longer side is at most this many pixels."""
MARGIN = 0.3
"""Of a region's longer side: how much of its surroundings a crop shows on every side."""


def overlay(seen: Sequence[Seen], draft: Draft, earlier: Sequence[Seen]) -> Image.Image | None:
    """The accepted images side by side, then those of the prior; each with its own regions, and the
    numbers below."""
    if not seen:
        return None
    named = ("Current", "Prior") if earlier else (None, None)
    before = draft.comparison.findings if draft.comparison else []
    parts: list[tuple[Seen, Sequence[Finding | PriorFinding], str | None]]
    parts = [(item, draft.findings, named[0]) for item in seen]
    parts += [(item, before, named[1]) for item in earlier]
    return beside(
        [
            draw_overlay(item.image.pixels, labelled_regions(item, own), title, notes(item, own))
            for item, own, title in parts
        ]
    )


def crops(seen: Sequence[Seen], findings: Sequence[Finding]) -> dict[str, Image.Image]:
    """For each finding with regions, their surroundings with its sentence and numbers below, and
    beside them the same under the map that the regions were read from.

    Of several images with regions, the first.
    """
    return {
        finding.finding: picture
        for finding in findings
        if (picture := _crop(seen, finding)) is not None
    }


def labelled_regions(
    seen: Seen, findings: Sequence[Finding | PriorFinding]
) -> list[tuple[str, Region]]:
    """The regions on one image; findings that share one are named together."""
    return [(", ".join(map(label, own)), region) for region, own in _shared(seen, findings)]


def notes(seen: Seen, findings: Sequence[Finding | PriorFinding]) -> dict[str, str]:
    """For each label of `labelled_regions`, its numbers: probability, and evidence if measured."""
    return {
        ", ".join(map(label, own)): "; ".join(f"{label(one)} {_numbers(one)}" for one in own)
        for _, own in _shared(seen, findings)
    }


def label(finding: Finding | PriorFinding) -> str:
    """A finding's name on the picture; a question mark where it is uncertain."""
    return PHRASES[finding.finding] + ("?" if finding.polarity == "uncertain" else "")


def _numbers(finding: Finding | PriorFinding) -> str:
    evidence = finding.evidence if isinstance(finding, Finding) else None
    proof = f", {evidence.status}" if evidence else ""
    return f"{finding.probability:.0%}{proof}"


def _shared(
    seen: Seen, findings: Sequence[Finding | PriorFinding]
) -> list[tuple[Region, list[Finding | PriorFinding]]]:
    """The regions on one image, each with the findings that have it."""
    found: dict[tuple[float, ...], tuple[Region, list[Finding | PriorFinding]]] = {}
    for finding in findings:
        for region in _own(seen, finding):
            key = (region.x, region.y, region.width, region.height)
            found.setdefault(key, (region, []))[1].append(finding)
    return list(found.values())


def _own(seen: Seen, finding: Finding | PriorFinding) -> list[Region]:
    place = (seen.image.sop_instance_uid, seen.image.frame)
    return [r for r in finding.regions if (r.sop_instance_uid, r.frame) == place]


def _crop(seen: Sequence[Seen], finding: Finding) -> Image.Image | None:
    item, shown = next(((i, own) for i in seen if (own := _own(i, finding))), (None, []))
    if item is None:
        return None
    left, top = min(r.x for r in shown), min(r.y for r in shown)
    right = max(r.x + r.width for r in shown)
    bottom = max(r.y + r.height for r in shown)
    margin = MARGIN * max(right - left, bottom - top)
    around = Box.from_corners(left - margin, top - margin, right + margin, bottom + margin)
    clipped = around.clip(item.image.width, item.image.height)
    x, y = int(clipped.x), int(clipped.y)
    pixels = item.image.pixels[y : int(clipped.bottom) + 1, x : int(clipped.right) + 1]
    name = label(finding)
    part = Box(x, y, pixels.shape[1], pixels.shape[0])
    factor = -(-max(pixels.shape) // LARGEST)
    pixels = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).reduce(factor))
    moved = [(name, _moved(region, part, factor)) for region in shown]
    plain = draw_overlay(pixels, moved, finding.text, {name: f"{name} {_numbers(finding)}"})
    heat = _heat(item, finding.finding, part, pixels.shape)
    told = [f"{_MAPS[finding.finding in OPACITIES]}, up to {heat.max():.2f} here"]
    if (proof := finding.evidence) is not None:
        told.append(
            f"probability {proof.p_image:.2f}; region erased {proof.p_erased:.2f}, other patients "
            f"{proof.p_other:.2f}, even grey {proof.p_blank:.2f}"
        )
    return beside([plain, draw_overlay(pixels, [], ". ".join(told), heat=heat)])


_MAPS = {True: "opacity map (probability)", False: "the classifier's map (1: its peak)"}


def _moved(region: Region, part: Box, factor: int) -> Region:
    """A region in the pixels of a part of the image that was made smaller."""
    sides = {
        "x": (region.x - part.x) / factor,
        "y": (region.y - part.y) / factor,
        "width": region.width / factor,
        "height": region.height / factor,
    }
    return region.model_copy(update=sides)


def _heat(seen: Seen, finding: str, part: Box, shape: tuple[int, ...]) -> NDArray[np.floating]:
    """The map of a finding over a part of the image, in [H, W] = `shape`."""
    heat = finding_heat(seen, finding)
    cell = seen.transform.size / len(heat)
    own = seen.transform.to_grid(part)
    window = (own.x / cell, own.y / cell, own.right / cell, own.bottom / cell)
    source = Image.fromarray(heat.astype(np.float32))
    resized = source.resize((shape[1], shape[0]), Image.Resampling.BILINEAR, box=window)
    return np.asarray(resized).clip(0, 1)
