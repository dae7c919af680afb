"""A page with the viewer and buttons that change what it is given; what came of it as JSON."""

from __future__ import annotations

import json
import time
from typing import Any

import streamlit as st

from app.viewer.viewer import ViewerData, ViewerEvents, ViewerRegion, viewer
from tests.viewer.pictures import CINE_FRAMES, SLICES
from tests.viewer.words import texts

KEY = "viewer"


def region(
    name: str, image: str, box: tuple[float, ...], kind: str, label: str, **more: Any
) -> ViewerRegion:
    x, y, width, height = box
    return {
        **{"id": name, "sentence": f"s-{name}", "image": image, "frame": 0},
        **{"x": x, "y": y, "width": width, "height": height},
        **{"label": label, "kind": kind, "selected": False},
        **more,
    }  # type: ignore[typeddict-item]


def stack(key: str, images: list[str] | None = None, **more: Any) -> Any:
    numbered = [
        {"id": one, "number": number, "label": ""} for number, one in enumerate(images or [key], 1)
    ]
    return {"key": key, "label": more.pop("label", key), "prior": False, "images": numbered} | more


def stacks() -> list[Any]:
    names = ["ramp", "tall", "wide", "oblong", "colour", "float"]
    names += ["sigmoid", "exact", "mono1", "gone"]
    cine = stack("cine")
    cine["images"][0]["frames"] = CINE_FRAMES
    slices = [f"ct-{number}" for number in range(SLICES)]
    return [
        *(stack(name) for name in names),
        stack("film", label="Chest <b>PA</b><img src=x>", modality="DX"),
        stack("film-before", label="Chest PA 2024-03-01", prior=True, modality="DX"),
        cine,
        stack("ct", slices, label="Chest CT", modality="CT"),
        stack("ct-before", slices[::2], label="Chest CT 2025", prior=True, modality="CT"),
    ]


def regions() -> list[ViewerRegion]:
    outline = [[1180.0, 1500.0], [1500.0, 1460.0], [1620.0, 1800.0], [1400.0, 2000.0], [1150, 1850]]
    return [
        region("a", "film", (300, 900, 420, 700), "machine", "Pneumothorax"),
        region("b", "film", (1150, 1460, 470, 540), "human", "Effusion", polygon=outline),
        region("c", "film", (820, 1250, 500, 520), "machine", "Cardiomegaly"),
        region("d", "film", (420, 300, 300, 260), "question", "What is this?"),
        region("e", "film", (1300, 420, 260, 260), "answer", "Nodule"),
        region("p", "film-before", (400, 620, 260, 270), "prior", "Cardiomegaly"),
        region("t", "tall", (40, 900, 120, 300), "machine", "Tall"),
        region("ct", "ct-140", (120, 200, 80, 90), "machine", "Nodule"),
    ]


def main() -> None:
    st.set_page_config(layout="wide")
    state = st.session_state
    shown_first = st.query_params.get("shown", "ramp")
    state.setdefault("settings", {"shown": [shown_first], "layout": "1", "tool": "window"})
    state.setdefault("log", [])
    state["runs"] = state.get("runs", 0) + 1
    given = st.text_input("settings", key="given")
    if given:
        state["settings"] |= json.loads(given)
    settings = state["settings"]
    told = st.empty()
    # As a page that has much to do before the viewer's turn comes.
    time.sleep(settings.get("slow", 0))
    selected = settings.get("selected")
    shown = regions()[: settings.get("regions", 99)]
    for one in shown:
        one["selected"] = one["sentence"] == selected
    data: ViewerData = {
        "base": "/desk/",
        "token": settings.get("token", "secret"),
        "words": texts(settings.get("language", "en")),
        "stacks": stacks(),
        "layout": settings["layout"],
        "shown": settings["shown"],
        "linked": settings.get("linked", False),
        "regions": shown,
        "selected": selected,
        "focus": settings.get("focus"),
        "tool": settings["tool"],
        "enabled_drawing": settings.get("drawing", True),
    }
    data["height"] = settings.get("height", 820)
    events = viewer(data, KEY) if settings.get("mounted", True) else ViewerEvents()
    for event in (events.drawn, events.picked, events.error):
        if event is not None:
            state["log"].append(event.model_dump())
    said = {"log": state["log"], "displayed": events.displayed, "runs": state["runs"]}
    told.text(json.dumps(said))


main()
