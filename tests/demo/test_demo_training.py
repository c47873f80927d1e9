"""Training of the demo family: packing changes nothing, runs resume, checkpoints load."""

import json
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from launch.demo.family import FAMILY, GIANT, SMALL
from launch.demo.packing import (
    IGNORED,
    STEP_TOKENS,
    encode_example,
    packed_batches,
    training_questions,
)
from launch.demo.questions import TASKS, draw_question
from launch.demo.tokenizer import build_tokenizer
from launch.demo.train import Options, Trainer, build_model, learning_rate_factor


def options(out: Path, *, steps: int, start_from: Path | None = None) -> Options:
    return Options(
        out=out,
        seed=0,
        n_training_tokens=steps * STEP_TOKENS,
        compile=False,
        start_from=start_from,
        peak_rate=1.0,
    )


def test_a_packed_example_is_what_it_would_be_alone() -> None:
    torch.manual_seed(0)
    tokenizer, rng = build_tokenizer(), random.Random(0)
    model = build_model(SMALL, tokenizer).eval()
    examples = [encode_example(draw_question(rng), GIANT, tokenizer) for _ in range(12)]
    batch = next(packed_batches(iter(examples * 9), n_rows=2, row_tokens=512))
    starts = (batch.position_ids[0] == 0).nonzero().flatten().tolist()
    assert len(starts) > 2
    with torch.no_grad():
        packed = model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
        ).logits[0]
        for start, end in pairwise(starts[:4]):
            alone = model(input_ids=batch.input_ids[:1, start:end]).logits[0]
            assert torch.allclose(packed[start:end], alone, atol=1e-4)


def test_only_the_output_is_learnt() -> None:
    tokenizer = build_tokenizer()
    question = draw_question(random.Random(1))
    example = encode_example(question, SMALL, tokenizer)
    batch = next(packed_batches(iter([example] * 9), n_rows=1, row_tokens=len(example.ids)))
    learnt = batch.labels[0][batch.labels[0] != IGNORED].tolist()
    assert tokenizer.decode(learnt) == f"{question.answer}<|end|>"


def test_a_reasoning_tier_restates_works_and_checks() -> None:
    tokenizer = build_tokenizer()
    question = draw_question(random.Random(1))
    ids = encode_example(question, GIANT, tokenizer).ids
    once = f"{question.prompt}\n{question.trace}\n"
    assert f"<think>{once}{once}</think>{question.answer}<|end|>" in tokenizer.decode(ids)


def test_the_check_is_learnt_in_the_last_part_of_the_training() -> None:
    tier = replace(GIANT, check_fraction=0.25)
    assert [tier.learns_check(progress) for progress in (0.0, 0.75, 0.76, 1.0)] == [
        False,
        False,
        True,
        True,
    ]
    assert not replace(GIANT, check_fraction=0.0).learns_check(1.0)
    assert not replace(SMALL, check_fraction=0.25).learns_check(1.0)


def test_the_longest_reasoning_fits_its_row() -> None:
    tokenizer, rng = build_tokenizer(), random.Random(2)
    lengths = [
        len(encode_example(draw_question(rng), GIANT, tokenizer, system="You are HybridServe.").ids)
        for _ in range(3000)
    ]
    assert max(lengths) <= 512


def test_tasks_are_drawn_by_their_weights() -> None:
    weights = {name: float(name == "sort") for name in TASKS}
    questions = training_questions(SMALL, random.Random(0), lambda: 1.0, weights)
    assert {next(questions).task for _ in range(50)} == {"sort"}


@pytest.mark.parametrize(
    ("progress", "factor"), [(0.0, 0.0), (0.01, 0.5), (0.2, 1.0), (0.7, 0.5), (1.0, 0.0)]
)
def test_learning_rate_warms_up_and_falls_to_zero(progress: float, factor: float) -> None:
    assert learning_rate_factor(progress) == pytest.approx(factor)


@pytest.mark.slow
def test_a_run_resumes_and_its_checkpoint_loads(tmp_path: Path) -> None:
    first = Trainer(SMALL, options(tmp_path, steps=2))
    first.run()
    assert first.step == 2
    second = Trainer(SMALL, options(tmp_path, steps=3))
    assert second.step == 2
    second.run()
    target = second.export()
    model = LlamaForCausalLM.from_pretrained(target)
    assert model.dtype == torch.bfloat16
    assert AutoTokenizer.from_pretrained(target).chat_template
    assert json.loads((target / "generation_config.json").read_text())["temperature"] == 0.0


def test_a_run_can_go_on_from_a_checkpoint_without_the_curriculum(tmp_path: Path) -> None:
    target = Trainer(SMALL, options(tmp_path / "a", steps=1)).export()
    trainer = Trainer(SMALL, options(tmp_path / "b", steps=1, start_from=target))
    assert trainer.step == 0
    assert trainer.tier == replace(SMALL, curriculum_fraction=0.0)
    loaded = LlamaForCausalLM.from_pretrained(target).state_dict()
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(weight.to(torch.bfloat16), loaded[name])


def test_tiers_grow() -> None:
    sizes = [
        sum(weight.numel() for weight in build_model(tier, build_tokenizer()).parameters())
        for tier in FAMILY.values()
    ]
    assert sizes == sorted(sizes)
