"""What travels beside a tuned checkpoint's weights (`medvlm.model.extras`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from medvlm.data.sets import DataSet
from medvlm.model.checkpoint import Checkpoint
from medvlm.model.extras import NO_EXTRAS, Extras
from medvlm.train.donors import donors_if_any
from medvlm.train.familiarity import familiarity_of
from medvlm.train.finetune.material import Sides


def extras_after(
    tuned: Checkpoint, own: Sides, retention: Sequence[DataSet], encoder_moved: bool
) -> Extras:
    """Donors and what is familiar anew, the rest from the base where its maps are still the same.

    `tuned`: the base with the tuned weights. References follow with the calibration.
    """
    # Public films where there are some: the site's patients need not travel in a checkpoint.
    public = [film for data in retention for film in data.films if not film.validation]
    donors = donors_if_any(tuned, public) or donors_if_any(tuned, own.training)
    kept = NO_EXTRAS if encoder_moved else tuned.extras
    # A site's own films are no strangers to its checkpoint; its tuning patients set the limit.
    tuning = [replace(film, validation=True) for film in own.tuning]
    known = familiarity_of(tuned, [[*own.training, *tuning], *(data.films for data in retention)])
    return replace(kept, donors=donors, references=None, familiarity=known or kept.familiarity)
