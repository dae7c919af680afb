"""Who is scored, and the parts of the evaluation that both checkpoints' predictions give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medvlm.config import FinetuneConfig
from medvlm.data.sets import DataSet, Film
from medvlm.data.site_summary import SiteSummary
from medvlm.findings import FINDINGS
from medvlm.train.finetune.compare import compare, subgroups, truth_of
from medvlm.train.finetune.material import Sides, patients, scored, silence_of
from medvlm.train.finetune.predict import Predictions
from medvlm.train.finetune.record import Part, SiteData

VALIDATION = "validation"


def films_to_score(
    own: Sides, retention: Sequence[DataSet], most: int
) -> dict[str, Sequence[Film]]:
    """The site's validation films, then at most `most` of each retention set, under its kind.

    A folder's name may say whose it is; the kind does not.
    """
    named: dict[str, Sequence[Film]] = {VALIDATION: own.validation}
    seen: Counter[str] = Counter()
    for data in retention:
        seen[data.kind] += 1
        number = f" {seen[data.kind]}" if seen[data.kind] > 1 else ""
        named[f"retention: {data.kind}{number}"] = scored(data, most)
    return named


def assess(
    films: Mapping[str, Sequence[Film]],
    own: Sides,
    before: Mapping[str, Predictions],
    after: Mapping[str, Predictions],
    config: FinetuneConfig,
) -> dict[str, Any]:
    """The evaluation's parts by their names in the record."""
    parts: list[Part] = []
    groups: list[list[Part]] = []
    for name, each in films.items():
        both = before[name], after[name], silence_of(each, own.silent)
        least = config.min_patients, config.min_positives
        prefix = "" if name == VALIDATION else f"{name}, "
        parts.append(compare(name, each, *both, *least))
        groups.append(list(subgroups(each, *both, *least, prefix=prefix)))
    return {
        "validation": parts[0],
        "subgroups": tuple(groups[0]),
        "retention": tuple(parts[1:]),
        "retention_subgroups": tuple(part for group in groups[1:] for part in group),
        "min_patients": config.min_patients,
        "min_positives": config.min_positives,
    }


def site_data(summary: SiteSummary, own: Sides, sentences: int) -> SiteData:
    """Counts and hashes of what was learned from."""
    named = {"training": own.training, "tuning": own.tuning, VALIDATION: own.validation}
    truth = truth_of(own.training)
    return SiteData(
        data_sha256=summary.data_sha256 or "",
        split_sha256=summary.split_sha256,
        key_id=summary.key_id,
        patients={side: patients(films) for side, films in named.items()},
        films={side: len(films) for side, films in named.items()},
        labels={
            finding: {
                "present": int((truth[:, f] == 1).sum()),
                "absent": int((truth[:, f] == 0).sum()),
                "unknown": int(np.isnan(truth[:, f]).sum()),
                "learned": int(own.learnable[f]),
            }
            for f, finding in enumerate(FINDINGS)
        },
        boxes=sum(len(film.boxes) for film in own.training),
        sentences=sentences,
    )
