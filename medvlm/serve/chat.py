"""Questions in the form of OpenAI's chat completions: what of it is read.

The question is the text of the last message, the image the last that a user's message carries.
System messages and earlier turns are not read: the answer lists them as `unread_messages`.
Whatever would change a greedy answer is refused rather than ignored.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medvlm.draft.answer import LONGEST
from medvlm.image.geometry import Box
from medvlm.image.polygon import MOST_POINTS, Drawn, Polygon
from medvlm.serve.problems import Refusal

LONGEST_QUESTION = 2000  # characters
_MOST_MESSAGES = 256

# Parameters of OpenAI's form that are accepted at values that greedy decoding honours, or that are
# its defaults; any other value is refused.
HONOURED: dict[str, tuple[object, ...]] = {
    "n": (None, 1),
    "temperature": (None, 0, 1),
    "top_p": (None, 1),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "logit_bias": (None, {}),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "stop": (None, []),
    "tools": (None, []),
    "tool_choice": (None, "none"),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "store": (None, False),
}
_Coordinate = Annotated[float, Field(ge=-1e7, le=1e7, allow_inf_nan=False)]
_Extent = Annotated[float, Field(gt=0, le=1e7, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AskedBox(_Strict):
    """A box in the image's own pixels: x to the right, y down, from the top-left corner."""

    x: _Coordinate
    y: _Coordinate
    width: _Extent
    height: _Extent


class AskedOutline(_Strict):
    """An outline: points [x, y] in the image's own pixels."""

    polygon: Annotated[
        list[tuple[_Coordinate, _Coordinate]], Field(min_length=3, max_length=MOST_POINTS)
    ]


class AskedMore(_Strict):
    """What OpenAI's form has no place for: the region that the question is about."""

    region: AskedBox | AskedOutline | None = None

    def drawn(self) -> Drawn | None:
        """The region as the model takes it. Raises Refusal (400) for one without an area."""
        if isinstance(self.region, AskedBox):
            return Box(self.region.x, self.region.y, self.region.width, self.region.height)
        if self.region is None:
            return None
        outline = Polygon(tuple(self.region.polygon))
        if outline.flat:
            raise Refusal(400, "invalid_value", "The outline has no area.", param="medvlm.region")
        return outline


class TextPart(_Strict):
    """Words."""

    type: Literal["text"]
    text: str


class ImageUrl(_Strict):
    """An image; `detail` changes nothing: the model has one size."""

    url: str
    detail: Literal["auto", "low", "high"] = "auto"


class ImagePart(_Strict):
    """An image."""

    type: Literal["image_url"]
    image_url: ImageUrl


class Message(BaseModel):
    """A turn. Of the last, which is the user's, the text is the question."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]] | None = None

    @property
    def text(self) -> str:
        """Its words."""
        if isinstance(self.content, str):
            return self.content
        parts = self.content or []
        return "\n".join(part.text for part in parts if isinstance(part, TextPart))

    @property
    def images(self) -> list[str]:
        """The URLs of its images."""
        parts = self.content if isinstance(self.content, list) else []
        return [part.image_url.url for part in parts if isinstance(part, ImagePart)]


class StreamOptions(_Strict):
    """Whether the last piece of a stream tells the usage."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class ChatRequest(BaseModel):
    """A question about an image, in the form of OpenAI's chat completions.

    Further parameters of that form are accepted at the values that `docs/service.md` lists.
    """

    model_config = ConfigDict(extra="allow")

    model: str
    messages: Annotated[list[Message], Field(min_length=1, max_length=_MOST_MESSAGES)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    seed: int | None = Field(default=None, description="Answers are the same with any.")
    user: str | None = Field(default=None, description="Neither kept nor logged.")
    medvlm: AskedMore = AskedMore()

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """What was asked. Raises Refusal (400) that names the parameter."""
        try:
            asked = cls.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(map(str, first["loc"])) or None
            raise Refusal(400, "invalid_value", first["msg"], param=place) from None
        for name, value in (asked.model_extra or {}).items():
            if name not in HONOURED:
                raise Refusal(
                    400,
                    "unsupported_parameter",
                    "This parameter is not supported.",
                    param=name[:64],
                )
            if value not in HONOURED[name]:
                raise Refusal(
                    400, "unsupported_value", f"{name} is not supported at this value.", param=name
                )
        for name in ("max_tokens", "max_completion_tokens"):
            most = getattr(asked, name)
            if most is not None and most < LONGEST:
                raise Refusal(
                    400,
                    "unsupported_value",
                    f"Answers have up to {LONGEST} tokens and are not cut shorter.",
                    param=name,
                )
        return asked

    @property
    def question(self) -> str:
        """The last message's words. Raises Refusal (400) if there is no question to answer."""
        last = self.messages[-1]
        text = last.text.strip()
        if last.role != "user" or not text:
            raise Refusal(
                400, "no_question", "The last message is no user's question.", param="messages"
            )
        if len(text) > LONGEST_QUESTION:
            raise Refusal(
                400,
                "question_too_long",
                f"The question has more than {LONGEST_QUESTION} characters.",
                param="messages",
            )
        return text

    @property
    def image(self) -> str:
        """The URL of the image asked about, in the last user's message that has one.

        Raises Refusal (400) unless there is one.
        """
        for message in reversed(self.messages):
            if message.role == "user" and message.images:
                if len(message.images) > 1:
                    raise Refusal(
                        400, "several_images", "A question is about one image.", param="messages"
                    )
                return message.images[0]
        raise Refusal(
            400,
            "no_image",
            "There is no image to answer from.",
            remedy="Send one as an image_url part of the question.",
            param="messages",
        )

    @property
    def unread(self) -> list[int]:
        """The messages of which nothing is read."""
        shown = max(i for i, one in enumerate(self.messages) if one.role == "user" and one.images)
        return [i for i in range(len(self.messages) - 1) if i != shown]
