"""Configuration of a model: all that is needed to build it before its weights are loaded."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from medvlm.config.base import Config


class EncoderConfig(Config):
    """The image encoder, its heads, and the preprocessing that travels with its weights.

    `family` says which library knows `name`: timm (2-D), or MONAI and astra (3-D). `slices`: planes
    of a volume, 0 for a 2-D encoder. `mean` and `std` are subtracted and divided by, of pixels in
    0..1. `options`: what timm's constructor of the network takes besides, such as its depths.
    `docs/encoders.md` lists the families and what they take.
    """

    family: Literal["timm", "monai", "astra"] = "timm"
    name: str = "tf_efficientnet_lite0"
    size: int = Field(320, ge=32, multiple_of=32)
    slices: int = Field(0, ge=0, multiple_of=8)
    mean: float = 0.5
    std: float = Field(0.25, gt=0)
    dense_width: int = Field(64, ge=8, multiple_of=8)
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _slices_for_volumes(self) -> Self:
        if (self.family == "timm") != (self.slices == 0):
            kind = "images: leave it 0" if self.family == "timm" else "volumes: give their number"
            raise ValueError(f"slices: the family {self.family} reads {kind}")
        return self


class ConnectorConfig(Config):
    """What turns feature maps into visual tokens.

    `tokens`: rows x columns of the token grid (slices x rows x columns for a 3-D encoder); a
    connector of queries has as many queries as the grid has cells. `strides`: which of the
    encoder's maps are read. `width`: of the maps inside, in channels. `depth`: blocks in each of a
    C-Abstractor's two stages, layers of a Q-Former or resampler. `heads`: of the attention in a
    Q-Former or resampler.
    """

    kind: Literal["c_abstractor", "linear", "mlp", "qformer", "resampler", "average"] = (
        "c_abstractor"
    )
    tokens: tuple[Annotated[int, Field(ge=1)], ...] = (8, 8)
    strides: tuple[Literal[8, 16, 32], ...] = Field((16, 32), min_length=1)
    width: int = Field(256, ge=16)
    depth: int = Field(2, ge=1)
    heads: int = Field(8, ge=1)


class LoraSettings(Config):
    """Low-rank adaptation of the language model's linear layers.

    `modules`: the last parts of the layers' names, or all but the output layer.
    """

    rank: int = Field(8, ge=1)
    alpha: int = Field(16, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1)
    modules: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"


class LanguageConfig(Config):
    """The language model and how it is adapted.

    `base`: the packaged model's name, a folder, or a name on the hub (then with `revision`).
    `sha256`: of the base's weight files; written at training, checked at loading. `system`: a
    system message in front of every prompt. `quantisation`: of the frozen weights, on a GPU.
    """

    base: str = "SmolLM2-135M-Instruct"
    revision: str | None = None
    sha256: str = ""
    system: str | None = None
    quantisation: Literal["none", "int8", "nf4"] = "none"
    lora: LoraSettings = LoraSettings()


class PicturesConfig(Config):
    """How many pictures the language model may see at once, as it was trained.

    `views`: pictures of the current study; with 1 it reads the best one. `prior`: whether an
    earlier study's picture may stand beside them. `tiles`: rows x columns of full-resolution tiles
    that follow each view, or None. `slices`: of a volume, for a 2-D encoder; 0 for a model of
    single images.
    """

    views: int = Field(2, ge=1)
    prior: bool = False
    tiles: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None
    slices: int = Field(0, ge=0)


class GateConfig(Config):
    """What a checkpoint was trained on; what says that it is something else gets no draft.

    `body_parts`: beginnings of words. `min_pixels`: of the shorter side. `min_slices`: 0 for a
    model of single images, which then reads no volumes. `min_age_years`: of the youngest patients
    that it learned from.
    """

    modalities: tuple[str, ...] = ("CR", "DX", "RG")
    body_parts: tuple[str, ...] = ("CHEST", "THORAX", "LUNG", "RIB", "CXR", "PULMON")
    frontal_only: bool = True
    min_pixels: int = Field(128, ge=1)
    min_slices: int = Field(0, ge=0)
    min_age_years: float = Field(0, ge=0)


class ModelConfig(Config):
    """All that is needed to build the model before its weights are loaded.

    `second`: another encoder that only reads findings, for a second opinion. `scales`: further
    image sizes at which findings and attributes are read, and averaged.
    """

    encoder: EncoderConfig = EncoderConfig()
    second: EncoderConfig | None = None
    connector: ConnectorConfig = ConnectorConfig()
    language: LanguageConfig = LanguageConfig()
    pictures: PicturesConfig = PicturesConfig()
    scales: tuple[Annotated[int, Field(ge=32, multiple_of=32)], ...] = ()
