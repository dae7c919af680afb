"""`medvlm finetune`: from a site's folder to a candidate checkpoint, step by step.

    OUT/run.json          what this run is of, so that it goes on only as itself
    OUT/data/             the prepared, de-identified set
    OUT/work/             predictions, training state, features; removed at the end
    OUT/log-*.jsonl       the epochs of each lesson
    OUT/checkpoint/       the candidate; appears when it is whole

A step whose result is there is not done again. Everything that is written is written beside its
place and renamed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from medvlm import __version__
from medvlm.config import DataConfig, FinetuneConfig
from medvlm.data.prepare import SUMMARY, plan, write_prepared
from medvlm.data.sets import load_set
from medvlm.data.site import Site
from medvlm.data.site_summary import SiteSummary
from medvlm.dicom.confidentiality import Key
from medvlm.errors import ConfigError, DataSetError
from medvlm.findings import NIH_FINDINGS
from medvlm.model.candidates import note_candidate
from medvlm.model.checkpoint import (
    CARD,
    CONFIG,
    Checkpoint,
    CheckpointConfig,
    load_checkpoint,
    resolve_checkpoint,
    save_checkpoint,
)
from medvlm.model.digests import sha256_of
from medvlm.model.extras import FILE as EXTRAS
from medvlm.model.extras import save_extras
from medvlm.model.references import References
from medvlm.train.finetune.assess import assess, films_to_score, site_data
from medvlm.train.finetune.card import model_card
from medvlm.train.finetune.compare import filled, truth_of
from medvlm.train.finetune.extras import extras_after
from medvlm.train.finetune.journal import LOCK, Journal, Say, write_whole
from medvlm.train.finetune.learn import learn, train_config
from medvlm.train.finetune.material import (
    Sides,
    gather,
    recalled,
    retention_sets,
    sides,
    silence_of,
)
from medvlm.train.finetune.predict import Predictions, predict
from medvlm.train.finetune.recalibrate import recalibrate, recalibrated
from medvlm.train.finetune.record import EVALUATION, Evaluation, Identity
from medvlm.train.finetune.targets import SiteAsker, taught_sentences
from medvlm.train.targets import Asker

DATA, WORK, CHECKPOINT = "data", "work", "checkpoint"
LOOK_AT_ONCE = 8


@dataclass(frozen=True)
class Request:
    """What is asked for. `site`: what `read_site` found; `secret`: the key of the pseudonyms.

    `base`, `name`: of the checkpoint to start from and of the candidate, None for the usual ones.
    """

    site: Site
    out: Path
    secret: bytes
    config: FinetuneConfig
    base: str | None = None
    name: str | None = None
    retention: Path | None = None
    llm_path: Path | None = None


def finetune(request: Request, say: Say = lambda text: None) -> Evaluation:
    """Makes OUT/checkpoint and returns its evaluation; goes on where an earlier run stopped.

    Raises DataSetError if OUT holds another run or is being worked in, or the site has too little
    to learn from; ConfigError if the base is no model of single images.
    """
    request.out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(request.out / LOCK, timeout=0):
            return _Run(request, say).run()
    except Timeout as error:
        raise DataSetError(
            "is being worked in by another process",
            file=str(request.out),
            remedy="Wait for it, or give --out another folder.",
        ) from error


class _Run:
    def __init__(self, request: Request, say: Say) -> None:
        self.request, self.config, self.out = request, request.config, request.out
        self.work = request.out / WORK
        self.base_folder = resolve_checkpoint(request.base)
        self.base = CheckpointConfig.from_yaml(self.base_folder / CONFIG)
        if self.base.model.encoder.slices:
            raise ConfigError(
                "the checkpoint reads volumes", remedy="Only models of single images are tuned."
            )
        self.retention = retention_sets(request.retention) if request.retention else []
        self.key = self._key()
        self.journal = Journal(self.out, self.key, say)

    def run(self) -> Evaluation:
        self.journal.begin()
        done = self.out / CHECKPOINT / EVALUATION
        if not done.is_file():
            with self.journal.step("prepare", "1/6 preparing the de-identified set"):
                summary = self._prepare()
            data = load_set(self.out / DATA)
            own = sides(data, self.config.tuning)
            with self.journal.step("before", "2/6 what the base says"):
                base = load_checkpoint(str(self.base_folder), self.request.llm_path)
                before = self._judged(base, own, "before")
            with self.journal.step("learn", "3/6 learning"):
                blends, sentences = self._learn(base, own)
            del base
            with self.journal.step("recalibrate", "4/6 recalibrating on tuning patients"):
                candidate = self._recalibrated(own)
            with self.journal.step("after", "5/6 what the candidate says"):
                # The classifiers alone have no say in what the language model answers.
                same = None if blends.get("text") else before
                after = self._judged(candidate, own, "after", same)
            with self.journal.step("compare", "6/6 comparing"):
                candidate.config.to_yaml(self.work / CONFIG)
                films = films_to_score(own, self.retention, self.config.retention_films)
                parts = assess(films, own, before, after, self.config)
            evaluation = Evaluation(
                base=_identity(self.base, self.base_folder / CONFIG),
                candidate=_identity(candidate.config, self.work / CONFIG),
                site=site_data(summary, own, sentences),
                blend=blends,
                seconds=round(sum(self.journal.seconds.values()), 1),
                warnings=self._warnings(summary),
                **parts,
            )
            self._finish(evaluation, summary, candidate)
        evaluation = Evaluation.model_validate_json(done.read_bytes())
        shutil.rmtree(self.work, ignore_errors=True)
        own_config = evaluation.candidate
        folder = self.out / CHECKPOINT
        note_candidate(folder, own_config.name, own_config.version, own_config.config_sha256)
        return evaluation

    # ---- what this run is ----

    def _key(self) -> str:
        """Names the run: its data, settings, base and retention sets."""
        parts = [__version__, self.config.model_dump_json(), self._name()]
        parts += [self.base.model_dump_json(), _fingerprint(self.request.site, self.request.secret)]
        for data in self.retention:
            parts.append(hashlib.sha256((data.root / "labels.csv").read_bytes()).hexdigest())
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _name(self) -> str:
        base = self.base.name
        return self.request.name or (base if base.endswith("-site") else f"{base}-site")

    # ---- the steps ----

    def _prepare(self) -> SiteSummary:
        place = self.out / DATA / SUMMARY
        if place.is_file():
            return SiteSummary.model_validate_json(place.read_bytes())
        made = plan(self.request.site, self.base.gate, self.request.secret)
        return write_prepared(made, self.out / DATA)

    def _judged(
        self,
        checkpoint: Checkpoint,
        own: Sides,
        when: str,
        same: dict[str, Predictions] | None = None,
    ) -> dict[str, Predictions]:
        """What a checkpoint says of everybody who is scored, by the part's name.

        `same`: of a checkpoint with the same first encoder, connector and language model.
        """
        films = films_to_score(own, self.retention, self.config.retention_films)
        return {
            name: predict(
                checkpoint,
                each,
                self.work / f"{when}-{i}.npz",
                LOOK_AT_ONCE,
                f"{when}: {name}",
                same[name].margins if same else None,
            )
            for i, (name, each) in enumerate(films.items())
        }

    def _learn(self, base: Checkpoint, own: Sides) -> tuple[dict[str, float], int]:
        """Trains and saves; returns how far each lesson was followed, and sentences taught."""
        note = self.work / "learned.json"
        taught = self._sentences(own)
        count = sum(map(len, taught.values()))
        if note.is_file():
            return dict(json.loads(note.read_text(encoding="utf-8"))), count
        cache = self.work / "cache"
        material = gather(own, self.retention, self.config, cache)
        data = DataConfig(root=self.out / DATA, per_epoch={}, cache=cache)
        run = train_config(self.config, base.model, data, self.work / "train")
        plain = Asker.build([], self.base.model.encoder.size, self.config.most_turns)
        asker = SiteAsker(plain, taught, own.silent, self.config.silence)
        blends = learn(base.model, material, asker, self.config, run, self.key).blends
        tuned = self.work / "tuned"
        shutil.rmtree(tuned, ignore_errors=True)
        extras = extras_after(base, own, self.retention, bool(self.config.encoder_stages))
        save_checkpoint(base.model, self._candidate_config(), tuned, extras)
        write_whole(note, json.dumps(blends))
        return blends, count

    def _sentences(self, own: Sides) -> dict[str, Any]:
        """The site's sentences to teach, of training patients, by image name."""
        patient_of = {film.image.name: film.group for film in own.training}
        reports: dict[str, list[str]] = {}
        path = self.out / DATA / "reports.jsonl"
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            for image in row["images"]:
                reports[image] = [sentence["text"] for sentence in row["sentences"]]
        return taught_sentences(reports, patient_of, self.config.patients_per_word)

    def _candidate_config(self) -> CheckpointConfig:
        version = f"{self.base.version.split('+')[0]}+site.{self.key[:8]}"
        named = {"name": self._name(), "version": version, "status": "candidate"}
        return self.base.model_copy(update=named)

    def _recalibrated(self, own: Sides) -> Checkpoint:
        """The tuned weights, calibrated on tuning patients and those of retention sets."""
        tuned = load_checkpoint(str(self.work / "tuned"), self.request.llm_path)
        films = [*own.tuning, *(film for data in self.retention for film in recalled(data))]
        path = self.work / "tuning.npz"
        unasked = np.full((len(films), len(NIH_FINDINGS)), np.nan)
        said = predict(tuned, films, path, LOOK_AT_ONCE, "tuning patients", unasked)
        truth = filled(truth_of(films), silence_of(films, own.silent))
        config = recalibrate(tuned.config, truth, said.probabilities)
        after = recalibrated(tuned.config, config, said.probabilities)
        extras = replace(tuned.extras, references=References.of(truth, after))
        save_extras(extras, self.work / EXTRAS)
        config = config.model_copy(update={"extras_sha256": sha256_of(self.work / EXTRAS)})
        return replace(tuned, config=config, extras=extras)

    def _warnings(self, summary: SiteSummary) -> tuple[str, ...]:
        """Whether validation patients may have trained the base, when a site made that one too."""
        try:
            content = (self.base_folder / EVALUATION).read_bytes()
        except FileNotFoundError:
            return ()
        earlier = Evaluation.model_validate_json(content).site
        if earlier.key_id == summary.key_id:
            return ()
        return (
            f"the base was fine-tuned with another key ({earlier.key_id}): patients who validate "
            "here may have trained it",
        )

    def _finish(self, evaluation: Evaluation, summary: SiteSummary, candidate: Checkpoint) -> None:
        """Puts the candidate together; the folder appears whole."""
        partial = self.out / f".{CHECKPOINT}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(candidate.folder, partial)
        for name in (CONFIG, EXTRAS):
            shutil.copyfile(self.work / name, partial / name)
        card = self.base_folder / CARD
        base_card = card.read_text(encoding="utf-8") if card.is_file() else "It has none."
        write_whole(partial / CARD, model_card(evaluation, summary, self.config, base_card))
        write_whole(partial / EVALUATION, evaluation.model_dump_json(indent=2) + "\n")
        load_checkpoint(str(partial), self.request.llm_path)
        for log in (self.work / "train").glob("*/log.jsonl"):
            shutil.copyfile(log, self.out / f"log-{log.parent.name}.jsonl")
        partial.replace(self.out / CHECKPOINT)


def _identity(config: CheckpointConfig, path: Path) -> Identity:
    return Identity(
        name=config.name,
        version=config.version,
        weights_sha256=config.weights_sha256,
        config_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def _fingerprint(site: Site, secret: bytes) -> str:
    """Names the folder's content; keyed, since a bare hash of a report could be guessed at."""
    parts = [film.facts.sha256 for study in site.studies for film in study.films]
    parts += [repr(study.report.text) for study in site.studies if study.report]
    parts += [repr(study.review) for study in site.studies if study.review]
    parts += [repr((uid, site.boxes[uid])) for uid in site.boxes]
    return Key(secret).digest("site", "\n".join(sorted(parts))).hex()
