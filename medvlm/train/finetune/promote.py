"""Promotion: a candidate becomes the checkpoint in use if its evaluation passes the site's gates.

The evaluation names the very files it was made from, so figures cannot be carried over to other
weights. A gate whose figure cannot be told because there are too few patients fails, but for those
of subgroups: small ones are named in a warning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from medvlm.config import PromotionGates
from medvlm.errors import CheckpointError, PromotionRefused
from medvlm.model import registry
from medvlm.model.checkpoint import CONFIG, DEFAULT, CheckpointConfig, load_checkpoint
from medvlm.model.registry import Entry, GateResult
from medvlm.resources import resource_dir
from medvlm.train.finetune.record import EVALUATION, Evaluation, Figure, Identity, Part


@dataclass(frozen=True)
class Judgement:
    """What the gates say of a candidate."""

    results: tuple[GateResult, ...]
    warnings: tuple[str, ...]

    @property
    def failed(self) -> tuple[GateResult, ...]:
        return tuple(result for result in self.results if result.passed is False)


def promote(folder: Path, gates: PromotionGates, llm_path: Path | None = None) -> Entry:
    """Judges a candidate, copies it into the registry, tries the copy and puts it to use.

    Raises PromotionRefused if a gate fails or the candidate is not what was evaluated,
    CheckpointError if it cannot be loaded or the registry not be written.
    """
    evaluation, digest = read_evaluation(folder)
    verdict = judge(evaluation, gates)
    if verdict.failed:
        said = "; ".join(f"{result.gate}: {result.note}" for result in verdict.failed)
        raise PromotionRefused(
            f"fails {len(verdict.failed)} of {len(verdict.results)} gates: {said}",
            file=str(folder),
            remedy="Nothing was changed; the checkpoint in use stays.",
        )
    config = CheckpointConfig.from_yaml(folder / CONFIG)

    def finish(copy: Path) -> None:
        read_evaluation(copy)
        config.model_copy(update={"status": "released"}).to_yaml(copy / CONFIG)
        load_checkpoint(str(copy), llm_path)

    return registry.add(
        folder,
        finish,
        name=config.name,
        version=config.version,
        weights_sha256=config.weights_sha256,
        evaluation_sha256=digest,
        gates=verdict.results,
        warnings=verdict.warnings,
    )


def read_evaluation(folder: Path) -> tuple[Evaluation, str]:
    """The evaluation of a candidate, and its sha256.

    Raises PromotionRefused if there is none or it is not about this configuration. (The weights are
    held against the configuration when the candidate is loaded.)
    """
    path, config_path = folder / EVALUATION, folder / CONFIG
    if not config_path.is_file():
        raise CheckpointError(
            "is no checkpoint", file=str(folder), remedy="Give the folder OUT/checkpoint."
        )
    try:
        content = path.read_bytes()
        evaluation = Evaluation.model_validate_json(content)
    except OSError as error:
        raise PromotionRefused(
            "was not evaluated", file=str(folder), remedy="Only what `medvlm finetune` made can be."
        ) from error
    except ValidationError as error:
        raise PromotionRefused("is not a whole evaluation", file=str(path)) from error
    config = CheckpointConfig.from_yaml(config_path)
    if config.name == DEFAULT:
        raise PromotionRefused(
            f"has the default's own name, {DEFAULT}",
            file=str(folder),
            remedy="Fine-tune it under another --name.",
        )
    if (
        config.status != "candidate"
        or evaluation.candidate.config_sha256
        != hashlib.sha256(config_path.read_bytes()).hexdigest()
        or evaluation.candidate.weights_sha256 != config.weights_sha256
    ):
        raise PromotionRefused(
            "was changed since it was evaluated", file=str(folder), remedy="Fine-tune it again."
        )
    return evaluation, hashlib.sha256(content).hexdigest()


def judge(evaluation: Evaluation, gates: PromotionGates) -> Judgement:
    """Holds the figures against the gates, and the base against the checkpoint in use."""
    warnings = [*evaluation.warnings, *_lineage(evaluation.base)]
    if not evaluation.retention:
        warnings.append("retention was not measured: what the model forgot is not known")
    for part in (*evaluation.subgroups, *evaluation.retention_subgroups):
        if part.macro_auroc.change is None or not part.enough:
            warnings.append(f"{part.name}: {part.patients} patients are too few to tell")
    return Judgement(tuple(_results(evaluation, gates)), tuple(warnings))


def _lineage(base: Identity) -> Iterator[str]:
    """Whether "before" is what is in use; if not, the gain that the gates see is over another."""
    standing = registry.stack()
    if standing:
        used: Entry | CheckpointConfig = standing[-1]
    else:
        used = CheckpointConfig.from_yaml(resource_dir("checkpoints") / DEFAULT / CONFIG)
    if (base.version, base.weights_sha256) != (used.version, used.weights_sha256):
        yield (
            f"made from {base.name} {base.version}, not from {used.name} {used.version}, which is "
            "in use: the two were not compared, and what that one learned is not in this one"
        )


def _results(evaluation: Evaluation, gates: PromotionGates) -> Iterator[GateResult]:
    site = evaluation.validation
    macro, ci = site.macro_auroc, site.macro_auroc.change_ci
    yield from _at_least("min_patients", gates.min_patients, site.patients)
    yield from _at_least("min_macro_auroc", gates.min_macro_auroc, macro.after)
    yield from _at_least("min_gain", gates.min_gain, macro.change)
    yield from _at_least("max_likely_loss", _under(gates.max_likely_loss), ci and ci[0])
    yield from _at_most("max_ece", gates.max_ece, site.ece.after)
    for name, finding in site.findings.items():
        if finding.enough:
            yield from _drop("max_finding_drop", gates.max_finding_drop, name, finding.auroc)
    for part in (*evaluation.subgroups, *evaluation.retention_subgroups):
        if part.enough and part.macro_auroc.change is not None:
            yield from _part("max_subgroup_drop", gates.max_subgroup_drop, part)
    for part in evaluation.retention:
        yield from _part("max_retention_drop", gates.max_retention_drop, part)
        gate = f"max_retention_loss ({part.name})"
        yield from _at_most(gate, gates.max_retention_loss, part.log_loss.change)
    if gates.retention_required:
        measured = len(evaluation.retention)
        yield from _at_least("retention_required", 1, measured)


def _under(limit: float | None) -> float | None:
    return None if limit is None else -limit


def _part(gate: str, limit: float | None, part: Part) -> Iterator[GateResult]:
    return _drop(gate, limit, part.name, part.macro_auroc)


def _drop(gate: str, limit: float | None, name: str, figure: Figure) -> Iterator[GateResult]:
    return _at_least(f"{gate} ({name})", _under(limit), figure.change)


def _at_least(gate: str, limit: float | None, value: float | None) -> Iterator[GateResult]:
    if limit is not None:
        yield _result(gate, limit, value, value is not None and value >= limit, "at least")


def _at_most(gate: str, limit: float | None, value: float | None) -> Iterator[GateResult]:
    if limit is not None:
        yield _result(gate, limit, value, value is not None and value <= limit, "at most")


def _result(gate: str, limit: float, value: float | None, passed: bool, words: str) -> GateResult:
    said = "too few patients to tell" if value is None else f"{value:.3g}"
    note = f"{said}, must be {words} {limit:g}"
    return GateResult(gate=gate, limit=limit, value=value, passed=passed, note=note)
