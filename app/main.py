"""The first page: one study in, its draft beside the picture, questions about a region.

Everything shown comes from the functions that the command line uses. Text from files or from the
model is shown with `st.text`, never as Markdown or HTML: it could hold a link or a script.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from medvlm.config.policy import site_policy
from medvlm.dicom.prior import chosen_prior
from medvlm.dicom.read import read_inputs
from medvlm.dicom.study import group_studies
from medvlm.draft.answer import answer_question
from medvlm.draft.compose import draft_study
from medvlm.draft.overlay import draw_overlay
from medvlm.draft.policy import under_policy
from medvlm.errors import MedVLMError
from medvlm.image.geometry import Box
from medvlm.image.load import load_image
from medvlm.model.checkpoint import load_checkpoint
from medvlm.records import Answer, Draft, InputCheck, Region, answer_words
from medvlm.resources import sample_film

if TYPE_CHECKING:
    from streamlit.runtime.uploaded_file_manager import UploadedFile

    from medvlm.dicom.prior import Prior
    from medvlm.dicom.study import Study
    from medvlm.draft.compose import DraftResult
    from medvlm.image.load import ImageInput
    from medvlm.model.checkpoint import Checkpoint

NOTICE = (
    "For research only. This is a machine's preliminary draft, not a diagnosis, and must not be "
    "used for the care of a patient."
)
POLARITIES = {"present": "Present", "uncertain": "Possible", "absent": "Absent"}


@st.cache_resource(show_spinner="Loading the model ...")
def model_of_page() -> Checkpoint:
    """The checkpoint in use, under the site's policy."""
    return under_policy(load_checkpoint(), site_policy())


def main() -> None:
    """Draws the page."""
    st.set_page_config(page_title="medvlm", layout="wide")
    st.title("Draft of a radiology report")
    st.warning(NOTICE)
    try:
        path = _chosen_file()
        if path is None:
            st.info("Choose a study on the left: DICOM, a PNG or JPEG picture, or a zip archive.")
            return
        study = _chosen_study(path)
        if study is None:
            return
        earlier = _prior_file()
        prior = chosen_prior(study, _studies(earlier)) if earlier is not None else None
        result = _drafted((path, earlier), study, prior)
        report, question = st.tabs(["Draft", "Ask"])
        with report:
            _show_draft(result)
        with question:
            _ask(study, prior)
    except MedVLMError as error:
        st.error("This did not work.")
        st.text(str(error))


def _chosen_file() -> Path | None:
    """The file the user picked, on disk; None before that."""
    with st.sidebar:
        source = st.radio("Study", ["Sample film", "Upload"], index=None)
        if source == "Sample film":
            return sample_film()
        if source == "Upload":
            # Any name is taken: on discs, DICOM files have none that tells.
            upload = st.file_uploader("DICOM, PNG, JPEG or zip", key="study")
            return _kept(upload) if upload is not None else None
    return None


def _prior_file() -> Path | None:
    """The file of an earlier study to compare with, if the user gave one."""
    upload = st.sidebar.file_uploader("An earlier study to compare with, if any", key="prior")
    return _kept(upload) if upload is not None else None


def _kept(upload: UploadedFile) -> Path:
    """Writes an upload to a folder that goes with the session, under a name that says nothing."""
    if "folder" not in st.session_state:
        st.session_state.folder = tempfile.TemporaryDirectory(prefix="medvlm-page-")
    content = upload.getvalue()
    name = hashlib.sha256(content).hexdigest()[:16] + Path(upload.name).suffix.lower()
    path = Path(st.session_state.folder.name) / name
    if not path.exists():
        path.write_bytes(content)
    return path


def _chosen_study(path: Path) -> Study | None:
    """The study in the file; of several, the one the user picks."""
    studies = _studies(path)
    if not studies:
        return None
    if len(studies) == 1:
        return studies[0]
    chosen = st.sidebar.selectbox(
        "Which study", range(len(studies)), format_func=lambda index: f"Study {index + 1}"
    )
    return studies[chosen]


def _studies(path: Path) -> list[Study]:
    """The studies in a file, read once per session; says what could not be read."""
    readings = st.session_state.setdefault("readings", {})
    if str(path) not in readings:
        readings[str(path)] = read_inputs([path])
    reading = readings[str(path)]
    for refused in reading.failed:
        st.error("A file could not be read.")
        st.text(f"{refused.message} {refused.remedy or ''}")
    return group_studies(reading)


def _drafted(files: tuple[Path, Path | None], study: Study, prior: Prior | None) -> DraftResult:
    """The draft, made once per study, files and session."""
    drafts = st.session_state.setdefault("drafts", {})
    key = (*map(str, files), study.name)
    if key not in drafts:
        model = model_of_page()
        with st.spinner("Drafting ..."):
            drafts[key] = draft_study(model, study, prior)
    result: DraftResult = drafts[key]
    return result


def _show_draft(result: DraftResult) -> None:
    draft: Draft = result.draft
    for refused in result.failed:
        st.error("An image could not be decoded.")
        st.text(refused.message)
    if not _show_check(draft.input_check):
        return
    for number, image in enumerate(draft.input_check.images, 1):
        if not image.accepted:
            st.text(f"Image {number} was left out:")
            for reason in image.reasons:
                st.text(reason.message)
    if draft.comparison:
        _show_check(draft.comparison.input_check, "The earlier study was refused: not compared.")
        for reservation in draft.comparison.reservations:
            st.text(reservation.message)
    picture, words = st.columns([3, 2])
    with picture:
        if result.overlay is not None:
            st.image(result.overlay, caption="The regions that the sentences point at")
    with words:
        for polarity, heading in POLARITIES.items():
            findings = [one for one in draft.findings if one.polarity == polarity]
            if findings:
                st.subheader(heading)
            for finding in findings:
                evidence = f", {finding.evidence.status}" if finding.evidence else ""
                st.text(f"{finding.text}   (probability {finding.probability:.2f}{evidence})")
                for flag in finding.flags:
                    st.text(f"Doubtful: {flag.message}")
        st.subheader("Impression")
        st.text(draft.impression)
        if draft.withheld:
            with st.expander("Written and then withheld"):
                for one in draft.withheld:
                    st.text(f"{one.text}   ({one.reason})")
        st.download_button(
            "draft.json", draft.model_dump_json(indent=2), "draft.json", "application/json"
        )


def _show_check(check: InputCheck, refusal: str = "The model was not made for this study.") -> bool:
    """Says what the gate refused; returns whether it accepted the study."""
    if not check.accepted:
        st.error(refusal)
    for reason in check.reasons:
        st.text(reason.message)
    return check.accepted


def _ask(study: Study, prior: Prior | None) -> None:
    number = 0
    if len(study.instances) > 1:
        number = st.selectbox(
            "Which image",
            range(len(study.instances)),
            format_func=lambda index: f"Image {index + 1}",
        )
    # Only the image that is looked at is decoded: a study may hold hundreds.
    image = load_image(study.instances[number])
    picture, words = st.columns([3, 2])
    with words:
        question = st.text_input("Question", placeholder="Where is the effusion?", max_chars=300)
        box = _region(image)
        answer = None
        if st.button("Ask", type="primary", disabled=not question.strip()):
            with st.spinner("Looking ..."):
                answer = answer_question(
                    model_of_page(), image, question.strip(), box, study=study, prior=prior
                )
            _show_answer(answer)
    with picture:
        _show_regions(image, box, answer)


def _region(image: ImageInput) -> Box | None:
    """The box that the question is about, in source pixels from the top-left corner."""
    if not st.checkbox("Ask about a region"):
        return None
    width, height = float(image.width), float(image.height)
    st.caption(f"Pixels of the image ({image.width} x {image.height}), from its top-left corner.")
    x = st.number_input("x", 0.0, width - 1, width // 4)
    y = st.number_input("y", 0.0, height - 1, height // 4)
    wide = st.number_input("width", 1.0, width, width // 4)
    high = st.number_input("height", 1.0, height, height // 4)
    return Box(x, y, wide, high).clip(width, height)


def _show_answer(answer: Answer) -> None:
    st.text(answer_words(answer))
    _show_check(answer.input_check)


def _show_regions(image: ImageInput, box: Box | None, answer: Answer | None) -> None:
    regions: list[tuple[str, Region]] = []
    if box is not None:
        asked = Region(
            sop_instance_uid=image.sop_instance_uid,
            frame=image.frame,
            x=box.x,
            y=box.y,
            width=box.width,
            height=box.height,
            polygon=None,
        )
        regions.append(("asked about", asked))
    if answer is not None:
        regions += [("answer", region) for region in answer.regions]
    st.image(draw_overlay(image.pixels, regions))


main()
