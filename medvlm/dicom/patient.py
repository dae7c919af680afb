"""The patient's sex and age, which rules may use; never who the patient is.

Values are those of DICOM elements as text, None where a file lacks them.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Literal

Sex = Literal["M", "F"]
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
_NUMBER = re.compile(r"[0-9]{1,3}")
_SEXES: dict[str, Sex] = {"M": "M", "F": "F"}


def sex(patient_sex: str | None) -> Sex | None:
    """PatientSex; None for O, and for anything else."""
    return _SEXES.get((patient_sex or "").upper())


def age_years(
    patient_age: str | None, birth_date: str | None, study_date: str | None
) -> float | None:
    """At the examination: PatientAge, else by the dates; None where neither tells.

    "000Y" stands for no age as often as for a newborn's, so the dates decide.
    """
    number, unit = (patient_age or "")[:-1], (patient_age or "")[-1:].upper()
    if _NUMBER.fullmatch(number) and unit in _YEARS and (int(number) or unit != "Y"):
        return int(number) * _YEARS[unit]
    months = age_months(birth_date, study_date)
    return None if months is None else months / 12


def age_months(birth_date: str | None, study_date: str | None) -> int | None:
    """Whole months between two dates YYYYMMDD; None where they do not tell."""
    born, seen = _date(birth_date), _date(study_date)
    if born is None or seen is None or seen < born:
        return None
    return 12 * (seen.year - born.year) + seen.month - born.month - (seen.day < born.day)


def _date(value: str | None) -> date | None:
    try:
        return datetime.strptime(value or "", "%Y%m%d").date()
    except ValueError:
        return None
