"""How reports name the findings, as tables. `docs/reports.md` says what they decide.

A phrase is matched word by word in lower case; `FILLERS` may stand between its words, so that
"pleural effusion" is also found in "pleural small effusion".
"""

from __future__ import annotations

from typing import Literal

from medvlm.findings import FINDINGS, plural, wordings
from medvlm.reports.words import Phrase, phrase_list, word_set

# How a wording counts where nothing speaks against it. `group`: names several findings and says
# something only where it is denied ("no acute abnormality").
Asserted = Literal["present", "uncertain", "group"]


# Sizes, amounts, courses and places that may stand inside a phrase without changing its meaning.
_SIZES = word_set(
    """small large tiny trace minimal minimally mild mildly moderate moderately marked markedly
    severe severely slight slightly massive sizable sizeable subtle little faint faintly
    """
)
_COURSES = word_set(
    """stable unchanged persistent persisting residual increasing increased worsening worsened
    improving improved decreasing decreased enlarging evolving resolving recurrent chronic
    unchanging similar"""
)
SIDES = word_set("left right bilateral bilaterally both unilateral sided")
_PLACES = word_set(
    """upper mid middle lower lobe lobar zone base bases basilar bibasilar basal bibasal apical
    biapical apex lateral posterior anterior medial retrocardiac perihilar suprahilar
    infrahilar lingular peripheral central"""
)
FILLERS = (
    _SIZES
    | _COURSES
    | SIDES
    | _PLACES
    | word_set(
        """a an the any this some acute subacute new interval significant significantly definite
    definitely definitively entirely complete completely fully totally reliably confidently
    safely obvious gross grossly frank
    focal multifocal diffuse diffusely patchy streaky hazy linear platelike plate like
    discoid subsegmental segmental dense discrete appreciable convincing overt clear
    radiographic radiographically evidence evident visible other suspicious possible
    probable likely underlying superimposed further clearly essentially also again simple
    layering loculated associated developing confluent superiorly appreciably mainly"""
    )
)
# Where one of these comes after "and", it begins a statement of its own.
QUALIFIERS = _SIZES | _COURSES | SIDES | _PLACES
IS = word_set(
    """is are was were be been being has have had appears appear appeared remains remain seems
    seem looks demonstrates demonstrate shows show persists measures measuring noted seen
    identified contains there"""
)
# Inside a sentence about an organ ("the heart is not enlarged") these may stand, too.
LINKS = FILLERS | IS | word_set("size in to of not no longer shadow contour")

# ---- findings ----

_MORE: dict[str, tuple[str, str]] = {  # finding: (wordings of what is there, of what hints at it)
    "Atelectasis": (
        """atelectatic, atelectatic opacity, atelectatic band, atelectatic density,
        lower lobe collapse, upper lobe collapse, middle lobe collapse, lobe collapse""",
        "",
    ),
    "Cardiomegaly": (
        """enlargement of heart, enlarged cardiac contour, enlarged cardiac shadow,
        enlarged cardiomediastinal contour, increased heart size, increased cardiac size,
        heart size enlarged, cardiac silhouette size enlarged, cardiac size enlarged""",
        """prominent cardiac silhouette, prominence of cardiac silhouette, prominent heart,
        prominence of heart, prominent heart size, cardiac prominence, borderline heart size,
        borderline cardiac size""",
    ),
    "Effusion": (
        """haemothorax, hemothorax, empyema, fluid in pleural space, pleural based fluid,
        pleural or pericardial effusion, pleural and pericardial effusion""",
        """blunting of costophrenic, costophrenic blunting, costophrenic angle blunting,
        costophrenic sulcus blunting, costophrenic sulci blunting, blunted costophrenic""",
    ),
    "Infiltration": ("infiltrative opacity, infiltrative process", ""),
    "Mass": ("masses", "mass like opacity, masslike opacity, masslike density, mass like density"),
    "Nodule": (
        "nodular opacification, nodular lesion, micronodule, nodular infiltrate",
        "nodularity, nodular",
    ),
    "Pneumonia": ("pneumonic process, pna", "infection, infectious process, infectious etiology"),
    "Pneumothorax": ("ptx, pneumo thorax", ""),
    "Consolidation": ("consolidative, consolidative change, consolidative process", ""),
    "Edema": (
        "",
        """vascular congestion, venous congestion, pulmonary congestion, congestive change,
        congestive heart failure, congestive failure, heart failure, chf, fluid overload,
        volume overload, cephalization, kerley, kerley b""",
    ),
    "Emphysema": (
        "emphysematous, emphysematous lung, bullous emphysema",
        """copd, chronic obstructive, hyperinflation, hyperexpansion, hyperinflated lung,
        hyperexpanded lung, hyperaeration, bulla, bullae, bullous, flattening of diaphragm,
        flattened diaphragm, flattened hemidiaphragm, flattening of hemidiaphragm""",
    ),
    "Fibrosis": (
        "fibrotic, fibrotic scarring, fibrotic scar, honeycombing",
        "interstitial lung disease, scarring, scar, parenchymal scarring",
    ),
    "Pleural_Thickening": (
        """pleural plaque, pleural scar, apical cap, apical capping, pleural capping,
        pleural parenchymal thickening, pleuroparenchymal thickening, pleural parenchymal scarring,
        pleuroparenchymal scarring, pleural based thickening""",
        "",
    ),
    "Hernia": ("", ""),
    "Lung_Opacity": (
        """airspace disease, airspace process, parenchymal opacity, ground glass,
        ground glass opacity, interstitial opacity, opacified""",
        "density, haziness, hazy density",
    ),
}
# Two findings in one wording.
_BOTH: dict[str, tuple[str, ...]] = {
    "hydropneumothorax": ("Effusion", "Pneumothorax"),
    "pleural effusion or thickening": ("Effusion", "Pleural_Thickening"),
    "pleural effusion and or thickening": ("Effusion", "Pleural_Thickening"),
}
# A statement in several words, with a verb and perhaps a "not" inside.
_SENTENCES: tuple[tuple[str, Asserted, str], ...] = (
    (
        "Cardiomegaly",
        "present",
        """heart enlarged, cardiac silhouette enlarged, cardiomediastinal silhouette enlarged,
        cardiac contour enlarged, cardiac enlarged, heart increased, heart silhouette enlarged,
        cardiothoracic ratio increased""",
    ),
    (
        "Cardiomegaly",
        "uncertain",
        "heart prominent, cardiac silhouette prominent, heart borderline, cardiac borderline,"
        "cardiac silhouette borderline",
    ),
    (
        "Effusion",
        "uncertain",
        """costophrenic blunted, costophrenic angle blunted, costophrenic angles blunted,
        costophrenic sulcus blunted, costophrenic sulci blunted""",
    ),
    (
        "Emphysema",
        "uncertain",
        """lungs hyperinflated, lungs hyperexpanded, lungs overinflated, lung hyperinflated,
        diaphragm flattened, diaphragms flattened, hemidiaphragms flattened""",
    ),
)
# Beside those of `medvlm.findings`: wordings that contain a finding's and mean something else.
_OTHERS = phrase_list(
    """bone density, bony density, bone mineral density, calcific density, calcified density,
    metallic density, soft tissue density, mass effect, body mass, bone mass, muscle mass,
    abdominal mass, renal mass, cystic fibrosis, ventral hernia, incisional hernia, hernia repair,
    abdominal wall hernia, tissue emphysema, wall emphysema, subcutaneous emphysematous,
    peripheral edema, leg edema, disc hernia, skin infection, surgical scar, opacified bowel,
    breast density, breast nodule, nipple nodule"""
)

_LUNG = (
    *("Atelectasis", "Consolidation", "Edema", "Infiltration", "Lung_Opacity", "Mass"),
    *("Nodule", "Pneumonia"),
)
_PLEURA = ("Effusion", "Pneumothorax")
_ACUTE_LUNG = ("Consolidation", "Edema", "Infiltration", "Pneumonia")
ORGANS: dict[str, tuple[str, ...]] = {
    "heart": ("Cardiomegaly",),
    "lungs": _LUNG,
    "pleura": _PLEURA,
    "angles": ("Effusion",),
    "chest": FINDINGS,
}
_AREAS: dict[tuple[str, ...], str] = {
    (*_ACUTE_LUNG, *_PLEURA): """cardiopulmonary, cardiothoracic, cardiorespiratory, intrathoracic,
        thoracic, chest, acute, active, cardiac or pulmonary, pulmonary or cardiac,
        heart or lung""",
    _ACUTE_LUNG: "pulmonary, lung, parenchymal, lung parenchymal, pulmonary parenchymal",
    _PLEURA: "pleural",
}
_DISORDERS = "abnormality abnormalities disease diseases process processes finding findings"
_DISORDERS += " pathology pathologies disorder disorders"

Meaning = tuple[tuple[str, ...], Asserted]


def _meanings() -> dict[Phrase, Meaning]:
    found: dict[Phrase, Meaning] = {}
    for areas, words in _AREAS.items():
        for area in phrase_list(words):
            for disorder in _DISORDERS.split():
                found[*area, disorder] = areas, "group"
    for form, finding in wordings().items():
        found[tuple(form.split())] = (finding,) if finding else (), "present"
    for finding, (there, hint) in _MORE.items():
        for asserted, lines in (("present", there), ("uncertain", hint)):
            for phrase in phrase_list(lines):
                for form in (" ".join(phrase), plural(" ".join(phrase))):
                    found[tuple(form.split())] = (finding,), asserted  # type: ignore[assignment]
    for text, several in _BOTH.items():
        found[tuple(text.split())] = several, "present"
    for phrase in _OTHERS:
        for form in (" ".join(phrase), plural(" ".join(phrase))):
            found[tuple(form.split())] = (), "present"
    return found


MEANINGS: dict[Phrase, Meaning] = _meanings()
SENTENCES: dict[Phrase, Meaning] = {
    phrase: ((finding,), asserted)
    for finding, asserted, lines in _SENTENCES
    for phrase in phrase_list(lines)
}
