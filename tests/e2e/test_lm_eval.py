"""EleutherAI's lm-evaluation-harness on the demo, as docs/lm-eval.md runs it; without a hub."""

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from launch.demo.check import running_demo
from launch.demo.export import line_of
from launch.demo.questions import distinct_questions

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / "launch/demo/checkpoints/small"
N_QUESTIONS = 40


@dataclass(frozen=True)
class Harness:
    """`lm_eval run` in a folder that holds the demo's questions as its tasks expect them."""

    folder: Path
    base_url: str

    def run(self, model: str, task: str, /, *more: str, **model_args: object) -> "Outcome":
        path = "chat/completions" if "chat" in model else "completions"
        arguments = {"base_url": f"{self.base_url}/{path}", "max_retries": 1, **model_args}
        told = ",".join(f"{name}={value}" for name, value in arguments.items())
        output = self.folder / f"{len(list(self.folder.iterdir()))}"
        command = [sys.executable, "-m", "lm_eval", "run", "--model", model, "--tasks", task]
        command += ["--include_path", str(ROOT / "examples/lm-eval"), "--model_args", told, *more]
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
        done = subprocess.run(
            [*command, "--output_path", str(output)],
            cwd=self.folder,
            env={**os.environ, **offline, "HF_HOME": str(self.folder / "hf")},
            capture_output=True,
            text=True,
            check=False,
        )
        results = [json.loads(path.read_text()) for path in output.rglob("results_*.json")]
        return Outcome(done, {k: v for found in results for k, v in found["results"][task].items()})


@dataclass(frozen=True)
class Outcome:
    """The process that ended, and its task's metrics by name."""

    process: subprocess.CompletedProcess[str]
    metrics: dict[str, float]

    def metric(self, name: str) -> float:
        assert self.process.returncode == 0, self.process.stderr[-2000:]
        return self.metrics[name]


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    folder = tmp_path_factory.mktemp("lm-eval")
    stream = distinct_questions("test", seed=0)
    lines = [line_of(question, "test") for question in itertools.islice(stream, N_QUESTIONS)]
    (folder / "demo.jsonl").write_bytes(b"".join(lines))
    larger = [line for line in lines if b"larger:" in line]
    assert len(larger) >= 3
    (folder / "larger.jsonl").write_bytes(b"".join(larger))
    with running_demo("--run-folder", str(tmp_path_factory.mktemp("run"))) as base_url:
        yield Harness(folder, base_url)


def test_generation_as_a_chat(harness: Harness) -> None:
    outcome = harness.run(
        "local-chat-completions",
        "demo_chat",
        "--apply_chat_template",
        model="hybridserve",
        num_concurrent=8,
    )
    assert outcome.metric("exact_match,none") > 0.8


def test_generation_as_plain_text(harness: Harness) -> None:
    outcome = harness.run(
        "local-completions",
        "demo_completions",
        model="hybridserve",
        num_concurrent=8,
        tokenizer_backend="None",
    )
    assert outcome.metric("exact_match,answer") > 0.8


def test_a_log_likelihood_of_the_cascade_is_refused_with_what_to_do(harness: Harness) -> None:
    outcome = harness.run(
        "local-completions", "demo_choices", model="hybridserve", tokenizer=TOKENIZER
    )
    assert outcome.process.returncode != 0
    said = re.sub(r"\s+", " ", outcome.process.stderr)
    assert "400" in said
    assert "the log-likelihood of a prompt is one model's, and a cascade is several" in said
    assert "ask one tier, by its own name" in said


def test_a_log_likelihood_of_a_tier_from_token_ids_and_from_text(harness: Harness) -> None:
    arguments = {"model": "small", "tokenizer": TOKENIZER, "max_length": 512}
    by_ids = harness.run("local-completions", "demo_choices", **arguments)
    by_text = harness.run(
        "local-completions",
        "demo_choices",
        "--batch_size",
        "4",
        tokenized_requests=False,
        **arguments,
    )
    assert by_ids.metric("acc,none") > 0.6  # even a coin is right half the time
    assert by_text.metric("acc,none") == by_ids.metric("acc,none")
