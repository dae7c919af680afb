"""Which earlier study of the same patient a study is compared with.

Dates serve to put studies in order; they go no further than this layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from medvlm.dicom.study import Study
from medvlm.errors import PriorRefused


@dataclass(frozen=True)
class Prior:
    """The study compared with, and what could not be checked about it.

    `same_patient`: False where neither study names a patient. `earlier`: False where the dates do
    not tell which came first.
    """

    study: Study = field(repr=False)
    same_patient: bool = True
    earlier: bool = True


def latest_prior(study: Study, among: Sequence[Study]) -> Prior | None:
    """The last study before `study` of the same patient in `among`; None if there is none.

    Studies without a patient's pseudonym or a date are never taken.
    """
    if study.patient is None:
        return None
    own = [other for other in among if other.patient == study.patient]
    before = [other for other in own if is_earlier(other, study)]
    return Prior(max(before, key=lambda other: other.taken)) if before else None


def chosen_prior(study: Study, given: Sequence[Study]) -> Prior:
    """The prior among the studies that the caller named for it: the last before `study`.

    Where no study names a patient, the caller's word is all there is, and the result says so.

    Raises PriorRefused if none is this patient's, or none comes before `study`; InputError codes
    other_patient, not_earlier, several_priors.
    """
    others = [other for other in given if not _same_study(other, study)]
    own = [other for other in others if other.patient == study.patient]
    if not own:
        if not others:
            raise PriorRefused(
                "The prior study is the study itself, or holds no image.",
                remedy="Give an earlier study.",
            )
        raise PriorRefused(
            "The prior study is not known to be the same patient's.",
            remedy="Give a study with the same PatientID and IssuerOfPatientID.",
            code="other_patient",
        )
    known = [(other, is_earlier(other, study)) for other in own]
    if before := [other for other, earlier in known if earlier]:
        latest = max(before, key=lambda other: other.taken)
        return Prior(latest, study.patient is not None)
    undated = [other for other, earlier in known if earlier is None]
    if len(undated) > 1:
        raise PriorRefused(
            f"There are {len(undated)} studies to compare with, and no dates to choose by.",
            remedy="Give one study as the prior.",
            code="several_priors",
        )
    if not undated:
        raise PriorRefused(
            "The prior study was not taken before the study it is compared with.",
            remedy="Give the earlier study as the prior, the later one as the input.",
            code="not_earlier",
        )
    return Prior(undated[0], study.patient is not None, earlier=False)


def is_earlier(one: Study, other: Study) -> bool | None:
    """Whether `one` was taken before `other`; None where date and time do not tell."""
    (date, time), (other_date, other_time) = one.taken, other.taken
    if not date or not other_date:
        return None
    if date != other_date:
        return date < other_date
    # A time may be told to the hour or the minute only.
    length = min(len(time), len(other_time))
    if time[:length] != other_time[:length]:
        return time < other_time
    return False if length == 6 else None


def _same_study(one: Study, other: Study) -> bool:
    if one.study_instance_uid is not None or other.study_instance_uid is not None:
        uids = one.study_instance_uid, other.study_instance_uid
        return uids[0] == uids[1] and one.patient == other.patient
    return one.name == other.name
