"""Batch drafting: studies per hour, its parts and its memory, beside the plain loop, in one run.

    python -m benchmarks.batch [--studies 1000] [--films DIR] [--baseline 20] [--out FILE.json]
                               [-- options of medvlm draft]

Makes DICOM studies in a folder of its own and drafts them by `medvlm draft` in a process of its
own, whose memory (with all its children's, shared pages counted once) is sampled every second. The
baseline (`benchmarks.baseline`) drafts some of the same studies, half of them before and half
afterwards, so that a machine that grows slower favours neither; loading its model is not counted,
the product's is. Both write to the same disk and use all cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from benchmarks.baseline import TOLERANCE, compare, mean_parts, read_drafts
from benchmarks.films import Made, make_studies

EVERY_S = 1.0
FIRST = 100
"""Studies after which the memory is looked at first: by then everything has been loaded."""
WINDOW = 50
"""Over so many studies memory is averaged: that of one moment depends on what is in flight."""


@dataclass(frozen=True)
class Sample:
    """A moment of a run: seconds since its start, studies finished, memory in MB."""

    seconds: float
    done: int
    memory_mb: float


def tree_memory(root: psutil.Process) -> float:
    """MB of a process and all below it; pages that they share count once where PSS is told."""
    total = 0
    for process in (root, *root.children(recursive=True)):
        try:
            full = process.memory_full_info()
            total += getattr(full, "pss", full.rss)
        except psutil.Error:  # it has ended, or is about to
            continue
    return total / 1e6


def finished(out: Path) -> int:
    """Studies whose draft is written."""
    return sum(1 for _ in out.glob("*/draft.json"))


class Watch(threading.Thread):
    """Samples a process while it runs."""

    def __init__(self, pid: int, out: Path, every_s: float = EVERY_S) -> None:
        super().__init__(daemon=True)
        self.process = psutil.Process(pid)
        self.out = out
        self.every_s = every_s
        self.samples: list[Sample] = []
        self.ended = threading.Event()

    def run(self) -> None:
        start = time.monotonic()
        while not self.ended.is_set():
            try:
                memory = tree_memory(self.process)
            except psutil.Error:
                return
            self.samples.append(Sample(time.monotonic() - start, finished(self.out), memory))
            self.ended.wait(self.every_s)


def flatness(samples: Sequence[Sample], studies: int) -> dict[str, float | int]:
    """Mean memory around the first hundred studies (a tenth of fewer) and before the last, in MB.

    `ratio` is the second over the first; peaks are of all samples until then.
    """
    first, window = (max(1, min(most, studies // 10)) for most in (FIRST, WINDOW))
    early = [s.memory_mb for s in samples if first <= s.done < first + window]
    late = [s.memory_mb for s in samples if studies - window <= s.done < studies]
    if not early or not late:
        return {}
    return {
        "first": first,
        "first_mb": round(statistics.fmean(early)),
        "end_mb": round(statistics.fmean(late)),
        "ratio": round(statistics.fmean(late) / statistics.fmean(early), 3),
        "peak_first_mb": round(max(s.memory_mb for s in samples if s.done < first + window)),
        "peak_mb": round(max(s.memory_mb for s in samples)),
    }


def steady_rate(samples: Sequence[Sample]) -> float | None:
    """Studies per hour between the first and the last that were seen to finish."""
    moved = [b for a, b in pairwise(samples) if b.done > a.done]
    if len(moved) < 2:
        return None
    taken = moved[-1].seconds - moved[0].seconds
    return round(3600 * (moved[-1].done - moved[0].done) / taken, 1)


def draft(folder: Path, out: Path, options: Sequence[str]) -> dict[str, Any]:
    """Drafts a folder of studies by the command, watched."""
    command = [sys.executable, "-m", "medvlm", "draft", str(folder), "--out", str(out), *options]
    out.mkdir(parents=True)
    start = time.perf_counter()
    with (out.parent / "draft.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        watch = Watch(process.pid, out)
        watch.start()
        code = process.wait()
        taken = time.perf_counter() - start
        watch.ended.set()
        watch.join()
    drafts = read_drafts(out)
    # 1: some input failed, as the broken ones must.
    if code not in (0, 1) or not drafts:
        raise SystemExit(
            f"medvlm draft ended with {code}:\n{(out.parent / 'draft.log').read_text()}"
        )
    return {
        "seconds": round(taken, 2),
        "drafts": len(drafts),
        "accepted": sum(own.input_check.accepted for own in drafts.values()),
        "studies_per_hour": round(3600 * len(drafts) / taken, 1),
        "steady_studies_per_hour": steady_rate(watch.samples),
        "parts_s": mean_parts([own.timings_s for own in drafts.values()]),
        "memory": flatness(watch.samples, len(drafts)),
        "samples": [asdict(sample) for sample in watch.samples],
    }


def plain_loop(studies: Sequence[Path], out: Path, options: Sequence[str]) -> dict[str, Any]:
    """The baseline over some studies, in a process of its own."""
    figures = out.with_suffix(".json")
    command = [sys.executable, "-m", "benchmarks.baseline", *map(str, studies), "--out", str(out)]
    command += ["--json", str(figures), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    read: dict[str, Any] = json.loads(figures.read_text())
    return read


def spread(items: Sequence[Path], count: int) -> list[Path]:
    """So many of them, evenly spaced."""
    count = min(count, len(items))
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]


def measure(
    made: Made, work: Path, baseline: int, checkpoint: str | None, options: Sequence[str]
) -> dict[str, Any]:
    """The product over all studies, between two halves of the baseline."""
    named = ["--checkpoint", checkpoint] if checkpoint else []
    chosen = spread(made.intact, baseline)
    halves = {"before": chosen[::2], "after": chosen[1::2]}
    loops: dict[str, dict[str, Any]] = {}

    def loop(when: str) -> None:
        if halves[when]:
            loops[when] = plain_loop(halves[when], work / "plain" / when, named)

    (work / "plain").mkdir()
    loop("before")
    product = draft(made.folder, work / "out", [*named, *options])
    loop("after")
    figures: dict[str, Any] = {
        "cores": os.cpu_count(),
        "intact": len(made.intact),
        "broken": len(made.broken),
        "product": product,
    }
    if loops:
        theirs = {k: v for when in loops for k, v in read_drafts(work / "plain" / when).items()}
        ours = read_drafts(work / "out")
        pairs = [(name, ours[name], theirs[name]) for name in theirs if name in ours]
        found = compare(pairs)
        seconds = sum(own["seconds"] for own in loops.values())
        per_hour = 3600 * len(theirs) / seconds
        figures["baseline"] = {"studies_per_hour": round(per_hour, 1), **loops}
        figures["ratio"] = round(product["studies_per_hour"] / per_hour, 2)
        figures["differences"] = {"compared": len(pairs), "within": found.within, **asdict(found)}
    return figures


def show(figures: dict[str, Any]) -> None:
    """The figures as text."""
    product = figures["product"]
    print(
        f"{figures['intact']} studies and {figures['broken']} broken on {figures['cores']} cores: "
        f"{product['drafts']} drafts ({product['accepted']} accepted) in {product['seconds']:.0f} s"
    )
    print(f"\n{'':22}{'studies/h':>10}")
    print(f"{'medvlm draft':22}{product['studies_per_hour']:>10}")
    print(f"{'  once it runs':22}{product['steady_studies_per_hour'] or '-':>10}")
    if "baseline" in figures:
        baseline = figures["baseline"]
        print(f"{'plain loop':22}{baseline['studies_per_hour']:>10}")
        for when in ("before", "after"):
            if when in baseline:
                print(f"{'  ' + when:22}{baseline[when]['studies_per_hour']:>10}")
        print(f"{'ratio':22}{figures['ratio']:>10}")
    print(
        "\nseconds per study       " + "  ".join(f"{k} {v}" for k, v in product["parts_s"].items())
    )
    if "baseline" in figures:
        parts = figures["baseline"].get("after", figures["baseline"].get("before"))["parts_s"]
        print("  of the plain loop     " + "  ".join(f"{k} {v}" for k, v in parts.items()))
    if memory := product["memory"]:
        print(
            f"\nmemory {memory['first_mb']} MB from study {memory['first']} on, "
            f"{memory['end_mb']} MB at the end: ratio {memory['ratio']} "
            f"(peaks {memory['peak_first_mb']} and {memory['peak_mb']} MB)"
        )
    if found := figures.get("differences"):
        print(
            f"\nother than the plain loop's, of {found['findings']} findings in "
            f"{found['compared']} drafts: texts {found['texts']}, polarities "
            f"{found['polarities']}, evidence {found['evidence']}, boxes {found['boxes']}, "
            f"other findings in {len(found['studies'])} drafts; "
            f"probabilities by {found['probability']} at most, stability by {found['stability']} "
            f"({'within' if found['within'] else 'beyond'} the tolerance of {TOLERANCE})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--films", type=Path, help="folder of pictures; else pydicom-data's film")
    parser.add_argument("--size", type=int, nargs=2, metavar=("COLUMNS", "ROWS"))
    parser.add_argument("--bits", type=int, default=12, help="stored bits, 8 to 16")
    parser.add_argument("--broken", type=float, default=0.0, help="share of broken studies, 0..1")
    parser.add_argument("--baseline", type=int, default=20, help="studies of the plain loop")
    parser.add_argument("--checkpoint")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    parser.add_argument("--work", type=Path, help="where to make the temporary folder")
    parser.add_argument("options", nargs="*", help="after --: more options of medvlm draft")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.work) as name:
        work = Path(name)
        size = tuple(given.size) if given.size else None
        made = make_studies(
            work / "in", given.studies, given.films, size=size, bits=given.bits, broken=given.broken
        )
        figures = measure(made, work, given.baseline, given.checkpoint, given.options)
    show(figures)
    if given.out:
        given.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
