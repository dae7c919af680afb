"""Which of a site's films are used, as what, under which pseudonyms, and on which side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from medvlm.config import GateConfig
from medvlm.data.site import Site, SiteFilm, SiteStudy
from medvlm.data.site_labels import StudyLabels, known_of_patients, study_labels
from medvlm.data.site_summary import Side
from medvlm.dicom.confidentiality import Key
from medvlm.errors import UsageError
from medvlm.image.gate import CHEST_FILMS, instance_reasons
from medvlm.reports.report import Problem

SHORTEST_SECRET = 16  # bytes
SIDES: tuple[Side, Side] = ("training", "validation")
_VALIDATION_SHARE = 5  # one patient in so many


@dataclass(frozen=True)
class PlannedStudy:
    """A study that is to be used, under its pseudonyms, and the films that the gate let pass."""

    study: SiteStudy
    known: StudyLabels
    patient_id: str
    study_id: str
    films: tuple[SiteFilm, ...]


@dataclass(frozen=True)
class Plan:
    """What is used of a site, before pixels are looked at; `sides`: of each patient pseudonym."""

    site: Site
    studies: tuple[PlannedStudy, ...]
    sides: dict[str, Side]
    refused: tuple[str, ...]
    problems: tuple[Problem, ...]
    key: Key
    gate: GateConfig

    def image_name(self, film: SiteFilm) -> str:
        """The film's file name in the prepared set."""
        return f"{self.key.digest('image', film.facts.sha256).hex()[:32]}.png"


def plan(site: Site, gate: GateConfig = CHEST_FILMS, salt: bytes | str = b"") -> Plan:
    """Which films are used, as what, on which side. Decodes nothing.

    Args:
        site: what `read_site` found.
        gate: of the checkpoint that is to be trained on.
        salt: the secret of the pseudonyms and of the split, 16 bytes at least.

    Raises:
        UsageError: the secret is too short.
    """
    secret = salt.encode() if isinstance(salt, str) else salt
    if len(secret) < SHORTEST_SECRET:
        raise UsageError(
            f"the secret of the pseudonyms is shorter than {SHORTEST_SECRET} bytes",
            remedy="make one with `medvlm deidentify --new-key FILE`",
        )
    key = Key(secret)
    identifying = known_of_patients(site.studies)
    problems: list[Problem] = []
    refused: list[str] = []
    planned: list[PlannedStudy] = []
    for study in site.studies:
        passed = []
        for film in study.films:
            reasons = [film.facts.policy] if film.facts.policy else []
            reasons += instance_reasons(film.instance, gate)
            if reasons:
                refused.append(reasons[0].code)
            else:
                passed.append(film)
        known = study_labels(site, study, identifying[study.patient])
        problems += known.problems
        if not known.is_known:
            code = "nothing_said" if study.report else "study_without_report"
            message = "Nothing is known of the study: no report, box or review says anything."
            problems.append(Problem(study.films[0].source, code, message))
        elif passed:
            patient = key.digest("patient", study.patient).hex()[:16]
            name = key.digest("study", study.study_instance_uid).hex()[:16]
            planned.append(PlannedStudy(study, known, patient, name, tuple(passed)))
    sides = split_patients({item.patient_id for item in planned}, key)
    return Plan(site, tuple(planned), sides, tuple(refused), tuple(problems), key, gate)


def split_patients(patients: Iterable[str], key: Key) -> dict[str, Side]:
    """A fifth of the patients by a keyed hash; with two patients or more, both sides have one."""
    ranks = {
        patient: int.from_bytes(key.digest("split", patient)[:8], "big")
        for patient in sorted(patients)
    }
    sides: dict[str, Side] = {
        patient: SIDES[rank < 2**64 // _VALIDATION_SHARE] for patient, rank in ranks.items()
    }
    if len(sides) > 1:
        for side, extreme in ((SIDES[1], min), (SIDES[0], max)):
            if side not in sides.values():
                sides[extreme(ranks, key=lambda patient: ranks[patient])] = side
    return sides
