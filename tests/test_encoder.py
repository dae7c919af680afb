"""One interface over all families of networks: strides, sizes, stages, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from medvlm.config import EncoderConfig, ModelConfig
from medvlm.errors import ConfigError
from medvlm.model.checkpoint import CheckpointConfig
from medvlm.model.encoder import STRIDES, Encoder, Features
from medvlm.model.vision import VisionModel
from medvlm.model.vlm import VisionLanguageModel
from tests.tiny import TINY

# Name, whether it takes any size, stages.
FAMILIES = {
    "resnet18": (True, 5),
    "densenet121": (True, 5),
    "tf_efficientnet_lite0": (True, 5),
    "regnety_002": (True, 5),
    "convnext_atto": (True, 4),
    "swin_tiny_patch4_window7_224": (True, 4),
    "test_coatnet": (False, 5),
    "test_maxvit": (False, 5),
    "coatnet_pico_rw_224": (False, 5),
    "maxvit_pico_rw_256": (False, 5),
    "vit_tiny_patch16_224": (True, 12),
    "test_vit": (True, 6),
    "test_vit_relpos": (False, 9),
    "xcit_nano_12_p8_224": (False, 12),
    "vit_tiny_r_s16_p8_224": (True, 12),
}


def shapes(features: Features) -> list[tuple[int, ...]]:
    return [tuple(m.shape) for m in features]


def expected(encoder: Encoder, batch: int, size: int) -> list[tuple[int, ...]]:
    return [
        (batch, c, size // s, size // s) for c, s in zip(encoder.channels, STRIDES, strict=True)
    ]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_three_strides_of_one_channel_images(name: str) -> None:
    any_size, stages = FAMILIES[name]
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(name=name, size=64))
    images = torch.rand(2, 1, 64, 64)
    features = encoder(images)
    assert encoder.dims == 2
    assert shapes(features) == expected(encoder, 2, 64)
    torch.stack([m.square().mean() for m in features]).sum().backward()
    for key, parameter in encoder.backbone.named_parameters():
        assert parameter.grad is not None, f"{key} feeds no map"
        assert parameter.grad.isfinite().all()

    encoder.eval()
    with torch.no_grad():
        for one, again in zip(encoder(images), encoder(images), strict=True):
            assert torch.equal(one, again)
        other = images.repeat(1, 1, 2, 2)[..., :96, :96]
        assert encoder.any_size == any_size
        if any_size:
            assert shapes(encoder(other)) == expected(encoder, 2, 96)
        else:
            with pytest.raises(ConfigError, match=r"encoder\.size"):
                encoder(other)

    found = encoder.stages()
    assert len(found) == stages
    ids = [id(p) for stage in found for p in stage.parameters()]
    whole = {id(p): key for key, p in encoder.backbone.named_parameters()}
    assert len(ids) == len(set(ids))
    # What belongs to no stage is a parameter of the network itself.
    assert all("." not in key for i, key in whole.items() if i not in set(ids))


def test_the_last_stage_is_what_is_computed_last() -> None:
    encoder = Encoder(EncoderConfig(name="resnet18", size=64))
    *_, last = encoder.stages()
    assert sum(p.numel() for p in last.parameters()) == sum(
        p.numel() for p in encoder.backbone.layer4.parameters()
    )
    encoder.requires_grad_(False)
    last.requires_grad_(True)
    features = encoder(torch.rand(2, 1, 64, 64))
    assert [m.requires_grad for m in features] == [False, False, True]


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"])
def test_taking_any_size_changes_nothing_at_the_own_size(name: str) -> None:
    encoder = Encoder(EncoderConfig(name=name, size=64, mean=0, std=1)).eval()
    fixed = timm.create_model(name, in_chans=1, num_classes=0, img_size=64).eval()
    fixed.load_state_dict(fixed.state_dict() | encoder.backbone.state_dict())
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        maps = fixed.forward_intermediates(
            image,
            indices=encoder.indices,
            norm=encoder.single is not None,
            intermediates_only=True,
        )
        own = encoder(image)
    torch.testing.assert_close(own.coarse if encoder.single is None else own.middle, maps[-1])


def test_a_plain_vit_becomes_a_pyramid_in_place() -> None:
    """A cell of each stride holds what the last map has at its place."""
    encoder = Encoder(EncoderConfig(name="test_vit", size=64)).eval()
    with torch.no_grad():
        fine, middle, coarse = encoder(torch.rand(1, 1, 64, 64))
    torch.testing.assert_close(coarse, torch.nn.functional.avg_pool2d(middle, 2))
    inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    between = torch.nn.functional.avg_pool2d(fine[inside], 2)
    corners = torch.nn.functional.avg_pool2d(middle, 2, stride=1)
    torch.testing.assert_close(between, corners)


def test_normalisation_is_part_of_the_encoder() -> None:
    torch.manual_seed(0)
    one = Encoder(EncoderConfig(name="test_resnet", mean=0.5, std=0.25)).eval()
    plain = Encoder(EncoderConfig(name="test_resnet", mean=0.0, std=1.0)).eval()
    plain.load_state_dict(one.state_dict())
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(one(image).coarse, plain((image - 0.5) / 0.25).coarse)


GOLDEN = {
    "test_resnet": [9.5938, 4.6154, 2.1419],
    "test_vit": [58.8666, 31.9999, 15.7315],
    "test_maxvit": [104.5212, 90.6077, 73.038],
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_numbers(name: str) -> None:
    """Seeded weights, a fixed ramp: a change of the computation shows here."""
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(name=name, size=64)).eval()
    ramp = torch.linspace(0, 1, 64 * 64).reshape(1, 1, 64, 64)
    with torch.no_grad():
        found = [float(m.norm()) for m in encoder(ramp)]
    assert found == pytest.approx(GOLDEN[name], rel=1e-3)


def test_the_released_checkpoint_sees_what_it_saw(root: Path) -> None:
    """Loaded strictly; the numbers were taken when it was released."""
    folder = root / "medvlm" / "checkpoints" / "medvlm-cxr-lite"
    config = CheckpointConfig.from_yaml(folder / "config.yaml").model
    weights = load_file(folder / "model.safetensors")
    model = VisionModel(config.encoder)
    own = {k.removeprefix("vision."): t for k, t in weights.items() if k.startswith("vision.")}
    model.load_state_dict(own, strict=True)
    ramp = torch.linspace(0, 1, 320 * 320).reshape(1, 1, 320, 320)
    with torch.no_grad():
        look = model.eval()(ramp)
    found = [float(m.norm()) for m in (*look.features, look.findings, look.attributes, look.dense)]
    assert found == pytest.approx(RELEASED, rel=1e-4)


RELEASED = [1819.5953, 873.8727, 491.8069, 12.1463, 6.4468, 286.9131]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("resnet5O", "resnet50"),
        ("efficientnet_lite_0", "efficientnet_lite0"),
        ("resnet50.nonsense", r"resnet50\.a1_in1k|resnet50\."),
        ("hf-hub:someone/some_model", "encoder.name"),
        ("levit_128", r"strides \[16, 32, 64\]"),
        ("vit_small_patch14_dinov2", r"strides \[14\]"),
        ("pit_ti_224", "not of stride 8"),
        ("inception_v3", "64 pixels"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=r"encoder\.name") as refused:
        Encoder(EncoderConfig(name=name, size=224))
    assert refused.match(says)


def test_a_fixed_size_is_checked_before_anything_is_trained(tiny_language: Path) -> None:
    config = EncoderConfig(name="test_maxvit", size=64, dense_width=8)
    encoder = Encoder(config)
    encoder.require_sizes([64], "phases.size")
    with pytest.raises(ConfigError, match=r"phases\.size.*not of 96"):
        encoder.require_sizes([64, 96], "phases.size")
    parts = {"connector": TINY.connector, "language": TINY.language}
    with pytest.raises(ConfigError, match=r"model\.scales"):
        VisionLanguageModel(ModelConfig(encoder=config, scales=(96,), **parts), tiny_language)
    with pytest.raises(ConfigError, match=r"model\.second\.size"):
        VisionLanguageModel(
            ModelConfig(
                encoder=TINY.encoder.model_copy(update={"size": 96}), second=config, **parts
            ),
            tiny_language,
        )


def test_slices_are_for_volumes() -> None:
    with pytest.raises(ValidationError, match="slices"):
        EncoderConfig(slices=32)
    with pytest.raises(ValidationError, match="slices"):
        EncoderConfig(family="monai", name="resnet10")
