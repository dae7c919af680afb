"""What tests do with the viewer in the browser, in the words of a reader."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

SETTINGS = "settings"


def root(page: Page) -> Locator:
    """The viewer's own element; Playwright looks into the shadow root."""
    return page.locator(".medvlm-viewer")


def ready(page: Page) -> None:
    """Waits for the first image."""
    page.wait_for_selector('.medvlm-viewer[data-ready="true"]', timeout=60_000)


def give(page: Page, **settings: Any) -> None:
    """Has the page run again with other settings."""
    runs = said(page)["runs"]
    field = page.get_by_label(SETTINGS)
    field.fill(json.dumps(settings))
    field.press("Enter")
    page.wait_for_function(
        """runs => {
          const text = document.querySelector('[data-testid="stText"]');
          return text && JSON.parse(text.textContent).runs > runs;
        }""",
        arg=runs,
    )


def settled(page: Page, image: str, frame: int = 0) -> None:
    """Waits until a pane shows this image."""
    root(page).evaluate(
        """(root, [image, frame]) => new Promise((done, fail) => {
          const until = performance.now() + 20000;
          const look = () => {
            const shows = pane => pane.painted && pane.painted.image.id === image
              && pane.painted.frame === frame;
            if (root.medvlmViewer.viewports.some(shows)) requestAnimationFrame(() => done());
            else if (performance.now() > until) fail(new Error(`never showed ${image}`));
            else requestAnimationFrame(look);
          };
          look();
        })""",
        [image, frame],
    )


def said(page: Page) -> dict[str, Any]:
    """What the page has made of the viewer's events."""
    text = page.locator('[data-testid="stText"]').text_content()
    told: dict[str, Any] = json.loads(text or "{}")
    return told


def event(page: Page, number: int, kind: str) -> dict[str, Any]:
    """The page's event of that number, of that kind, once it has come."""
    page.wait_for_function(
        """number => {
          const text = document.querySelector('[data-testid="stText"]');
          return text && JSON.parse(text.textContent).log.length > number;
        }""",
        arg=number,
    )
    found: dict[str, Any] = said(page)["log"][number]
    assert found["kind"] == kind
    return found


def told(page: Page) -> dict[str, str]:
    """The viewer's data attributes."""
    frames(page)
    attributes: dict[str, str] = root(page).evaluate("root => ({...root.dataset})")
    return attributes


def frames(page: Page) -> None:
    """Lets the viewer draw what is due."""
    page.evaluate("() => new Promise(f => requestAnimationFrame(() => requestAnimationFrame(f)))")


def key(page: Page, *keys: str) -> None:
    """Presses keys with the active pane in focus."""
    root(page).evaluate("root => root.medvlmViewer.active.element.focus()")
    for one in keys:
        page.keyboard.press(one)
    frames(page)


def pane(page: Page, number: int = 0) -> tuple[float, float, float, float]:
    """Left, top, width and height of a pane."""
    box = root(page).locator(".viewport").nth(number).bounding_box()
    assert box
    return box["x"], box["y"], box["width"], box["height"]


def client(page: Page, image: str, x: float, y: float) -> tuple[float, float]:
    """Where on the page a source point lies."""
    frames(page)
    point = root(page).evaluate(
        "(root, [image, x, y]) => root.medvlmViewer.clientOf(image, x, y)", [image, x, y]
    )
    return point["x"], point["y"]


def drag(page: Page, points: list[tuple[float, float]], button: str = "left") -> None:
    """Presses at the first point, moves along the others, releases."""
    page.mouse.move(*points[0])
    page.mouse.down(button=button)  # type: ignore[arg-type]
    for point in points[1:]:
        page.mouse.move(*point, steps=4)
    page.mouse.up(button=button)  # type: ignore[arg-type]
    frames(page)


def levels(page: Page, image: str, points: list[tuple[int, int]]) -> list[list[int]]:
    """Red, green and blue of the canvas at the middle of source pixels; the image at any zoom."""
    frames(page)
    found: list[list[int]] = root(page).evaluate(
        """(root, [image, points]) => {
          const viewer = root.medvlmViewer;
          const pane = viewer.viewports.find(one => one.painted?.image.id === image);
          const {sx, sy, ox, oy} = pane.place;
          return points.map(([x, y]) => {
            const across = Math.floor((x + 0.5) * sx + ox) - pane.area.x;
            const down = Math.floor((y + 0.5) * sy + oy) - pane.area.y;
            return [...pane.context.getImageData(across, down, 1, 1).data].slice(0, 3);
          });
        }""",
        [image, [list(point) for point in points]],
    )
    return found


def counts(page: Page) -> dict[str, int]:
    """How often the server was asked for what."""
    asked: dict[str, int] = page.evaluate("async () => (await fetch('/desk/counts')).json()")
    return asked
