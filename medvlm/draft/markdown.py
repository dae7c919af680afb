"""The draft as a page that people read."""

from __future__ import annotations

import re

from medvlm.records import Comparison, Draft, Reason, Region

_NOTICE = (
    "**Preliminary, written by a machine. For research only; "
    "not for diagnosis until a radiologist has checked and signed it.**"
)


def to_markdown(draft: Draft, title: str) -> str:
    """``draft`` in Markdown under ``title``; texts are escaped, so none can change the page."""
    study = draft.study
    facts = [study.modality, study.body_part, study.view]
    parts = [f"# {_escape(title)}", _NOTICE]
    if any(facts):
        parts.append("Study: " + ", ".join(_escape(fact) for fact in facts if fact))
    parts += _input_check(draft)
    if draft.input_check.accepted:
        parts += [
            "## Impression",
            _escape(draft.impression) or "Withheld: see below.",
            "## Findings",
        ]
        parts += [_findings(draft)] if draft.findings else ["None."]
    if draft.stability is not None:
        parts.append(
            f"{draft.stability:.0%} of the findings stay as they are under small shifts, other "
            "exposure and JPEG."
        )
    if draft.comparison:
        parts += _comparison(draft.comparison)
    if draft.withheld:
        parts.append("## Withheld")
        parts.append(
            "\n".join(
                f"- {_escape(item.text)} ({item.probability:.0%}): {_escape(item.reason)}"
                for item in draft.withheld
            )
        )
    model = draft.model
    about = (
        f"Model {_escape(model.name)} {_escape(model.version)}, weights {model.weights_sha256[:12]}"
    )
    seconds = ", ".join(f"{_escape(name)} {took:.2f} s" for name, took in draft.timings_s.items())
    parts += ["---", f"{about}; {seconds}." if seconds else f"{about}."]
    return "\n\n".join(parts) + "\n"


def _input_check(draft: Draft) -> list[str]:
    check = draft.input_check
    parts = []
    if not check.accepted:
        parts += ["## No draft", "The study was refused:", _reasons(check.reasons)]
    refused = [image for image in check.images if not image.accepted]
    if check.accepted and refused:
        parts.append(f"{len(refused)} of {len(check.images)} images were left out:")
        parts.append("\n".join(_reasons(image.reasons) for image in refused))
    return parts


def _comparison(comparison: Comparison) -> list[str]:
    """What the draft was compared with, and what stands in the way of that."""
    uid = comparison.study_instance_uid
    parts = ["## Comparison", f"Prior study: {_escape(uid) if uid else 'without a UID'}."]
    if not comparison.input_check.accepted:
        parts += ["It was refused, and nothing is compared:"]
        parts += [_reasons(comparison.input_check.reasons)]
    if comparison.reservations:
        parts.append(_reasons(comparison.reservations))
    return parts


def _reasons(reasons: list[Reason]) -> str:
    return "\n".join(f"- {_escape(reason.message)} ({_escape(reason.code)})" for reason in reasons)


def _findings(draft: Draft) -> str:
    """A table; of several images, each region names its own by its place in the input check."""
    images = draft.input_check.images
    several = sum(image.accepted for image in images) > 1
    number = {image.sop_instance_uid: i for i, image in enumerate(images, 1)} if several else {}
    rows = ["| Finding | Probability | Evidence | Regions (x, y, width, height in pixels) |"]
    rows.append("|---|---|---|---|")
    for finding in draft.findings:
        asked = "-" if finding.polarity == "absent" else "not measured"
        evidence = finding.evidence.status if finding.evidence else asked
        evidence += "".join(f"; doubtful: {_escape(flag.message)}" for flag in finding.flags)
        regions = "; ".join(_region(region, number) for region in finding.regions) or "-"
        rows.append(
            f"| {_escape(finding.text)} | {finding.probability:.0%} | {evidence} | {regions} |"
        )
    return "\n".join(rows)


def _region(region: Region, number: dict[str | None, int]) -> str:
    image = number.get(region.sop_instance_uid)
    where = f"image {image}: " if image else ""
    return f"{where}{region.x:.0f}, {region.y:.0f}, {region.width:.0f}, {region.height:.0f}"


def _escape(text: str) -> str:
    one_line = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]<>#|~&!])", r"\\\1", one_line)
