"""The data card of a prepared set, written from its counts."""

from __future__ import annotations

from pathlib import Path

import yaml

from medvlm.data.cards import parse_card
from medvlm.data.site_summary import SiteSummary

CARD = "site.md"

_BIASES = (
    "Labels were read from reports by rules. A report names what matters to the question that was "
    "asked; what it does not mention is unknown, not absent.",
    "Labels are the study's: a finding seen only on another view of the study counts for each "
    "film.",
    "One site: its devices, patients and ways of reporting.",
    "Tubes, lines and drains are not labelled and go with the findings that they treat.",
)


def write_card(path: Path, summary: SiteSummary) -> None:
    """Writes the card beside the set and reads it back. Raises DataCardError."""
    problems = ", ".join(f"{code} {count}" for code, count in summary.problems.items())
    front = {
        "name": path.stem,
        "title": f"A site's own chest radiographs, {summary.total('films')} films",
        "source": f"Studies and reports of the site, prepared by medvlm {summary.medvlm}",
        "url": None,
        "licence": "The site's own data; not to be passed on.",
        "commercial_use": False,
        "images": summary.total("films"),
        "patients": summary.total("patients"),
        "labels": {finding: counts.present for finding, counts in summary.labels.items()},
        "label_origin": f"Rules over the reports (labeller {summary.labeller}), boxes of the site, "
        f"{summary.found['reviews']} reviews of drafts.",
        "known_biases": list(_BIASES),
        "split_rule": "By patient, with a keyed hash (key "
        f"{summary.key_id}); the assignment is in split.json, sha256 {summary.split_sha256}. "
        + "; ".join(
            f"{side} {part.films} films of {part.patients} patients"
            for side, part in summary.prepared.items()
        )
        + ".",
        "citation": "None: internal data.",
    }
    rows = "\n".join(
        f"| {finding} | {row.present} | {row.absent} | {row.uncertain} | {row.not_mentioned} |"
        for finding, row in summary.labels.items()
    )
    text = f"""# A site's own films

Written by medvlm from `summary.json`, which says more. Films by what is said of each finding:

| finding | present | absent | uncertain | not mentioned |
|---|---|---|---|---|
{rows}

Left out or noted while reading: {problems or "nothing"}.

## What it is used for

Fine-tuning a checkpoint for this site, and comparing it on the validation patients.

## What it must not be used for

Anything outside of the site. Pictures have no header and texts are redacted, but neither is
proof against somebody who knows the patients.
"""
    content = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=100)
    path.write_text(f"---\n{content}---\n\n{text}", encoding="utf-8")
    parse_card(path)
