"""Questions over images, and the same questions over another image of the same organ."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medvlm.data.sets import Question
from medvlm.draft.answer import reply
from medvlm.draft.look import Seen
from medvlm.evaluate.bootstrap import replicates, with_interval
from medvlm.evaluate.metrics import normalise_answer, token_f1
from medvlm.evaluate.scan import look_at_files, progress_bar
from medvlm.model.checkpoint import Checkpoint


def vqa(checkpoint: Checkpoint, questions: Sequence[Question], batch_size: int) -> dict[str, Any]:
    """The `vqa` part of the evaluation JSON; intervals by image.

    `swapped_closed_accuracy` and `gain` are over the closed questions that have a control: a
    question over the only image of its organ has none.
    """
    images = sorted({question.image for question in questions})
    seen = dict(zip(images, look_at_files(checkpoint, images, batch_size, "looking"), strict=True))
    other = swapped_images(questions)
    closed = [question for question in questions if question.closed]
    paired = np.array([other[question.image] != question.image for question in closed], dtype=bool)
    opened = [question for question in questions if not question.closed]
    with progress_bar() as progress:
        task = progress.add_task("asking", total=len(closed) + int(paired.sum()) + len(opened))

        def say(question: Question, image: Path) -> str:
            progress.advance(task)
            return _answer(checkpoint, seen[image], question)

        own = [say(q, q.image) for q in closed]
        swapped = [
            say(q, other[q.image]) if pair else "" for q, pair in zip(closed, paired, strict=True)
        ]
        free = [say(q, q.image) for q in opened]
    scores: dict[str, Any] = {
        "n_closed": len(closed),
        "n_open": len(opened),
        "n_images": len(images),
        "n_closed_without_control": int((~paired).sum()),
        "gate_would_refuse": sum(not item.check.accepted for item in seen.values()),
        "closed_answers": dict(Counter(own).most_common(5)),
    }
    if closed:
        right = np.array([_right(q, a) for q, a in zip(closed, own, strict=True)], dtype=float)
        control = np.array(
            [_right(q, a) for q, a in zip(closed, swapped, strict=True)], dtype=float
        )
        sampled = replicates(lambda rows: right[rows].mean(), _groups(closed))
        scores |= with_interval("closed_accuracy", float(right.mean()), sampled)
        organs = np.array([question.organ for question in closed])
        scores["by_organ"] = {
            str(organ): _beside_control(right, control, organs == organ, paired)
            for organ in np.unique(organs)
        }
        if paired.any():
            values = np.stack([control, right - control])[:, paired]
            own_groups = np.array(_groups(closed))[paired]
            sampled = replicates(lambda rows: values[:, rows].mean(axis=1), own_groups)
            for i, name in enumerate(("swapped_closed_accuracy", "gain")):
                scores |= with_interval(name, float(values[i].mean()), sampled[:, i])
    if opened:
        exact = np.array([_right(q, a) for q, a in zip(opened, free, strict=True)], dtype=float)
        partial = np.array([token_f1(q.answer, a) for q, a in zip(opened, free, strict=True)])
        values = np.stack([exact, partial])
        sampled = replicates(lambda rows: values[:, rows].mean(axis=1), _groups(opened))
        scores |= with_interval("open_accuracy", float(exact.mean()), sampled[:, 0])
        scores |= with_interval("open_token_f1", float(partial.mean()), sampled[:, 1])
    return scores


def _beside_control(
    right: np.ndarray, control: np.ndarray, chosen: np.ndarray, paired: np.ndarray
) -> dict[str, float | int | None]:
    both = chosen & paired
    return {
        "closed_accuracy": float(right[chosen].mean()),
        "swapped_closed_accuracy": float(control[both].mean()) if both.any() else None,
        "n": int(chosen.sum()),
    }


def swapped_images(questions: Sequence[Question]) -> dict[Path, Path]:
    """For every image the next one of its organ, in the order of their names, around in a ring."""
    organs: dict[str, set[Path]] = defaultdict(set)
    for question in questions:
        organs[question.organ].add(question.image)
    out: dict[Path, Path] = {}
    for images in organs.values():
        ring = sorted(images)
        out |= dict(zip(ring, [*ring[1:], ring[0]], strict=True))
    return out


def _answer(checkpoint: Checkpoint, seen: Seen, question: Question) -> str:
    return normalise_answer(reply(checkpoint, seen, question.question).text)


def _right(question: Question, answer: str) -> bool:
    return normalise_answer(question.answer) == answer


def _groups(questions: Sequence[Question]) -> list[str]:
    return [question.group for question in questions]
