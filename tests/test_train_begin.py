"""Where alignment begins: at a checkpoint's encoder, or at a whole checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from medvlm.config import ConnectorConfig, StageConfig, TrainConfig
from medvlm.errors import CheckpointError
from medvlm.model.checkpoint import ADAPTER, WEIGHTS, load_checkpoint
from medvlm.train.align import align
from medvlm.train.begin import begin
from tests.sets import pack
from tests.tiny import TINY
from tests.training import train_config

NONE = StageConfig(epochs=0, learning_rate=1e-3)
SHORT = StageConfig(epochs=1, learning_rate=1e-2)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return pack(tmp_path / "pack")


def start_config(data: Path, tmp_path: Path, checkpoint: Path, stage2: StageConfig) -> TrainConfig:
    given = train_config(data, tmp_path, tmp_path, vision=tmp_path).model_dump(
        exclude={"model", "vision", "second"}
    )
    stages = {"warm_up": NONE, "stage1": NONE, "stage2": stage2}
    return TrainConfig.model_validate(given | stages | {"start": str(checkpoint)})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / WEIGHTS) | load_file(folder / ADAPTER)


def test_a_checkpoint_is_trained_on(data: Path, tmp_path: Path, tiny: Path) -> None:
    before = weights(tiny)

    unmoved = weights(align(start_config(data, tmp_path / "none", tiny, NONE), "new", "1"))
    assert all(torch.equal(t, before[name]) for name, t in unmoved.items())
    assert unmoved.keys() == before.keys()

    moved = weights(align(start_config(data, tmp_path / "some", tiny, SHORT), "new", "1"))
    changed = {name for name, t in moved.items() if not torch.equal(t, before[name])}
    parts = {"vision", "second", "connector", "probe", "base_model"}
    assert {name.partition(".")[0] for name in changed} == parts - {"vision", "second"}


def test_a_new_connector_reads_a_checkpoint_s_encoder(
    data: Path, tmp_path: Path, tiny: Path, tiny_language: Path
) -> None:
    model = TINY.model_copy(
        update={"second": None, "connector": ConnectorConfig(kind="linear", tokens=(2, 2))}
    )
    config = train_config(data, tmp_path, tiny_language, vision=tiny, model=model)
    _, built, key = begin(config, None)
    own = load_checkpoint(str(tiny)).model.vision.state_dict()
    assert all(torch.equal(t, own[name]) for name, t in built.vision.state_dict().items())
    assert len(key) >= 64

    other = model.encoder.model_copy(update={"mean": 0.25})
    odd = config.model_copy(update={"model": model.model_copy(update={"encoder": other})})
    with pytest.raises(CheckpointError, match=r"copy them into model\.encoder"):
        begin(odd, None)
    lost = config.model_copy(update={"vision": tmp_path / "nowhere"})
    with pytest.raises(CheckpointError, match="run `medvlm pretrain` first"):
        begin(lost, None)


def test_there_is_one_beginning(data: Path, tmp_path: Path, tiny: Path) -> None:
    config = start_config(data, tmp_path, tiny, NONE).model_dump(exclude={"model", "second"})
    for wrong, named in (
        ({"vision": "x"}, "vision, start"),
        ({"start": None}, "vision, start"),
        ({"second": "x"}, "second: with start"),
        ({"model": {}}, "model: with start"),
    ):
        with pytest.raises(ValidationError, match=named):
            TrainConfig.model_validate(config | wrong)
