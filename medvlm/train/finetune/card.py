"""The model card of a candidate, written from its evaluation: figures nobody typed."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from medvlm.config import FinetuneConfig
from medvlm.data.site_summary import SiteSummary
from medvlm.findings import PHRASES
from medvlm.train.finetune.record import Evaluation, Figure, Part

_FIGURES = (
    ("macro_auroc", "findings, macro AUROC"),
    ("mentioned_auroc", "the same among films whose report mentions the finding"),
    ("language_auroc", "language model's own yes and no, macro AUROC"),
    ("stated_f1", "findings that a draft states, F1"),
    ("ece", "calibration error (ECE)"),
    ("brier", "Brier score"),
    ("log_loss", "log loss"),
)


def model_card(
    evaluation: Evaluation, summary: SiteSummary, config: FinetuneConfig, base_card: str
) -> str:
    """The card in Markdown. `base_card`: that of the checkpoint that was fine-tuned."""
    return "\n".join(_lines(evaluation, summary, config, base_card)) + "\n"


def _lines(
    evaluation: Evaluation, summary: SiteSummary, config: FinetuneConfig, base_card: str
) -> Iterator[str]:
    own, base, site = evaluation.candidate, evaluation.base, evaluation.site
    yield f"# {own.name} {own.version}"
    yield ""
    yield (
        f"{base.name} {base.version} (weights `{base.weights_sha256[:12]}`) fine-tuned on one "
        "site's studies with `medvlm finetune`. Research use only. The program wrote this card."
    )
    yield ""
    yield f"- Weights: sha256 `{own.weights_sha256}`"
    yield f"- Prepared data: sha256 `{site.data_sha256}`"
    yield f"- Split by patient: sha256 `{site.split_sha256}`, key `{site.key_id}`"
    yield f"- Reports labelled by rules, version {summary.labeller}; medvlm {summary.medvlm}"
    yield ""
    yield "## Intended use"
    yield ""
    yield (
        "Draft reports of frontal chest radiographs at the site that it was tuned for, each "
        "sentence checked by a radiologist. What the base is not meant for, this is not either."
    )
    yield ""
    yield "## Data"
    yield ""
    yield "| | training | tuning | validation |"
    yield "|---|---|---|---|"
    for title, sides in (("patients", site.patients), ("films", site.films)):
        yield f"| {title} | " + " | ".join(str(sides[side]) for side in _SIDES) + " |"
    yield ""
    yield "Training films by what their reports say of each finding:"
    yield ""
    yield "| finding | present | absent | unknown | learned |"
    yield "|---|---|---|---|---|"
    for finding, row in site.labels.items():
        learned = "yes" if row["learned"] else "no"
        counts = " | ".join(str(row[key]) for key in ("present", "absent", "unknown"))
        yield f"| {PHRASES[finding]} | {counts} | {learned} |"
    yield ""
    yield (
        f"{site.boxes} boxes and {site.sentences} sentences of the site's own were taught. In "
        f"preparing, {_said(summary.redacted)} identifiers were replaced in sentences, "
        f"{_said(summary.dropped)} sentences left out, {_said(summary.refused)} images refused."
    )
    yield ""
    yield "## Method"
    yield ""
    yield (
        f"The findings' classifiers for up to {config.heads.epochs} epochs (learning rate "
        f"{config.heads.learning_rate:g}), then connector, probe and LoRA for up to "
        f"{config.text.epochs} ({config.text.learning_rate:g}); encoders "
        + (f"but for {config.encoder_stages} stages " if config.encoder_stages else "")
        + f"frozen; share of rehearsal {config.rehearsal if evaluation.retention else 0:g}. "
        f"What a report does not mention is unknown, but for {config.silence:.0%} of the times "
        "when it is taught as absent. The epoch, how far to go from the base's weights, and the "
        "calibration were chosen on tuning patients; validation patients only judged."
    )
    yield ""
    for lesson, share in evaluation.blend.items():
        yield f"- {lesson}: followed {share:.0%} of the way"
    yield ""
    yield "## Measured, before and after"
    yield ""
    yield (
        "The same films for both; intervals of 95 % by bootstrap over patients. AUROCs are over "
        f"findings with at least {evaluation.min_positives} positives and negatives. What a report "
        "does not mention counts as absent, what it calls uncertain is left out."
    )
    for part in (evaluation.validation, *evaluation.retention):
        yield ""
        yield from _part(part, evaluation.min_patients)
    if not evaluation.retention:
        yield ""
        yield "Retention: not measured. What the model forgot of other patients is not known."
    groups = (*evaluation.subgroups, *evaluation.retention_subgroups)
    if groups:
        yield ""
        yield "By group of patients, macro AUROC:"
        yield ""
        yield from _HEAD
        for part in groups:
            yield _row(f"{part.name} ({part.patients} patients)", part.macro_auroc, part.enough)
    yield ""
    yield "By finding on the site's validation patients, AUROC:"
    yield ""
    yield from _HEAD
    for name, own_figures in evaluation.validation.findings.items():
        known = own_figures.positives + own_figures.negatives
        title = f"{PHRASES[name]} ({own_figures.positives} of {known})"
        yield _row(title, own_figures.auroc, own_figures.enough)
    yield ""
    yield "## Limits"
    yield ""
    for warning in evaluation.warnings:
        yield f"- {warning[0].upper()}{warning[1:]}."
    yield "- Labels come from reports by rules: their mistakes are in training and in the figures."
    yield "- Reports mention what matters to the question asked: absence was often not checked."
    yield "- One site. Figures say nothing about another one, its devices or its patients."
    yield "- Places of findings and boxes were not scored again; the dense maps are the base's."
    yield (
        "- Sentences were redacted and only common words taught, which is no proof that nothing of "
        "a report was learned by heart: treat the checkpoint as the reports are treated."
    )
    yield ""
    yield "## The base's own card"
    yield ""
    yield "Its licences, data and known failures hold here too."
    yield ""
    for line in base_card.splitlines():
        yield f"> {line}".rstrip()


_SIDES = ("training", "tuning", "validation")
_HEAD = ("| | before | after | change | 95 % interval |", "|---|---|---|---|---|")


def _part(part: Part, min_patients: int) -> Iterator[str]:
    yield f"**{part.name}**: {part.films} films of {part.patients} patients"
    if not part.enough:
        yield f"(fewer than {min_patients} patients: too few to tell)"
    yield ""
    yield from _HEAD
    for name, title in _FIGURES:
        yield _row(title, getattr(part, name), True)


def _row(title: str, figure: Figure, enough: bool) -> str:
    return f"| {' | '.join(_cells(title, figure, enough))} |"


def _cells(title: str, figure: Figure, enough: bool) -> list[str]:
    if figure.before is None or figure.after is None or figure.change is None or not enough:
        return [title, "", "", "too few to tell", ""]
    interval = "{:+.3f} to {:+.3f}".format(*figure.change_ci) if figure.change_ci else ""
    return [
        title,
        f"{figure.before:.3f}",
        f"{figure.after:.3f}",
        f"{figure.change:+.3f}",
        interval,
    ]


def _said(counts: dict[str, int]) -> str:
    total = sum(counts.values())
    listed = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items())
    return f"{total} ({listed})" if counts else "0"


def figures_table(part: Part) -> Table:
    """The same figures for a terminal."""
    few = "" if part.enough else ", too few to tell"
    title = f"{part.name} ({part.patients} patients{few})"
    table = Table(title, "before", "after", "change", "95 % interval")
    for name, words in _FIGURES:
        table.add_row(*_cells(words, getattr(part, name), True))
    return table
