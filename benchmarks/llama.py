"""llama.cpp as a peer: how many tokens a second it decodes, measured by itself."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from medvlm.model.base_llm import GGUF_IN_WHEEL, WHEEL

CHILD = Path(__file__).with_name("llama_child.py")
NEEDED = "import xllamacpp"
SPARE = 32
"""Places that llama.cpp keeps beyond a prompt and its answer."""

Prompts = list[list[int]]


class LlamaCpp:
    """llama.cpp in a process of its own; use in a `with` statement.

    `room`: tokens of a prompt with its answer.
    """

    def __init__(self, python: str, gguf: Path, batch: int, threads: int, room: int) -> None:
        words = [python, str(CHILD), str(gguf), *map(str, (batch, threads, room + SPARE))]
        self.process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.compiled_for: str = self._answer()["compiled_for"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        # Closes the pipes, which ends it, and waits for that.
        self.process.__exit__(kind, error, at)

    def rate(self, prompts: Prompts, tokens: int) -> float:
        """Tokens per second of decoding `tokens` after each prompt, all at once."""
        assert self.process.stdin is not None
        request = json.dumps({"prompts": prompts, "tokens": tokens})
        print(request, file=self.process.stdin, flush=True)
        return float(self._answer()["rate"])

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"llama.cpp's process ended with {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def has_llama(python: str) -> bool:
    """Whether an interpreter has the package xllamacpp."""
    return subprocess.run([python, "-c", NEEDED], capture_output=True, check=False).returncode == 0


def installed_gguf() -> Path:
    """The quantised file inside the installed wheel of the base language model."""
    return Path(str(importlib.metadata.distribution(WHEEL).locate_file(GGUF_IN_WHEEL)))
