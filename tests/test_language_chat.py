"""Chat templates taken apart: each family's bare turn, and what cannot be taken apart."""

from __future__ import annotations

import pytest

from medvlm.errors import ConfigError
from medvlm.model.chat import prompt_parts, telling_tokens
from tests.families import CHATML, MARKUP, tiny_tokenizer


@pytest.mark.parametrize("name", MARKUP)
def test_the_bare_turn_of_each_family(name: str) -> None:
    assert prompt_parts(tiny_tokenizer(MARKUP[name])) == MARKUP[name].parts


@pytest.mark.parametrize(
    ("name", "user"),
    [
        ("qwen2", "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"),
        ("gemma3", "<bos><start_of_turn>user\nBe brief.\n\n"),
        ("mistral", "<s>[INST] Be brief.\n\n"),
        ("none", "Be brief.\nUser: "),
    ],
)
def test_a_system_message_goes_where_the_template_puts_it(name: str, user: str) -> None:
    bare, told = (prompt_parts(tiny_tokenizer(MARKUP[name]), s) for s in (None, "Be brief."))
    assert told == bare._replace(user=user)


def test_no_prompt_depends_on_the_day() -> None:
    user = prompt_parts(tiny_tokenizer(MARKUP["llama3"]), "Be brief.").user
    assert "Today Date: 01 Jan 2025\n\nBe brief.<|eot_id|>" in user


def test_a_system_message_that_is_not_taken_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"language\.system"):
        prompt_parts(tiny_tokenizer(MARKUP["gemma"]), "Be brief.")


def test_a_text_begins_as_the_tokenizer_begins_it() -> None:
    """Without a template; as Llama's base models do."""
    from tokenizers import processors

    tokenizer = tiny_tokenizer(MARKUP["none"]._replace(begin="<s>"))
    assert prompt_parts(tokenizer).user == "User: "
    first = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", first)]
    )
    assert prompt_parts(tokenizer).user == "<s>User: "


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[-1].content }}",
        "{% for m in messages %}{{ m.content | lower }}{% endfor %}",
        "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}",
        "{{ raise_exception('not for you') }}",
        "{% for m in messages %}",
    ],
)
def test_a_template_that_cannot_be_taken_apart_is_refused(template: str) -> None:
    with pytest.raises(ConfigError, match=r"language\.base"):
        prompt_parts(tiny_tokenizer(MARKUP["qwen2"]._replace(template=template)))


@pytest.mark.parametrize("template", [None, "{% for m in messages %}{{ m.content }} {% endfor %}"])
def test_an_answer_that_nothing_ends_is_refused(template: str | None) -> None:
    tokenizer = tiny_tokenizer(MARKUP["qwen2"]._replace(template=template))
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="ends an answer"):
        prompt_parts(tokenizer)


def test_a_template_without_control_tokens_ends_as_the_text_ends() -> None:
    template = CHATML.replace("<|im_start|>", "### ").replace("<|im_end|>", "")
    tokenizer = tiny_tokenizer(MARKUP["qwen2"]._replace(template=template))
    assert prompt_parts(tokenizer) == ("### user\n", "\n### assistant\n", "<|im_end|>")


def test_the_first_tokens_that_differ_tell_yes_from_no() -> None:
    assert telling_tokens([5], [6]) == ([], 5, 6)
    assert telling_tokens([1, 2, 5, 9], [1, 2, 6]) == ([1, 2], 5, 6)
    for yes, no in (([1, 2], [1]), ([1], [1])):
        with pytest.raises(ConfigError, match="yes"):
            telling_tokens(yes, no)
