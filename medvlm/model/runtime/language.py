"""The language model in ONNX Runtime, the checkpoint's LoRA merged into its weights.

Twice: in float32 for what is read and for what must be exact, and in 8 bits for the tokens of an
answer, which mostly wait for weights: a quarter of the bytes for each one. What a pass is for
decides, never how many tokens it has, or an answer would depend on what is asked beside it.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from medvlm.model.decoding import Forward
from medvlm.model.prompting import Prompter, Sequences
from medvlm.model.runtime.llama_graph import longest
from medvlm.model.runtime.session import open_session
from medvlm.model.tree import additive

Past = list[NDArray[np.float32]]
# Beginnings of prompts, each of one image; 3 MB each with the default model.
TRUNKS = 16


class Room:
    """Memory for keys and values that is used again.

    New memory for each pass costs more than a batch's whole attention: every page is cleared first.
    """

    def __init__(self) -> None:
        self.flat: list[NDArray[np.float32]] = []

    def shaped(self, count: int, shape: tuple[int, ...]) -> Past:
        """So many arrays of a shape, over whatever lay here; when it grows, with room to spare."""
        size = math.prod(shape)
        if not self.flat or len(self.flat[0]) < size:
            spare = 2 if self.flat else 1
            self.flat = [np.empty(spare * size, np.float32) for _ in range(count)]
        return [own[:size].reshape(shape) for own in self.flat]


class CompiledLanguage(Prompter):
    """Reads prompts and answers as `LanguageModel` does; it cannot learn.

    `graph` and `steps`: made by `llama_graph`, in float32 and in 8 bits. `table` float16
    [vocabulary, D]: the embeddings.
    """

    def __init__(
        self, folder: Path, system: str | None, graph: Path, steps: Path, table: Tensor
    ) -> None:
        super().__init__()
        self.folder = folder
        self.session, self.steps = open_session(graph), open_session(steps)
        self.table = table
        self.width: int = table.shape[1]
        self.longest = longest(AutoConfig.from_pretrained(folder, local_files_only=True))
        shapes = {item.name: item.shape for item in self.session.get_inputs()}
        self.words: int = self.session.get_outputs()[0].shape[1]
        self.known: OrderedDict[bytes, Past] = OrderedDict()
        self.layers = sum(name.startswith("past_key_") for name in shapes)
        self.groups, self.size = shapes["past_key_0"][1], shapes["past_key_0"][3]
        local = {"local_files_only": True, "trust_remote_code": False}
        self.prepare(AutoTokenizer.from_pretrained(folder, **local), system)

    @property
    def device(self) -> torch.device:
        return self.table.device

    def embed(self, ids: Sequence[int]) -> Tensor:
        return self.table[torch.tensor(list(ids), dtype=torch.long)].float()

    def yes_no_margins(self, sequences: Sequences) -> Tensor:
        length = sequences.embeddings.shape[1]
        logits, _ = self.run(
            sequences.embeddings,
            sequences.positions,
            sequences.mask,
            sequences.ends[:, 0] * length + sequences.ends[:, 1],
            self.unread(len(sequences.embeddings)),
            exactly=True,
        )
        return logits[:, self.yes] - logits[:, self.no]

    def forward_pass(self, *, exactly: bool = False) -> Forward:
        return _CompiledForward(self, exactly)

    def unread(self, rows: int) -> Past:
        """The keys and values of rows of which nothing is read."""
        return [np.zeros((rows, self.groups, 0, self.size), np.float32)] * (2 * self.layers)

    def run(
        self,
        embeddings: Tensor,
        positions: Tensor,
        mask: Tensor,
        wanted: Tensor,
        past: Past,
        *,
        exactly: bool,
        room: Room | None = None,
    ) -> tuple[Tensor, Past]:
        """One pass: the logits [N, vocabulary] at `wanted`, and all keys and values so far.

        `exactly`: in float32, else in 8 bits. `room`: for the keys and values, which must not hold
        `past`; else they get one of their own.
        """
        session = self.session if exactly else self.steps
        logits = np.empty((len(wanted), self.words), np.float32)
        rows, _, read, _ = past[0].shape
        kept = (room or Room()).shaped(
            2 * self.layers, (rows, self.groups, read + embeddings.shape[1], self.size)
        )
        binding = session.io_binding()
        for name, value in (
            ("embeddings", embeddings.detach()),
            ("positions", positions),
            ("mask", mask),
            ("wanted", wanted),
        ):
            binding.bind_cpu_input(name, value.contiguous().numpy())
        _bind_output(binding, "logits", logits)
        for i, (before, after) in enumerate(zip(past, kept, strict=True)):
            name = f"{('key', 'value')[i % 2]}_{i // 2}"
            binding.bind_cpu_input(f"past_{name}", before)
            _bind_output(binding, name, after)
        session.run_with_iobinding(binding)
        return torch.from_numpy(logits), kept

    def recall(self, trunk: Tensor) -> Past:
        """Keys and values of a prompt's beginning [T, D], kept for when it comes again."""
        name = hashlib.sha256(trunk.numpy().tobytes()).digest()
        if name not in self.known:
            length = len(trunk)
            visible = torch.ones(length, length, dtype=torch.bool).tril()[None]
            mask = additive(visible, trunk.dtype)
            last = torch.tensor([length - 1])
            positions = torch.arange(length)[None]
            _, self.known[name] = self.run(
                trunk[None], positions, mask, last, self.unread(1), exactly=True
            )
        self.known.move_to_end(name)
        while len(self.known) > TRUNKS:
            self.known.popitem(last=False)
        return self.known[name]


class _CompiledForward:
    """A pass that keeps keys and values. The first one reads prompts, in float32."""

    def __init__(self, model: CompiledLanguage, exactly: bool) -> None:
        self.model, self.exactly = model, exactly
        self.first = True
        self.past: Past | None = None
        # What was kept last lies in the first, and the next pass writes into the second.
        self.rooms = Room(), Room()

    def begin(self, trunk: Tensor) -> bool:
        self.past = self.model.recall(trunk)
        return True

    def __call__(
        self, embeddings: Tensor, positions: Tensor, visible: Tensor, wanted: Tensor
    ) -> Tensor:
        past = self.past or self.model.unread(len(embeddings))
        mask = additive(visible, embeddings.dtype)
        logits, self.past = self.model.run(
            embeddings,
            positions,
            mask,
            wanted,
            past,
            exactly=self.exactly or self.first,
            room=self.rooms[1],
        )
        self.rooms, self.first = self.rooms[::-1], False
        return logits


def _bind_output(binding: Any, name: str, array: NDArray[np.float32]) -> None:
    """Has an output written into an array."""
    address = array.__array_interface__["data"][0]  # as array.ctypes.data, but at once
    binding.bind_output(name, "cpu", 0, np.float32, array.shape, address)
