"""Words that change what a finding in their reach counts as, and where their reach ends.

Fillers may stand between the words of a phrase, as in `medvlm.reports.lexicon`: "cannot exclude"
is also found in "cannot entirely exclude".
"""

from __future__ import annotations

from typing import Literal

from medvlm.reports.words import Phrase, phrase_list, word_set

# What a trigger does to the findings in its reach; `unsaid`: nothing is claimed about the present.
Effect = Literal["absent", "uncertain", "present", "unsaid"]
# Where it reaches: the findings after it, those before it, or whichever its place suggests.
Reach = Literal["forward", "back", "either"]

_SEEN = (
    *("seen", "present", "visible", "identified", "evident", "visualized", "noted", "apparent"),
    *("appreciated", "demonstrated", "detected", "there"),
)
_THEN = (
    *("previously", "before", "on prior", "on previous", "on earlier", "on comparison", "on last"),
    *("on most recent", "in prior", "in previous", "at prior"),
)
_NOT_THEN = ", ".join(f"not {seen} {then}" for seen in _SEEN for then in _THEN)

_TRIGGERS: tuple[tuple[Effect, Reach, str], ...] = (
    (
        "present",
        "forward",
        """no change, no increase, no decrease, no improvement, no progression, no worsening,
        no difference, without change, not changed, not only, not resolved, no resolution,
        not cleared, no doubt, without doubt, not without""",
    ),
    (
        "present",
        "either",
        """partially resolved, partially cleared, incompletely resolved, partial resolution,
        incomplete resolution, nearly resolved, almost resolved, almost resolution, near resolution,
        partial clearing, incomplete clearing, no evidence of resolution,
        no sign of resolution, and absent on, and none on""",
    ),
    # It was not there then, so it is now.
    ("present", "back", _NOT_THEN),
    (
        "unsaid",
        "forward",
        """no new, no other, no additional, without new, history of, history, status post,
        previous, prior, evaluate for, evaluation for, assess for, assessment for, screening for,
        treated for, treatment for, treatment of, risk of, risk for, if, if there is, if there are,
        looking for, resection of, no enlarging, no increasing, clinical concern,
        clinical suspicion, document resolution, ensure resolution, confirm resolution,
        to resolution, until resolution, document clearing, ensure clearing, confirm clearing,
        to clearing, until clearing""",
    ),
    ("unsaid", "either", "not well seen, not well evaluated, not well visualized, not assessed"),
    (
        "absent",
        "forward",
        """no, without, negative for, free of, clear of, absence of, lack of, resolution of,
        neither, nor, denies, not, rather than excluded, nil, nothing, never""",
    ),
    (
        "absent",
        "either",
        """absent, resolved, resolution, cleared, no longer seen, no longer present,
        no longer visible, no longer identified, no longer evident, no longer apparent,
        no longer appreciated, no longer demonstrated, no longer detected, no longer visualized,
        no longer visualised, no longer noted, no longer there""",
    ),
    (
        "absent",
        "back",
        """not seen, not identified, not visualized, not visualised, not present, not evident,
        not demonstrated, not appreciated, not detected, not noted, not found, not visible,
        not apparent, cannot be seen, cannot be identified, none, none seen,
        excluded, ruled out, gone, negative""",
    ),
    (
        "uncertain",
        "back",
        """cannot be excluded, not be excluded, not excluded, cannot be ruled out, not ruled out,
        not be ruled out, may be present, might be present, could be present, unlikely,
        may be considered, should be considered, is a consideration, not be completely excluded,
        difficult to exclude, if any is, if any are""",
    ),
    (
        "uncertain",
        "forward",
        """cannot exclude, cannot rule out, not exclude, not rule out, exclude, rule out, may,
        might, could, suspicious for, suspicious of, suspicion, suspicion for, suspicion of,
        suspect, concerning for, concern for, concern of, concerning, worrisome for, worrisome,
        suggest, suggests, suggesting, suggestive of, suggestive, suggestion, raise, raises,
        question, question of, equivocal, differential, consider, considerations include, favor,
        favors, favoring, favored, favour, favours, favouring, presumed, presumably, perhaps,
        potential, potentially, borderline, with or without, rather than,
        correlate for, correlation for, hint of, vague, doubt, doubtful""",
    ),
    (
        "uncertain",
        "either",
        "possible, possibly, probable, probably, likely, less likely, suspected, questionable,"
        "questioned, if any, ?",
    ),
)
TRIGGERS: dict[Phrase, tuple[Effect, Reach]] = {
    phrase: (effect, reach) for effect, reach, lines in _TRIGGERS for phrase in phrase_list(lines)
}

# Earlier examinations: what they are compared with is of today.
OTHER_EXAMS = frozenset(
    (*when, *what, kind)
    for when in (("prior",), ("previous",))
    for what in ((), ("chest",), ("pa",), ("ap",), ("portable",), ("x",), ("chest", "x"))
    for kind in word_set(
        """exam exams examination examinations study studies radiograph radiographs film films
        image images imaging ray rays xray xrays ct"""
    )
)
# A clause ends here; triggers do not reach across.
CLAUSE_ENDS = frozenset(
    phrase_list(
        """., ;, but, however, although, though, whereas, while, except, apart from, aside from,
        other than, yet, there is, there are, there has, there was, otherwise, which is, which are,
        unless, and now"""
    )
)
# A denial ends here, a doubt does not ("may be due to atelectasis").
DENIAL_ENDS = frozenset(phrase_list("with, due to, secondary to, because of, given, in setting of"))
NOT_AN_END = frozenset({"consistent", "compatible", "associated", "keeping", "correlate"})

# ---- the normal ----

NORMAL = frozenset(
    phrase_list(
        "normal, unremarkable, clear, within normal limits, within normal, wnl, sharp, preserved"
    )
)
# Words of an organ, the words that may follow, those that must not.
HEART_WORDS = frozenset({"heart", "cardiac", "cardiomediastinal", "cardiothymic", "cardio"})
CARDIAC_FOLLOWS = word_set(
    """silhouette silhouettes size contour contours shadow and mediastinal mediastinum , : is
    are appears remains lungs"""
)
CHEST_FOLLOWS = word_set(
    """radiograph radiographs x xray film films study examination exam , : . ;"""
)
STUDY_WORDS = word_set("""study examination exam radiograph film""")
# Inside a statement about an organ: "the heart is not enlarged", "borderline enlarged".
DENYING, HEDGING = word_set("not"), word_set("borderline top upper")
