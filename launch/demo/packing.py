"""Pack many short examples into training rows of one length, blind to one another.

Padding to the longest trace would waste most of the work, as short answers stand next to long
traces. So examples are packed first-fit into rows. A block-diagonal causal mask and positions that
start again at 0 keep each example as it would be alone.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast

from launch.demo.family import DemoTier
from launch.demo.questions import TASKS, Question, draw_task_question, split_of
from launch.demo.tokenizer import END, END_THINK, THINK

ROW_TOKENS = 256
CHECKED_ROW_TOKENS = 512
STEP_TOKENS = 4096
IGNORED = -100
_SYSTEM_PROMPTS = ("You are a helpful assistant.", "Answer briefly.", "You are HybridServe.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Hold the tensors of one step, all [n_rows, row_tokens], and a mask, square over row_tokens.

    `labels[i, t]` is the token that follows `input_ids[i, t]`, or IGNORED where nothing is learnt.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    position_ids: torch.Tensor
    attention_mask: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """Hold the token ids of one conversation; the tokens from `n_prompt` on are learnt."""

    ids: tuple[int, ...]
    n_prompt: int


def encode_example(
    question: Question,
    tier: DemoTier,
    tokenizer: PreTrainedTokenizerFast,
    *,
    system: str | None = None,
    with_check: bool = True,
) -> Example:
    """Encode the conversation by the chat template, with the trace where the tier reasons.

    `with_check` writes question and trace twice: the tier works the question again as a check.
    """
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": question.prompt})
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    pass_over = f"{question.prompt}\n{question.trace}\n"
    trace = pass_over * 2 if with_check else question.trace
    reasoning = f"{THINK}{trace}{END_THINK}" if tier.is_reasoning else ""
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    output_ids = tokenizer(f"{reasoning}{question.answer}{END}", add_special_tokens=False)[
        "input_ids"
    ]
    return Example(ids=(*prompt_ids, *output_ids), n_prompt=len(prompt_ids))


def training_questions(
    tier: DemoTier,
    rng: random.Random,
    progress: Callable[[], float],
    task_weights: Mapping[str, float],
) -> Iterator[Question]:
    """Draw endless questions of the train split; `progress` in [0, 1] drives the curriculum.

    The level cap rises to the hardest over the first `curriculum_fraction` of the training. Tasks
    are drawn by `task_weights`, which is read anew for every question.
    """
    hardest = max(len(task.sizes) for task in TASKS.values()) - 1
    names = list(TASKS)
    while True:
        share_done = progress() / tier.curriculum_fraction if tier.curriculum_fraction else 1.0
        cap = max(int(hardest * min(1.0, share_done) + 0.5), 1)
        name = rng.choices(names, weights=[task_weights[name] for name in names])[0]
        question = draw_task_question(name, rng, hardest_level=cap)
        if split_of(question.key) == "train":
            yield question


def packed_batches(
    examples: Iterator[Example], *, n_rows: int, row_tokens: int = ROW_TOKENS
) -> Iterator[Batch]:
    """Pack batches of `n_rows` rows; an example without room opens the next batch."""
    rows: list[list[Example]] = [[] for _ in range(n_rows)]
    used = [0] * n_rows
    for example in examples:
        n_tokens = len(example.ids)
        fits = [i for i in range(n_rows) if used[i] + n_tokens <= row_tokens]
        if not fits:
            yield _collate(rows, row_tokens)
            rows, used = [[] for _ in range(n_rows)], [0] * n_rows
            fits = [0]
        fullest = max(fits, key=used.__getitem__)
        rows[fullest].append(example)
        used[fullest] += n_tokens


def _collate(rows: list[list[Example]], row_tokens: int) -> Batch:
    shape = (len(rows), row_tokens)
    input_ids = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED, dtype=torch.long)
    position_ids = torch.zeros(shape, dtype=torch.long)
    block = torch.full(shape, -1, dtype=torch.long)
    for i, row in enumerate(rows):
        start = 0
        for k, example in enumerate(row):
            ids = torch.tensor(example.ids)
            end = start + len(ids)
            input_ids[i, start:end] = ids
            labels[i, start + example.n_prompt - 1 : end - 1] = ids[example.n_prompt :]
            position_ids[i, start:end] = torch.arange(len(ids))
            block[i, start:end] = k
            start = end
    same_block = block[:, :, None] == block[:, None, :]
    causal = torch.ones(row_tokens, row_tokens, dtype=torch.bool).tril()
    return Batch(
        input_ids=input_ids,
        labels=labels,
        position_ids=position_ids,
        attention_mask=(same_block & causal)[:, None],
    )


def training_batches(
    tier: DemoTier,
    tokenizer: PreTrainedTokenizerFast,
    rng: random.Random,
    progress: Callable[[], float],
    task_weights: Mapping[str, float],
) -> Iterator[Batch]:
    """Pack batches of STEP_TOKENS tokens; rows are longer once reasoning is checked.

    One conversation in ten has a system turn.
    """

    def examples(*, with_check: bool) -> Iterator[Example]:
        for question in training_questions(tier, rng, progress, task_weights):
            system = rng.choice(_SYSTEM_PROMPTS) if rng.random() < 0.1 else None
            yield encode_example(question, tier, tokenizer, system=system, with_check=with_check)

    plain = packed_batches(
        examples(with_check=False), n_rows=STEP_TOKENS // ROW_TOKENS, row_tokens=ROW_TOKENS
    )
    checked = packed_batches(
        examples(with_check=True),
        n_rows=STEP_TOKENS // CHECKED_ROW_TOKENS,
        row_tokens=CHECKED_ROW_TOKENS,
    )
    while True:
        yield next(checked if tier.learns_check(progress()) else plain)
