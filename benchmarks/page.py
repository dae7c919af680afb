"""How long a prepared study takes from the click in the worklist to its first image.

    python -m benchmarks.page

In headless Chromium, on a desk of its own with one film of 2,000 x 2,500 pixels of 16 bits, opened
twelve times. Prints seconds as JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medvlm.desk.intake import take_in
from medvlm.desk.pixels import frame_bytes, image_header
from medvlm.review.people import local_person
from medvlm.review.store import open_store
from medvlm.review.worklist import images
from tests.browser import browser, page_at, served
from tests.dicoms import save, synthetic

if TYPE_CHECKING:
    from playwright.sync_api import Page

TIMES = 12
WAIT_MS = 60_000


def prepare(folder: Path) -> None:
    """A desk with the film, its pixels prepared."""
    values = (np.add.outer(np.arange(2500), np.arange(2000)) % 4096).astype(np.uint16)
    film = save(synthetic(values), folder / "film.dcm")
    with open_store(f"sqlite:///{folder}/desk.sqlite3", folder / "files") as store:
        (study,) = take_in(store, [film], local_person(store)).added
        for image in images(store, study):
            image_header(store, image.id)
            frame_bytes(store, image.id, 0)


def opened(page: Page) -> float:
    """Seconds from the click to the first image."""
    button = page.locator('[class*="st-key-open-"] button').first
    button.wait_for(timeout=WAIT_MS)
    page.wait_for_timeout(1500)
    start = time.perf_counter()
    button.click()
    page.wait_for_selector('.medvlm-viewer[data-ready="true"]', timeout=WAIT_MS)
    took = time.perf_counter() - start
    page.get_by_role("button", name="Back to the worklist").first.click()
    return took


def main() -> None:
    """Prints the figures."""
    command = [sys.executable, "-m", "medvlm", "app", "--port", "{port}", "--no-drafting"]
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name))
        with (
            browser() as chromium,
            served(command, env={"MEDVLM_DESK": name}) as address,
            page_at(chromium, address.replace("127.0.0.1", "localhost")) as page,
        ):
            times = [opened(page) for _ in range(TIMES)]
    figures = {"median_s": statistics.median(times), "longest_s": max(times)}
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}, indent=2))


if __name__ == "__main__":
    main()
