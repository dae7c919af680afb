"""The language model of any family: what it reads, says and refuses."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from medvlm.config import LanguageConfig, LoraSettings
from medvlm.errors import CheckpointError, ConfigError
from medvlm.model.causal import load_base
from medvlm.model.language import LanguageModel, Segment, Turn
from medvlm.model.tryout import KNOWN
from tests.families import FAMILIES, MARKUP, tiny_config, tiny_family, tiny_tokenizer

LORA = LanguageConfig(lora=LoraSettings(rank=2, alpha=4))
TURNS = [Turn("mass?"), Turn("Is there a nodule in the left lung?"), Turn("hernia?")]
Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The folder of a tiny model of the family asked for, made once."""
    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            made[family] = tiny_family(tmp_path_factory.mktemp(family), family)
        return made[family]

    return get


def _language(folder: Path) -> LanguageModel:
    return LanguageModel(folder, LORA).eval().requires_grad_(False)


def _pictures(language: LanguageModel) -> tuple[list[Segment], list[int]]:
    """Two pictures made of words, and the token ids of the trunk that they give."""
    shown = [("", "left lung and right lung"), ("Earlier:", "no effusion")]
    ids = [*language.user]
    pictures = []
    for words, looks in shown:
        tokens = language.tokenize(looks)
        pictures.append(Segment(words, language.embed(tokens)))
        ids += [*(language.tokenize(words) if words else []), *tokens, *language.line]
    return pictures, ids


def _plain_logits(base: Any, ids: list[int]) -> torch.Tensor:
    """[L, vocabulary] of the untouched model over plain token ids."""
    with torch.no_grad():
        logits: torch.Tensor = base(input_ids=torch.tensor([ids])).logits[0]
    return logits


def test_every_known_family_is_in_the_tests() -> None:
    assert FAMILIES.keys() >= set(KNOWN)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_branch_of_a_tree_reads_as_plain_text(family: str, folder: Folder) -> None:
    language = _language(folder(family))
    plain = AutoModelForCausalLM.from_pretrained(folder(family))
    pictures, trunk = _pictures(language)
    margins = language.yes_no_margins(language.sequences([pictures], [TURNS]))
    for margin, turn in zip(margins, TURNS, strict=True):
        prompt = [*trunk, *language.tokenize(turn.question), *language.ask]
        logits = _plain_logits(plain, prompt)[-1]
        expected = logits[language.yes] - logits[language.no]
        assert float(expected.abs()) > 1e-3
        torch.testing.assert_close(margin, expected, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_answers_are_those_of_plain_text(family: str, folder: Folder) -> None:
    language = _language(folder(family))
    plain: Any = AutoModelForCausalLM.from_pretrained(folder(family))
    pictures, trunk = _pictures(language)
    answered = [Turn(turn.question, "no mass") for turn in TURNS]
    losses, written = [], []
    for turn in answered:
        prompt = [*trunk, *language.tokenize(turn.question), *language.ask]
        answer = [*language.tokenize(turn.answer), *language.end]
        logits = _plain_logits(plain, prompt + answer)[len(prompt) - 1 : -1]
        own = F.cross_entropy(logits, torch.tensor(answer), reduction="sum")
        losses.append(own / (len(answer) - len(language.end)))
        ids = torch.tensor([prompt])
        said = plain.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=6,
            do_sample=False,
            eos_token_id=language.end[0],
            pad_token_id=language.end[0],
        )[0, len(prompt) :]
        written.append(language.tokenizer.decode(said, skip_special_tokens=True).strip())
    loss = language.answer_loss(language.sequences([pictures], [answered]))
    torch.testing.assert_close(loss, torch.stack(losses).mean(), atol=1e-4, rtol=1e-4)
    assert language.write([pictures] * 3, answered, [None] * 3, 6) == written


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("mamba", {}),
        ("rwkv", {}),
        ("bloom", {}),
        ("lfm2", {"layer_types": ["conv", "full_attention"] * 2}),
        # Its local attention counts places, not positions, and would lose sight of the picture.
        ("gpt_neo", {"attention_types": [[["global", "local"], 2]]}),
    ],
)
def test_a_family_that_mixes_its_questions_is_refused(
    family: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    tiny_family(tmp_path, family, **settings)
    with pytest.raises(ConfigError, match=r"language\.base"):
        LanguageModel(tmp_path, LORA)


def test_a_model_that_reads_pictures_itself_is_refused(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(MARKUP["gemma3"])
    tokenizer.save_pretrained(tmp_path)
    text = tiny_config("gemma3_text", len(tokenizer), head_dim=8).to_dict()
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
    }
    config = AutoConfig.for_model("gemma3", text_config=text, vision_config=vision)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"language\.base.*more than text"):
        LanguageModel(tmp_path, LORA)


def test_sampling_and_penalties_of_the_model_do_not_reach_the_answers(
    folder: Folder, tmp_path: Path
) -> None:
    other = shutil.copytree(folder("qwen3"), tmp_path / "llm")
    settings = {"do_sample": True, "temperature": 9.0, "repetition_penalty": 9.0}
    (other / "generation_config.json").write_text(json.dumps(settings))
    one, two = _language(folder("qwen3")), _language(other)
    pictures, _ = _pictures(one)
    answers = [m.write([pictures] * 3, TURNS, [None] * 3, 12) for m in (one, two)]
    assert answers[0] == answers[1]
    assert any(answers[0])


def test_control_tokens_in_a_question_stay_text(folder: Folder) -> None:
    language = _language(folder("qwen2"))
    (stop,) = language.end
    ids = language.tokenize("mass?<|im_end|>")
    assert stop not in ids
    assert language.tokenizer.decode(ids) == "mass?<|im_end|>"


def test_words_in_front_of_a_picture_are_read(folder: Folder) -> None:
    language = _language(folder("llama"))
    (picture, _), _ = _pictures(language)
    bare, named = (
        language.yes_no_margins(language.sequences([[picture._replace(words=words)]], [TURNS]))
        for words in ("", "Prior:")
    )
    assert not torch.allclose(bare, named)


def test_what_yes_and_no_share_is_read_before_they_are_told_apart(tmp_path: Path) -> None:
    """Single bytes with a blank in front, as SentencePiece may cut them."""
    tiny_family(tmp_path, "llama")
    tiny_tokenizer(MARKUP["llama3"], words=0, prefix=True).save_pretrained(tmp_path)
    language = _language(tmp_path)
    assert [
        language.tokenizer.decode([i]) for i in (*language.lead, language.yes, language.no)
    ] == [
        " ",
        "y",
        "n",
    ]
    pictures, trunk = _pictures(language)
    prompt = [*trunk, *language.tokenize("mass?"), *language.ask, *language.lead]
    logits = _plain_logits(language.base, prompt)[-1]
    (margin,) = language.yes_no_margins(language.sequences([pictures], [[Turn("mass?")]]))
    torch.testing.assert_close(margin, logits[language.yes] - logits[language.no])


def test_modules_that_are_not_there_are_named_with_those_that_are(folder: Folder) -> None:
    for module in ("q_proj", "lm_head"):
        config = LanguageConfig(lora=LoraSettings(modules=(module,)))
        with pytest.raises(ConfigError, match=rf"language\.lora\.modules.*{module}.*qkv_proj"):
            LanguageModel(folder("phi3"), config)


def test_chosen_modules_alone_are_adapted(folder: Folder) -> None:
    config = LanguageConfig(lora=LoraSettings(modules=("q_proj", "v_proj")))
    names = LanguageModel(folder("llama"), config).adapter_parameters()
    assert {name.split(".")[-3] for name in names} == {"q_proj", "v_proj"}


def test_quantisation_needs_its_package_and_a_gpu(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Any] = {"bitsandbytes": None}
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "medvlm.model.causal.importlib.util.find_spec",
        lambda name: found[name] if name in found else find(name),
    )
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    config = LanguageConfig(quantisation="nf4")
    with pytest.raises(ConfigError, match=r"language\.quantisation.*bitsandbytes"):
        LanguageModel(folder("llama"), config)
    found["bitsandbytes"] = object()
    with pytest.raises(ConfigError, match=r"language\.quantisation.*GPU"):
        LanguageModel(folder("llama"), config)


def test_quantised_weights_are_asked_for_as_the_configuration_says(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What transformers is told; that it does so takes a GPU."""
    asked: dict[str, Any] = {}

    class Enough(Exception):
        pass

    def load(folder: Path, **options: Any) -> None:
        asked.update(options)
        raise Enough

    monkeypatch.setattr("medvlm.model.causal.importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 1)
    monkeypatch.setattr("medvlm.model.causal.AutoModelForCausalLM.from_pretrained", load)
    for kind, bits in (("nf4", 4), ("int8", 8)):
        with pytest.raises(Enough):
            load_base(folder("llama"), kind)
        settings = asked["quantization_config"]
        assert (settings.load_in_4bit, settings.load_in_8bit) == (bits == 4, bits == 8)
        assert asked["device_map"] == {"": 1}
        if kind == "nf4":
            assert settings.bnb_4bit_quant_type == "nf4"
            assert settings.bnb_4bit_use_double_quant
            assert settings.bnb_4bit_compute_dtype == torch.bfloat16
    with pytest.raises(Enough):
        load_base(folder("llama"), "none")
    assert asked["dtype"] == torch.float32


def test_code_beside_a_model_is_not_run(folder: Folder, tmp_path: Path) -> None:
    other = shutil.copytree(folder("llama"), tmp_path / "llm")
    config = json.loads((other / "config.json").read_text())
    config |= {
        "model_type": "of_its_own",
        "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"},
    }
    (other / "config.json").write_text(json.dumps(config))
    (other / "own.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\nclass Own: ...\n")
    with pytest.raises(CheckpointError, match="not a language model"):
        LanguageModel(other, LORA)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("change", ["one less", "one more", "other shape", "cut off"])
def test_weights_that_do_not_fit_the_model_are_refused(
    change: str, folder: Folder, tmp_path: Path
) -> None:
    """Transformers itself fills what is missing with random numbers."""
    other = shutil.copytree(folder("llama"), tmp_path / "llm")
    file = other / "model.safetensors"
    weights = load_file(file)
    name = "model.layers.0.self_attn.q_proj.weight"
    if change == "cut off":
        file.write_bytes(file.read_bytes()[:-8])
    else:
        if change == "one less":
            del weights[name]
        elif change == "one more":
            weights["stranger"] = torch.zeros(1)
        else:
            weights[name] = torch.zeros(3, 3)
        save_file(weights, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"missing or unknown|not a language model"):
        LanguageModel(other, LORA)
