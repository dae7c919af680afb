"""What a draft with a prior says of change on real follow-ups, beside what the labels say.

    python benchmarks/comparison.py --data ../shared/data/nih_cxr --out runs/comparison

Forty pairs of films, each the next of the same validation patient (NIH's follow-up numbers), drawn
by seed. Control: each later film against itself, taken again: a little smaller, turned and darker,
where nothing has changed. Writes `comparison.md` and, for a closer look, `pairs.csv`.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy import ndimage

from medvlm.data.sets import Film, load_set
from medvlm.draft.change import told
from medvlm.draft.comparison import Read, change, read_findings
from medvlm.draft.look import look_at
from medvlm.evaluate.scan import load_film, look_at_files
from medvlm.findings import FINDINGS, NIH_FINDINGS
from medvlm.image.load import ImageInput
from medvlm.model.checkpoint import Checkpoint, load_checkpoint

PAIRS, SEED = 40, 40
NOTHING = "nothing"
SAID = ("new", "resolved", "larger", "smaller", "unchanged", NOTHING)
TRUTHS = {(0, 1): "new", (1, 0): "resolved", (1, 1): "present in both", (0, 0): "absent in both"}


def follow_ups(films: list[Film]) -> list[tuple[Film, Film]]:
    """(earlier, later) films of one patient that follow each other."""
    by_patient: dict[str, list[Film]] = defaultdict(list)
    for film in sorted(films, key=lambda film: film.image.name):
        by_patient[film.group].append(film)
    pairs = [pair for own in by_patient.values() for pair in pairwise(own)]
    chosen = np.random.default_rng(SEED).permutation(len(pairs))[:PAIRS]
    return [pairs[i] for i in sorted(chosen)]


def again(image: ImageInput) -> ImageInput:
    """The same film as if taken again: 3 % smaller, turned by 2 degrees, darker."""
    turned = ndimage.rotate(image.pixels, 2.0, reshape=False, order=1, mode="nearest")
    margin = [round(0.015 * length) for length in turned.shape]
    cut = turned[margin[0] : -margin[0], margin[1] : -margin[1]]
    return replace(image, pixels=np.clip(cut, 0, 1).astype(np.float32) ** 1.15)


def read_films(checkpoint: Checkpoint, paths: list[Path]) -> dict[Path, list[Read]]:
    """What the product reads in each film, looked at once."""
    seen = look_at_files(checkpoint, paths, 4, "looking")
    return {path: read_findings(checkpoint, [one]) for path, one in zip(paths, seen, strict=True)}


def said_of(now: Read, before: Read) -> str:
    """What a draft's sentence would say of the finding's change."""
    return told(now.polarity, change(now, before)) or NOTHING


def table(counts: dict[str, Counter[str]]) -> list[str]:
    """Rows: what the labels say; columns: what the draft says."""
    lines = ["| labels | n | " + " | ".join(SAID) + " |", "|---|---|" + "---|" * len(SAID)]
    for truth, own in counts.items():
        cells = " | ".join(str(own[said]) for said in SAID)
        lines.append(f"| {truth} | {own.total()} | {cells} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--checkpoint")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    checkpoint = load_checkpoint(arguments.checkpoint)
    pairs = follow_ups([film for film in load_set(arguments.data).films if film.validation])
    paths = list(dict.fromkeys(film.image for pair in pairs for film in pair))
    reads = read_films(checkpoint, paths)
    counts = {truth: Counter[str]() for truth in TRUTHS.values()}
    control = Counter[str]()
    rows = []
    later = list(dict.fromkeys(pair[1].image for pair in pairs))
    retaken = look_at(checkpoint, [again(load_film(path)) for path in later], 4)
    for path, seen in zip(later, retaken, strict=True):
        before = read_findings(checkpoint, [seen])
        control.update(said_of(reads[path][i], before[i]) for i in range(len(NIH_FINDINGS)))
    for earlier, film in pairs:
        for i, name in enumerate(FINDINGS[: len(NIH_FINDINGS)]):
            now, before = reads[film.image][i], reads[earlier.image][i]
            truth = TRUTHS[int(earlier.findings[i]), int(film.findings[i])]
            said = said_of(now, before)
            counts[truth][said] += 1
            probabilities = round(before.probability, 3), round(now.probability, 3)
            films = earlier.image.name, film.image.name
            rows.append((*films, name, truth, said, before.polarity, now.polarity, *probabilities))
    lines = [f"{len(pairs)} pairs of films, {len(NIH_FINDINGS)} findings each.", ""]
    lines += [*table(counts), "", *table({"the same film, taken again": control})]
    (arguments.out / "comparison.md").write_text("\n".join(lines) + "\n")
    with (arguments.out / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
