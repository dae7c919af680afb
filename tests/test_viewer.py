"""The image viewer's Python side, its texts, its bundle, and its JavaScript rules under node."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from streamlit.testing.v1 import AppTest

from app.viewer import build
from app.viewer.viewer import Drawn, Picked, Problem, ViewerData, _Inbox
from medvlm.image.window import FUNCTIONS, Window
from tests.viewer.words import texts

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

BOX = {"kind": "drawn", "nonce": "n" * 32, "image": "i", "frame": 0}
BOX |= {"x": 1, "y": 2.5, "width": 3, "height": 4}


@pytest.fixture
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("needs node")
    return found


def test_rules_of_geometry_windows_and_fetching_hold_under_node(node: str, root: Path) -> None:
    files = sorted(map(str, (root / "tests" / "viewer").glob("*.test.mjs")))
    assert files
    run = subprocess.run([node, "--test", *files], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-4000:]


def test_windows_are_those_of_the_image_module(node: str, root: Path) -> None:
    values = np.concatenate([np.linspace(-3000, 3000, 601), [0.5, 39.5, 40.0, 1e9, -1e9]])
    windows = [
        Window(center, width, function)
        for function in FUNCTIONS
        for center, width in ((40, 400), (-600.5, 1500), (40, 1), (0, 2), (123.4, 77.7))
    ]
    script = """
      import { windowed } from SOURCE;
      let text = "";
      process.stdin.on("data", part => { text += part; });
      process.stdin.on("end", () => {
        const { values, windows } = JSON.parse(text);
        const made = windows.map(win => values.map(value => windowed(value, win)));
        console.log(JSON.stringify(made));
      });
    """.replace("SOURCE", json.dumps(str(root / "app" / "viewer" / "src" / "window.js")))
    given = {
        "values": values.tolist(),
        "windows": [{"center": w.center, "width": w.width, "fn": w.function} for w in windows],
    }
    run = subprocess.run(
        [node, "--input-type=module", "-e", script],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=True,
    )
    for window, made in zip(windows, json.loads(run.stdout), strict=True):
        np.testing.assert_allclose(made, window(values), rtol=0, atol=1e-12, err_msg=str(window))


def test_the_bundle_is_made_of_the_sources_as_they_are() -> None:
    first = build.BUNDLE.read_text(encoding="utf-8").splitlines()[0]
    assert first.endswith(build.digest()), "run `make viewer`"


def test_the_sources_put_in_no_markup_and_fetch_from_nowhere_else(root: Path) -> None:
    for path in (root / "app" / "viewer" / "src").glob("*.js"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), path.name


def test_every_text_that_the_sources_use_is_there_in_both_languages(root: Path) -> None:
    sources = "\n".join(
        path.read_text(encoding="utf-8") for path in (root / "app" / "viewer" / "src").glob("*.js")
    )
    english, japanese = texts("en"), texts("ja")
    assert english.keys() == japanese.keys()
    assert list(english) == sorted(english)
    for key, text in english.items():
        blanks = set(re.findall(r"{(\w+)}", text))
        assert blanks == set(re.findall(r"{(\w+)}", japanese[key])), key
        if not key.startswith(("kind_", "tool_", "preset_")):
            assert re.search(rf"\b{key}\b", sources), key
    said = set(re.findall(r'say\("(\w+)"', sources)) | set(re.findall(r'"(error_\w+)"', sources))
    said |= set(re.findall(r'"(help_\w+|tool_\w+)"', sources))
    assert said - {"tool_nonce"} <= english.keys()


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_pages_catalogue_has_the_viewers_texts(language: str, root: Path) -> None:
    path = root / "app" / "catalogue" / f"{language}.yaml"
    whole = yaml.safe_load(path.read_text(encoding="utf-8"))
    start = "viewer."
    held = {key[len(start) :]: text for key, text in whole.items() if key.startswith(start)}
    assert held == texts(language)


def test_an_event_that_is_sent_twice_comes_once_and_the_oldest_first() -> None:
    inbox = _Inbox()
    other = BOX | {"nonce": "m" * 32, "x": 9}
    inbox.receive([BOX])
    inbox.receive([BOX, other])
    first = inbox.take(Drawn)
    assert first is not None
    assert (first.nonce, first.x, first.y) == ("n" * 32, 1, 2.5)
    inbox.receive([BOX, other])
    second = inbox.take(Drawn)
    assert second is not None
    assert second.nonce == "m" * 32
    assert inbox.take(Drawn) is None
    assert inbox.taken == ["n" * 32, "m" * 32]


def test_kinds_are_handed_out_each_on_its_own() -> None:
    inbox = _Inbox()
    picked = {"kind": "picked", "nonce": "p" * 32, "region": "r", "sentence": None}
    problem = {"kind": "error", "nonce": "e" * 32, "code": "error_session"}
    inbox.receive([picked, problem])
    assert inbox.take(Drawn) is None
    assert inbox.take(Picked) == Picked(nonce="p" * 32, region="r", sentence=None)
    assert inbox.take(Problem) == Problem(nonce="e" * 32, code="error_session")


@pytest.mark.parametrize(
    "sent",
    [
        None,
        "drawn",
        [None],
        [{}],
        [BOX | {"kind": "other"}],
        [BOX | {"width": 0}],
        [BOX | {"height": -1}],
        [BOX | {"x": float("nan")}],
        [BOX | {"x": float("inf")}],
        [BOX | {"frame": -1}],
        [BOX | {"nonce": ""}],
        [BOX | {"polygon": [[0, 0], [1, 1]]}],
        [BOX | {"polygon": [[0, 0]] * 3000}],
        [BOX | {"more": 1}],
        [{"kind": "error", "nonce": "e" * 32, "code": "<script>"}],
    ],
)
def test_what_is_no_event_is_dropped(sent: object) -> None:
    inbox = _Inbox()
    inbox.receive(sent)
    assert not inbox.waiting


def _page() -> None:
    import streamlit as st

    from app.viewer.viewer import _Inbox, viewer, viewer_events

    inbox = st.session_state.setdefault("v-inbox", _Inbox())
    box = {"kind": "drawn", "frame": 0, "x": 1, "y": 1, "width": 2, "height": 2}
    for nonce, image in enumerate(["i", "other", "i"]):
        inbox.receive([box | {"nonce": f"{nonce}" * 32, "image": image}])
    data = st.session_state["data"]
    before = viewer_events(data, "v") if st.session_state["before"] else None
    st.session_state["seen"] = (before, viewer(data, "v"))


@pytest.mark.parametrize("before", [False, True])
def test_the_page_gets_each_region_once_and_none_of_images_it_does_not_show(before: bool) -> None:
    test = AppTest.from_function(_page, default_timeout=60)
    image = {"id": "i", "number": 1, "label": ""}
    data: ViewerData = {
        "base": "/desk/",
        "token": "t",
        "words": texts("en"),
        "stacks": [{"key": "s", "label": "S", "prior": False, "images": [image]}],  # type: ignore[list-item]
        "layout": "1",
        "shown": ["s"],
        "linked": False,
        "regions": [],
        "selected": None,
        "focus": None,
        "tool": "window",
        "enabled_drawing": True,
    }
    test.session_state["data"] = data
    test.session_state["before"] = before
    got = []
    for _ in range(4):
        test.run()
        assert not test.exception
        early, mounted = test.session_state["seen"]
        if before:
            assert mounted.drawn is None
        events = early if before else mounted
        assert events.displayed == ()
        got.append(events.drawn and events.drawn.nonce[0])
    assert got == ["0", None, "2", None]


def test_the_wrapper_needs_no_torch(root: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; import app.viewer.viewer"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=root)
