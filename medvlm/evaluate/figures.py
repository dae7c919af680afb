"""The evaluation JSON of one or several sets as tables for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medvlm.evaluate.plots import draw
from medvlm.evaluate.references import MENTIONS

Scores = dict[str, Any]

TOO_FEW = "too few"
"""Stands where a figure of so few patients or positives would say nothing."""

# (part, figure, what it is called); a dot goes one level down.
ROWS = (
    ("classification", "macro_auroc", "findings, macro AUROC (at least 10 positives each)"),
    ("classification", "macro_auroc_all", "findings, macro AUROC (all)"),
    ("classification", "macro_auprc", "findings, macro average precision"),
    ("classification", "macro_f1", "findings, macro F1 at the operating point"),
    ("report", "f1", "draft text, F1 of stated findings"),
    ("report", "tokens_only_f1", "language model from visual tokens alone, F1"),
    ("report", "prevalence_f1", "- always naming the commonest findings, F1"),
    ("report", "shuffled_f1", "- with another patient's tokens, F1"),
    ("report", "text_contradicts_classifier", "sentences that contradict the classifier"),
    ("report", "reference_reports.bleu_1", "beside people's reports, BLEU-1"),
    ("report", "reference_reports.bleu_4", "beside people's reports, BLEU-4"),
    ("report", "reference_reports.rouge_l", "beside people's reports, ROUGE-L"),
    ("grounding", "pointing_game", "opacity boxes, pointing game"),
    ("grounding", "mean_best_iou", "opacity boxes, mean best IoU"),
    ("grounding", "map50", "opacity boxes, mAP at IoU 0.5"),
    ("grounding", "boxes_on_negated", "boxes on negated findings"),
    ("grounding", "region_questions.sensitivity", '"is this an opacity?" over one, yes'),
    ("grounding", "region_questions.specificity", '"is this an opacity?" over none, no'),
    ("calibration", "ece", "calibration error (ECE)"),
    ("calibration", "brier_skill", "Brier skill against the prevalence"),
    ("anatomy", "mean_box_iou", '"where is the left lung?", mean box IoU'),
    ("anatomy", "mean_dice", "lung masks, mean Dice"),
    ("anatomy", "phrases.mean_dice", "parts of the lungs by their names, mean Dice"),
    ("anatomy", "phrases.mean_dice_untaught_words", "- in words that were not taught"),
    ("anatomy", "left_right_swapped", "lungs with sides swapped"),
    ("vqa", "closed_accuracy", "closed questions, accuracy"),
    ("vqa", "swapped_closed_accuracy", "- over another image of the same organ"),
    ("vqa", "gain", "- gain over that, paired"),
    ("vqa", "blank_closed_accuracy", "- over even grey"),
    ("vqa", "gain_over_blank", "- gain over that, paired"),
    ("vqa", "open_accuracy", "open questions, exact"),
    ("vqa", "open_token_f1", "open questions, token F1"),
    ("image_use", "checklist.macro_auroc", "language model's yes or no, macro AUROC"),
    ("image_use", "checklist.shuffled_macro_auroc", "- with another patient's tokens"),
    (
        "image_use",
        "probabilities.region_erased.share_falling",
        "positives whose probability falls where the place is erased",
    ),
    (
        "image_use",
        "probabilities.mirrored_erased.share_falling",
        "- where the mirrored place is erased",
    ),
)


class Row(NamedTuple):
    """One figure of one set; `name` is its path in the JSON."""

    name: str
    words: str
    value: float | int
    interval: Sequence[float] | None


def rows(scores: Scores) -> Iterator[Row]:
    """The figures of :data:`ROWS` that an evaluation holds."""
    for part, path, words in ROWS:
        *above, figure = path.split(".")
        own = _below(scores.get(part, {}), above)
        if (value := own.get(figure)) is not None:
            yield Row(f"{part}.{path}", words, value, own.get(f"{figure}_ci"))
        if part == "grounding" and own.get("constant_baseline"):
            fixed = own["constant_baseline"].get(figure)
            if fixed is not None:
                name = f"{part}.constant_baseline.{figure}"
                yield Row(name, "- the best fixed boxes", fixed, None)


def write_report(evaluations: Sequence[Scores], folder: Path) -> Path:
    """Writes `figures.md` and its pictures into `folder`; the page's path.

    Raises MissingExtra without matplotlib.
    """
    names: Counter[str] = Counter()
    pictures = []
    for scores in evaluations:
        name = scores["data"]["name"]
        names[name] += 1
        stem = name if names[name] == 1 else f"{name}-{names[name]}"
        pictures.append(draw(scores, folder, stem))
    page = folder / "figures.md"
    page.write_text(document(evaluations, pictures), encoding="utf-8")
    return page


def table(evaluations: Iterable[Scores]) -> str:
    """Markdown: set, what was measured, value with its 95 % interval."""
    lines = []
    for scores in evaluations:
        for row in rows(scores):
            said = " to ".join(f"{bound:.3f}" for bound in row.interval or ())
            lines.append((scores["data"]["name"], row.words, _number(row.value), said))
    return _table(("set", "measured", "value", "95 % interval"), lines)


def document(evaluations: Sequence[Scores], pictures: Sequence[Sequence[str]] = ()) -> str:
    """All tables as one Markdown page; `pictures`: files to show, for each evaluation."""
    blocks = ["# Measured quality", _sets(evaluations), table(evaluations)]
    for i, scores in enumerate(evaluations):
        blocks.append(f"# {scores['data']['name']}")
        blocks += [f"![{name}]({name})" for name in (pictures[i] if pictures else ())]
        for title, section in _SECTIONS:
            if content := section(scores):
                blocks += [f"## {title}", content]
    return "\n\n".join(blocks) + "\n"


def _sets(evaluations: Sequence[Scores]) -> str:
    lines = []
    for scores in evaluations:
        data, model = scores["data"], scores["model"]
        checkpoint = f"{model['name']} {model['version']} ({model['weights_sha256'][:12]})"
        cells = (data[key] for key in ("name", "split", "images", "groups", "questions"))
        lines.append((*map(str, cells), str(data.get("gate_would_refuse", "-")), checkpoint))
    heads = ("set", "split", "images", "patients", "questions", "the gate would refuse", "model")
    return _table(heads, lines)


def _findings(scores: Scores) -> str:
    found = scores.get("classification", {}).get("per_finding", {})
    calibrated = scores.get("calibration", {}).get("per_finding", {})
    figures = ("auroc", "auprc", "f1", "sensitivity", "specificity")
    lines = [
        (
            name,
            f"{own['n_positive']} of {own['n']}",
            *(_said(own, figure) for figure in figures),
            _said(calibrated.get(name, {}), "ece"),
        )
        for name, own in found.items()
    ]
    heads = ("finding", "films", "AUROC", "average precision", "F1", "sensitivity", "specificity")
    return _table((*heads, "ECE"), lines)


def _groups(scores: Scores) -> str:
    found = scores.get("classification", {}).get("subgroups", {})
    calibrated = scores.get("calibration", {}).get("subgroups", {})
    lines = []
    for attribute, groups in found.items():
        for name, own in groups.items():
            other = calibrated.get(attribute, {}).get(name, {})
            lines.append(
                (
                    f"{attribute}: {name}",
                    str(own["n"]),
                    str(own["n_positive"]),
                    *(_said(own, figure) for figure in ("macro_auroc", "others_macro_auroc")),
                    _said(own, "gap"),
                    ", ".join(own["macro_over"]) or "-",
                    *(_said(other, figure) for figure in ("ece", "bias")),
                )
            )
    heads = ("group", "films", "positives", "macro AUROC", "all others", "gap", "over")
    return _table((*heads, "ECE", "probability above frequency"), lines)


def _boxes(scores: Scores) -> str:
    grounding = scores.get("grounding", {})
    figures = ("pointing_game", "mean_best_iou", "recall50", "map50")
    wanted = {f"opacity, {size}": own for size, own in grounding.get("by_size", {}).items()}
    wanted |= grounding.get("per_finding", {})
    lines = [
        (name, str(own["n_boxes"]), *(_said(own, figure) for figure in figures))
        for name, own in wanted.items()
        if isinstance(own, dict)
    ]
    return _table(
        ("boxes", "true boxes", "pointing game", "mean best IoU", "found at IoU 0.5", "mAP"), lines
    )


def _questions(scores: Scores) -> str:
    vqa = scores.get("vqa", {})
    figures = ("closed_accuracy", "swapped_closed_accuracy", "gain", "gain_over_blank")
    lines = [
        (
            name,
            str(own["n"]),
            *(_said(own, figure) for figure in figures),
            str(own["n_open"]),
            _said(own, "open_token_f1"),
        )
        for kind in ("by_organ", "by_type")
        for name, own in vqa.get(kind, {}).items()
    ]
    heads = ("questions", "closed", "accuracy", "another image", "gain", "gain over grey", "open")
    return _table((*heads, "token F1"), lines)


def _confusions(scores: Scores) -> str:
    report = scores.get("report", {})
    references = report.get("reference_reports", {})
    found = {"label": report.get("label_confusion", {}), "report": references.get("confusion", {})}
    lines = [
        (f"{source}: {row}", *(str(own[column]) for column in MENTIONS))
        for source, own_rows in found.items()
        for row, own in own_rows.items()
    ]
    blocks = [_table(("a finding that is", *(f"drafted {name}" for name in MENTIONS)), lines)]
    figures = ("precision", "recall", "f1")
    agreed = [
        (mention, *(_said(own, figure) for figure in figures))
        for mention, own in references.get("polarity", {}).items()
    ]
    blocks.append(_table(("beside people's reports", "precision", "recall", "F1"), agreed))
    return "\n\n".join(filter(None, blocks))


def _image(scores: Scores) -> str:
    lines = [
        (f"{reading}: {control}", str(own["n"]), *(_said(own, f) for f in _CHANGES))
        for reading in ("probabilities", "checklist")
        for control, own in scores.get("image_use", {}).get(reading, {}).items()
        if isinstance(own, dict) and own["n"]
    ]
    return _table(("control", "positives", "mean change", "share that falls"), lines)


_CHANGES = ("mean_change", "share_falling")
_SECTIONS = (
    ("Findings", _findings),
    ("Groups", _groups),
    ("Boxes", _boxes),
    ("Questions", _questions),
    ("What the drafts say", _confusions),
    ("Use of the image", _image),
)


def _below(scores: Any, path: Sequence[str]) -> dict[str, Any]:
    for name in path:
        scores = scores.get(name, {})
    return scores if isinstance(scores, dict) else {}


def _said(scores: Scores, figure: str) -> str:
    value, interval = scores.get(figure), scores.get(f"{figure}_ci")
    if value is None or scores.get("too_few"):
        return TOO_FEW if scores.get("too_few") else "-"
    bounds = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    return _number(value) + bounds


def _number(value: float | int) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; nothing without lines."""
    if not lines:
        return ""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ("---",) * len(heads), *lines))
