"""The labelling rules, by sentences made up for this test: `+` present, `-` absent, `?` uncertain.

What is not listed must not be mentioned. `lungs-` and `acute-` stand for the findings that clear
lungs and "no acute abnormality" rule out.
"""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.findings import FINDINGS
from medvlm.reports.labels import Labels, combine, label_report
from medvlm.reports.statements import statements

SHORT = {
    "Atel": "Atelectasis", "Card": "Cardiomegaly", "Eff": "Effusion", "Inf": "Infiltration",
    "Mass": "Mass", "Nod": "Nodule", "Pneu": "Pneumonia", "Ptx": "Pneumothorax",
    "Cons": "Consolidation", "Edema": "Edema", "Emph": "Emphysema", "Fib": "Fibrosis",
    "Thick": "Pleural_Thickening", "Hern": "Hernia", "Opac": "Lung_Opacity",
}  # fmt: skip
GROUPS = {
    "lungs-": "Atel- Cons- Edema- Inf- Opac- Mass- Nod- Pneu-",
    "acute-": "Cons- Edema- Inf- Pneu- Eff- Ptx-",
    "airways-": "Cons- Edema- Inf- Pneu-",
    "all-": " ".join(f"{short}-" for short in SHORT),
}
MARKS = {"+": "present", "-": "absent", "?": "uncertain"}

# What a sentence states, before anything follows from it.
SENTENCES = [
    # plain
    ("There is a small left pleural effusion.", "Eff+"),
    ("Bibasilar atelectasis.", "Atel+"),
    ("Moderate cardiomegaly with mild interstitial edema.", "Card+ Edema+"),
    ("A 1.5 cm nodule projects over the right upper lobe.", "Nod+"),
    ("Large hiatal hernia.", "Hern+"),
    ("Right apical pneumothorax measuring 2 cm.", "Ptx+"),
    ("Dense consolidation in the right middle lobe.", "Cons+"),
    ("Bullous emphysema of the upper lobes.", "Emph+"),
    ("Honeycombing at both bases.", "Fib+"),
    ("Biapical pleural thickening.", "Thick+"),
    ("Patchy airspace disease in the lingula.", "Opac+"),
    ("Left hydropneumothorax.", "Eff+ Ptx+"),
    ("The left lower lobe shows atelectatic change.", "Atel+"),
    ("Effusions are seen on both sides.", "Eff+"),
    ("Pulmonary oedema.", "Edema+"),
    # negation before
    ("No effusion, pneumothorax or consolidation.", "Eff- Ptx- Cons-"),
    ("No pleural effusion, pneumothorax, or focal airspace disease.", "Eff- Ptx- Opac-"),
    ("No pleural effusions or pneumothoraces.", "Eff- Ptx-"),
    ("There is no evidence of pneumonia.", "Pneu-"),
    ("There is no radiographic evidence for acute infiltrate or edema.", "Inf- Edema-"),
    ("Negative for pneumothorax.", "Ptx-"),
    ("Neither effusion nor pneumothorax.", "Eff- Ptx-"),
    ("Without consolidation or effusion.", "Cons- Eff-"),
    ("The pleural spaces are free of effusion.", "Eff-"),
    ("Absence of pneumothorax.", "Ptx-"),
    ("No definite nodule.", "Nod-"),
    ("No suspicious pulmonary nodules or masses are identified.", "Nod- Mass-"),
    ("No focal consolidation, large effusion, or pneumothorax.", "Cons- Eff- Ptx-"),
    ("Lung volumes are low w/o consolidation.", "Cons-"),
    ("There is no pleural or pericardial effusion.", "Eff-"),
    ("There isn't any effusion.", "Eff-"),
    ("This does not represent pneumonia.", "Pneu-"),
    ("No pneumothorax/effusion.", "Ptx- Eff-"),
    ("NO FOCAL INFILTRATE, EFFUSION, OR PNEUMOTHORAX.", "Inf- Eff- Ptx-"),
    # negation behind
    ("Effusion is not seen.", "Eff-"),
    ("Effusion, pneumothorax, and consolidation are not seen.", "Eff- Ptx- Cons-"),
    ("A pneumothorax is no longer visible.", "Ptx-"),
    ("Pneumothorax: none.", "Ptx-"),
    ("Effusion: no.", "Eff-"),
    ("Pneumonia has been excluded.", "Pneu-"),
    ("Pneumonia is ruled out.", "Pneu-"),
    ("Pleural effusion and pneumothorax are absent.", "Eff- Ptx-"),
    ("Nodule not identified today.", "Nod-"),
    # where the reach ends
    ("No effusion, but mild cardiomegaly.", "Eff- Card+"),
    ("No effusion; there is a mass in the left hilum.", "Eff- Mass+"),
    ("No pneumothorax; small left effusion.", "Ptx- Eff+"),
    ("No consolidation, however bibasilar atelectasis.", "Cons- Atel+"),
    ("No abnormality except for a small effusion.", "Eff+"),
    ("No acute finding other than left basal atelectasis.", "acute- Atel+"),
    ("No pneumothorax, with a small right effusion.", "Ptx- Eff+"),
    ("No effusion, mild cardiomegaly.", "Eff- Card+"),
    ("No pneumothorax and stable small left pleural effusion.", "Ptx- Eff+"),
    ("Cardiomegaly without edema.", "Card+ Edema-"),
    ("Small effusion, pneumothorax not seen.", "Eff+ Ptx-"),
    ("No pneumothorax, effusion has increased.", "Ptx- Eff+"),
    ("Small effusion, no pneumothorax.", "Eff+ Ptx-"),
    ("No effusion and there is new consolidation.", "Eff- Cons+"),
    ("Although no pneumothorax is seen, a left effusion persists.", "Ptx- Eff+"),
    ("Heart size is not well evaluated due to effusion.", "Eff+"),
    ("No edema while the effusion is unchanged.", "Edema- Eff+"),
    # uncertainty
    ("Possible right lower lobe pneumonia.", "Pneu?"),
    ("Left base opacity may represent pneumonia.", "Opac+ Pneu?"),
    ("Left basilar opacity may represent atelectasis, pneumonia or aspiration.",
     "Opac+ Atel? Pneu?"),
    ("Pneumonia cannot be excluded.", "Pneu?"),
    ("Cannot entirely exclude a small pneumothorax.", "Ptx?"),
    ("Probable small effusion.", "Eff?"),
    ("Left basilar atelectasis versus infiltrate.", "Atel? Inf?"),
    ("Left basilar atelectasis vs. pneumonia.", "Atel? Pneu?"),
    ("Atelectasis and/or consolidation at the left base.", "Atel? Cons?"),
    ("Atelectasis or pneumonia in the right base.", "Atel? Pneu?"),
    ("Opacity suspicious for pneumonia.", "Opac+ Pneu?"),
    ("Findings concerning for pulmonary edema.", "Edema?"),
    ("Opacity, likely atelectasis.", "Opac+ Atel?"),
    ("This is likely atelectasis.", "Atel?"),
    ("Effusion is possible.", "Eff?"),
    ("A small effusion is suspected on the left.", "Eff?"),
    ("Pneumonia is not excluded.", "Pneu?"),
    ("A nodule could not be ruled out.", "Nod?"),
    ("Questionable nodule at the right apex.", "Nod?"),
    ("Pneumonia is unlikely.", "Pneu?"),
    ("Appearance suggests fibrosis.", "Fib?"),
    ("CT to rule out an underlying mass.", "Mass?"),
    ("If there is clinical concern for pneumonia, repeat.", ""),
    ("A small effusion may be present.", "Eff?"),
    ("Increased markings favor edema.", "Edema?"),
    ("Presumed scarring or atelectasis.", "Fib? Atel?"),
    ("Infiltrate with or without effusion.", "Inf+ Eff?"),
    ("Nodule, likely a granuloma.", "Nod+"),
    ("Opacity consistent with pneumonia.", "Opac+ Pneu+"),
    ("Consolidation, ARDS versus edema.", "Cons+ Edema?"),
    ("Atelectasis, pneumonia, or infiltrate at the left base.", "Atel? Pneu? Inf?"),
    ("Cardiomegaly, atelectasis or pneumonia.", "Card+ Atel? Pneu?"),
    ("Doubt pneumonia.", "Pneu?"),
    # doubt and denial together
    ("No opacity to suggest pneumonia.", "Opac- Pneu-"),
    ("No findings suspicious for pneumonia.", "Pneu-"),
    ("Suspected pneumothorax is not seen.", "Ptx-"),
    ("No pneumothorax, possible small effusion.", "Ptx- Eff?"),
    ("No large pleural effusion, though a small effusion cannot be excluded.", "Eff- Eff?"),
    ("Possible effusion is seen.", "Eff?"),
    # history and change
    ("History of pneumonia.", ""),
    ("Status post hernia repair.", ""),
    ("Prior pneumonia.", ""),
    ("Evaluate for pneumothorax.", ""),
    ("No new consolidation.", ""),
    ("Previously seen effusion has resolved.", "Eff-"),
    ("Interval resolution of the left effusion.", "Eff-"),
    ("Resolved pneumonia.", "Pneu-"),
    ("Effusion has cleared.", "Eff-"),
    ("The effusion has nearly resolved.", "Eff+"),
    ("Partial resolution of the pneumothorax.", "Ptx+"),
    ("Resolving left lower lobe pneumonia.", "Pneu+"),
    ("No change in the right effusion.", "Eff+"),
    ("No significant interval change in cardiomegaly or effusion.", "Card+ Eff+"),
    ("Without change in the left apical pneumothorax.", "Ptx+"),
    ("Effusion is unchanged.", "Eff+"),
    ("History of COPD and now shows hyperinflated lungs.", "Emph?"),
    ("Status post pneumonectomy with opacification of the left chest.", "Opac+"),
    ("No pneumothorax is present.Small effusion is present.", "Ptx- Eff+"),
    ("Compared to prior, pneumonia has resolved.", "Pneu-"),
    ("No residual pneumothorax.", "Ptx-"),
    ("Effusion has decreased.", "Eff+"),
    ("No improvement in edema.", "Edema+"),
    # the heart
    ("Heart size is normal.", "Card-"),
    ("Heart size normal.", "Card-"),
    ("Normal heart size.", "Card-"),
    ("The cardiomediastinal silhouette is within normal limits.", "Card-"),
    ("Cardiac and mediastinal contours are unremarkable.", "Card-"),
    ("Unremarkable cardiac silhouette.", "Card-"),
    ("The heart is not enlarged.", "Card-"),
    ("The heart is mildly enlarged.", "Card+"),
    ("Cardiac silhouette remains moderately enlarged.", "Card+"),
    ("Enlargement of the cardiac silhouette.", "Card+"),
    ("Heart size is borderline enlarged.", "Card?"),
    ("Borderline cardiomegaly.", "Card?"),
    ("Heart size is at the upper limits of normal.", "Card-"),
    ("The heart is enlarged and the lungs are clear.", "Card+ lungs-"),
    ("Enlarged heart, clear lungs.", "Card+ lungs-"),
    ("The lungs show atelectasis but the heart is normal.", "Atel+ Card-"),
    ("The lungs are hyperexpanded but clear.", "Emph? lungs-"),
    ("The cardiothoracic ratio is increased.", "Card+"),
    ("Low volumes accentuate the heart size, which is likely normal.", "Card-"),
    ("Prosthetic heart valve in normal position.", ""),
    ("Prominent cardiac silhouette.", "Card?"),
    # lungs, pleura and chest called normal
    ("The lungs are clear.", "lungs-"),
    ("Lungs clear.", "lungs-"),
    ("Lungs: Clear.", "lungs-"),
    ("Clear lungs.", "lungs-"),
    ("The lungs are well expanded and clear.", "lungs-"),
    ("Both lungs are clear.", "lungs-"),
    ("The lungs are not clear.", ""),
    ("The right lung is clear.", ""),
    ("The lung apices are clear.", ""),
    ("Heart, mediastinum and lungs are normal.", "Card- lungs-"),
    ("Lungs are clear without focal consolidation, effusion or pneumothorax.",
     "lungs- Cons- Eff- Ptx-"),
    ("The lungs are clear of infiltrate.", "Inf-"),
    ("Costophrenic angles are sharp.", "Eff-"),
    ("Pleural spaces are clear.", "Eff- Ptx-"),
    ("Normal chest radiograph.", "all-"),
    ("The chest is normal.", "all-"),
    ("No acute cardiopulmonary abnormality.", "acute-"),
    ("No acute cardiopulmonary process.", "acute-"),
    ("No evidence of active disease.", "acute-"),
    ("No acute cardiac or pulmonary disease.", "acute-"),
    ("No acute pulmonary abnormality.", "airways-"),
    ("Acute cardiopulmonary abnormality.", ""),
    ("No acute bony abnormality.", ""),
    # signs
    ("Blunting of the left costophrenic angle.", "Eff?"),
    ("The left costophrenic angle is blunted.", "Eff?"),
    ("The left costophrenic angle is not blunted.", "Eff-"),
    ("Blunting of the costophrenic angle consistent with a small effusion.", "Eff? Eff+"),
    ("Pulmonary vascular congestion.", "Edema?"),
    ("No vascular congestion.", "Edema-"),
    ("No congestive heart failure.", "Edema-"),
    ("The lungs are hyperinflated.", "Emph?"),
    ("Hyperinflation with flattened diaphragms.", "Emph? Emph?"),
    ("Interstitial lung disease.", "Fib?"),
    # words of a finding that mean something else
    ("Pericardial effusion.", ""),
    ("Subcutaneous emphysema in the neck.", ""),
    ("Cystic fibrosis.", ""),
    ("Normal bone density.", ""),
    ("Mass effect on the trachea.", ""),
    ("Soft tissue mass of the axilla.", ""),
    ("Massive gastric dilatation.", ""),
    ("Median sternotomy wires and a pacemaker.", ""),
]  # fmt: skip


def expanded(marks: str) -> list[tuple[str, str]]:
    return sorted(
        (SHORT[mark[:-1]], MARKS[mark[-1]])
        for word in marks.split()
        for mark in GROUPS.get(word, word).split()
    )


@pytest.mark.parametrize(("text", "marks"), SENTENCES)
def test_sentence(text: str, marks: str) -> None:
    said = sorted((one.finding, one.polarity) for one in statements(text))
    assert said == expanded(marks)


def test_there_are_enough_sentences_and_each_finding_is_in_them() -> None:
    assert len(SENTENCES) >= 120
    assert len({text for text, _ in SENTENCES}) == len(SENTENCES)
    named = {pair for _, marks in SENTENCES for pair in expanded(marks)}
    for finding in FINDINGS:
        for polarity in ("present", "absent"):
            assert (finding, polarity) in named


# Each of these was labelled as its opposite, or as surely there, before.
MISREAD = [
    ("Without pneumothorax, the effusion persists.", "Ptx- Eff+"),
    ("No pneumothorax after removal of the tube, effusion remains.", "Ptx- Eff+"),
    ("Although no pneumothorax is seen, effusion persists.", "Ptx- Eff+"),
    ("There is no pneumothorax or pleural effusion and the cardiac silhouette is enlarged.",
     "Ptx- Eff- Card+"),
    ("No pneumothorax and effusion is small.", "Ptx- Eff+"),
    ("No pneumothorax and effusion has increased.", "Ptx- Eff+"),
    ("The effusion is no longer large.", "Eff+"),
    ("The effusion is no longer loculated.", "Eff+"),
    ("The effusion is no longer appreciated.", "Eff-"),
    ("The edema has not fully cleared.", "Edema+"),
    ("Near-complete resolution of the effusion.", "Eff+"),
    ("Almost complete resolution of the pneumothorax.", "Ptx+"),
    ("Follow-up is recommended to document resolution of the pneumonia.", ""),
    ("Follow-up to ensure clearing of the consolidation.", ""),
    ("Follow-up to resolution of the left lower lobe pneumonia.", ""),
    ("Since the prior exam the effusion has increased.", "Eff+"),
    ("A nodule not seen previously.", "Nod+"),
    ("Pneumothorax not present on the prior study.", "Ptx+"),
    ("New effusion which was not visible on the previous film.", "Eff+"),
    ("Effusion cannot be confidently excluded.", "Eff?"),
    ("Cannot exclude PNA.", "Pneu?"),
    ("Pneumothorax?", "Ptx?"),
    ("Pneumonia is considered less likely.", "Pneu?"),
    ("Minimal if any effusion.", "Eff?"),
    ("Tiny left effusion, if any.", "Eff?"),
    ("Pneumothorax, if present, is small.", "Ptx?"),
    ("If pneumonia is suspected, CT is recommended.", ""),
    ("No enlarging effusion.", ""),
    ("Nothing to indicate a pneumothorax.", "Ptx-"),
    ("No doubt about the effusion.", "Eff+"),
    ("Not without effusion.", "Eff+"),
    ("There is a left but no right effusion.", "Eff+"),
    ("The effusion is small on the left and absent on the right.", "Eff+"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "marks"), MISREAD)
def test_what_was_once_misread(text: str, marks: str) -> None:
    assert sorted((one.finding, one.polarity) for one in statements(text)) == expanded(marks)


def test_a_question_keeps_its_mark() -> None:
    assert label_report("? pneumonia")["Pneumonia"] == "uncertain"


def test_a_conditional_recommendation_takes_back_no_denial() -> None:
    text = "No pneumonia. If pneumonia is suspected, repeat the radiograph."
    assert label_report(text)["Pneumonia"] == "absent"


REPORTS = [
    # (report, what is labelled; the rest is None)
    ("FINDINGS: Left lower lobe consolidation.\nIMPRESSION: Pneumonia.", "Cons+ Pneu+ Opac+"),
    ("INDICATION: Rule out pneumonia.\nFINDINGS: No effusion.", "Eff-"),
    ("HISTORY: Emphysema.\nCOMPARISON: Effusion in 2019.\nIMPRESSION: No pneumothorax.", "Ptx-"),
    ("No effusion on the right. Small effusion on the left.", "Eff+"),
    ("No pneumothorax. A tiny pneumothorax is possible.", "Ptx?"),
    ("No focal opacity.", "Opac- Cons- Inf-"),
    ("Possible pneumonia.", "Pneu? Opac?"),
    ("The lungs are clear. Bibasilar atelectasis.",
     "Atel+ Cons- Edema- Inf- Opac- Mass- Nod- Pneu-"),
    ("Pneumonia in the right base. No other opacity.", "Pneu+ Opac+"),
    ("Normal chest.", "all-"),
    # Plain words count more than signs, and these more than an organ that is called normal.
    ("Vascular congestion without frank edema.", "Edema-"),
    ("Blunting of the left costophrenic angle. No effusion.", "Eff-"),
    ("Blunting of the left costophrenic angle. No acute abnormality.",
     "Eff? Cons- Edema- Inf- Pneu- Ptx-"),
    ("", ""),
    ("IMPRESSION: 1. Effusion. 2. No pneumothorax.", "Eff+ Ptx-"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "marks"), REPORTS)
def test_report(text: str, marks: str) -> None:
    labels = label_report(text)
    assert list(labels) == list(FINDINGS)
    assert sorted((name, label) for name, label in labels.items() if label) == expanded(marks)


def test_nothing_said_is_nothing_known() -> None:
    nothing: Labels = dict.fromkeys(FINDINGS)
    assert combine([]) == nothing


@given(st.text(max_size=200))
def test_any_text_can_be_labelled_and_always_alike(text: str) -> None:
    assert label_report(text) == label_report(text)


@given(st.lists(st.sampled_from([text for text, _ in SENTENCES]), max_size=6))
def test_sentences_of_a_report_do_not_change_each_other(sentences: list[str]) -> None:
    # A full stop ends every reach.
    assert label_report(" ".join(sentences)) == combine(
        one for text in sentences for one in statements(text)
    )


def test_five_hundred_reports_a_second() -> None:
    texts = [
        "FINDINGS: " + " ".join(text for text, _ in SENTENCES[start : start + 8])
        for start in range(0, len(SENTENCES), 8)
    ]
    label_report(texts[0])
    start = time.process_time()
    for _ in range(10):
        for text in texts:
            label_report(text)
    assert 10 * len(texts) / (time.process_time() - start) >= 500
