"""The reviewers' page in a real browser, from an empty desk to a signed and exported report."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from medvlm.desk.drafter import Tell
from medvlm.desk.parent import Ending
from medvlm.desk.worker import run
from medvlm.dicom.instance import Instance
from medvlm.dicom.prior import Prior
from medvlm.dicom.study import Study
from medvlm.errors import InputNotFound
from medvlm.records import Answer, Draft, Evidence, Finding, InputCheck, Reason, Region, Withheld
from medvlm.resources import sample_film
from medvlm.review import audit
from medvlm.review.review import load
from medvlm.review.signing import report as signed_report
from medvlm.review.store import Store, open_store
from medvlm.review.worklist import worklist
from tests.browser import ROOT, browser, free_port, page_at, screenshot, served
from tests.desk import MODEL, a_draft
from tests.viewer.driver import key, ready, root

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytest_plugins = ["tests.desk"]
pytestmark = pytest.mark.slow

WAIT_MS = 90_000
BOX = (1200, 900, 300, 400)  # x, y, width, height in the sample's pixels


class StandIn:
    """Drafts the sample by hand, and answers with the region that it was asked about."""

    def draft(self, study: Study, prior: Prior | None, tell: Tell) -> Draft:
        tell(0.5)
        uid = study.instances[0].sop_instance_uid
        x, y, width, height = BOX
        region = Region(sop_instance_uid=uid, x=x, y=y, width=width, height=height)
        evidence = Evidence(status="supported", p_image=0.7, p_erased=0.2, p_blank=0.1, p_other=0.1)
        findings = [
            Finding(
                text="Left pneumothorax.",
                finding="Pneumothorax",
                polarity="present",
                probability=0.7,
                evidence=evidence,
                regions=[region],
            ),
            Finding(
                text="Possible <b>effusion</b> [link](http://a.example).",
                finding="Effusion",
                polarity="uncertain",
                probability=0.4,
            ),
            Finding(
                text="No cardiomegaly.", finding="Cardiomegaly", polarity="absent", probability=0.1
            ),
        ]
        withheld = Withheld(
            finding="Nodule", text="Possible nodule.", probability=0.3, reason="no evidence"
        )
        return a_draft(
            *findings, impression="Left pneumothorax.", withheld=(withheld,), study=_record(study)
        )

    def answer(
        self,
        image: Instance,
        frame: int,
        question: str,
        region: Region | None,
        study: Study,
        prior: Prior | None,
    ) -> Answer:
        return Answer(
            question=question,
            answer="This is the left lower zone.",
            probability=0.8,
            regions=[region] if region else [],
            input_check=InputCheck(accepted=True, reasons=list[Reason]()),
            model=MODEL,
        )


def _record(study: Study) -> Any:
    from medvlm.records import StudyRecord

    return StudyRecord(
        study_instance_uid=study.study_instance_uid, modality=study.modality, view=study.view
    )


@contextmanager
def drafting(folder: Path) -> Iterator[None]:
    """A drafting process's work in a thread, with the stand-in."""
    ending = Ending()
    with open_store(f"sqlite:///{folder}/desk.sqlite3", folder / "files") as store:
        thread = Thread(
            target=run, args=(store, StandIn()), kwargs={"ending": ending, "poll_s": 0.2}
        )
        thread.start()
        try:
            yield
        finally:
            ending.tell()
            thread.join()


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "medvlm", "app", "--port", "{port}", *options]


@contextmanager
def desk(folder: Path, *options: str, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """`medvlm app` on a desk of its own; its address."""
    told = {"MEDVLM_DESK": str(folder), **(env or {})}
    with served(command(*options), env=told) as address:
        yield address.replace("127.0.0.1", "localhost")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def film() -> Path:
    try:
        return sample_film()
    except InputNotFound:
        pytest.skip("needs pydicom-data, whose radiograph is the sample")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Opens the page's desk beside the page."""
    opened: list[Store] = []

    def open_it() -> Store:
        opened.append(open_store(f"sqlite:///{tmp_path}/desk.sqlite3", tmp_path / "files"))
        return opened[-1]

    yield open_it
    for store in opened:
        store.close()


# ---- what a reviewer does ----


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def starting_with(page: Page, name: str) -> Locator:
    """A button whose name goes on with its shortcut."""
    return page.locator("button", has_text=name).first


def upload(page: Page, path: Path) -> None:
    starting_with(page, "Refresh").wait_for(timeout=WAIT_MS)
    page.locator('input[type="file"]').first.set_input_files(
        {"name": "film.dcm", "mimeType": "application/dicom", "buffer": path.read_bytes()}
    )
    page.get_by_text("film.dcm").first.wait_for(timeout=WAIT_MS)
    button(page, "Add to the worklist").click()
    page.locator('[class*="st-key-open-"] button').first.wait_for(timeout=WAIT_MS)


def open_study(page: Page) -> None:
    page.locator('[class*="st-key-open-"] button').first.click(timeout=WAIT_MS)
    ready(page)


def sentence(page: Page, number: int) -> Locator:
    return page.locator('[class*="st-key-sentence-"]', has_text=f"{number}.  ").first


def until(page: Page, text: str) -> None:
    page.get_by_text(text).first.wait_for(timeout=WAIT_MS)


def client(page: Page, x: float, y: float) -> tuple[float, float]:
    """Where a pixel of the first image is in the window."""
    found = root(page).evaluate(
        """(root, [x, y]) => {
          const image = root.medvlmViewer.viewports[0].painted.image.id;
          return root.medvlmViewer.clientOf(image, x, y);
        }""",
        [x, y],
    )
    return float(found["x"]), float(found["y"])


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*start)
    page.mouse.down()
    for step in range(1, 9):
        share = step / 8
        page.mouse.move(
            start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share
        )
    page.mouse.up()


def pixels(page: Page) -> np.ndarray:
    """The window as the user sees it, [H, W, 3]."""
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def choose_pin(page: Page, pin: str) -> None:
    page.get_by_label("Choose a PIN (4 to 12 digits)").fill(pin)
    page.get_by_label("Repeat the PIN").fill(pin)
    page.locator(".st-key-panel").get_by_role("button", name="Save", exact=True).last.click()
    page.get_by_label("PIN", exact=True).wait_for(timeout=WAIT_MS)


# ---- the tests ----


def test_from_an_empty_desk_to_a_signed_and_exported_report(
    chromium: Browser, film: Path, tmp_path: Path, own: Callable[[], Store]
) -> None:
    with desk(tmp_path, "--no-drafting") as address, drafting(tmp_path):
        with page_at(chromium, address) as page:
            until(page, "Research use only")
            assert page.title() == "medvlm"
            upload(page, film)
            until(page, "drafted")
            until(page, "URGENT")
            open_study(page)
            until(page, "3 to be resolved")
            _window(page)
            _sentence_and_region(page)
            _text_is_text(page)
            screenshot(page, "study")
            _resolve(page)
            _ask(page)
            _sign(page, own())
            _export(page, tmp_path)
            _addendum(page)
            address_now = page.url
            page.reload()
            ready(page)
            until(page, "The report is final")
            until(page, "Seen again with the ward.")
            screenshot(page, "signed")
            assert "RG1" not in address_now
        store = own()
        assert audit.verify(store).holds
        (row,) = worklist(store).rows
        assert row.status == "signed"
        told = signed_report(store, row.id)
        assert [one.text for one in told.sentences] == [
            "Left pneumothorax.",
            "Small left effusion.",
            "This is the left lower zone.",
        ]
        assert told.status == "amended"


def _window(page: Page) -> None:
    """A drag changes the window, and with it the picture."""
    before = root(page).evaluate("root => ({...root.dataset})")
    first = pixels(page)
    root(page).get_by_role("button", name="Window").first.click()
    x, y = client(page, 900, 900)
    drag(page, (x, y), (x + 120, y - 60))
    page.wait_for_timeout(300)
    after = root(page).evaluate("root => ({...root.dataset})")
    assert float(after["width"]) != float(before["width"])
    assert float(after["center"]) != float(before["center"])
    left, top = (int(value) for value in client(page, 600, 700))
    assert np.abs(pixels(page) - first)[top : top + 60, left : left + 60].mean() > 2
    key(page, "r")
    key(page, "v")


def _sentence_and_region(page: Page) -> None:
    """Choosing a sentence shows its box on the right pixels; choosing the box, the sentence."""
    x, y, width, height = BOX
    sentence(page, 1).get_by_role("button", name="Show").click()
    page.locator('[class*="st-key-sentence-"][class*="chosen"]').first.wait_for(timeout=WAIT_MS)
    page.wait_for_timeout(2500)  # the flash that draws the eye is over
    shown = pixels(page)
    key(page, "o")
    page.wait_for_timeout(300)
    bare = pixels(page)
    key(page, "o")
    changed = np.abs(shown - bare).sum(axis=2) > 30
    left, top = client(page, x, y)
    right, bottom = client(page, x + width, y + height)
    middle = int((top + bottom) / 2)
    for edge in (left, right):
        near = changed[middle, round(edge) - 4 : round(edge) + 5]
        assert near.any()
    across = int((left + right) / 2)
    for edge in (top, bottom):
        assert changed[round(edge) - 4 : round(edge) + 5, across].any()
    inside = changed[round(top) + 30 : round(bottom) - 8, round(left) + 8 : round(right) - 8]
    assert inside.mean() < 0.02
    sentence(page, 2).get_by_role("button", name="Show").click()
    page.locator('[class*="st-key-sentence-"][class*="s02-chosen"]').wait_for(timeout=WAIT_MS)
    page.mouse.click(left, middle)
    page.locator('[class*="st-key-sentence-"][class*="s01-chosen"]').wait_for(timeout=WAIT_MS)


def _text_is_text(page: Page) -> None:
    """What the model wrote is shown as it is: no tag, no link."""
    assert page.get_by_text("<b>effusion</b> [link](http://a.example)").count() >= 1
    assert page.locator('a[href*="a.example"]').count() == 0


def _resolve(page: Page) -> None:
    """By keys and by mouse: accept, edit, reject, undo, and a finding at a drawn box."""
    page.keyboard.press("Alt+a")
    until(page, "2 to be resolved")
    page.locator('[class*="s02-chosen"]').wait_for(timeout=WAIT_MS)
    page.keyboard.press("Alt+e")
    field = page.locator(".st-key-edit-text-s02 textarea")
    field.fill("Small left effusion.")
    page.locator(".st-key-panel").get_by_role("button", name="Save", exact=True).first.click()
    until(page, "1 to be resolved")
    sentence(page, 3).locator("button", has_text="Reject").click()
    button(page, "wording").click()
    until(page, "All sentences are resolved.")
    page.keyboard.press("Alt+z")
    until(page, "1 to be resolved")
    sentence(page, 3).locator("button", has_text="Reject").click()
    button(page, "wording").click()
    until(page, "All sentences are resolved.")


def _ask(page: Page) -> None:
    """A box is drawn, and asked about; the answer goes into the report with it."""
    key(page, "b")
    start, end = client(page, 500.0, 1200.0), client(page, 700.0, 1500.0)
    drag(page, start, end)
    page.get_by_role("tab", name="Ask").click()
    page.get_by_text("About the drawn region").wait_for(timeout=WAIT_MS)
    page.get_by_placeholder("Ask about this study").fill("Which zone is this?")
    page.keyboard.press("Enter")
    until(page, "This is the left lower zone.")
    screenshot(page, "ask")
    button(page, "Insert into the report").click()
    page.get_by_role("tab", name="Report").click()
    until(page, "4.  This is the left lower zone.")


def _sign(page: Page, store: Store) -> None:
    """Nothing is signed while an urgent finding is open; then a PIN is chosen, and it is."""
    until(page, "Nobody has taken note of an urgent finding")
    assert page.get_by_label("PIN", exact=True).count() == 0
    button(page, "I have taken note and acted on it").click()
    until(page, "Acknowledged: Pneumothorax")
    (row,) = worklist(store).rows
    asked = load(store, row.id).sentences[-1].regions[0]
    assert (asked.x, asked.y) == pytest.approx((500, 1200), abs=3)
    assert (asked.width, asked.height) == pytest.approx((200, 300), abs=3)
    field = page.get_by_label("Impression")
    field.fill("Left pneumothorax. Small left effusion.")
    field.blur()
    page.wait_for_timeout(1500)
    choose_pin(page, "24680")
    _confirm_all(page)
    page.get_by_label("PIN", exact=True).fill("11111")
    starting_with(page, "Sign the report").click()
    until(page, "This did not work.")
    page.get_by_label("PIN", exact=True).fill("24680")
    starting_with(page, "Sign the report").click()
    until(page, "The report is final")
    until(page, "locally attested")


def _confirm_all(page: Page) -> None:
    boxes = page.locator('[class*="st-key-confirm-"]')
    for number in range(boxes.count()):
        box = boxes.nth(number)
        if not box.locator("input").is_checked():
            box.locator("label").first.click()
            page.wait_for_timeout(800)


def _export(page: Page, folder: Path) -> None:
    # What stood there before the signature stays until the page is drawn to its end.
    page.wait_for_timeout(3000)
    page.get_by_text("Export", exact=True).click()
    button(page, "Prepare files").click()
    found = {}
    for name in ("Text", "PDF with key images", "DICOM SR (Comprehensive)", "JSON"):
        with page.expect_download(timeout=WAIT_MS) as download:
            button(page, name).click(timeout=WAIT_MS)
        found[name] = Path(folder / download.value.suggested_filename)
        download.value.save_as(found[name])
    text = found["Text"].read_text()
    assert "Small left effusion." in text
    assert "drafted by software" in text.lower()
    assert found["PDF with key images"].read_bytes().startswith(b"%PDF")
    sr = pydicom.dcmread(found["DICOM SR (Comprehensive)"])
    assert (sr.VerificationFlag, sr.CompletionFlag) == ("VERIFIED", "COMPLETE")
    assert json.loads(found["JSON"].read_text())["status"] == "final"


def _addendum(page: Page) -> None:
    page.get_by_text("Addendum", exact=True).first.click()
    page.get_by_label("Text of the addendum").fill("Seen again with the ward.")
    page.get_by_label("PIN", exact=True).fill("24680")
    button(page, "Sign the addendum").click()
    until(page, "Seen again with the ward.")


def test_a_killed_server_loses_no_confirmed_action(
    chromium: Browser, film: Path, tmp_path: Path, own: Callable[[], Store]
) -> None:
    port = free_port()
    address = f"http://localhost:{port}"
    told = {**os.environ, "MEDVLM_DESK": str(tmp_path), "PYTHONPATH": str(ROOT)}
    line = [part.replace("{port}", str(port)) for part in command("--no-drafting")]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            line,
            env=told,
            cwd=ROOT,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    server = start()
    try:
        with drafting(tmp_path):
            with page_at(chromium, "about:blank") as page:
                _until_there(page, address)
                upload(page, film)
                until(page, "drafted")
                open_study(page)
                page.keyboard.press("Alt+n")
                page.locator('[class*="s01-chosen"]').wait_for(timeout=WAIT_MS)
                page.keyboard.press("Alt+a")
                until(page, "2 to be resolved")
                opened = page.url
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
            server = start()
            with page_at(chromium, "about:blank") as page:
                _until_there(page, opened)
                until(page, "2 to be resolved")
        store = own()
        (row,) = worklist(store).rows
        assert load(store, row.id).sentences[0].decision == "accepted"
        assert audit.verify(store).holds
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _until_there(page: Page, address: str) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            page.goto(address)
            return
        except Exception:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)


NO_MODEL = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "timm", "transformers", "peft"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""


def test_without_a_model_reports_are_written_and_signed_by_hand(
    chromium: Browser, film: Path, tmp_path: Path, own: Callable[[], Store]
) -> None:
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / "sitecustomize.py").write_text(NO_MODEL)
    path = f"{tmp_path / 'absent'}{os.pathsep}{ROOT}"
    with desk(tmp_path, env={"PYTHONPATH": path}) as address, page_at(chromium, address) as page:
        until(page, "No model is installed here")
        upload(page, film)
        open_study(page)
        page.get_by_text("Add a finding", exact=True).click()
        page.locator(".st-key-add-text input").fill("The lungs are clear.")
        button(page, "Add").click()
        until(page, "1.  The lungs are clear.")
        field = page.get_by_label("Impression")
        field.fill("Normal chest.")
        field.blur()
        page.wait_for_timeout(1500)
        choose_pin(page, "1357")
        _confirm_all(page)
        page.get_by_label("PIN", exact=True).fill("1357")
        starting_with(page, "Sign the report").click()
        until(page, "The report is final")
    (row,) = worklist(own()).rows
    assert row.status == "signed"


def test_the_page_speaks_japanese(chromium: Browser, tmp_path: Path) -> None:
    with desk(tmp_path, "--no-drafting") as address:
        context = chromium.new_context(locale="ja-JP")
        page = context.new_page()
        page.goto(address)
        until(page, "研究用")
        until(page, "検査を追加")
        context.close()


def test_a_draft_of_the_model_itself_is_reviewed_and_signed(
    chromium: Browser, film: Path, tmp_path: Path, own: Callable[[], Store]
) -> None:
    """As `make app` starts it: its own drafting process, the embedded checkpoint, the sample."""
    with desk(tmp_path) as address, page_at(chromium, address) as page:
        page.locator(".st-key-sample button").click(timeout=WAIT_MS)
        open_study(page)
        page.locator('[class*="st-key-sentence-"]').first.wait_for(timeout=600_000)
        accept = button(page, "Accept all that remain")
        accept.click(timeout=WAIT_MS)
        until(page, "All sentences are resolved.")
        screenshot(page, "model")
        for urgent in page.get_by_role("button", name="I have taken note and acted on it").all():
            urgent.click()
        choose_pin(page, "8642")
        _confirm_all(page)
        page.get_by_label("PIN", exact=True).fill("8642")
        starting_with(page, "Sign the report").click()
        until(page, "The report is final")
    store = own()
    (row,) = worklist(store).rows
    told = signed_report(store, row.id)
    assert told.model is not None
    assert told.model.name == "medvlm-cxr-lite"
    assert len(told.sentences) >= 5
    assert audit.verify(store).holds
