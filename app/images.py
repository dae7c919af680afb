"""The viewer of the open study: which images and regions it shows, and what the user does in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast, get_args

import streamlit as st

from app import session
from app.viewer.viewer import (
    Focus,
    Kind,
    Layout,
    ViewerData,
    ViewerEvents,
    ViewerRegion,
    ViewerStack,
    viewer,
    viewer_events,
)
from app.words import catalogue, language, words
from medvlm.desk.token import TOKENS
from medvlm.records import Region
from medvlm.review import worklist
from medvlm.review.records import Exchange, ImageRow, Review, StudyRow

LAYOUTS: tuple[Layout, ...] = get_args(Layout)


class Opened(NamedTuple):
    """The open study: its row, its images, and those of the last prior study."""

    row: StudyRow
    images: list[ImageRow]
    prior: StudyRow | None
    prior_images: list[ImageRow]

    def image_of(self, region: Region) -> str | None:
        """The image that a region lies on; a picture's region names none."""
        for image in (*self.images, *self.prior_images):
            if image.sop_instance_uid == region.sop_instance_uid:
                return image.id
        return self.images[0].id if region.sop_instance_uid is None and self.images else None


def opened(study_id: str) -> Opened:
    """Raises ReviewError for a study that is not there."""
    desk = session.store()
    row = worklist.study_row(desk, study_id)
    before = worklist.priors(desk, study_id)
    prior = before[0] if before else None
    return Opened(
        row,
        worklist.images(desk, study_id),
        prior,
        worklist.images(desk, prior.id) if prior else [],
    )


def stacks_of(study: Opened) -> list[ViewerStack]:
    """What the viewer can show: the study's own series, then those of its prior."""
    return _stacks(study.images, prior=False) + _stacks(study.prior_images, prior=True)


def events(study: Opened, stacks: list[ViewerStack]) -> ViewerEvents:
    """What the user did in the viewer since the last run; known before it is drawn again."""
    return viewer_events(cast(ViewerData, {"stacks": stacks}), _key(study))


def show(
    study: Opened,
    stacks: list[ViewerStack],
    review: Review,
    exchanges: Sequence[Exchange],
) -> None:
    """Draws the viewer with its controls."""
    layout, linked = _controls(study, stacks)
    regions = [
        *_sentence_regions(study, review),
        *_exchange_regions(study, exchanges),
        *_drawn_region(),
    ]
    covered = (study.row.id, study.prior.id) if study.prior else (study.row.id,)
    minutes = session.settings().idle_minutes
    viewer(
        {
            "base": "/desk/",
            "token": TOKENS.make(session.person().id, covered, minutes),
            "words": _viewer_words(),
            "stacks": stacks,
            "layout": layout,
            "shown": _shown(stacks, layout),
            "linked": linked,
            "regions": regions,
            "selected": session.selected(),
            "focus": _focus(regions),
            "tool": None,
            "enabled_drawing": True,
        },
        key=_key(study),
    )


def _key(study: Opened) -> str:
    return f"viewer-{study.row.id}"


def _controls(study: Opened, stacks: list[ViewerStack]) -> tuple[Layout, bool]:
    """One stack needs no choice of views."""
    if len(stacks) < 2:
        return "1", False
    with st.container(horizontal=True, vertical_alignment="bottom"):
        layout = st.segmented_control(
            words("study.layout"),
            LAYOUTS,
            default="1x2" if study.prior else "1",
            format_func=lambda one: words(f"study.layout.{one}"),
            key=f"layout-{study.row.id}",
            required=True,
        )
        linked = st.toggle(words("study.linked"), value=True, key=f"linked-{study.row.id}")
    return cast(Layout, layout or "1"), linked


def _stacks(images: Iterable[ImageRow], *, prior: bool) -> list[ViewerStack]:
    """One stack a series, in order. Slices of one size scroll together; films stand alone."""
    stacks: dict[str, ViewerStack] = {}
    for image in images:
        key = f"{image.study_id}-{image.stack}"
        told = [image.modality, image.view_position, image.description]
        stack = stacks.setdefault(
            key,
            {
                "key": key,
                "label": " · ".join(filter(None, told)),
                "prior": prior,
                "modality": image.modality or "",
                "images": [],
            },
        )
        stack["images"].append(
            {
                "id": image.id,
                "number": len(stack["images"]) + 1,
                "label": image.view_position or "",
                "frames": image.frames,
            }
        )
    return list(stacks.values())


def _shown(stacks: list[ViewerStack], layout: Layout) -> list[str]:
    """A stack for each view: with two views and a prior, the prior stands beside the current."""
    views = {"1": 1, "1x2": 2, "2x1": 2, "2x2": 4}[layout]
    current = [stack["key"] for stack in stacks if not stack["prior"]]
    prior = [stack["key"] for stack in stacks if stack["prior"]]
    order = [current[0], prior[0]] if views == 2 and prior else [*current, *prior]
    return order[:views]


# ---- regions ----


def _sentence_regions(study: Opened, review: Review) -> list[ViewerRegion]:
    found: list[ViewerRegion] = []
    for number, one in enumerate(review.sentences, 1):
        if one.decision == "rejected":
            continue
        moved = one.machine is None or tuple(one.machine.regions) != one.regions
        kind: Kind = "human" if moved else "machine"
        found += _as_data(
            study,
            one.regions,
            sentence=one.id,
            label=str(number),
            kind=kind,
            selected=one.id == session.selected(),
        )
    return found


def _exchange_regions(study: Opened, exchanges: Sequence[Exchange]) -> list[ViewerRegion]:
    """Of the exchange that the user looks at, the last one unless another was chosen."""
    lit = st.session_state.get("lit")
    chosen = [one for one in exchanges if one.id == lit] or list(exchanges[-1:])
    found: list[ViewerRegion] = []
    for one in chosen:
        if one.region is not None:
            found += _as_data(study, [one.region], sentence=one.id, label="?", kind="question")
        if one.answer is not None:
            found += _as_data(study, one.answer.regions, sentence=one.id, label="A", kind="answer")
    return found


def _drawn_region() -> list[ViewerRegion]:
    kept = session.drawn()
    if kept is None:
        return []
    image, region = kept
    return [_region_data(image, region, "drawn", "drawn", "+", "human", True)]


def _as_data(
    study: Opened,
    regions: Iterable[Region],
    *,
    sentence: str,
    label: str,
    kind: Kind,
    selected: bool = False,
) -> list[ViewerRegion]:
    data = []
    for number, region in enumerate(regions):
        image = study.image_of(region)
        if image is not None:
            name = f"{sentence}/{kind}{number}"
            data.append(_region_data(image, region, name, sentence, label, kind, selected))
    return data


def _region_data(
    image: str, region: Region, name: str, sentence: str, label: str, kind: Kind, selected: bool
) -> ViewerRegion:
    return {
        "id": name,
        "sentence": sentence,
        "image": image,
        "frame": region.frame,
        "x": region.x,
        "y": region.y,
        "width": region.width,
        "height": region.height,
        "polygon": [list(point) for point in region.polygon] if region.polygon else None,
        "label": label,
        "kind": kind,
        "selected": selected,
    }


def _focus(regions: list[ViewerRegion]) -> Focus | None:
    wanted = session.focus()
    if wanted is None:
        return None
    for region in regions:
        if region["sentence"] == wanted["sentence"]:
            return {"region": region["id"], "nonce": wanted["nonce"]}
    return None


def _viewer_words() -> dict[str, str]:
    start = "viewer."
    texts = catalogue(language())
    return {key[len(start) :]: text for key, text in texts.items() if key.startswith(start)}
