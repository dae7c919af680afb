"""The image viewer in a real Chromium: what is on the canvas, and what comes back from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medvlm.image.window import Window
from tests.browser import browser, page_at, streamlit_server
from tests.viewer import driver
from tests.viewer.pictures import CINE_FRAMES, SLICES, colour, pictures, ramp, slice_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]

POINTS = [(0, 0), (7, 3), (200, 150), (399, 299), (123, 77), (311, 18)]


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    with browser() as one:
        yield one


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    with streamlit_server(root / "tests" / "viewer" / "server.py") as one:
        yield one


@contextmanager
def showing(opened: Browser, address: str, image: str, **more: Any) -> Iterator[Page]:
    with page_at(opened, f"{address}/?shown={image}", **more) as page:
        driver.ready(page)
        yield page


def expected(values: NDArray[Any], window: Window, *, invert: bool = False) -> list[list[int]]:
    """Grey levels by the Python module, for the points above."""
    shown = window(np.array([values[y, x] for x, y in POINTS], np.float64))
    levels = np.floor(255 * (1 - shown if invert else shown) + 0.5).astype(int)
    return [[int(level)] * 3 for level in levels]


def window_told(page: Page, function: str) -> Window:
    told = driver.told(page)
    return Window(float(told["center"]), float(told["width"]), function)


def pressed(page: Page, name: str) -> bool:
    button = driver.root(page).locator(f"[data-name={name}]")
    return button.get_attribute("aria-pressed") == "true"


@pytest.mark.parametrize(
    ("image", "function", "invert"),
    [
        ("ramp", "LINEAR", False),
        ("exact", "LINEAR_EXACT", False),
        ("sigmoid", "SIGMOID", False),
        ("mono1", "LINEAR", True),
    ],
)
def test_grey_levels_are_the_formulas_before_and_after_a_drag(
    image: str, function: str, invert: bool, opened: Browser, address: str
) -> None:
    with showing(opened, address, image) as page:
        driver.key(page, "a")
        first = window_told(page, function)
        assert driver.levels(page, image, POINTS) == expected(ramp(300, 400), first, invert=invert)
        x, y = driver.client(page, image, 200, 150)
        driver.drag(page, [(x, y), (x - 60, y + 35)])
        second = window_told(page, function)
        assert second.width == pytest.approx(first.width * 0.8, rel=0.01)
        assert second.center == pytest.approx(first.center + first.width * 35 / 300, rel=0.01)
        assert driver.levels(page, image, POINTS) == expected(ramp(300, 400), second, invert=invert)
        driver.key(page, "i")
        assert driver.levels(page, image, POINTS) == expected(
            ramp(300, 400), second, invert=not invert
        )
        driver.key(page, "r")
        assert window_told(page, function) == first


def test_the_right_button_windows_whatever_the_tool(opened: Browser, address: str) -> None:
    with showing(opened, address, "ramp") as page:
        driver.key(page, "a", "b")
        x, y = driver.client(page, "ramp", 200, 150)
        before = window_told(page, "LINEAR")
        driver.drag(page, [(x, y), (x + 90, y)], button="right")
        after = window_told(page, "LINEAR")
        assert after.width == pytest.approx(before.width * 1.3, rel=0.01)
        assert driver.levels(page, "ramp", POINTS) == expected(ramp(300, 400), after)


def test_negative_and_broken_numbers_and_colour_are_exact(opened: Browser, address: str) -> None:
    with showing(opened, address, "ct") as page:
        driver.key(page, "a", "PageDown", "2")
        driver.settled(page, "ct-10")
        window = window_told(page, "LINEAR")
        assert (window.center, window.width) == (-600, 1500)
        assert driver.levels(page, "ct-10", POINTS) == expected(slice_of(10), window)
        driver.key(page, "4")  # bone, after the file's two windows and lung
        assert window_told(page, "LINEAR") == Window(500, 2000)
        driver.give(page, shown=["float"])
        driver.settled(page, "float")
        driver.key(page, "a")
        values = pictures()["float"][1][0]
        points = [(0, 0), (45, 60), (89, 119)]
        told = window_told(page, "LINEAR_EXACT")
        levels = [int(np.floor(255 * told(np.float64(values[y, x])) + 0.5)) for x, y in points]
        assert driver.levels(page, "float", points) == [[level] * 3 for level in levels]
        driver.give(page, shown=["colour"])
        driver.settled(page, "colour")
        driver.key(page, "a")
        points = [(0, 0), (300, 200), (599, 399)]
        assert driver.levels(page, "colour", points) == [colour()[y, x].tolist() for x, y in points]


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("image", ["tall", "wide", "oblong"])
def test_a_drawn_box_comes_back_to_the_pixel(
    image: str, scale: float, opened: Browser, address: str
) -> None:
    """At the film's own scale a CSS pixel is several source pixels: the mouse can do no better."""
    with showing(opened, address, image, scale=scale) as page:
        rows, columns = pictures()[image][1][0].shape
        driver.key(page, "b")
        for zoomed in (False, True):
            if zoomed:
                driver.key(page, *["+"] * 9)
            x0, y0 = driver.client(page, image, 0, 0)
            x1, y1 = driver.client(page, image, columns, rows)
            left, top, width, height = driver.pane(page)
            # Corners on whole CSS pixels, where a mouse can be, within what is seen.
            low = (round(max(x0, left + 30)) + 5, round(max(y0, top + 30)) + 5)
            high = (
                round(min(x1, left + width - 40)) - 7,
                round(min(y1, top + height - 40)) - 9,
            )
            driver.drag(page, [low, high])
            drawn = driver.event(page, int(zoomed), "drawn")
            assert (drawn["image"], drawn["frame"], drawn["polygon"]) == (image, 0, None)
            across, down = columns / (x1 - x0), rows / (y1 - y0)
            corner = ((low[0] - x0) * across, (low[1] - y0) * down)
            size = ((high[0] - low[0]) * across, (high[1] - low[1]) * down)
            found = (drawn["x"], drawn["y"], drawn["width"], drawn["height"])
            assert found == pytest.approx((*corner, *size), abs=1)
            assert 0 <= drawn["x"] < drawn["x"] + drawn["width"] <= columns
            assert 0 <= drawn["y"] < drawn["y"] + drawn["height"] <= rows


def test_an_outline_comes_back_and_stays_within_the_image(opened: Browser, address: str) -> None:
    with showing(opened, address, "oblong") as page:
        driver.key(page, "g")
        around = [(50, 40), (250, 60), (260, 250), (150, 290), (60, 200)]
        corners = [driver.client(page, "oblong", x, y) for x, y in around]
        driver.drag(page, [*corners, corners[0]])
        drawn = driver.event(page, 0, "drawn")
        polygon = np.array(drawn["polygon"])
        left, right = (driver.client(page, "oblong", x, 0)[0] for x in (0, 299))
        fine = 299 / (right - left)
        for corner in around:
            assert np.abs(polygon - corner).max(axis=1).min() <= 1.5 * fine + 1
        assert (polygon.min(axis=0) == [drawn["x"], drawn["y"]]).all()
        assert polygon[:, 0].max() == pytest.approx(drawn["x"] + drawn["width"])
        x, y = driver.client(page, "oblong", 280, 280)
        driver.drag(page, [(x, y), (x + 400, y), (x + 400, y + 300), (x, y + 300)])
        beyond = driver.event(page, 1, "drawn")
        assert beyond["x"] + beyond["width"] <= 299
        assert beyond["y"] + beyond["height"] <= 301


def test_a_box_can_be_drawn_by_the_keyboard_alone(opened: Browser, address: str) -> None:
    with showing(opened, address, "oblong") as page:
        driver.key(page, "b", "Enter")
        draft = "root => root.medvlmViewer.active.draft.points.flat()"
        begun = driver.root(page).evaluate(draft)
        for _ in range(3):
            page.keyboard.press("Control+ArrowRight")
        page.keyboard.press("Control+ArrowUp")
        for _ in range(5):
            page.keyboard.press("Control+Shift+ArrowDown")
        moved = driver.root(page).evaluate(draft)
        shift = [after - before for before, after in zip(begun, moved, strict=True)]
        assert shift == pytest.approx([3, -1, 3, 4])
        assert str(round(moved[0])) in (driver.root(page).locator(".spoken").text_content() or "")
        page.keyboard.press("Enter")
        drawn = driver.event(page, 0, "drawn")
        assert drawn["x"] == pytest.approx(moved[0], abs=0.01)
        assert drawn["height"] == pytest.approx(moved[3] - moved[1], abs=0.02)
        page.keyboard.press("Enter")
        page.keyboard.press("Escape")
        assert driver.root(page).evaluate("root => root.medvlmViewer.active.draft") is None
        page.wait_for_timeout(500)
        assert len(driver.said(page)["log"]) == 1


def test_escape_takes_a_drawing_back(opened: Browser, address: str) -> None:
    with showing(opened, address, "ramp") as page:
        driver.key(page, "b")
        x, y = driver.client(page, "ramp", 100, 100)
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 80, y + 80, steps=4)
        page.keyboard.press("Escape")
        page.mouse.move(x + 120, y + 120, steps=4)
        page.mouse.up()
        page.wait_for_timeout(800)
        assert driver.said(page)["log"] == []


def test_of_events_in_quick_succession_none_is_lost_or_doubled(
    opened: Browser, address: str
) -> None:
    with showing(opened, address, "film") as page:
        driver.key(page, "b")
        at = [driver.client(page, "film", 200 * step, 200 * step) for step in range(1, 6)]
        for x, y in at:
            page.mouse.move(x, y)
            page.mouse.down()
            page.mouse.move(x + 20, y + 20)
            page.mouse.up()
        driver.event(page, 4, "drawn")
        page.wait_for_timeout(1500)
        log = driver.said(page)["log"]
        assert [round(one["x"] / 200) for one in log] == [1, 2, 3, 4, 5]
        assert len({one["nonce"] for one in log}) == 5


def test_a_click_on_a_region_picks_it_and_a_drag_does_not(opened: Browser, address: str) -> None:
    with showing(opened, address, "film") as page:
        x, y = driver.client(page, "film", 400, 1100)
        driver.drag(page, [(x, y), (x + 40, y + 10)])
        page.mouse.click(*driver.client(page, "film", 1050, 1350))
        picked = driver.event(page, 0, "picked")
        assert (picked["region"], picked["sentence"]) == ("c", "s-c")
        # Where the outline and the box overlap, the smaller one.
        page.mouse.click(*driver.client(page, "film", 1250, 1600))
        assert driver.event(page, 1, "picked")["region"] == "b"
        page.mouse.click(*driver.client(page, "film", 1900, 2400))
        driver.key(page, "n")
        assert driver.event(page, 2, "picked")["region"] == "a"
        driver.key(page, "o")
        page.mouse.click(*driver.client(page, "film", 1050, 1350))
        page.wait_for_timeout(600)
        assert len(driver.said(page)["log"]) == 3


def test_a_run_with_other_regions_keeps_the_view_and_fetches_nothing(
    opened: Browser, address: str
) -> None:
    with showing(opened, address, "film") as page:
        driver.key(page, "+", "+")
        x, y = driver.client(page, "film", 1000, 1250)
        driver.drag(page, [(x, y), (x + 50, y + 50)])
        page.wait_for_timeout(1000)
        names = ("center", "width", "zoom")
        before = [driver.told(page)[name] for name in names]
        asked = driver.counts(page)
        pixels = driver.levels(page, "film", POINTS)
        driver.give(page, regions=2, selected="s-a")
        assert [driver.told(page)[name] for name in names] == before
        driver.give(page, regions=99, selected="s-b", language="ja")
        assert [driver.told(page)[name] for name in names] == before
        assert driver.levels(page, "film", POINTS) == pixels
        driver.give(page, mounted=False)
        driver.give(page, mounted=True)
        driver.ready(page)
        assert [driver.told(page)[name] for name in names] == before
        assert driver.counts(page) == asked


def test_a_stack_of_300_scrolls_and_says_what_was_displayed(opened: Browser, address: str) -> None:
    with showing(opened, address, "ct") as page:
        left, top, width, height = driver.pane(page)
        page.mouse.move(left + width / 2, top + height / 2)
        for _ in range(12):
            page.mouse.wheel(0, 120)
        driver.settled(page, "ct-12")
        driver.key(page, "End")
        driver.settled(page, f"ct-{SLICES - 1}")
        assert f"{SLICES} / {SLICES}" in (driver.root(page).locator(".number").text_content() or "")
        driver.key(page, "Home")
        driver.settled(page, "ct-0")
        page.wait_for_timeout(1500)
        displayed = driver.said(page)["displayed"]
        assert {"ct-0", "ct-12", f"ct-{SLICES - 1}"} <= set(displayed)
        assert "ct-150" not in displayed
        driver.give(page, focus={"region": "ct", "nonce": 1})
        driver.settled(page, "ct-140")
        driver.key(page, "ArrowDown")
        driver.settled(page, "ct-141")
        driver.give(page, focus={"region": "ct", "nonce": 1}, selected="s-ct")
        page.wait_for_timeout(300)
        assert driver.told(page)["slot"] == "141"


def test_a_cine_counts_as_displayed_when_every_frame_was(opened: Browser, address: str) -> None:
    with showing(opened, address, "cine") as page:
        for frame in range(1, CINE_FRAMES - 1):
            driver.key(page, "ArrowRight")
            driver.settled(page, "cine", frame)
        page.wait_for_timeout(1200)
        assert driver.said(page)["displayed"] == []
        driver.key(page, "Home", "c")
        driver.settled(page, "cine", CINE_FRAMES - 1)
        driver.key(page, "c")
        page.wait_for_timeout(1200)
        assert driver.said(page)["displayed"] == ["cine"]


def test_linked_panes_go_together(opened: Browser, address: str) -> None:
    with showing(opened, address, "ct") as page:
        driver.give(page, shown=["ct", "ct-before"], layout="1x2", linked=True)
        driver.settled(page, "ct-0")
        for _ in range(10):
            driver.key(page, "PageDown")
        driver.key(page, "2")
        each = "one => [one.state.slot, one.state.window]"
        states = f"root => root.medvlmViewer.viewports.map({each})"
        (slot, _), (other, window) = driver.root(page).evaluate(states)
        assert (slot, other) == (100, 50)
        assert window["win"] == {"center": -600, "width": 1500, "fn": "LINEAR"}
        driver.key(page, "l", "PageDown")
        (slot, _), (other, _) = driver.root(page).evaluate(states)
        assert (slot, other) == (110, 50)


def test_panes_without_a_unit_are_windowed_alike_by_their_usual_windows(
    opened: Browser, address: str
) -> None:
    with showing(opened, address, "film") as page:
        driver.give(page, shown=["film", "film-before"], layout="1x2", linked=True)
        driver.settled(page, "film-before")
        x, y = driver.client(page, "film", 1000, 1250)
        driver.drag(page, [(x, y), (x + 75, y)])
        windows = "root => root.medvlmViewer.viewports.map(one => one.windowOf(one.image))"
        first, second = driver.root(page).evaluate(windows)
        assert first["width"] == pytest.approx(4000, rel=0.01)
        assert second["width"] == pytest.approx(first["width"] / 4, rel=0.01)


def test_an_ended_session_is_said_and_a_new_token_mends_it(opened: Browser, address: str) -> None:
    with showing(opened, address, "ramp") as page:
        driver.give(page, shown=["film"], token="old")
        problem = driver.root(page).locator(".problem")
        problem.wait_for(state="visible")
        assert "session has ended" in (problem.text_content() or "")
        assert driver.event(page, 0, "error")["code"] == "error_session"
        driver.give(page, token="secret")
        driver.settled(page, "film")
        assert not problem.is_visible()
        driver.give(page, shown=["gone"])
        problem.wait_for(state="visible")
        assert "no longer there" in (problem.text_content() or "")


def test_keys_are_the_viewers_only_while_it_has_the_focus(opened: Browser, address: str) -> None:
    with showing(opened, address, "ramp") as page:
        field = page.get_by_label(driver.SETTINGS)
        field.focus()
        page.keyboard.type("igfbr?")
        told = driver.told(page)
        assert told["tool"] == "window"
        assert not pressed(page, "invert")
        field.fill("")
        page.wait_for_timeout(1500)  # until the viewer has told what it displayed
        runs = driver.said(page)["runs"]
        # "r" reruns and "c" clears in Streamlit: in the viewer they are the viewer's.
        driver.key(page, "i", "c", "b")
        assert pressed(page, "invert")
        driver.key(page, "r")
        page.wait_for_timeout(500)
        assert driver.said(page)["runs"] == runs
        assert page.locator("[data-testid=stDialog]").count() == 0
        driver.key(page, "?")
        dialog = driver.root(page).locator("dialog")
        assert dialog.is_visible()
        page.keyboard.press("i")
        page.keyboard.press("Escape")
        assert not dialog.is_visible()
        assert not pressed(page, "invert")
        driver.key(page, "Tab")
        inside = "root => root.contains(root.getRootNode().activeElement)"
        for _ in range(40):
            if not driver.root(page).evaluate(inside):
                break
            page.keyboard.press("Tab")
        assert not driver.root(page).evaluate(inside)


def test_every_button_has_a_name_and_a_shortcut(opened: Browser, address: str) -> None:
    with showing(opened, address, "ct") as page:
        for button in driver.root(page).locator(".toolbar button").all():
            assert button.get_attribute("aria-label")
            assert button.get_attribute("aria-keyshortcuts")
            assert (button.text_content() or "").strip()
        pane = driver.root(page).locator(".viewport")
        assert pane.get_attribute("role") == "application"
        assert f"1 / {SLICES}" in (pane.get_attribute("aria-label") or "")


def test_text_from_files_is_shown_as_text(opened: Browser, address: str) -> None:
    with showing(opened, address, "film") as page:
        title = driver.root(page).locator(".title select")
        assert "<b>PA</b><img src=x>" in (title.locator("option:checked").text_content() or "")
        assert driver.root(page).locator("img, .title b").count() == 0


def test_drawing_can_be_barred(opened: Browser, address: str) -> None:
    with showing(opened, address, "ramp") as page:
        driver.give(page, drawing=False, tool="box")
        assert driver.told(page)["tool"] == "window"
        driver.key(page, "b")
        assert driver.told(page)["tool"] == "window"
        assert driver.root(page).locator("[data-name=tool_box]").is_disabled()


def test_a_fast_scroll_shows_images_as_they_come(opened: Browser, root: Path) -> None:
    """The number on the pane is always that of the image on the canvas, however slow the desk."""
    server = root / "tests" / "viewer" / "server.py"
    slow = {"VIEWER_TEST_DELAY": "0.15"}
    with streamlit_server(server, env=slow) as address, showing(opened, address, "ct") as page:
        seen = set()
        for _ in range(40):
            driver.key(page, "ArrowDown")
            number = driver.root(page).locator(".number").text_content() or ""
            slot = int(number.split("/")[0]) - 1
            level = driver.root(page).evaluate("root => root.medvlmViewer.active.painted.pixels[0]")
            assert level == slot
            seen.add(slot)
        assert len(seen) > 2
        driver.settled(page, "ct-40")
