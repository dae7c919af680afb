"""The benchmarks measure what they say: their studies, their baseline, their peers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pydicom
import pytest
import torch
from PIL import Image
from transformers import SmolVLMForConditionalGeneration

from benchmarks import baseline, batch, decoding, first_token, llama
from benchmarks.films import SPOILED, Made, film, make_studies
from medvlm.dicom.read import read_inputs
from medvlm.dicom.study import group_studies
from medvlm.draft.compose import draft_study
from medvlm.findings import FINDINGS
from medvlm.model.checkpoint import Checkpoint, load_checkpoint
from medvlm.model.language import LanguageModel, Turn
from medvlm.records import Draft
from medvlm.resources import sample_film


@pytest.fixture
def checkpoint(tiny: Path) -> Checkpoint:
    return load_checkpoint()


def reference(checkpoint: Checkpoint) -> LanguageModel:
    assert isinstance(checkpoint.model.language, LanguageModel)
    return checkpoint.model.language


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two films as pictures, 48 x 64."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(2):
        grey = np.random.default_rng(seed).integers(0, 256, (64, 48), dtype=np.uint8)
        Image.fromarray(grey).save(folder / f"{seed}.png")
    return folder


def test_studies_hold_the_films_and_a_copy_is_another_film(pictures: Path, tmp_path: Path) -> None:
    made = make_studies(tmp_path / "in", 4, pictures, bits=8)
    read = [pydicom.dcmread(path / "film.dcm") for path in made.intact]
    assert len({ds.StudyInstanceUID for ds in read}) == len({ds.PatientID for ds in read}) == 4
    for number, ds in enumerate(read[:2]):
        with Image.open(pictures / f"{number}.png") as picture:
            assert np.array_equal(ds.pixel_array, np.asarray(picture))
    assert not np.array_equal(read[0].pixel_array, read[2].pixel_array)
    again = make_studies(tmp_path / "again", 4, pictures, bits=8)
    for one, other in zip(made.intact, again.intact, strict=True):
        assert (one / "film.dcm").read_bytes() == (other / "film.dcm").read_bytes()


def test_films_are_scaled_and_stored_in_the_bits_asked_for(pictures: Path, tmp_path: Path) -> None:
    (study,) = make_studies(tmp_path / "in", 1, pictures, size=(100, 120), bits=12).intact
    ds = pydicom.dcmread(study / "film.dcm")
    assert (ds.Columns, ds.Rows, ds.BitsAllocated, ds.BitsStored) == (100, 120, 16, 12)
    assert 2**11 < ds.pixel_array.max() < 2**12


def test_every_kind_of_broken_study_is_refused_and_no_other(pictures: Path, tmp_path: Path) -> None:
    made = make_studies(tmp_path / "in", 3 * len(SPOILED), pictures, broken=1 / 3)
    assert (len(made.broken), len(made.intact)) == (len(SPOILED), 2 * len(SPOILED))
    for study in made.broken:
        assert read_inputs(study, decode=True).failed
    assert not read_inputs(made.intact, decode=True).failed


def test_without_a_folder_of_films_the_studies_show_a_real_chest(tmp_path: Path) -> None:
    (study,) = make_studies(tmp_path / "in", 1, size=(195, 247)).intact
    shown = pydicom.dcmread(study / "film.dcm").pixel_array
    real = pydicom.dcmread(sample_film()).pixel_array.astype(float)
    small = np.asarray(Image.fromarray(real).resize((195, 247), Image.Resampling.BOX))
    assert abs(np.corrcoef(shown.ravel(), small.ravel())[0, 1]) > 0.95


@pytest.fixture
def one_study(tmp_path: Path) -> Made:
    return make_studies(tmp_path / "in", 1, size=(200, 240))


def test_the_baseline_writes_each_sentence_by_itself_and_drafts_the_same(
    checkpoint: Checkpoint, one_study: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = reference(checkpoint).base
    batches, generate = [], base.generate

    def spy(**given: torch.Tensor) -> torch.Tensor:
        batches.append(len(given["inputs_embeds"]))
        out: torch.Tensor = generate(**given)
        return out

    monkeypatch.setattr(base, "generate", spy)
    times = baseline.run(checkpoint, one_study.intact, tmp_path / "plain")
    assert batches == [1] * len(FINDINGS) * 2  # the first study once more, to warm up
    assert times.summary()["studies"] == 1
    assert times.summary()["parts_s"].keys() >= {"load", "look", "write", "stability"}
    ((name, theirs),) = baseline.read_drafts(tmp_path / "plain").items()
    (study,) = group_studies(read_inputs(one_study.folder))
    found = baseline.compare([(name, draft_study(checkpoint, study).draft, theirs)])
    assert found.within
    assert (found.findings, found.texts) == (len(theirs.findings), 0)


def test_the_baseline_goes_on_after_a_study_that_cannot_be_read(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    made = make_studies(tmp_path / "in", 2, size=(200, 240), broken=0.5)
    times = baseline.run(checkpoint, [*made.broken, *made.intact], tmp_path / "plain")
    assert (len(times.studies), times.failed) == (1, 1)


def test_a_figure_of_drafts_that_were_written_otherwise_is_refused(
    checkpoint: Checkpoint, one_study: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baseline, "draft_study", lambda _, study: draft_study(checkpoint, study))
    with pytest.raises(RuntimeError, match="own model"):
        baseline.run(checkpoint, one_study.intact, tmp_path / "plain")


def test_differences_from_the_baseline_are_found(checkpoint: Checkpoint, one_study: Made) -> None:
    (study,) = group_studies(read_inputs(one_study.folder))
    draft = draft_study(checkpoint, study).draft
    assert baseline.compare([("one", draft, draft)]).within

    def other(**values: object) -> baseline.Differences:
        first = draft.findings[0].model_copy(update=values)
        changed = draft.model_copy(update={"findings": [first, *draft.findings[1:]]})
        return baseline.compare([("one", changed, draft)])

    worded = other(text="Otherwise.")
    assert (worded.texts, worded.within) == (1, True)
    moved = other(probability=draft.findings[0].probability + 2 * baseline.TOLERANCE)
    assert not moved.within
    assert moved.probability == pytest.approx(2 * baseline.TOLERANCE)
    assert other(polarity="another").polarities == 1
    fewer = draft.model_copy(update={"findings": draft.findings[1:]})
    assert baseline.compare([("one", fewer, draft)]).studies == ["one"]
    assert not baseline.compare([("one", _refused(draft), draft)]).within


def _refused(draft: Draft) -> Draft:
    check = draft.input_check.model_copy(update={"accepted": False})
    return draft.model_copy(update={"input_check": check})


def test_memory_that_grows_is_told_from_memory_that_stays() -> None:
    def samples(slope: float) -> list[batch.Sample]:
        return [batch.Sample(float(i), i, 500 + slope * i) for i in range(1001)]

    assert batch.flatness(samples(0), 1000)["ratio"] == 1
    grown = batch.flatness(samples(1), 1000)
    assert (grown["first"], grown["first_mb"], grown["end_mb"]) == (100, 624, 1474)
    assert grown["peak_mb"] == 1500
    assert batch.flatness([], 1000) == {}


def test_the_steady_rate_leaves_out_what_comes_before_the_first_study() -> None:
    done = [0, 0, 0, 1, 3, 3, 5]
    samples = [batch.Sample(10.0 * i, count, 1.0) for i, count in enumerate(done)]
    assert batch.steady_rate(samples) == 3600 * 4 / 30
    assert batch.steady_rate(samples[:4]) is None


def test_memory_counts_the_children() -> None:
    code = "held = bytearray(b'x') * 80_000_000; print(1, flush=True); input()"
    own = psutil.Process()
    before = batch.tree_memory(own)
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        assert batch.tree_memory(own) - before > 75
        child.communicate(b"\n")


def test_the_baselines_studies_are_spread_over_all() -> None:
    items = [Path(str(i)) for i in range(10)]
    assert [path.name for path in batch.spread(items, 2)] == ["2", "7"]
    assert batch.spread(items, 20) == items
    assert batch.spread(items, 0) == []


def test_the_first_token_is_the_models_own_with_and_without_a_cache(checkpoint: Checkpoint) -> None:
    way = first_token.Reference(checkpoint)
    grey = first_token.film(0, 80)
    other = "pleural effusion?"
    cold = way.cold(grey, first_token.QUESTION)
    assert way.warm(first_token.QUESTION) == cold
    asked_later = way.warm(other)
    assert way.cold(grey, other) == asked_later

    sight = first_token.glimpse(checkpoint, grey)
    tree = checkpoint.model.sequences(sight, [[Turn(first_token.QUESTION)]])
    language = reference(checkpoint)
    (row, column) = tree.ends[0]
    best = language.logits(language.read(tree)[row, column][None]).argmax()
    assert language.tokenizer.decode(best, skip_special_tokens=True).strip() == cold
    for look in (first_token.glimpse, first_token.whole_look):
        product = first_token.Product(checkpoint, look)
        assert product.cold(grey, first_token.QUESTION) == cold
        assert product.warm(other) == asked_later


def test_the_peer_has_the_size_of_smolvlm_256m() -> None:
    config = first_token.peer_config()
    with torch.device("meta"):
        model = SmolVLMForConditionalGeneration(config)
    assert sum(own.numel() for own in model.parameters()) == 256_484_928


def test_all_ways_to_a_first_token_take_turns(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = first_token.peer_config()
    for part, small in (
        (config.vision_config, {"image_size": 64}),
        (config.text_config, {"vocab_size": 128}),
    ):
        sizes = {"hidden_size": 36, "intermediate_size": 48, "num_hidden_layers": 1}
        for name, value in (sizes | small).items():
            setattr(part, name, value)
    config.image_token_id = 100
    peer = first_token.Peer(config, words=10)
    assert peer.ids.shape[1] == 10 + first_token.AROUND + 1
    ways: dict[str, first_token.Way] = {"own": first_token.Reference(checkpoint)}
    rows = first_token.table(first_token.interleaved(ways, peer, 2))
    assert list(rows) == ["own, new image", "own, next question", first_token.PEER]
    assert rows[first_token.PEER]["times_faster"] == 1


def test_decoding_is_greedy(checkpoint: Checkpoint) -> None:
    base = reference(checkpoint).base
    prompts = [[5, 6, 7, 8], [9, 10, 11, 12]]
    value, found = decoding.rate(decoding.Transformers(base), prompts, 6)
    expected = base.generate(
        input_ids=torch.tensor(prompts), max_new_tokens=7, min_new_tokens=7, do_sample=False
    )
    # The first token belongs to the prompt's reading.
    assert found == expected[:, 5:].tolist()
    assert decoding.rate(decoding.Passes(reference(checkpoint)), prompts, 6)[1] == found
    assert value > 0


def test_prompts_are_of_one_length_and_all_different(checkpoint: Checkpoint) -> None:
    language = checkpoint.model.language
    prompts = decoding.made_prompts(4, language)
    assert {len(prompt) for prompt in prompts} == {decoding.PROMPT}
    assert len(set(map(tuple, prompts))) == 4
    for prompt in prompts:
        assert (prompt[: len(language.user)], prompt[-len(language.ask) :]) == (
            language.user,
            language.ask,
        )


def test_answers_agree_up_to_their_first_difference() -> None:
    assert decoding.agreement([[1, 2, 3, 4], [1, 2, 3, 4]], [[1, 2, 9, 4], [1, 2, 3, 4]]) == 0.75


STAND_IN = """
class CommonParams:
    def __init__(self):
        self.model = self.cpuparams = self.cpuparams_batch = type("Settings", (), {})()
class Server:
    def __init__(self, params):
        print("the library's own chatter")
    def handle_completions(self, request):
        usage = {"completion_tokens": request["max_tokens"]}
        return {"usage": usage, "timings": {"predicted_per_second": 100.0}}
def get_system_info():
    return "a stand-in"
"""


def test_llama_cpp_is_asked_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "xllamacpp.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert llama.has_llama(sys.executable)
    with llama.LlamaCpp(sys.executable, tmp_path / "model.gguf", 2, 1, 20) as peer:
        assert peer.compiled_for == "a stand-in"
        assert peer.rate([[1, 2]], 20) == 100
        assert peer.rate([[1, 2], [3, 4]], 20) == 200
    assert peer.process.returncode == 0


def test_a_film_of_a_benchmark_has_uids_of_its_name_alone() -> None:
    grey = np.zeros((4, 4), dtype=np.float32)
    one, same, other = (film(grey, name) for name in ("1", "1", "2"))
    assert one.SOPInstanceUID == same.SOPInstanceUID == same.file_meta.MediaStorageSOPInstanceUID
    assert one.SOPInstanceUID != other.SOPInstanceUID
