"""Small Hugging Face models for tests: own byte-level BPE, the chat templates of the common families, a tiny Qwen2.

Nothing is downloaded. `make_model` writes random weights at once; with `train_steps` it learns for a second or two
from made traces, so that its samples end, wander, are cut off, and sometimes are right.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Few answers of two digits: a tiny model is often right by chance, and a value's place in a path can be found.
QUESTIONS: list[dict[str, Any]] = [
    {"id": "q0", "question": "What is 3 times 4?", "answer": "12"},
    {"id": "q1", "question": "What is 7 plus 8?", "answer": "15"},
    {"id": "q2", "question": "What is 2 times 6?", "answer": "12"},
    {"id": "q3", "question": "What is 8 plus 4?", "answer": "12"},
    {"id": "q4", "question": "What is 3 times 5?", "answer": "15"},
    {"id": "q5", "question": "What is 5 plus 7?", "answer": "12"},
]

_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n%TAIL%{% endif %}"
)
_R1 = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}"
    "{% elif message['role'] == 'user' %}<｜User｜>{{ message['content'] }}"
    "{% else %}<｜Assistant｜>{{ message['content'].split('</think>')[-1] }}<｜end▁of▁sentence｜>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<｜Assistant｜>%TAIL%{% endif %}"
)
_LLAMA = (
    "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: %DATE%\n\n<|eot_id|>"
    "{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_QWEN3_TAIL = "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
_SYSTEM = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n%TEXT%<|im_end|>\n{% endif %}"

CHAT_TEMPLATES: dict[str, str] = {
    "r1": _R1.replace("%TAIL%", "<think>\n"),
    "r1-old": _R1.replace("%TAIL%", ""),
    "qwen3": _CHATML.replace("%TAIL%", _QWEN3_TAIL),
    "qwen3-thinking": _CHATML.replace("%TAIL%", "<think>\n"),
    "qwen2.5": _SYSTEM.replace("%TEXT%", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.")
    + _CHATML.replace("%TAIL%", ""),
    "qwen2.5-math": _SYSTEM.replace("%TEXT%", "Please reason step by step, and put your final answer within \\boxed{}.")
    + _CHATML.replace("%TAIL%", ""),
    "llama-3.1": _LLAMA.replace("%DATE%", "{{ date_string | default('26 Jul 2024') }}"),
    "llama-3.1-today": _LLAMA.replace("%DATE%", "{{ date_string or strftime_now('%d %b %Y') }}").replace(
        "{{ bos_token }}",
        "{% if date_string is not defined %}{% set date_string = none %}{% endif %}{{ bos_token }}",
        1,
    ),
}

_SPECIALS: dict[str, tuple[str | None, list[str]]] = {  # first token, then the rest with the end first
    "r1": ("<｜begin▁of▁sentence｜>", ["<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"]),
    "qwen": (None, ["<|im_end|>", "<|endoftext|>", "<|im_start|>"]),
    "llama": ("<|begin_of_text|>", ["<|eot_id|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"]),
}
THINKING_TAGS = ("<think>", "</think>")


def family_of(chat_template: str) -> str:
    """r1, qwen or llama: whose special tokens a template of CHAT_TEMPLATES (its name) needs."""
    return next(family for family in _SPECIALS if chat_template.startswith(family))


def make_tokenizer(
    chat_template: str = "r1",
    *,
    template_text: str | None = None,
    thinking_tags: bool = True,
    adds_bos: bool = False,
    merges: int = 200,
) -> Any:
    """A byte-level BPE tokenizer with a family's special tokens.

    chat_template: a name in CHAT_TEMPLATES. template_text: another chat template with the same family's tokens.
    thinking_tags: `<think>` and `</think>` are single added tokens; else they are several ids, as any text.
    adds_bos: the tokenizer writes the first token by itself too, like Llama's.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    first, specials = _SPECIALS[family_of(chat_template)]
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=256 + merges, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(_training_lines(), trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in [*([first] if first else []), *specials]])
    if thinking_tags:
        tokenizer.add_tokens([AddedToken(text, special=False) for text in THINKING_TAGS])
    if adds_bos and first:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{first} $A", special_tokens=[(first, tokenizer.token_to_id(first))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=first,
        eos_token=specials[0],
        pad_token=specials[0],
        chat_template=template_text if template_text is not None else CHAT_TEMPLATES[chat_template],
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def make_model(
    folder: Path,
    *,
    chat_template: str = "r1",
    template_text: str | None = None,
    thinking_tags: bool = True,
    adds_bos: bool = False,
    hidden: int = 32,
    layers: int = 2,
    seed: int = 0,
    tie: bool = False,
    eos_ids: Sequence[int] | None = None,
    train_steps: int = 0,
) -> Path:
    """Write a tiny Qwen2 in float32 with its tokenizer to a folder and return it.

    eos_ids: what generation_config.json lists; None: the tokenizer's own end. train_steps: optimiser steps on traces
    of QUESTIONS (about 40 ms each); 0 leaves the weights random, and then hardly a sample ever ends.
    """
    import torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    tokenizer = make_tokenizer(
        chat_template, template_text=template_text, thinking_tags=thinking_tags, adds_bos=adds_bos
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=len(tokenizer),
                hidden_size=hidden,
                intermediate_size=2 * hidden,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=1 << 50,
                initializer_range=0.1,
                tie_word_embeddings=tie,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        ).float()
        if train_steps:
            _train(model, tokenizer, train_steps, random.Random(seed))
    ends = list(eos_ids) if eos_ids is not None else [tokenizer.eos_token_id]
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_questions(path: Path, rows: Sequence[dict[str, Any]] = QUESTIONS) -> Path:
    """Write rows as jsonl and return the path."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def trace(row: dict[str, Any], rng: random.Random, *, informed: bool) -> str:
    """A response to a question: thinking, end of thinking, boxed answer. Informed ones are shorter and mostly right."""
    words = row["question"].removesuffix("?").split()[2:]
    detours = 0 if informed and rng.random() < 0.7 else min(int(rng.expovariate(0.3)), 12)
    answer = row["answer"] if rng.random() < (0.95 if informed else 0.7) else rng.choice(["10", "12", "15"])
    return f"{' '.join(words)}{' hmm wait,' * detours} is {answer}.\n</think>\n\n\\boxed{{{answer}}}"


def _training_lines() -> list[str]:
    """What the tokenizer's merges are made from: the built-in template's texts, the questions and their traces."""
    import vpgea

    template = (Path(vpgea.__file__).parent / "prompts" / "templates" / "default.yaml").read_text(encoding="utf-8")
    template = template.partition("\n# What stands in the note's place")[0]  # which nothing here is asked
    rng = random.Random(0)
    traces = [trace(row, rng, informed=False).replace("</think>", "") for row in QUESTIONS]
    return [*template.splitlines(), *(row["question"] for row in QUESTIONS), *traces]


def _train(model: Any, tokenizer: Any, steps: int, rng: random.Random) -> None:
    """Next-token training on responses behind the built-in template's prompts of both views."""
    import torch
    from torch.nn.functional import cross_entropy

    from vpgea.config.schema import ViewsConfig
    from vpgea.prompts.views import Views
    from vpgea.questions.load import Question

    views = Views(tokenizer, ViewsConfig(), [tokenizer.eos_token_id])
    prompts = []
    for row in QUESTIONS:
        question = Question(row["id"], row["question"], row["answer"])
        prompts.append((row, views.prior_prompt(question), views.posterior_prompt(question)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    model.train()
    for step in range(steps):
        informed = step % 3 == 2  # prompts with the note are long, so they come less often
        rows = [rng.choice(prompts) for _ in range(16)]
        starts = [posterior if informed else prior for _, prior, posterior in rows]
        opening = "" if views.assistant_tail.endswith("<think>\n") else "<think>\n"
        ends = [
            [*views.encode(opening + trace(row, rng, informed=informed)), tokenizer.eos_token_id] for row, _, _ in rows
        ]
        length = max(len(start) + len(end) for start, end in zip(starts, ends, strict=True))
        ids = torch.zeros((16, length), dtype=torch.long)
        targets = torch.full((16, length), -100)
        for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
            ids[index, : len(start) + len(end)] = torch.tensor(start + end)
            targets[index, len(start) : len(start) + len(end)] = torch.tensor(end)
        logits = model(input_ids=ids).logits
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()
