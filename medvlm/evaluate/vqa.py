"""Questions over images, and the same questions over another image of the same organ, or none."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medvlm.data.sets import Question
from medvlm.draft.answer import reply
from medvlm.draft.look import Seen, look_at
from medvlm.evaluate.bootstrap import Counts, mean_with_interval, resamples, unless_few
from medvlm.evaluate.scan import look_at_files, progress_bar
from medvlm.evaluate.text import normalise_answer, token_f1
from medvlm.image.hide import blank
from medvlm.model.checkpoint import Checkpoint


def vqa(checkpoint: Checkpoint, questions: Sequence[Question], batch_size: int) -> dict[str, Any]:
    """The `vqa` part of the evaluation JSON; intervals by image.

    `swapped_closed_accuracy` and `gain` are over the closed questions that have a control: a
    question over the only image of its organ has none. `blank_closed_accuracy`: over even grey,
    with the gate's word of the image itself, so that the same part of the product answers. What the
    file or the gate tells (the modality) is answered alike over all three: it adds to no gain.
    `by_organ`, `by_type`: the same of each organ and each kind of question; a question of two kinds
    counts in both.
    """
    images = sorted({question.image for question in questions})
    seen = dict(zip(images, look_at_files(checkpoint, images, batch_size, "looking"), strict=True))
    other = swapped_images(questions)
    closed = [question for question in questions if question.closed]
    opened = [question for question in questions if not question.closed]
    paired = [question for question in closed if other[question.image] != question.image]
    with progress_bar() as progress:
        total = 2 * len(closed) + len(paired) + len(opened)
        task = progress.add_task("asking", total=total)

        def ask(asked: Sequence[Question], sight: Callable[[Path], Seen]) -> dict[Question, str]:
            answers = {}
            for question in asked:
                text = reply(checkpoint, sight(question.image), question.question).text
                answers[question] = normalise_answer(text)
                progress.advance(task)
            return answers

        own = ask(closed, seen.__getitem__)
        swapped = ask(paired, lambda image: seen[other[image]])
        empty = _blanks(checkpoint, seen, batch_size)
        without = ask(closed, empty.__getitem__)
        free = ask(opened, seen.__getitem__)
    right, control, nothing, exact = (
        np.array([_right(question, answers) for question in questions])
        for answers in (own, swapped, without, free)
    )
    table = {
        "closed_accuracy": right,
        "swapped_closed_accuracy": control,
        "gain": right - control,
        "blank_closed_accuracy": nothing,
        "gain_over_blank": right - nothing,
        "open_accuracy": exact,
        "open_token_f1": np.array(
            [token_f1(q.answer, free[q]) if q in free else np.nan for q in questions]
        ),
    }
    counts = resamples([question.group for question in questions])
    organs = {question.organ for question in questions}
    kinds = {kind for question in questions for kind in _kinds(question)}
    return {
        "n_closed": len(closed),
        "n_open": len(opened),
        "n_images": len(images),
        "n_closed_without_control": len(closed) - len(paired),
        "gate_would_refuse": sum(not item.check.accepted for item in seen.values()),
        "closed_answers": dict(Counter(own[question] for question in closed).most_common(5)),
        **_means(table, counts),
        "by_organ": {
            organ: _among(questions, [q.organ == organ for q in questions], table, counts)
            for organ in sorted(organs)
        },
        "by_type": {
            kind: _among(questions, [kind in _kinds(q) for q in questions], table, counts)
            for kind in sorted(kinds)
        },
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


def _blanks(checkpoint: Checkpoint, seen: dict[Path, Seen], batch_size: int) -> dict[Path, Seen]:
    images = [blank(item.image) for item in seen.values()]
    return {
        path: replace(nothing, check=seen[path].check)
        for path, nothing in zip(seen, look_at(checkpoint, images, batch_size), strict=True)
    }


def _right(question: Question, answers: dict[Question, str]) -> float:
    """1 or 0, NaN if it was not asked."""
    if question not in answers:
        return float("nan")
    return float(normalise_answer(question.answer) == answers[question])


def _kinds(question: Question) -> list[str]:
    kinds = [kind.strip().upper() for kind in question.kind.split(",")]
    return [kind for kind in kinds if kind]


def _among(
    questions: Sequence[Question], chosen: list[bool], table: dict[str, np.ndarray], counts: Counts
) -> dict[str, Any]:
    """The scores of some of the questions; no interval from fewer than 5 images."""
    own = np.array(chosen)
    scores = _means({name: values[own] for name, values in table.items()}, counts[:, own])
    asked = [question for question, kept in zip(questions, chosen, strict=True) if kept]
    closed = sum(question.closed for question in asked)
    return unless_few(scores, [question.group for question in asked]) | {
        "n": closed,
        "n_open": len(asked) - closed,
    }


def _means(table: dict[str, np.ndarray], counts: Counts) -> dict[str, Any]:
    """Of each score that was taken at all, the mean and its interval."""
    scores: dict[str, Any] = {}
    for name, values in table.items():
        if not np.isnan(values).all():
            scores |= mean_with_interval(name, values, counts)
    return scores
