"""Connectors: one interface for every kind, and what each promises about places and padding."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from medvlm.config import ConnectorConfig
from medvlm.errors import ConfigError
from medvlm.model.checkpoint import CONFIG, DEFAULT, WEIGHTS, CheckpointConfig
from medvlm.model.connectors import Cell, Connector, build_connector
from medvlm.model.encoder import Features
from medvlm.resources import resource_dir

KINDS = ("c_abstractor", "linear", "mlp", "average", "qformer", "resampler")
QUERIES = ("qformer", "resampler")
KIND_AND_DIMS = list(itertools.product(KINDS, (2, 3)))
STRIDES = ((8,), (16,), (32,), (16, 32), (8, 16, 32))
CHANNELS, OUT = (4, 6, 8), 24
# At stride 16; not square, and not divisible by the token grid.
GRID = {2: (6, 10), 3: (2, 6, 10)}
TOKENS = {2: (3, 4), 3: (1, 3, 4)}


def connector(kind: str, dims: int = 2, **changes: object) -> Connector:
    """A seeded connector; `changes` of its configuration."""
    tokens = (1,) * dims if kind == "average" else TOKENS[dims]
    settings = {"kind": kind, "tokens": tokens, "width": 24, "depth": 2, "heads": 4} | changes
    torch.manual_seed(0)
    return build_connector(ConnectorConfig(**settings), CHANNELS, OUT, dims).eval()  # type: ignore[arg-type]


def features(dims: int = 2, images: int = 2, grid: tuple[int, ...] | None = None) -> Features:
    random = torch.Generator().manual_seed(1)
    *slices, rows, columns = grid or GRID[dims]
    planes = ((2 * rows, 2 * columns), (rows, columns), (rows // 2, columns // 2))
    return Features(
        *(
            torch.randn(images, count, *slices, *plane, generator=random)
            for count, plane in zip(CHANNELS, planes, strict=True)
        )
    )


def with_noise(seen: Features, padding: Tensor) -> Features:
    """Other values where `padding` [B, (D,) H, W], at stride 8, covers a cell of a map."""

    def change(x: Tensor) -> Tensor:
        step = padding.shape[-1] // x.shape[-1]
        covered = padding.unfold(-2, step, step).unfold(-2, step, step).flatten(-2).all(dim=-1)
        return torch.where(covered.unsqueeze(1), torch.full_like(x, 1e3), x)

    return Features(*map(change, seen))


@pytest.mark.parametrize(
    ("kind", "dims", "strides"), list(itertools.product(KINDS, (2, 3), STRIDES))
)
def test_every_kind_gives_the_same_shapes(kind: str, dims: int, strides: tuple[int, ...]) -> None:
    tokens = {"tokens": (1, 2, 2)[3 - dims :]} if strides == (32,) and kind != "average" else {}
    model = connector(kind, dims, strides=strides, **tokens)
    with torch.no_grad():
        visual = model(features(dims))
        regions = model.region_tokens(visual.local, torch.tensor([[0, 8.0, 8, 90, 60]] * 3))
    assert visual.tokens.shape == (2, len(model.cells), OUT)
    assert visual.local.shape == (2, 24, *GRID[dims])
    assert regions.shape == (3, 4, OUT)
    assert visual.tokens.isfinite().all()
    # The length of a word's embedding, whatever the kind.
    assert visual.tokens.std(dim=-1).mean() == pytest.approx(0.1, rel=0.1)


@settings(max_examples=20, deadline=None)
@given(kind=st.sampled_from(KINDS), rows=st.integers(2, 9), columns=st.integers(2, 9))
def test_the_input_may_have_any_size(kind: str, rows: int, columns: int) -> None:
    visual = connector(kind)(features(grid=(2 * rows, 2 * columns)))
    assert visual.tokens.isfinite().all()
    assert visual.local.shape[-2:] == (2 * rows, 2 * columns)


@pytest.mark.parametrize(("kind", "dims"), KIND_AND_DIMS)
def test_what_lies_under_padding_does_not_matter(kind: str, dims: int) -> None:
    """The second image is padded on the right by an odd number of cells of stride 8."""
    seen = features(dims)
    padding = torch.zeros(2, *seen.fine.shape[2:], dtype=torch.bool)
    padding[1, ..., 13:] = True
    model = connector(kind, dims, strides=(8, 16, 32))
    box = torch.tensor([[1, 8.0, 8, 150, 60]])
    with torch.no_grad():
        plain, noisy, unmasked = (
            model(seen, padding),
            model(with_noise(seen, padding), padding),
            model(with_noise(seen, padding)),
        )
        for here, there in zip(plain, noisy, strict=True):
            assert torch.equal(here, there)
        assert torch.equal(
            model.region_tokens(plain.local, box), model.region_tokens(noisy.local, box)
        )
    assert not torch.allclose(plain.tokens[1], unmasked.tokens[1], atol=1e-3)
    assert (plain.local[1, ..., 7:] == 0).all()
    assert (plain.local[1, ..., 6] != 0).any(), "a cell that holds some picture is no padding"
    torch.testing.assert_close(plain.tokens[0], unmasked.tokens[0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_may_be_said_at_any_resolution(kind: str) -> None:
    model, seen = connector(kind), features()
    padding = torch.zeros(2, *GRID[2], dtype=torch.bool)
    padding[:, :2] = True
    pixels = padding.repeat_interleave(16, dim=1).repeat_interleave(16, dim=2)
    assert torch.equal(model(seen, padding).tokens, model(seen, pixels).tokens)


@pytest.mark.parametrize("kind", ["c_abstractor", "linear", "mlp"])
def test_tokens_of_padding_stay_and_are_zero(kind: str) -> None:
    padding = torch.zeros(2, *GRID[2], dtype=torch.bool)
    padding[:, 4:] = True
    tokens = connector(kind)(features(), padding).tokens.unflatten(1, TOKENS[2])
    assert (tokens[:, 2] == 0).all()
    assert (tokens[:, :2].abs().sum(dim=-1) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_of_nothing_but_padding_harms_nobody(kind: str) -> None:
    model, seen = connector(kind), features()
    padding = torch.zeros(2, *GRID[2], dtype=torch.bool)
    padding[1] = True
    visual = model(seen, padding)
    visual.tokens.square().sum().backward()
    assert visual.tokens.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    alone = model(Features(*(x[:1] for x in seen))).tokens
    torch.testing.assert_close(visual.tokens[:1], alone, atol=1e-6, rtol=1e-5)


def test_padding_is_to_the_c_abstractor_what_the_edge_is() -> None:
    """Half a picture below which is padding gives the tokens of the half alone."""
    whole, half = connector("c_abstractor", tokens=(4, 4)), connector("c_abstractor", tokens=(2, 4))
    for model in (whole, half):
        torch.nn.init.zeros_(model.get_parameter("positions"))
    seen = features(grid=(8, 8))
    padding = torch.zeros(2, 8, 8, dtype=torch.bool)
    padding[:, 4:] = True
    padded = whole(seen, padding)
    alone = half(Features(*(x[:, :, : x.shape[2] // 2] for x in seen)))
    torch.testing.assert_close(padded.tokens[:, :8], alone.tokens)
    torch.testing.assert_close(padded.local[:, :, :4], alone.local)


@pytest.mark.parametrize(("kind", "dims"), KIND_AND_DIMS)
def test_every_weight_learns(kind: str, dims: int) -> None:
    model = connector(kind, dims, strides=(8, 16, 32))
    visual = model(features(dims))
    target = torch.randn(visual.tokens.shape, generator=torch.Generator().manual_seed(2))
    regions = model.region_tokens(visual.local, torch.tensor([[0, 8.0, 8, 90, 60]]))
    ((visual.tokens * target).sum() + (regions * target[:1, :1]).sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.ndim == 1 or (parameter.grad != 0).any(), name


@pytest.mark.parametrize(("kind", "dims"), KIND_AND_DIMS)
def test_bfloat16_is_close(kind: str, dims: int) -> None:
    model, seen = connector(kind, dims), features(dims)
    box = torch.tensor([[0, 8.3, 8.7, 131.4, 60.1]])
    with torch.no_grad():
        plain = model(seen)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            visual = model(seen)
            regions = model.region_tokens(visual.local, box)
        torch.testing.assert_close(visual.tokens.float(), plain.tokens, atol=0.01, rtol=0)
        exact = model.region_tokens(plain.local, box)
        torch.testing.assert_close(regions.float(), exact, atol=0.01, rtol=0)


def test_golden_numbers_of_parameters() -> None:
    """At the default size behind tf_efficientnet_lite0 and SmolLM2-135M-Instruct."""
    counts = {
        kind: _count(connector_of_default(kind, tokens=(1, 1) if kind == "average" else (8, 8)))
        for kind in KINDS
    }
    assert counts == PARAMETERS
    assert _count(connector_of_default("c_abstractor", 3, tokens=(2, 8, 8))) == VOLUMES


def connector_of_default(kind: str, dims: int = 2, **changes: object) -> Connector:
    with torch.device("meta"):
        return build_connector(
            ConnectorConfig(kind=kind, **changes),  # type: ignore[arg-type]
            (40, 112, 320),
            576,
            dims,
        )


def _count(model: Connector) -> int:
    return sum(p.numel() for p in model.parameters())


PARAMETERS = {
    "c_abstractor": 1_367_040,
    "linear": 260_288,
    "mlp": 260_288,
    "average": 260_288,
    "qformer": 2_268_928,
    "resampler": 2_005_248,
}
VOLUMES = 1_387_520


def default_connector() -> Connector:
    folder = resource_dir("checkpoints") / DEFAULT
    model = build_connector(
        CheckpointConfig.from_yaml(folder / CONFIG).model.connector, (40, 112, 320), 576
    )
    model.load_state_dict(
        {
            name.removeprefix("connector."): weight.float()
            for name, weight in load_file(folder / WEIGHTS).items()
            if name.startswith("connector.")
        },
        strict=True,
    )
    return model.eval()


def test_the_default_checkpoint_reads_as_when_it_was_trained() -> None:
    """Names and computation: tokens and regions of a fixed pattern, as they were before."""
    model = default_connector()
    middle, coarse = (
        torch.sin(torch.arange(c * n * n) * step).reshape(1, c, n, n)
        for c, n, step in ((112, 20, 0.37), (320, 10, 0.73))
    )
    with torch.no_grad():
        visual = model(Features(middle[:0], middle, coarse))
        regions = model.region_tokens(visual.local, torch.tensor([[0, 32.0, 48, 200, 120]]))
    found = [visual.tokens.norm(), visual.tokens[0, 9, 100], visual.local.norm(), regions.norm()]
    assert [float(x) for x in found] == pytest.approx(CHECKPOINT, rel=1e-4)


CHECKPOINT = [43.15191, 0.2108455, 348.07556, 10.978921]


def mass(model: Connector, seen: Features, directions: int) -> Tensor:
    """[N, N]: how much of each token's gradient lies in each cell of the token grid (sum 1)."""
    tokens = model.config.tokens
    middle = seen.middle.detach().requires_grad_()
    visual = model(seen._replace(middle=middle)).tokens[0]
    out = torch.zeros(len(visual), *tokens)
    random = torch.Generator().manual_seed(4)
    for direction in torch.randn(directions, visual.shape[1], generator=random):
        for i, token in enumerate(visual):
            (gradient,) = torch.autograd.grad(token @ direction, middle, retain_graph=True)
            own = gradient.abs().sum(dim=1)[0]
            for axis, n in enumerate(tokens):
                own = own.unflatten(axis, (n, -1)).sum(dim=axis + 1)
            out[i] += own
    return out.flatten(1) / out.flatten(1).sum(dim=1, keepdim=True)


@pytest.mark.parametrize(("kind", "dims"), KIND_AND_DIMS)
def test_where_a_token_looks(kind: str, dims: int) -> None:
    """Locality (what Honeybee is for): the nearer a cell, the more a token depends on it.

    Projectors see their own cell alone, queries all cells alike before they are trained.
    """
    tokens = (1,) * dims if kind == "average" else (2, 4, 4)[3 - dims :]
    model = connector(kind, dims, tokens=tokens)
    found = mass(model, features(dims, 1, (2, 16, 16)[3 - dims :]), directions=4)
    place = torch.cartesian_prod(*(torch.arange(n) for n in tokens)).reshape(len(found), -1)
    far = (place[:, None] - place).abs().amax(dim=-1)
    rings = [float(found[far == ring].mean()) for ring in range(int(far.max()) + 1)]
    if kind == "c_abstractor":
        assert rings == sorted(rings, reverse=True)
        assert rings[0] > 2 / len(found)
        assert rings[-1] < 0.3 / len(found)
    elif kind in QUERIES:
        assert rings == pytest.approx([1 / len(found)] * len(rings), rel=0.1)
    else:
        assert rings[0] == pytest.approx(1)


def test_a_token_of_the_default_checkpoint_depends_most_on_its_own_cell() -> None:
    random = torch.Generator().manual_seed(0)
    middle, coarse = (torch.randn(1, c, n, n, generator=random) for c, n in ((112, 16), (320, 8)))
    found = mass(default_connector(), Features(middle[:0], middle, coarse), directions=1)
    assert torch.equal(found.argmax(dim=1), torch.arange(64))


@pytest.mark.parametrize("kind", KINDS)
def test_what_happens_when_cells_change_places(kind: str) -> None:
    """Projectors take each token along, the average sees nothing, all others see it."""
    tokens = (1, 1) if kind == "average" else GRID[2]
    model, seen = connector(kind, tokens=tokens, strides=(16,)), features()
    order = torch.randperm(60, generator=torch.Generator().manual_seed(3))
    moved = seen.middle.flatten(2)[..., order].unflatten(2, GRID[2])
    before, after = (model(seen._replace(middle=m)).tokens for m in (seen.middle, moved))
    if kind in ("linear", "mlp"):
        torch.testing.assert_close(after, before[:, order])
    elif kind == "average":
        torch.testing.assert_close(after, before)
    else:
        assert (after - before).abs().max() > 1e-3
        assert (after - before[:, order]).abs().max() > 1e-3


@given(tokens=st.lists(st.integers(1, 7), min_size=2, max_size=3))
def test_cells_cover_the_picture_once(tokens: list[int]) -> None:
    model = connector("linear", len(tokens), tokens=tuple(tokens))
    cells = [cell for cell in model.cells if cell is not None]
    assert len(cells) == len(model.cells)
    assert sum(map(_volume, cells)) == pytest.approx(1)
    for a, b in itertools.combinations(cells, 2):
        assert not all(map(_overlap, *map(_axes, (a, b))))
    *slices, rows, columns = tokens
    assert cells[0][:4] == (0, 0, 1 / columns, 1 / rows)
    assert cells[min(1, columns - 1)].left == (0 if columns == 1 else 1 / columns)
    assert cells[-1].last == cells[-1].bottom == cells[-1].right == 1
    assert len({cell.first for cell in cells}) == (slices or [1])[0]


def _axes(cell: Cell) -> list[tuple[float, float]]:
    return [(cell.left, cell.right), (cell.top, cell.bottom), (cell.first, cell.last)]


def _volume(cell: Cell) -> float:
    (a, b), (c, d), (e, f) = _axes(cell)
    return (b - a) * (d - c) * (f - e)


def _overlap(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return min(a[1], b[1]) - max(a[0], b[0]) > 1e-9


@pytest.mark.parametrize("kind", ["c_abstractor", "linear"])
def test_cells_say_where_a_token_comes_from(kind: str) -> None:
    """Something bright inside one cell moves the token of this cell most."""
    grid = (4, 12, 16)
    model = connector(kind, 3, tokens=(2, 3, 4), depth=1)
    seen = features(3, images=1, grid=grid)
    before = model(seen).tokens
    for i, cell in enumerate(model.cells):
        assert cell is not None
        middle = seen.middle.clone()
        where = [
            slice(round(start * n), round(end * n))
            for n, (start, end) in zip(grid, reversed(_axes(cell)), strict=True)
        ]
        middle[(slice(None), slice(None), *where)] += 2
        moved = (model(seen._replace(middle=middle)).tokens - before).norm(dim=-1)[0]
        assert int(moved.argmax()) == i


@pytest.mark.parametrize("kind", QUERIES)
def test_a_query_has_no_place(kind: str) -> None:
    assert connector(kind).cells == (None,) * 12


@pytest.mark.parametrize("kind", ["linear", "mlp", "qformer"])
def test_a_region_is_read_from_its_own_pixels(kind: str) -> None:
    """A change two cells away from a region does not reach it; one inside does."""
    model, seen = connector(kind, strides=(16,)), features(images=1)
    box = torch.tensor([[0, 48.0, 32, 80, 64]])

    def tokens(change: Callable[[Tensor], object]) -> Tensor:
        middle = seen.middle.clone()
        change(middle)
        return model.region_tokens(model(seen._replace(middle=middle)).local, box)

    plain = tokens(lambda x: x)
    assert torch.equal(plain, tokens(lambda x: x[..., 7:].add_(5)))
    assert not torch.allclose(plain, tokens(lambda x: x[..., 2:4, 3:5].add_(5)), atol=1e-3)


@pytest.mark.parametrize("kind", ["linear", "qformer"])
def test_a_region_of_a_volume_has_slices(kind: str) -> None:
    model, seen = connector(kind, 3, strides=(16,), tokens=(2, 3, 4)), features(3, images=1)
    middle = seen.middle.clone()
    middle[:, :, 1] += 5
    maps = [model(seen).local, model(seen._replace(middle=middle)).local]
    place = [0.0, 16, 16, 80, 64]

    def same(*slices: float) -> bool:
        box = torch.tensor([[*place, *slices]])
        before, after = (model.region_tokens(local, box) for local in maps)
        return torch.allclose(before, after, atol=1e-4)

    assert same(0.0, 0.5)
    assert same(0.2, 0.2), "a single slice"
    assert not same(0.5, 1.0)
    assert not same(0.0, 0.75)
    assert not same()
    whole, halves = (
        model.region_tokens(maps[0], torch.tensor([[*place, *slices]]))
        for slices in ((), (0.0, 1.0))
    )
    assert torch.equal(whole, halves)
    far = model.region_tokens(maps[0], torch.tensor([[*place, 1.0, 1.0]]))
    assert torch.isfinite(far).all()


REFUSED: list[tuple[dict[str, object], tuple[int, ...], int, str]] = [
    ({"tokens": (8, 8)}, CHANNELS, 3, r"connector\.tokens.*3-D.*3 numbers"),
    ({"tokens": (2, 8, 8)}, CHANNELS, 2, r"connector\.tokens.*2-D.*2 numbers"),
    ({"kind": "qformer", "width": 20}, CHANNELS, 2, r"connector\.heads: 8 .* 20"),
    ({"kind": "resampler", "heads": 7}, CHANNELS, 2, r"connector\.heads: 7"),
    ({"strides": (8, 16)}, (0, 6, 8), 2, r"connector\.strides.*stride 8.*16, 32"),
    ({"kind": "average"}, CHANNELS, 2, r"connector\.tokens.*one token.*\[1, 1\]"),
    ({"tokens": (21, 8)}, CHANNELS, 2, r"connector\.tokens.*21 x 8.*20 x 20"),
    ({"strides": (32,), "tokens": (12, 12)}, CHANNELS, 2, r"connector\.tokens.*10 x 10"),
    ({"strides": (8,), "tokens": (24, 24)}, CHANNELS, 2, r"connector\.tokens.*20 x 20"),
]


@pytest.mark.parametrize(("changes", "channels", "dims", "words"), REFUSED)
def test_what_does_not_fit_is_refused(
    changes: dict[str, object], channels: tuple[int, ...], dims: int, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        build_connector(ConnectorConfig(**changes), channels, OUT, dims, image=(320, 320))  # type: ignore[arg-type]


def test_a_resized_copy_of_the_only_map_is_no_finer() -> None:
    config = ConnectorConfig(tokens=(14, 14))
    assert build_connector(config, CHANNELS, OUT, image=(320, 320), single=16).cells
    with pytest.raises(ConfigError, match="10 x 10"):
        build_connector(config, CHANNELS, OUT, image=(320, 320), single=32)


@pytest.mark.parametrize("kind", ["c_abstractor", "linear", "mlp"])
def test_upsampling_is_refused_when_a_map_is_met(kind: str) -> None:
    model = connector(kind, tokens=(6, 11))
    with pytest.raises(ConfigError, match=r"6 x 11 has more cells .* 6 x 10"):
        model(features())
    assert connector("qformer", tokens=(6, 11))(features()).tokens.shape[1] == 66


def test_a_map_that_was_not_kept_is_named() -> None:
    seen = features()
    with pytest.raises(ConfigError, match="stride 8"):
        connector("mlp", strides=(8, 16))(seen._replace(fine=seen.middle.new_empty(0)))
