"""The plain loop that batch drafting is held against: one study after the other, no overlap.

    python -m benchmarks.baseline INPUT... --out DIR [--json FILE]

The same model and the same checks of evidence as the product (gate, look, over even grey, regions
erased, donors, stability), in float32 by PyTorch's eager mode on all cores; each sentence by
`transformers`' `generate` for itself, in a batch of one. It writes what `medvlm draft` writes of a
study, and prints the seconds of each one; loading the model is not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from medvlm.dicom.read import read_inputs
from medvlm.dicom.study import Study, group_studies
from medvlm.draft.compose import DraftResult, draft_study
from medvlm.draft.markdown import to_markdown
from medvlm.errors import InputError
from medvlm.model.checkpoint import Checkpoint, load_checkpoint
from medvlm.model.language import LanguageModel, Turn
from medvlm.model.vlm import Sight, VisionLanguageModel
from medvlm.records import Draft, Finding

TOLERANCE = 0.005
"""By which a probability or a share may differ from the baseline's: float32 sums in another order,
and boxes that move by a cell at the edge of their cut-off."""


class OneByOne:
    """The model, except that each sentence is written by itself, by `generate`."""

    def __init__(self, model: VisionLanguageModel) -> None:
        assert isinstance(model.language, LanguageModel), "the baseline is run by PyTorch"
        self._model, self._language = model, model.language
        self.sentences = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def write(
        self,
        sight: Sight,
        turns: Sequence[Turn],
        max_tokens: int = 40,
        guesses: object = (),
        *,
        exactly: bool = True,
    ) -> list[str]:
        """Greedy answers, a call of `generate` for each, whatever was guessed."""
        return [self._write(sight, turn, max_tokens) for turn in turns]

    @torch.no_grad()
    def _write(self, sight: Sight, turn: Turn, max_tokens: int) -> str:
        language = self._language
        # Ends where a yes or no is told apart: the words before that are not given here.
        prompt = self._model.sequences(sight, [[turn]]).embeddings
        prompt = prompt[:, : prompt.shape[1] - len(language.lead)]
        ids = language.base.generate(
            inputs_embeds=prompt,
            attention_mask=torch.ones(prompt.shape[:2], dtype=torch.long),
            max_new_tokens=max_tokens,
            do_sample=False,
            eos_token_id=language.end[0],
            pad_token_id=language.end[0],
        )
        self.sentences += 1
        text: str = language.tokenizer.decode(ids[0], skip_special_tokens=True)
        return text.strip()


@dataclass(frozen=True)
class Times:
    """Seconds of each study, and of its parts, of those that ended in a draft."""

    studies: list[float]
    parts: list[dict[str, float]]
    failed: int

    def summary(self) -> dict[str, Any]:
        """Means, ready for JSON."""
        taken = sum(self.studies)
        return {
            "studies": len(self.studies),
            "failed": self.failed,
            "seconds": round(taken, 2),
            "studies_per_hour": round(3600 * len(self.studies) / taken, 1) if taken else 0.0,
            "median_s": round(statistics.median(self.studies), 3) if self.studies else None,
            "parts_s": mean_parts(self.parts),
        }


def run(checkpoint: Checkpoint, inputs: Iterable[Path], out: Path) -> Times:
    """Reads, drafts and writes study after study; one that fails is counted and left.

    Raises RuntimeError if drafts came about without `OneByOne`: the figures would mean nothing.
    """
    model = OneByOne(checkpoint.model)
    slow = replace(checkpoint, model=cast(VisionLanguageModel, model))
    times = Times([], [], 0)
    failed = 0
    paths = list(inputs)
    for study in group_studies(read_inputs(paths[:1])):  # not counted: what a first draft costs
        with contextlib.suppress(InputError):
            draft_study(slow, study)
    for path in paths:
        start = time.perf_counter()
        reading = read_inputs(path)
        failed += len(reading.failed)
        for study in group_studies(reading):
            try:
                result = draft_study(slow, study)
            except InputError:
                failed += 1
                continue
            write(result, study, out / study.name)
            times.studies.append(time.perf_counter() - start)
            times.parts.append(result.draft.timings_s)
            start = time.perf_counter()
    if any("stability" in own for own in times.parts) and not model.sentences:
        raise RuntimeError("the sentences were not written by the baseline's own model")
    return replace(times, failed=failed)


def write(result: DraftResult, study: Study, folder: Path) -> None:
    """The files of one study, as `medvlm draft` writes them."""
    (folder / "crops").mkdir(parents=True, exist_ok=True)
    if result.overlay is not None:
        result.overlay.save(folder / "overlay.png")
    for number, (finding, picture) in enumerate(result.crops.items(), 1):
        picture.save(folder / "crops" / f"{number:02}-{finding}.png")
    (folder / "draft.md").write_text(to_markdown(result.draft, f"Draft {study.name}"))
    (folder / "draft.json").write_text(result.draft.model_dump_json(indent=2) + "\n")


def mean_parts(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean seconds of each part over the studies that have it."""
    values: dict[str, list[float]] = defaultdict(list)
    for own in parts:
        for name, seconds in own.items():
            values[name].append(seconds)
    return {name: round(statistics.fmean(own), 3) for name, own in values.items()}


@dataclass(frozen=True)
class Differences:
    """How far drafts lie from the baseline's.

    `probability` and `stability` are the largest differences; `texts`, `polarities`, `evidence`
    count findings, of `findings`; `boxes` counts those whose number of regions differs; `studies`
    names what only one of the two accepted or wrote of.
    """

    findings: int
    texts: int
    polarities: int
    evidence: int
    boxes: int
    probability: float
    stability: float
    studies: list[str]

    @property
    def within(self) -> bool:
        """Whether the drafts are the same but for `TOLERANCE`; texts may be worded otherwise."""
        odd = self.polarities or self.evidence or self.boxes or self.studies
        return not odd and max(self.probability, self.stability) <= TOLERANCE


def compare(pairs: Iterable[tuple[str, Draft, Draft]]) -> Differences:
    """Compares drafts of the same study, given with its name: the product's, the baseline's."""
    count = texts = polarities = evidence = boxes = 0
    probability = stability = 0.0
    studies = []
    for name, ours, theirs in pairs:
        own, other = _by_finding(ours), _by_finding(theirs)
        if ours.input_check.accepted != theirs.input_check.accepted or own.keys() != other.keys():
            studies.append(name)
        for finding in own.keys() & other.keys():
            a, b = own[finding], other[finding]
            count += 1
            texts += a.text != b.text
            polarities += a.polarity != b.polarity
            evidence += _status(a) != _status(b)
            boxes += len(a.regions) != len(b.regions)
            probability = max(probability, *_apart(a, b))
        if ours.stability is not None and theirs.stability is not None:
            stability = max(stability, abs(ours.stability - theirs.stability))
    return Differences(
        count,
        texts,
        polarities,
        evidence,
        boxes,
        round(probability, 6),
        round(stability, 6),
        studies,
    )


def read_drafts(out: Path) -> dict[str, Draft]:
    """The drafts below a folder of results, by study."""
    return {
        path.parent.name: Draft.model_validate_json(path.read_text(encoding="utf-8"))
        for path in sorted(out.glob("*/draft.json"))
    }


def _by_finding(draft: Draft) -> dict[str, Finding]:
    return {finding.finding: finding for finding in draft.findings}


def _status(finding: Finding) -> str | None:
    return finding.evidence.status if finding.evidence else None


def _apart(a: Finding, b: Finding) -> list[float]:
    """Differences of all probabilities that both have."""
    out = [abs(a.probability - b.probability)]
    if a.evidence and b.evidence:
        for name in ("p_image", "p_erased", "p_blank", "p_other"):
            out.append(abs(getattr(a.evidence, name) - getattr(b.evidence, name)))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inputs", type=Path, nargs="+", help="studies, a file or folder each")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--checkpoint")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    checkpoint = load_checkpoint(given.checkpoint)
    times = run(checkpoint, given.inputs, given.out)
    figures = {"threads": torch.get_num_threads(), **times.summary()}
    print(json.dumps(figures, indent=2))
    if given.json:
        given.json.write_text(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
