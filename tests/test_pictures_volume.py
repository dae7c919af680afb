"""A volume as pictures: its slices for a 2-D model, all of it for a 3-D one; regions on planes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medvlm.config import (
    ConnectorConfig,
    EncoderConfig,
    LanguageConfig,
    LoraSettings,
    ModelConfig,
    PicturesConfig,
)
from medvlm.dicom.assemble import assemble
from medvlm.dicom.read import read_inputs
from medvlm.draft.trunk import Trunk
from medvlm.draft.volumes import look_at_volume
from medvlm.errors import UsageError
from medvlm.image.geometry import Box
from medvlm.image.slices import block_of, plane_place, spread, take_slices
from medvlm.image.volume import Volume, load_volume
from medvlm.image.window import Window
from medvlm.model.checkpoint import Checkpoint, CheckpointConfig, load_checkpoint
from medvlm.model.vlm import VisionLanguageModel
from medvlm.records import Region
from tests.dicoms import save, shipped
from tests.test_inspect import ct_slices


@pytest.fixture(scope="module")
def volume() -> Volume:
    """Five slices of a real CT, with few pixels."""
    folder = shipped("dicomdirtests/98892001/CT5N")
    (stack,) = assemble(read_inputs(folder).instances).stacks
    return load_volume(stack)


@pytest.fixture
def flat(tiny: Path) -> Checkpoint:
    """The tiny 2-D model, as if trained with three slices of a volume."""
    checkpoint = load_checkpoint()
    model = checkpoint.config.model.model_copy(
        update={"pictures": PicturesConfig(views=1, slices=3)}
    )
    return replace(checkpoint, config=checkpoint.config.model_copy(update={"model": model}))


@pytest.fixture(scope="module")
def deep(tiny_language: Path) -> Checkpoint:
    """A 3-D model: MONAI's smallest ResNet with random weights, 2 x 2 x 2 tokens."""
    pytest.importorskip("monai")
    encoder = EncoderConfig(family="monai", name="resnet10", size=64, slices=32, dense_width=8)
    config = ModelConfig(
        encoder=encoder,
        connector=ConnectorConfig(tokens=(2, 2, 2), width=16, depth=1),
        language=LanguageConfig(lora=LoraSettings(rank=2, alpha=4)),
    )
    torch.manual_seed(0)
    model = VisionLanguageModel(config, tiny_language).eval().requires_grad_(False)
    settings = CheckpointConfig(name="deep", version="0.0", model=config)
    return Checkpoint(model, settings, Path())


@given(depth=st.integers(1, 400), count=st.integers(1, 64))
def test_slices_are_spread_evenly(depth: int, count: int) -> None:
    numbers = spread(depth, count)
    assert len(numbers) == min(depth, count)
    assert sorted(set(numbers)) == list(numbers)
    assert 0 <= numbers[0] <= numbers[-1] < depth
    # As much is left out before the first as after the last, to one slice.
    assert abs(numbers[0] - (depth - 1 - numbers[-1])) <= 1
    gaps = np.diff(numbers)
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1


def answer(checkpoint: Checkpoint, trunk: Trunk, region: Region) -> str:
    turn = trunk.turn("What is in this region?", region)
    (text,) = checkpoint.model.write(trunk.sight, [turn], max_tokens=4)
    return text


def box_on(volume: Volume, number: int, box: Box) -> Region:
    plane = volume.sources[number].plane
    return Region(
        sop_instance_uid=plane.instance.sop_instance_uid,
        frame=plane.frame,
        x=box.x,
        y=box.y,
        width=box.width,
        height=box.height,
        polygon=None,
    )


def test_a_2d_model_reads_slices_and_answers_over_a_region_of_one(
    flat: Checkpoint, volume: Volume
) -> None:
    trunk = look_at_volume(flat, volume)
    assert [picture.number for _, picture in trunk.sight.shown[0]] == [0, 2, 4]
    uids = [source.plane.instance.sop_instance_uid for source in volume.sources]
    found = [trunk.token_region(token) for token in range(12)]
    assert [region.sop_instance_uid for region in found if region] == [
        uids[number] for number in (0, 2, 4) for _ in range(4)
    ]
    region = box_on(volume, 2, Box(2, 3, 8, 9))
    turn = trunk.turn("mass?", region)
    assert turn.picture == 1
    there = trunk.places[1][0].region(Box.from_corners(*turn.region or ()))
    assert there == region
    assert isinstance(answer(flat, trunk, region), str)
    others = [trunk.turn("mass?", box_on(volume, number, Box(2, 3, 8, 9))) for number in (0, 4)]
    margins = flat.model.margins(trunk.sight, [turn, *others])
    assert len({round(margin, 5) for margin in margins.tolist()}) == 3


def test_slices_can_be_named_and_must_exist(flat: Checkpoint, volume: Volume) -> None:
    trunk = look_at_volume(flat, volume, [3])
    assert [picture.number for _, picture in trunk.sight.shown[0]] == [3]
    with pytest.raises(UsageError, match="no plane 5"):
        look_at_volume(flat, volume, [1, 5])
    with pytest.raises(UsageError, match="none of the pictures"):
        trunk.turn("mass?", box_on(volume, 0, Box(2, 3, 8, 9)))


def test_a_model_of_single_images_takes_no_volume_unasked(tiny: Path, volume: Volume) -> None:
    with pytest.raises(UsageError, match="single images"):
        look_at_volume(load_checkpoint(), volume)


def test_a_3d_model_reads_the_whole_and_its_tokens_know_their_slices(
    deep: Checkpoint, volume: Volume
) -> None:
    trunk = look_at_volume(deep, volume)
    assert trunk.sight.tokens.shape[:2] == (1, 8)
    assert len(trunk.places) == 1
    assert len(trunk.places[0]) == 5
    uids = [source.plane.instance.sop_instance_uid for source in volume.sources]
    found = [trunk.token_region(token) for token in range(8)]
    # Tokens go slice by slice: the first four lie in the lower half of the planes' order.
    assert [region.sop_instance_uid for region in found if region] == [uids[1]] * 4 + [uids[3]] * 4
    (first, *_, last) = found
    assert (first.x, first.y, last.x, last.y) == (0, 0, 8, 8)
    region = box_on(volume, 4, Box(2, 3, 8, 9))
    turn = trunk.turn("mass?", region)
    assert turn.slices == (0.8, 1.0)
    assert trunk.places[0][4].region(Box.from_corners(*turn.region or ())) == region
    assert isinstance(answer(deep, trunk, region), str)
    other = trunk.turn("mass?", box_on(volume, 0, Box(2, 3, 8, 9)))
    here, there = deep.model.margins(trunk.sight, [turn, other]).tolist()
    assert here != pytest.approx(there, abs=1e-6)


def test_look_reads_a_volume_with_all_heads(deep: Checkpoint, volume: Volume) -> None:
    block = block_of(volume, 64, 32)
    look = deep.model.look(torch.from_numpy(block.grid)[None, None])
    logits = deep.model.findings(look, deep.model.sight(look.features))
    assert logits.shape == (1, 15)
    assert logits.isfinite().all()


def test_the_depth_is_resampled_about_its_planes(volume: Volume) -> None:
    ramp = np.repeat(np.arange(40, dtype=np.float32), 64).reshape(40, 8, 8)
    tall = replace(volume, voxels=ramp, sources=volume.sources[:1] * 40)
    for slices in (8, 40, 80):
        grid = block_of(tall, 32, slices, window=Window(19.5, 39, "LINEAR_EXACT")).grid
        middles = (np.arange(slices) + 0.5) * 40 / slices - 0.5
        reach = max(1, 40 / slices)
        inner = (middles >= reach - 1) & (middles <= 40 - reach)
        assert inner.sum() > slices / 2
        assert np.allclose(39 * grid[:, 16, 16][inner], middles[inner], atol=1e-3)


def test_a_slanted_stack_leads_back_to_the_files_own_pixels(tmp_path: Path) -> None:
    """Planes moved aside for a gantry tilt: the grid's pixels are found where the file has them."""
    for z, ds in enumerate(ct_slices()):
        ds.ImagePositionPatient = [0, 1.0 * z, 2.5 * z]
        save(ds, tmp_path / f"{z}.dcm")
    (stack,) = assemble(read_inputs(tmp_path).instances).stacks
    volume = load_volume(stack)
    assert any(source.shift != (0.0, 0.0) for source in volume.sources)
    for number in range(len(volume.voxels)):
        place = plane_place(volume, number, 64)
        point = volume.source_from_voxel(number, 12.0, 5.0)
        fitted = place.transform.to_grid(Box(point.x, point.y, 0, 0))
        # In the plane's own grid the voxel (12, 5) is at the same spot for every plane.
        rows, columns = volume.voxels.shape[1:]
        scale = 64 / max(rows, columns)
        assert fitted.x == pytest.approx(5.5 * scale + (64 - round(columns * scale)) // 2, abs=0.1)
        assert place.sop_instance_uid == point.sop_instance_uid
        back = place.to_source(Box(fitted.x, fitted.y, 0, 0))
        assert (back.x, back.y) == pytest.approx((point.x, point.y))


def test_all_planes_of_a_volume_share_one_grey_scale(volume: Volume) -> None:
    slices = take_slices(volume, [0, 4], 32)
    block = block_of(volume, 32, 5)
    for own in slices:
        assert np.allclose(own.grid, block.grid[own.number], atol=1e-6)


def test_a_real_series_of_full_size(flat: Checkpoint, data_pack: Path) -> None:
    folder = data_pack / "dicom" / "dcmqi" / "data" / "segmentations" / "ct-3slice"
    (stack,) = assemble(read_inputs(folder).instances).stacks
    volume = load_volume(stack)
    trunk = look_at_volume(flat, volume)
    region = box_on(volume, 1, Box(100, 120, 200, 150))
    turn = trunk.turn("mass?", region)
    assert turn.picture == 1
    assert trunk.places[1][0].region(Box.from_corners(*turn.region or ())) == region
    assert isinstance(answer(flat, trunk, region), str)
