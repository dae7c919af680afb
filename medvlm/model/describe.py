"""What a configuration builds, before there is a weight: sizes, costs, what learns when.

All parts are built on torch's meta device, which knows shapes but holds no numbers. Of the language
model only its `config.json` is read.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from medvlm.config import LanguageConfig, ModelConfig, TrainConfig
from medvlm.errors import BaseModelMissing, CheckpointError
from medvlm.findings import FINDINGS
from medvlm.model.adapter import adapter_parameters, add_lora
from medvlm.model.base_llm import BASE_LLM, converted_llm_dir
from medvlm.model.checkpoint import CONFIG, CheckpointConfig, resolve_checkpoint
from medvlm.model.connectors import build_connector
from medvlm.model.connectors.interface import times
from medvlm.model.encoder import STRIDES, Features
from medvlm.model.heads import ATTRIBUTES
from medvlm.model.llm_source import language_model_dir
from medvlm.model.pictures import PicturesCount, pictures_count
from medvlm.model.vision import SecondReader, VisionModel

# What is trained when: the encoders by `medvlm pretrain`, the rest in the stages of `medvlm train`.
STAGES = ("pretrain", "pretrain_second", "warm_up", "stage1", "stage2")
ALIGNMENT = STAGES[2:]
LANGUAGE = "language model"


@dataclass(frozen=True)
class Part:
    """One part of a model.

    `learns`: how many of the `parameters` are trained, by stage. `stored`: bytes in a checkpoint.
    `macs`: multiplications with addition for one picture at its own size; of the language model,
    for the visual tokens of one picture. None: not known without the language model.
    """

    name: str
    what: str
    parameters: int | None
    stored: int | None
    macs: int | None
    learns: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Description:
    """A model as its configuration says.

    `input`: of a picture, (slices,) rows, columns. `maps`: channels, (planes,) rows, columns of
    each feature map by stride. `tokens`: visual tokens of one picture; a region has 4 more.
    `at_most`: pictures and visual tokens before one question. `look`: multiplications with addition
    of all readings of one picture by the encoders and heads, at all sizes.
    """

    input: tuple[int, ...]
    maps: Mapping[int, tuple[int, ...]]
    tokens: int
    at_most: PicturesCount
    look: int
    parts: tuple[Part, ...]

    @property
    def learns(self) -> dict[str, int | None]:
        """Parameters that are trained, by stage."""
        return {
            stage: _sum(part.learns[stage] for part in self.parts if stage in part.learns)
            for stage in STAGES
            if any(stage in part.learns for part in self.parts)
        }

    @property
    def parameters(self) -> int | None:
        return _sum(part.parameters for part in self.parts)

    @property
    def stored(self) -> int | None:
        """Bytes of a checkpoint's weights, to within the files' headers."""
        return _sum(part.stored for part in self.parts)

    @property
    def prefill(self) -> int | None:
        """Operations of the language model over one picture: two per parameter and token."""
        (macs,) = (part.macs for part in self.parts if part.name == LANGUAGE)
        return None if macs is None else 2 * macs

    def record(self) -> dict[str, Any]:
        """The description as JSON."""
        return {
            "input": list(self.input),
            "maps": {str(stride): list(shape) for stride, shape in self.maps.items()},
            "visual_tokens": self.tokens,
            "at_most": self.at_most._asdict(),
            "parameters": self.parameters,
            "learns": self.learns,
            "checkpoint_bytes": self.stored,
            "look_macs": self.look,
            "prefill_flops": self.prefill,
            "parts": [dataclasses.asdict(part) for part in self.parts],
        }


def read_config(path: Path) -> tuple[ModelConfig, int]:
    """The model in a YAML file of a model, of training or of a checkpoint.

    With it the number of the encoder's last stages that stage 2 trains. Raises ConfigError.
    """
    try:
        keys = set(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError):
        keys = set()  # what is wrong, `from_yaml` says
    if keys <= set(ModelConfig.model_fields):
        return ModelConfig.from_yaml(path), 0
    if "weights_sha256" in keys:
        return CheckpointConfig.from_yaml(path).model, 0
    training = TrainConfig.from_yaml(path)
    model = training.model
    if training.start is not None:
        model = CheckpointConfig.from_yaml(resolve_checkpoint(training.start) / CONFIG).model
    return model, training.stage2.encoder_stages


def language_model_at_hand(config: LanguageConfig, llm_path: Path | None = None) -> Path | None:
    """The language model's folder where nothing need be fetched or converted, else None."""
    if llm_path is None and config.base == BASE_LLM:
        return converted_llm_dir()
    try:
        return language_model_dir(config, llm_path)
    except BaseModelMissing:
        if llm_path is not None:
            raise
        return None


def describe(config: ModelConfig, llm: Path | None, encoder_stages: int = 0) -> Description:
    """Sizes and costs of what `config` builds.

    Args:
        llm: the language model's folder, of which config.json is read; None: counts that depend on
            it stay None.
        encoder_stages: of the encoder's last stages, how many stage 2 trains.

    Raises ConfigError where the parts do not fit.
    """
    with torch.device("meta"):
        vision = _frozen(VisionModel(config.encoder))
        second = _frozen(SecondReader(config.second)) if config.second else None
    shape: tuple[int, ...] = (config.encoder.size, config.encoder.size)
    if vision.encoder.dims == 3:
        shape = (config.encoder.slices, *shape)
    image = torch.zeros(1, 1, *shape, device="meta")
    encoder_macs, features = _macs(vision.encoder, image)
    heads_macs, _ = _macs(vision.read, features)
    second_macs = 0 if second is None else _macs(second, image)[0]
    look = encoder_macs + heads_macs + second_macs
    for size in config.scales:
        resized = torch.zeros(*image.shape[:-2], size, size, device="meta")
        look += _macs(vision.classify, resized)[0]
        look += 0 if second is None else _macs(second, resized)[0]

    heads = nn.ModuleList(child for child in vision.children() if child is not vision.encoder)
    last = sum(map(_count, vision.encoder.stages()[-encoder_stages:])) if encoder_stages else 0
    parts = [
        _part("encoder", config.encoder.name, vision.encoder, encoder_macs, STAGES[:1]),
        _part("heads", "findings, attributes, maps", heads, heads_macs, STAGES[:1]),
    ]
    if last:
        also = ({"stage2": last}, {"stage2": _count(heads)})
        parts = [
            dataclasses.replace(part, learns={**part.learns, **more})
            for part, more in zip(parts, also, strict=True)
        ]
    if second is not None and config.second is not None:
        parts.append(_part("second encoder", config.second.name, second, second_macs, STAGES[1:2]))
    parts += _readers(config, vision, features, llm)
    return Description(
        input=shape,
        maps={s: tuple(x.shape[1:]) for s, x in zip(STRIDES, features, strict=True)},
        tokens=math.prod(config.connector.tokens),
        at_most=pictures_count(config),
        look=look,
        parts=tuple(parts),
    )


def _readers(
    config: ModelConfig, vision: VisionModel, features: Features, llm: Path | None
) -> list[Part]:
    """Connector, probe, language model, LoRA: what depends on the language model's width."""
    tokens = math.prod(config.connector.tokens)
    base = None if llm is None else _language_model(llm)
    # Without a width the connector is still built, to refuse what does not fit.
    width = 64 if base is None else int(base.get_input_embeddings().weight.shape[1])
    encoder = vision.encoder
    with torch.device("meta"):
        connector = _frozen(
            build_connector(
                config.connector,
                encoder.channels,
                width,
                encoder.dims,
                (config.encoder.size, config.encoder.size),
                encoder.single,
            )
        )
        probe = _frozen(nn.Linear(width, len(FINDINGS) + len(ATTRIBUTES)))
    macs, _ = _macs(connector, features)
    probe_macs, _ = _macs(probe, torch.zeros(1, width, device="meta"))
    what = f"{config.connector.kind}, {times(config.connector.tokens)} tokens"
    parts = [
        _part("connector", what, connector, macs, ALIGNMENT),
        _part("probe", "findings, attributes", probe, probe_macs, ALIGNMENT),
    ]
    lora = f"rank {config.language.lora.rank}"
    if base is None:
        missing = f"{config.language.base}, not at hand"
        return [
            *(Part(p.name, p.what, None, None, None, dict.fromkeys(ALIGNMENT)) for p in parts),
            Part(LANGUAGE, missing, None, 0, None),
            Part("LoRA", lora, None, None, None, {"stage2": None}),
        ]
    count = _count(base)
    with torch.device("meta"):
        adapters = adapter_parameters(add_lora(base, config.language.lora))
    size = sum(p.numel() for p in adapters.values())
    return [
        *parts,
        Part(LANGUAGE, config.language.base, count, 0, count * tokens),
        Part("LoRA", lora, size, _stored(adapters.values()), size * tokens, {"stage2": size}),
    ]


def _language_model(folder: Path) -> Any:
    """The language model without weights. Raises CheckpointError if transformers has no such."""
    try:
        settings = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(settings).requires_grad_(False)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            "is not a language model that transformers can read",
            file=str(folder),
            remedy="give another with --llm-path",
        ) from error


def _part(name: str, what: str, module: nn.Module, macs: int, stages: Iterable[str]) -> Part:
    count, stored = _count(module), _stored(module.state_dict().values())
    return Part(name, what, count, stored, macs, dict.fromkeys(stages, count))


def _frozen(module: Any) -> Any:
    return module.eval().requires_grad_(False)


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _stored(tensors: Iterable[Tensor]) -> int:
    """Bytes as `save_checkpoint` packs them: matrices as float16."""
    return sum(t.numel() * (2 if t.ndim > 1 else t.element_size()) for t in tensors)


def _macs(function: Callable[..., Any], *inputs: Any) -> tuple[int, Any]:
    """Multiplications with addition in a call, and what it returned."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        out = function(*inputs)
    return counter.get_total_flops() // 2, out


def _sum(numbers: Iterable[int | None]) -> int | None:
    """None if one of them is not known."""
    known = list(numbers)
    return None if None in known else sum(n for n in known if n is not None)
