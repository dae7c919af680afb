"""The image viewer as a Streamlit component: what the page gives it, and what it gives back.

`viewer()` mounts it. What people do in it arrives in an inbox in the session, each act once,
however often the browser sends it; `viewer()` hands out the oldest of each kind, so that none is
lost when several come at once. What comes from the browser is checked here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict, TypeVar

import streamlit as st
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

_HERE = Path(__file__).resolve().parent
_REMEMBERED = 200
_MOST_POINTS = 2000

Layout = Literal["1", "1x2", "2x1", "2x2"]
Kind = Literal["machine", "human", "question", "answer", "prior"]
Tool = Literal["window", "pan", "zoom", "ruler", "box", "polygon"]


class ViewerImage(TypedDict):
    """An image of a stack. `frames`: how many, 1 if left out; `position`: of the slice, in mm."""

    id: str
    number: int
    label: str
    frames: NotRequired[int]
    position: NotRequired[float]


class ViewerStack(TypedDict):
    """Images to scroll through. Stacks are linked where their `modality` is the same."""

    key: str
    label: str
    prior: bool
    images: list[ViewerImage]
    modality: NotRequired[str]


class ViewerRegion(TypedDict):
    """A region in source pixels; `polygon` holds [x, y] points."""

    id: str
    sentence: str | None
    image: str
    frame: int
    x: float
    y: float
    width: float
    height: float
    label: str
    kind: Kind
    selected: bool
    polygon: NotRequired[list[list[float]] | None]


class Focus(TypedDict):
    """A region to bring into view, once for each nonce."""

    region: str
    nonce: str | int


class ViewerData(TypedDict):
    """What the viewer shows.

    `base` and `token` say where the pixels are and with what right; `words` holds the texts of
    `words.txt`. `layout`, `shown` (a stack's key for each pane), `linked` and `tool` are taken when
    they change: in between, the reader may choose others. `tool` None leaves the choice to the
    reader, but for drawing, which it ends; a new `tool_nonce` sets `tool` again. `height`: CSS
    pixels, else most of the window.
    """

    base: str
    token: str
    words: dict[str, str]
    stacks: list[ViewerStack]
    layout: Layout
    shown: list[str]
    linked: bool
    regions: list[ViewerRegion]
    selected: str | None
    focus: Focus | None
    tool: Tool | None
    enabled_drawing: bool
    tool_nonce: NotRequired[str | int]
    height: NotRequired[int]


_Number = Annotated[float, Field(allow_inf_nan=False)]
_Size = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    nonce: Annotated[str, Field(min_length=8, max_length=64)]


class Drawn(_Event):
    """A region that was drawn, in source pixels of an image's frame."""

    kind: Literal["drawn"] = Field(default="drawn", repr=False)
    image: str
    frame: Annotated[int, Field(ge=0)]
    x: _Number
    y: _Number
    width: _Size
    height: _Size
    polygon: (
        Annotated[list[tuple[_Number, _Number]], Field(min_length=3, max_length=_MOST_POINTS)]
        | None
    ) = None


class Picked(_Event):
    """A region that was clicked or reached by the keyboard, and its sentence."""

    kind: Literal["picked"] = Field(default="picked", repr=False)
    region: str
    sentence: str | None = None


class Problem(_Event):
    """What the viewer could not show, as a key of `words.txt` (`error_session`, ...)."""

    kind: Literal["error"] = Field(default="error", repr=False)
    code: Annotated[str, Field(pattern=r"^error_[a-z]+$")]


Event = Drawn | Picked | Problem
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])
_KINDS: tuple[type[Event], ...] = (Drawn, Picked, Problem)
_One = TypeVar("_One", bound=Event)


@dataclass(frozen=True)
class ViewerEvents:
    """What has happened since the page last looked. `displayed`: images that were fully shown."""

    displayed: tuple[str, ...] = ()
    drawn: Drawn | None = None
    picked: Picked | None = None
    error: Problem | None = None


@dataclass
class _Inbox:
    """Events that have come, by the order of their coming, and the nonces that were handed out.

    `asked`: the page asks for them by `viewer_events`, and `viewer` is not to hand any out.
    """

    waiting: list[Event] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    asked: bool = False

    def receive(self, sent: object) -> None:
        known = {*self.taken, *(event.nonce for event in self.waiting)}
        for item in sent if isinstance(sent, list) else ():
            event = _checked(item)
            if event is not None and event.nonce not in known:
                known.add(event.nonce)
                self.waiting.append(event)

    def oldest(self, kind: type[_One]) -> _One | None:
        return next((event for event in self.waiting if isinstance(event, kind)), None)

    def take(self, kind: type[_One]) -> _One | None:
        event = self.oldest(kind)
        if event is not None:
            self.waiting.remove(event)
            self.taken = [*self.taken, event.nonce][-_REMEMBERED:]
        return event


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


_component = st.components.v2.component(
    "medvlm_viewer", css=_text("viewer.css"), js=_text("viewer.js")
)


def viewer(data: ViewerData, key: str) -> ViewerEvents:
    """Mounts the viewer and returns what happened in it; `key` is its own on the page.

    At most one event of each kind is handed out per run; the browser brings up the next. Act on
    them before anything else is drawn: a run that is cut short does not get them again.
    """
    inbox = _inbox(key)
    offered = [] if inbox.asked else [inbox.oldest(kind) for kind in _KINDS]
    mounted = _component(
        key=key,
        data={
            **data,
            "key": key,
            "taken": [*inbox.taken, *(event.nonce for event in offered if event is not None)],
        },
        default={"displayed": []},
        on_displayed_change=_nothing,
        on_events_change=partial(_receive, key),
    )
    # Taken out only now: a run may be cut short while it mounts, and the next one hands them out.
    displayed = _displayed(mounted.get("displayed"), data)
    return ViewerEvents(displayed) if inbox.asked else _handed_out(inbox, data, displayed)


def viewer_events(data: ViewerData, key: str) -> ViewerEvents:
    """The events of a viewer that is mounted further down; `viewer()` then hands out none.

    For a page that has to know them before it makes what the viewer shows; of `data` only the
    stacks matter.
    """
    inbox = _inbox(key)
    state = st.session_state.get(key)
    displayed = _displayed(state.get("displayed") if state else None, data)
    inbox.asked = True
    return _handed_out(inbox, data, displayed)


def _handed_out(inbox: _Inbox, data: ViewerData, displayed: tuple[str, ...]) -> ViewerEvents:
    """Touches nothing of Streamlit's, which could cut the run short in between."""
    drawn = inbox.take(Drawn)
    if drawn is not None and drawn.image not in _images(data):
        drawn = None
    return ViewerEvents(displayed, drawn, inbox.take(Picked), inbox.take(Problem))


def _inbox(key: str) -> _Inbox:
    inbox: _Inbox = st.session_state.setdefault(f"{key}-inbox", _Inbox())
    return inbox


def _receive(key: str) -> None:
    """Runs when events have come, before the page."""
    state = st.session_state.get(key)
    _inbox(key).receive(state.get("events") if state else None)


def _checked(item: object) -> Event | None:
    """An event as the browser sent it; None for what is none."""
    try:
        return _EVENT.validate_python(item)
    except ValidationError:
        return None


def _displayed(value: object, data: ViewerData) -> tuple[str, ...]:
    ids = set(map(str, value)) if isinstance(value, list) else set()
    return tuple(sorted(ids & _images(data)))


def _images(data: ViewerData) -> set[str]:
    return {image["id"] for stack in data["stacks"] for image in stack["images"]}


def _nothing(*_: Any) -> None:
    """Streamlit gives the values of those events only that have a callback."""
