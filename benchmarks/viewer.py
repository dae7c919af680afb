"""How fast the image viewer is, in headless Chromium against a local server.

    python -m benchmarks.viewer [--out FILE.json]

Prints, for a film of 2,000 x 2,500 pixels of 16 bits: frames per second of a window drag with the
film fitted and at actual pixels, of a pan and a zoom, all again on a screen with two device pixels
per CSS pixel; milliseconds from the viewer's start to the first image; and for a stack of 300
images per second of a scroll with the wheel (as fast as Playwright turns it) and of a cine.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.browser import browser, page_at, streamlit_server
from tests.viewer import driver

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SERVER = Path(__file__).resolve().parent.parent / "tests" / "viewer" / "server.py"
DRAG_S = 3.0

COUNT = """root => {
  const viewer = root.medvlmViewer;
  window.stamps = [];
  if (viewer.counted) return;
  viewer.counted = true;
  const painted = viewer.wasPainted.bind(viewer);
  viewer.wasPainted = pane => { window.stamps.push(performance.now()); painted(pane); };
}"""


def rate(page: Page, act: Any) -> float:
    """Paints per second while `act` is going on."""
    driver.root(page).evaluate(COUNT)
    act()
    stamps: list[float] = page.evaluate("window.stamps")
    return round((len(stamps) - 1) * 1000 / (stamps[-1] - stamps[0]), 1) if len(stamps) > 1 else 0


def drag(page: Page, button: str = "left") -> None:
    """Moves the pressed mouse about for some seconds, more often than any screen is drawn."""
    left, top, width, height = driver.pane(page)
    page.mouse.move(left + width / 2, top + height / 2)
    page.mouse.down(button=button)  # type: ignore[arg-type]
    until, step = time.monotonic() + DRAG_S, 0
    while time.monotonic() < until:
        step += 1
        across = left + width / 2 + 150 * ((step % 60) / 30 - 1)
        page.mouse.move(across, top + height / 2 + step % 97)
    page.mouse.up(button=button)  # type: ignore[arg-type]


def wheel(page: Page) -> None:
    left, top, width, height = driver.pane(page)
    page.mouse.move(left + width / 2, top + height / 2)
    for _ in range(290):
        page.mouse.wheel(0, 120)


def film(opened: Browser, address: str, scale: float) -> dict[str, float]:
    with page_at(opened, address, scale=scale) as page:
        driver.ready(page)
        driver.give(page, shown=["film"])
        driver.settled(page, "film")
        driver.key(page, "o")
        figures = {"window_drag_fit_fps": rate(page, lambda: drag(page))}
        driver.key(page, "a")
        figures["window_drag_actual_pixels_fps"] = rate(page, lambda: drag(page))
        figures["pan_actual_pixels_fps"] = rate(page, lambda: drag(page, "middle"))
        driver.key(page, "f")
        figures["pan_fit_fps"] = rate(page, lambda: drag(page, "middle"))
        driver.key(page, "z")
        figures["zoom_drag_fps"] = rate(page, lambda: drag(page))
    return figures


def first_image(opened: Browser, address: str) -> int:
    with page_at(opened, f"{address}/?shown=film") as page:
        driver.ready(page)
        return int(driver.told(page)["firstPaintMs"])


def stack(opened: Browser, address: str) -> dict[str, float]:
    with page_at(opened, f"{address}/?shown=ct") as page:
        driver.ready(page)
        figures = {"scroll_cold_images_per_s": rate(page, lambda: wheel(page))}
        driver.key(page, "Home")
        page.wait_for_timeout(2000)
        figures["scroll_images_per_s"] = rate(page, lambda: wheel(page))
        driver.key(page, "Home")
        for _ in range(3):
            driver.key(page, "]")

        def cine() -> None:
            driver.key(page, "c")
            page.wait_for_timeout(3000)
            driver.key(page, "c")

        figures["cine_at_40_images_per_s"] = rate(page, cine)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with browser() as opened, streamlit_server(SERVER) as address:
        figures: dict[str, Any] = {
            "film_2000x2500": film(opened, address, 1),
            "film_2000x2500_two_device_pixels": film(opened, address, 2),
            "first_image_ms": sorted(first_image(opened, address) for _ in range(3))[1],
            "stack_of_300": stack(opened, address),
        }
    text = json.dumps(figures, indent=2)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
