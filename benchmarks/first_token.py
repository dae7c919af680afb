"""Time to the first token of an answer about a film, beside a ViT model with the same LLM.

    python -m benchmarks.first_token [--repeats 10] [--threads N] [--out FILE.json]

Ours is the default checkpoint, from an array of 512 x 512 grey values to the first token: grid,
encoder, connector, prefill, logits ("whole look": with the gate, the second encoder and all maps).
"new image": nothing of it was seen before; "next question": the image was asked about before, so
that its tokens are at hand. The peer has the shape
of SmolVLM-256M (SigLIP-B/16 at 512 px, 64 visual tokens, SmolLM2-135M) with random weights, which
take the same time as trained ones: float32, `transformers`, one image that is not split, a question
of the same length. All take turns in one run on the same threads; times are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, SmolVLMConfig, SmolVLMForConditionalGeneration

from medvlm.draft.look import look_at
from medvlm.image.load import ImageInput
from medvlm.model.checkpoint import Checkpoint, load_checkpoint
from medvlm.model.language import LanguageModel, Turn
from medvlm.model.runtime.language import CompiledLanguage
from medvlm.model.runtime.load import load_ready
from medvlm.model.vlm import Sight

QUESTION = "Report: pleural effusion, present, right lower zone."
SIDE = 512
PEER = "SmolVLM-256M-shaped"
NEW, NEXT = "new image", "next question"
IMAGE_TOKEN = 49_190
"""Marks the places of the peer's visual tokens."""
AROUND = 5
"""Tokens of SmolVLM's prompt that ours has no equal of: around the image, and of the roles."""

Grey = NDArray[np.uint8]
Token = TypeVar("Token", str, int)


class Way(Protocol):
    """A way to the first token's text; `warm` follows a `cold` of the same image."""

    def cold(self, grey: Grey, question: str) -> str: ...

    def warm(self, question: str) -> str: ...


class Reference:
    """The checkpoint as `load_checkpoint` gives it: float32 by PyTorch, with a cache of its own."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.model = checkpoint.model
        assert isinstance(self.model.language, LanguageModel), "the reference is run by PyTorch"
        self.language = self.model.language
        self.trunk = 0
        self.cache: Any = None

    @torch.inference_mode()
    def cold(self, grey: Grey, question: str) -> str:
        """The first token over an image [H, W]; keeps the keys and values of its part."""
        prompt = self.model.sequences(glimpse(self.checkpoint, grey), [[Turn(question)]]).embeddings
        self.trunk = prompt.shape[1] - len(self._question(question))
        self.cache = DynamicCache(config=self.language.base.config)
        return self._first(prompt)

    @torch.inference_mode()
    def warm(self, question: str) -> str:
        """The same of another question over the last image."""
        self.cache.crop(self.trunk - self.cache.get_seq_length())
        return self._first(self.language.embed(self._question(question))[None])

    def _question(self, question: str) -> list[int]:
        """The token ids that follow the image."""
        language = self.language
        return [*language.tokenize(question), *language.ask, *language.lead]

    def _first(self, embeddings: Tensor) -> str:
        hidden = self.language.base.get_decoder()(
            inputs_embeds=embeddings, past_key_values=self.cache, use_cache=True
        ).last_hidden_state
        first = self.language.logits(hidden[0, -1:]).argmax()
        text: str = self.language.tokenizer.decode(first, skip_special_tokens=True)
        return text.strip()


class Product:
    """The checkpoint as the product asks it; `look`: how it comes to see an image."""

    def __init__(self, checkpoint: Checkpoint, look: Callable[[Checkpoint, Grey], Sight]) -> None:
        self.checkpoint, self.look = checkpoint, look
        self.sight: Sight | None = None

    @torch.inference_mode()
    def cold(self, grey: Grey, question: str) -> str:
        """The first token over an image [H, W], of which nothing is remembered."""
        language = self.checkpoint.model.language
        if isinstance(language, CompiledLanguage):
            language.known.clear()  # another way may have read the same image
        self.sight = self.look(self.checkpoint, grey)
        return self.warm(question)

    @torch.inference_mode()
    def warm(self, question: str) -> str:
        """The same of another question over the last image."""
        assert self.sight is not None
        (text,) = self.checkpoint.model.write(self.sight, [Turn(question)], max_tokens=1)
        return text


def glimpse(checkpoint: Checkpoint, grey: Grey) -> Sight:
    """What the language model sees, and nothing that it does not need."""
    grid, _ = image_input(grey).grid(checkpoint.config.model.encoder.size)
    return checkpoint.model.glimpse(torch.from_numpy(grid)[None, None])


def whole_look(checkpoint: Checkpoint, grey: Grey) -> Sight:
    """All that a draft or an answer looks at: gate, both encoders, all readings and maps."""
    (seen,) = look_at(checkpoint, [image_input(grey)])
    return seen.sight


class Peer:
    """SmolVLM-256M's shape with random weights."""

    def __init__(self, config: SmolVLMConfig, words: int) -> None:
        torch.manual_seed(0)
        self.model = SmolVLMForConditionalGeneration(config).eval().requires_grad_(False)
        vision: Any = config.vision_config
        tokens = (vision.image_size // vision.patch_size // config.scale_factor) ** 2
        ids = torch.randint(0, config.image_token_id, (1, words + AROUND))
        image = torch.full((1, tokens), config.image_token_id)
        self.ids = torch.cat([ids[:, :AROUND], image, ids[:, AROUND:]], dim=1)

    @property
    def parameters(self) -> int:
        return sum(own.numel() for own in self.model.parameters())

    @torch.inference_mode()
    def first(self, grey: Grey) -> int:
        """The first token's id over an image [H, W] of the model's own size."""
        scaled = torch.from_numpy(grey).float() / 127.5 - 1
        pixels = scaled.expand(1, 1, 3, *grey.shape)
        out = self.model(input_ids=self.ids, pixel_values=pixels, use_cache=True, logits_to_keep=1)
        return int(out.logits[0, -1].argmax())


def peer_config() -> SmolVLMConfig:
    """As SmolVLM-256M-Instruct is built: its output layer is not tied."""
    return SmolVLMConfig(
        vision_config={
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "image_size": SIDE,
            "patch_size": 16,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": 49_280,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "max_position_embeddings": 8192,
            "rope_theta": 100_000.0,
            "rms_norm_eps": 1e-5,
        },
        scale_factor=4,
        image_token_id=IMAGE_TOKEN,
        tie_word_embeddings=False,
    )


def image_input(grey: Grey) -> ImageInput:
    """A decoded film as the product has it."""
    return ImageInput(grey.astype(np.float32) / np.float32(255), "film", "", is_dicom=True)


def film(seed: int, side: int = SIDE) -> Grey:
    """An image of no content: the time does not depend on it, but no two are equal."""
    return np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)


def interleaved(ways: dict[str, Way], peer: Peer, repeats: int) -> dict[str, list[float]]:
    """Seconds of each way, cold and warm, and of the peer, in turns; a first turn is not counted.

    Raises AssertionError if cold and warm come to other tokens; prints where the ways do.
    """
    side: int = peer.model.config.vision_config.image_size
    seconds: dict[str, list[float]] = {}

    def timed(name: str, act: Callable[..., Token], *given: object) -> Token:
        start = time.perf_counter()
        token = act(*given)
        seconds.setdefault(name, []).append(time.perf_counter() - start)
        return token

    for turn in range(repeats + 1):
        grey = film(turn, side)
        found: dict[str, str] = {}
        for name, way in ways.items():
            found[name] = timed(f"{name}, {NEW}", way.cold, grey, QUESTION)
            again = timed(f"{name}, {NEXT}", way.warm, QUESTION)
            assert again == found[name], f"{name}: another token over the same image"
        timed(PEER, peer.first, grey)
        if len(set(found.values())) > 1:
            print(f"image {turn}: first tokens differ: {found}")
        if not turn:
            seconds.clear()
    return seconds


def table(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median and shortest milliseconds, and how many times faster than the peer."""
    peer = statistics.median(seconds[PEER])
    return {
        name: {
            "median_ms": round(1000 * statistics.median(own), 1),
            "shortest_ms": round(1000 * min(own), 1),
            "times_faster": round(peer / statistics.median(own), 2),
        }
        for name, own in seconds.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, help="of PyTorch; else all cores")
    parser.add_argument("--checkpoint")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    given = parser.parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    checkpoint = load_checkpoint(given.checkpoint)
    ready = load_ready(given.checkpoint)
    ways: dict[str, Way] = {
        "float32, PyTorch": Reference(checkpoint),
        "medvlm": Product(ready, glimpse),
        "medvlm, whole look": Product(ready, whole_look),
    }
    language = checkpoint.model.language
    words = len(language.user) + len(language.tokenize(QUESTION)) + len(language.ask)
    peer = Peer(peer_config(), words)
    rows = table(interleaved(ways, peer, given.repeats))
    figures = {
        "threads": torch.get_num_threads(),
        "repeats": given.repeats,
        "runtime": ready.runtime,
        "peer_parameters": peer.parameters,
        "peer_prompt_tokens": peer.ids.shape[1],
        "ways": rows,
    }
    print(
        f"{figures['threads']} threads, {given.repeats} repeats; medvlm: {ready.runtime}; {PEER}: "
        f"{peer.parameters / 1e6:.1f} M parameters, {figures['peer_prompt_tokens']} tokens"
    )
    print(f"{'':40}{'median ms':>10}{'shortest':>10}{'x faster':>10}")
    for name, row in rows.items():
        print(f"{name:40}" + "".join(f"{value:>10}" for value in row.values()))
    if given.out:
        given.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
