"""Language models of several families, a few thousand parameters each, with their markup.

Chat templates have the shape of the real ones: where the system message goes, what opens and closes
a turn, what begins a text. Windows are short, so that a test's prompts do not fit into them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from medvlm.draft.wording import sentence_request
from medvlm.findings import PHRASES

# As SmolLM2's and Qwen2's: a default system message in front of a conversation without one.
CHATML = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As Qwen3's: the last answer and, unless switched off, the next one begin with thoughts.
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
# As Gemma's and Gemma 2's: no system message, an assistant called model.
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# As Gemma 3's: the system message goes into the first user turn.
GEMMA3 = (
    "{{ bos_token }}{% set ns = namespace(first='') %}{% for m in messages %}"
    "{% if m.role == 'system' %}{% set ns.first = m.content + '\n\n' %}{% else %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ ns.first }}"
    "{% set ns.first = '' %}{{ m.content | trim }}<end_of_turn>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# As Mistral's: the system message goes into the last user turn.
MISTRAL = (
    "{{ bos_token }}{% set ns = namespace(told='') %}{% for m in messages %}"
    "{% if m.role == 'system' %}{% set ns.told = m.content + '\n\n' %}{% elif m.role == 'user' %}"
    "[INST] {{ ns.told if loop.last }}{{ m.content }}[/INST]{% else %} {{ m.content }}</s>"
    "{% endif %}{% endfor %}"
)
# As Llama 3's: today's date in the system message.
LLAMA3 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set told = messages[0].content %}"
    "{% set messages = messages[1:] %}{% else %}{% set told = '' %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nToday Date: "
    "{{ date_string if date_string is defined else strftime_now('%d %b %Y') }}\n\n{{ told }}"
    "<|eot_id|>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
# As Phi 3's: where no answer is asked for, the text ends.
PHI3 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)


class Markup(NamedTuple):
    """A chat template, the control tokens it uses, and what a prompt's parts must come out as."""

    template: str | None
    begin: str | None
    end: str
    others: tuple[str, ...]
    parts: tuple[str, str, str]


_ASSISTANT = "<|im_end|>\n<|im_start|>assistant\n"
_MODEL = "<end_of_turn>\n<start_of_turn>model\n"
_TURN = "<start_of_turn>user\n"
_TURNS = ("<start_of_turn>", "<end_of_turn>")
_HEAD = "<|start_header_id|>{}<|end_header_id|>\n\n"
_HEADS = ("<|start_header_id|>", "<|end_header_id|>")

MARKUP = {
    # SmolLM2's tokenizer names the opening of every turn as the token that begins a text.
    "smollm2": Markup(
        CHATML,
        "<|im_start|>",
        "<|im_end|>",
        (),
        ("<|im_start|>user\n", _ASSISTANT, "<|im_end|>"),
    ),
    "qwen2": Markup(
        CHATML,
        None,
        "<|im_end|>",
        ("<|im_start|>",),
        ("<|im_start|>user\n", _ASSISTANT, "<|im_end|>"),
    ),
    "qwen3": Markup(
        THINKING,
        None,
        "<|im_end|>",
        ("<|im_start|>",),
        ("<|im_start|>user\n", _ASSISTANT + "<think>\n\n</think>\n\n", "<|im_end|>"),
    ),
    "gemma": Markup(GEMMA, "<bos>", "<eos>", _TURNS, (f"<bos>{_TURN}", _MODEL, "<end_of_turn>")),
    "gemma3": Markup(GEMMA3, "<bos>", "<eos>", _TURNS, (f"<bos>{_TURN}", _MODEL, "<end_of_turn>")),
    "mistral": Markup(
        MISTRAL, "<s>", "</s>", ("[INST]", "[/INST]"), ("<s>[INST] ", "[/INST]", "</s>")
    ),
    "llama3": Markup(
        LLAMA3,
        "<|begin_of_text|>",
        "<|eot_id|>",
        _HEADS,
        (
            "<|begin_of_text|>" + _HEAD.format("user"),
            "<|eot_id|>" + _HEAD.format("assistant"),
            "<|eot_id|>",
        ),
    ),
    "phi3": Markup(
        PHI3,
        "<s>",
        "<|endoftext|>",
        ("<|user|>", "<|assistant|>", "<|end|>"),
        ("<|user|>\n", "<|end|>\n<|assistant|>\n", "<|end|>"),
    ),
    "none": Markup(None, None, "</s>", (), ("User: ", "\nAssistant:", "</s>")),
}

# Family (transformers' model type): markup, and settings beside the size.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama3", {"tie_word_embeddings": True}),
    "qwen2": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", {"head_dim": 8}),
    "smollm3": ("qwen3", {}),
    "gemma": ("gemma", {"head_dim": 8}),
    "gemma2": (
        "gemma",
        {"head_dim": 8, "sliding_window": 5, "final_logit_softcapping": 0.5},
    ),
    "gemma3_text": ("gemma3", {"head_dim": 8, "sliding_window": 5}),
    "mistral": ("mistral", {"sliding_window": 5}),
    "phi3": ("phi3", {"sliding_window": 5}),
    "phi": ("none", {}),
    "granite": ("none", {"logits_scaling": 3.0, "embedding_multiplier": 2.0}),
    # Not among the known ones: tried out when they are loaded.
    "gpt2": ("none", {}),
    "cohere2": ("none", {"sliding_window": 5}),
}


def tiny_tokenizer(
    markup: Markup, words: int = 400, prefix: bool = False
) -> PreTrainedTokenizerFast:
    """A byte-level BPE with the markup's control tokens.

    `words`: the most tokens it may have; with few, it knows single bytes only. `prefix`: whether a
    blank is put in front of every text, as SentencePiece does.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = ["yes", "no", "user\n", "assistant\n"] * 20
    corpus += [sentence_request(finding, "present", None) for finding in PHRASES] * 3
    special = [markup.begin, markup.end, *markup.others]
    trainer = trainers.BpeTrainer(
        vocab_size=words,
        special_tokens=[token for token in special if token],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=markup.begin,
        eos_token=markup.end,
        chat_template=markup.template,
    )


def tiny_family(folder: Path, family: str, **more: Any) -> Path:
    """A model of `family` and its tokenizer; weights so large that every token matters."""
    name, settings = FAMILIES.get(family, ("none", {}))
    tokenizer = tiny_tokenizer(MARKUP[name])
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(family, len(tokenizer), **settings | more))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder


def tiny_config(family: str, words: int, **settings: Any) -> Any:
    """A configuration of four layers of width 32."""
    size = {
        "vocab_size": words,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    return AutoConfig.for_model(family, **size | settings)
