"""A tokenizer's chat template, taken apart: what stands around a question and after an answer.

The model sees one bare user turn. The template renders a short conversation whose messages are
marks; what it puts between the marks is cut at them, so no family's markup is written down here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from jinja2 import TemplateError

from medvlm.errors import ConfigError

# Words that no template holds and that trimming leaves as they are.
QUESTION, ANSWER, NEXT, SYSTEM = "QxQuestion", "QxAnswer", "QxNext", "QxSystem"
# Some templates let the model think aloud, or write today's date into the system message.
FIXED = {"enable_thinking": False, "date_string": "01 Jan 2025"}


class Prompt(NamedTuple):
    """The parts of a prompt: `user` pictures question `ask` answer `end`."""

    user: str
    ask: str
    end: str


def prompt_parts(tokenizer: Any, system: str | None = None) -> Prompt:
    """The prompt's parts as the tokenizer's own chat template writes them.

    A template's default system message is left out; `system` puts one in. Without a template the
    parts are "User: ", a new line with "Assistant:", and the token that ends a text. `user` begins
    with the token that begins a text where the template (or, without one, the tokenizer) has it.

    Raises ConfigError if the template cannot be taken apart or takes no system message.
    """
    if not getattr(tokenizer, "chat_template", None):
        return _plain(tokenizer, system)
    turns = [("user", QUESTION), ("assistant", ANSWER)]
    asked = _render(tokenizer, [*turns, ("user", NEXT)], ask=True)
    before, _, between, ask = _cut(asked, QUESTION, ANSWER, NEXT)
    closing = _cut(_render(tokenizer, turns, ask=False), QUESTION, ANSWER)[-1]
    # What closes an answer is what follows it whether or not another turn comes.
    length = _shared(between, closing)
    for token in _tokens(tokenizer, between):
        if token.start() < length < token.end():
            length = token.start()
    end, user = between[:length].strip() or tokenizer.eos_token, between[length:]
    if not end:
        raise _no_end()
    bos = tokenizer.bos_token
    if bos and before.startswith(bos) and not user.startswith(bos):
        user = bos + user
    if system is not None:
        try:
            told = _render(tokenizer, [("system", SYSTEM), ("user", QUESTION)], ask=True)
            opening, own, _ = _cut(told, SYSTEM, QUESTION)
        except ConfigError as error:
            raise ConfigError(
                "language.system: the chat template takes no system message",
                remedy="leave it out, or choose another language.base",
            ) from error
        user = opening + system + own
    return Prompt(user, ask, end)


def telling_tokens(yes: Sequence[int], no: Sequence[int]) -> tuple[list[int], int, int]:
    """The tokens that the two answers share at first, and the first that tells them apart.

    Raises ConfigError if one answer's tokens are the beginning of the other's.
    """
    for i, (one, other) in enumerate(zip(yes, no, strict=False)):
        if one != other:
            return list(yes[:i]), one, other
    raise ConfigError(
        'language.base: its tokenizer does not tell "yes" from "no"',
        remedy="choose another language model",
    )


def _render(tokenizer: Any, turns: Sequence[tuple[str, str]], *, ask: bool) -> str:
    messages = [{"role": role, "content": content} for role, content in turns]
    try:
        text: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=ask, **FIXED
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise ConfigError(
            f"language.base: its chat template cannot be used: {error}",
            remedy="choose another language model",
        ) from error
    return text


def _cut(text: str, *marks: str) -> list[str]:
    """The pieces of `text` around the marks, each of which must stand there once, in order."""
    pieces = re.split("|".join(marks), text)
    if re.findall("|".join(marks), text) != list(marks):
        raise ConfigError(
            "language.base: its chat template drops or moves messages",
            remedy="choose another language model",
        )
    return pieces


def _shared(one: str, other: str) -> int:
    """How many characters the two begin with in common."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _tokens(tokenizer: Any, text: str) -> list[re.Match[str]]:
    """Where the tokenizer's control tokens stand in `text`."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    if not added:
        return []
    longest_first = sorted(added, key=lambda token: (-len(token), token))
    return list(re.finditer("|".join(map(re.escape, longest_first)), text))


def _plain(tokenizer: Any, system: str | None) -> Prompt:
    if not tokenizer.eos_token:
        raise _no_end()
    begins = tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
    opening = (tokenizer.bos_token if begins else "") + (f"{system}\n" if system else "")
    return Prompt(f"{opening}User: ", "\nAssistant:", tokenizer.eos_token)


def _no_end() -> ConfigError:
    return ConfigError(
        "language.base: its tokenizer has no token that ends an answer",
        remedy="choose another language model",
    )
