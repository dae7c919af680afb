"""Drafts twenty validation films and lays each beside its labels and radiologists' boxes.

    python benchmarks/twenty_drafts.py --data ../shared/data/nih_cxr --out runs/twenty

Ten films with a radiologist's box and ten without are drawn by seed, so nobody picks them. Writes a
picture for each (true boxes are called TRUE), its sentences, and `drafts.md`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from medvlm.data.sets import Film, load_set
from medvlm.draft.compose import describe
from medvlm.draft.illustrate import labelled_regions
from medvlm.draft.overlay import draw_overlay
from medvlm.draft.withhold import withhold
from medvlm.evaluate.scan import look_at_files
from medvlm.findings import NIH_FINDINGS
from medvlm.image.geometry import Box
from medvlm.model.checkpoint import load_checkpoint
from medvlm.records import Region

SEED = 20


def twenty(films: list[Film]) -> list[Film]:
    """Ten films with a reviewed opacity box or another box, ten of the others."""
    random = np.random.default_rng(SEED)
    boxed = [film for film in films if film.boxes]
    others = [film for film in films if not film.boxes]
    chosen = [pool[i] for pool in (boxed, others) for i in random.permutation(len(pool))[:10]]
    return sorted(chosen, key=lambda film: film.image.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--checkpoint")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    checkpoint = load_checkpoint(arguments.checkpoint)
    films = twenty([film for film in load_set(arguments.data).films if film.validation])
    lines = ["| film | labels | stated | possible | missed | not labelled |", "|---|" + "---|" * 5]
    paths = [film.image for film in films]
    for film, seen in zip(films, look_at_files(checkpoint, paths, 4, "drafting"), strict=True):
        findings = withhold(describe(checkpoint, [seen])).findings
        truth = {NIH_FINDINGS[i] for i in np.flatnonzero(film.findings[:14] == 1)}
        by = {
            polarity: [f.finding for f in findings if f.polarity == polarity]
            for polarity in ("present", "uncertain", "absent")
        }
        said = set(by["present"])
        cells = [
            film.image.name,
            ", ".join(sorted(truth)) or "none",
            ", ".join(by["present"]) or "-",
            ", ".join(by["uncertain"]) or "-",
            ", ".join(sorted(truth & set(by["absent"]))) or "-",
            ", ".join(sorted(said - truth - {"Lung_Opacity"})) or "-",
        ]
        lines.append(f"| {' | '.join(cells)} |")
        true = [
            ("TRUE " + name, _region(box, seen.image.width, seen.image.height))
            for name, box in film.boxes
        ]
        draw_overlay(seen.image.pixels, true + labelled_regions(seen, findings)).save(
            arguments.out / f"{film.image.stem}.png"
        )
        texts = [f"{f.polarity:9} {f.probability:.2f}  {f.text}" for f in findings]
        (arguments.out / f"{film.image.stem}.txt").write_text("\n".join(texts) + "\n")
    (arguments.out / "drafts.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def _region(box: tuple[float, float, float, float], width: int, height: int) -> Region:
    own = Box.from_fractions(*box, width, height)
    return Region(x=own.x, y=own.y, width=own.width, height=own.height, polygon=None)


if __name__ == "__main__":
    main()
