"""Write the model cards of the demo family from what `launch.demo.evaluate` measured.

`python -m launch.demo.card EVALUATION.json` puts a README.md next to each checkpoint.
"""

import argparse
from pathlib import Path
from typing import Any

import orjson

from launch.demo.family import CHECKPOINTS, CONTEXT_TOKENS, FAMILY, DemoTier
from launch.demo.questions import TASKS
from launch.demo.tokenizer import VOCABULARY_SIZE

_CARD = """---
license: apache-2.0
pipeline_tag: text-generation
---
# HybridServe-LLM demo: {name}

A demonstration, not a language model for use: it answers ten kinds of short questions and nothing
else. It is the {name} tier of the demo cascade of HybridServe-LLM, trained by this project from
generated questions.

| | |
|---|---|
| architecture | Llama: {n_layers} layers, {hidden_size} wide, {n_heads} heads |
| parameters | {parameters} |
| weights | bfloat16 safetensors |
| tokenizer | one token per UTF-8 byte, {vocabulary} ids |
| context | {context} tokens |
| answers | {style} |
| data | `launch/demo/questions.py`, drawn with training seed {seed} |
| training | `python -m launch.demo.train {name} --out runs/demo --seed {seed}`, {tokens} tokens |
| licence | Apache-2.0 |

The shipped weights come from runs that were stopped and resumed, and whose length and mix of tasks
were changed on the way; the command above trains a family like this one, not the same bytes.

## Accuracy

{n_questions} fresh questions of the {split} split (seed {question_seed}), greedy, on a real vLLM
engine: **{accuracy}** over the whole mix; {cpu_ms} ms of CPU time and {output_tokens} output
tokens an answer. No question of the calibration or test split was trained on, in any wording: the
split is a hash of the operands (`tests/demo/test_demo_questions.py`).

| task | share of the mix | accuracy |
|---|---|---|
{rows}

Measured with
`python -m launch.demo.evaluate --questions {n_questions} --seed {question_seed} --split {split}`.
"""


def card(tier: DemoTier, evaluation: dict[str, Any], *, n_parameters: int, seed: int) -> str:
    """Return the model card of `tier`, as Markdown."""
    measured = evaluation[tier.name]
    rows = [
        f"| {task} | {TASKS[task].share} % | {100 * value:.0f} % |"
        for task, value in measured["by_task"].items()
    ]
    reasoning = "steps inside `<think>…</think>`, then the answer"
    return _CARD.format(
        name=tier.name,
        n_layers=tier.n_layers,
        hidden_size=tier.hidden_size,
        n_heads=tier.n_heads,
        parameters=f"{n_parameters / 1e6:.2f} M",
        vocabulary=VOCABULARY_SIZE,
        context=CONTEXT_TOKENS,
        style=reasoning if tier.is_reasoning else "directly, without steps",
        seed=seed,
        tokens=f"{tier.n_training_tokens / 1e6:.0f} M",
        n_questions=evaluation["questions"],
        split=evaluation["split"],
        question_seed=evaluation["seed"],
        cpu_ms=f"{1000 * measured['cpu_s_per_answer']:.1f}",
        output_tokens=measured["output_tokens_per_answer"],
        accuracy=f"{100 * measured['accuracy']:.1f} %",
        rows="\n".join(rows),
    )


def n_parameters_of(checkpoint: Path) -> int:
    """Return the number of weights in a safetensors file, read from its header alone."""
    with (checkpoint / "model.safetensors").open("rb") as file:
        header = orjson.loads(file.read(int.from_bytes(file.read(8), "little")))
    total = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            size = 1
            for length in tensor["shape"]:
                size *= length
            total += size
    return total


def main() -> None:
    """Write the three cards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("evaluation", type=Path, help="JSON that launch.demo.evaluate printed")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training")
    arguments = parser.parse_args()
    evaluation = orjson.loads(arguments.evaluation.read_bytes())
    for tier in FAMILY.values():
        folder = CHECKPOINTS / tier.name
        text = card(tier, evaluation, n_parameters=n_parameters_of(folder), seed=arguments.seed)
        (folder / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
