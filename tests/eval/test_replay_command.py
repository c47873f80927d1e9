"""`hs-eval replay` and `sweep`: recorded answers through the policy code that serves."""

import contextlib
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from rich.console import Console

from eval.asking.collect import collect, describe_cascade
from eval.asking.collect_progress import CollectProgress
from eval.calibrate import main as calibrate
from eval.cli import main
from eval.questions.graders import Exact
from eval.questions.prompts import read_prompts
from eval.recorded.attempts import AttemptsHeader
from eval.recorded.attempts_file import AttemptsFile
from hybridserve_llm.config.load import load_config
from hybridserve_llm.server.build import Serving, build_app
from hybridserve_llm.testing import create_fake_vllm_app, serving

Capture = pytest.CaptureFixture[str]
NAMES = ("small", "medium", "giant")
CONFIG = """
tiers:
  - name: small
    model: org/s
    accept: {score_at_least: -1.0}
    skip: [{score_below: -4.0, to: giant}]
  - {name: medium, model: org/m, accept: {score_at_least: -2.0}}
  - {name: giant, model: org/g}
energy: {enabled: false}
records: {file: served.jsonl}
"""


def replayed(arguments: list[str], capsys: Capture) -> dict[str, Any]:
    assert main(["replay", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def chosen(path: Path) -> dict[tuple[str, str], str]:
    """Who answers each question: the last of its rows."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {(row["split"], row["query_id"]): row.get("tier") or row["model"] for row in rows}


@pytest.fixture
def four(write_csv: Callable[..., Path], record: Callable[..., Any]) -> Path:
    """Four questions: scores of the small model, and who is right."""
    rows = [
        record(i, model, correct=right, raw_confidence=score if model == "s-1b" else -0.1)
        for i, (score, small, big) in enumerate(
            [(-0.1, 1, 1), (-0.2, 0, 1), (-0.9, 0, 1), ("", 1, 0)]
        )
        for model, right in (("s-1b", small), ("b-10b", big))
    ]
    return write_csv(rows)


def test_thresholds_give_these_figures(four: Path, capsys: Capture) -> None:
    found = replayed([str(four), "--accept", "s-1b=-0.2"], capsys)
    # Taken: questions 0 (right) and 1 (wrong). Question 2 is below, 3 has no score: both go on.
    assert found["answered"] == {"s-1b": 0.5, "b-10b": 0.5}
    assert found["asked"] == {"s-1b": 1.0, "b-10b": 0.5}
    assert (found["accuracy"], found["accuracy_last"], found["harm"]) == (0.5, 0.75, 0.25)
    # 100 tokens x 1 or 10: all pay the small model, half the big one too.
    assert (found["cost"], found["cost_last"]) == (100 + 500, 1000)
    assert found["difference_interval"] is None  # four questions are too few
    assert found["served"] is None


def test_baselines_stand_beside_the_policy_in_80_columns(
    cascade_csv: Path, capsys: Capture
) -> None:
    assert main(["replay", str(cascade_csv), "--accept", "small-1b=-0.2"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    for way in ("small-1b alone", "random escalation", "raw score: recorded *", "length only *"):
        assert way in printed
    for way in ("router on the prompt *", "perfect chain", "oracle"):
        assert way in printed


def test_decisions_are_written_with_their_reasons(
    four: Path, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "decisions.csv"
    replayed([str(four), "--accept", "s-1b=-0.2", "--decisions", str(path)], capsys)
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(row["query_id"], row["tier"], row["decision"]) for row in csv.DictReader(file)]
    assert rows[:3] == [
        ("0", "s-1b", "accept"),
        ("1", "s-1b", "accept"),
        ("2", "s-1b", "escalate"),
    ]
    assert rows[-1] == ("3", "b-10b", "accept")


def test_a_certificate_decides_as_it_was_certified(
    cascade_csv: Path, tmp_path: Path, capsys: Capture
) -> None:
    certificate, ours, theirs = (tmp_path / name for name in ("c.json", "ours.csv", "theirs.csv"))
    flags = ["--epsilon", "0.05", "--certificate", str(certificate), "--decisions", str(theirs)]
    assert calibrate(["records", str(cascade_csv), *flags, "--json"]) == 0
    capsys.readouterr()
    arguments = [str(cascade_csv), "--certificate", str(certificate), "--decisions", str(ours)]
    replayed(arguments, capsys)
    served, certified = chosen(ours), chosen(theirs)
    assert certified == {question: served[question] for question in certified}
    assert len(set(certified.values())) > 1


async def test_the_replay_decides_as_the_server_did_request_by_request(
    tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "cascade.yaml").write_text(CONFIG)
    config = load_config(tmp_path / "cascade.yaml")
    path = tmp_path / "prompts.jsonl"
    lines = [
        {"prompt": text, "reference": text[::-1], "id": f"q{n}", "request": {"max_tokens": n}}
        for n in range(1, 31)
        for text in ["abcdefghijklmnopqrstuvwxyz0123"[:n]]  # the fake reverses its prompt
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    prompts = read_prompts(path, Exact())
    async with contextlib.AsyncExitStack() as stack:
        endpoints = {}
        for name in NAMES:
            app = create_fake_vllm_app(model=name)
            address = await stack.enter_async_context(serving(app, tmp_path / f"{name}.sock"))
            endpoints[name] = [address]
        front_end = build_app(config, Serving(endpoints=endpoints))
        await stack.enter_async_context(front_end.router.lifespan_context(front_end))
        http = await stack.enter_async_context(
            httpx.AsyncClient(transport=httpx.ASGITransport(app=front_end))
        )
        client = openai.AsyncOpenAI(
            base_url="http://hs/v1", api_key="k", http_client=http, max_retries=0
        )
        described = await describe_cascade(client)
        header = AttemptsHeader(
            created="now",
            tiers=described.tiers,
            fingerprint=described.fingerprint,
            sampling={},
            endpoints=("/v1/chat/completions",),
            data_sha256=prompts.sha256,
            labels=prompts.labels,
            grader=None,
        )
        progress = CollectProgress(Console(file=io.StringIO()))
        with AttemptsFile(tmp_path / "attempts.jsonl", header) as file, progress:
            await collect(client, prompts, file, chain=NAMES, concurrency=4, progress=progress)
        for prompt in prompts.prompts:
            await client.post(
                "/chat/completions",
                cast_to=object,
                body={**prompt.body({}), "model": "hybridserve"},
                options={"headers": {"x-request-id": prompt.question[1]}},
            )
    arguments = [str(tmp_path / "attempts.jsonl"), "--config", str(tmp_path / "cascade.yaml")]
    costs = [word for name in NAMES for word in ("--cost", f"{name}=1")]
    served = ["--served", str(tmp_path / "served.jsonl")]
    found = replayed([*arguments, *costs, *served], capsys)
    assert found["served"]["n_compared"] == 30
    assert found["served"]["differing"] == []
    assert all(share > 0 for share in found["answered"].values())  # each tier answered some


def test_what_differs_is_named(four: Path, tmp_path: Path, capsys: Capture) -> None:
    way = {"tier": "s-1b", "decision": "accept"}
    records = [
        {"kind": "request", "request_id": "0", "attempts": [way]},
        {"kind": "request", "request_id": "2", "attempts": [way]},  # the replay escalates it
        {"kind": "request", "request_id": "1", "attempts": [{"tier": "s-1b", "decision": "fail"}]},
        {"kind": "request", "request_id": "9", "attempts": [way]},
        {"kind": "energy", "request_id": "0"},
    ]
    path = tmp_path / "served.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    arguments = [str(four), "--accept", "s-1b=-0.2", "--served", str(path)]
    found = replayed(arguments, capsys)["served"]
    assert found == {"n_compared": 2, "n_failed": 1, "n_unknown": 1, "differing": ["2"]}
    assert main(["replay", *arguments]) == 0
    assert "decided 1 of 2 requests alike, 1 otherwise, such as 2" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--accept", "b-10b=-1"], "--accept b-10b: not a tier below the last"),
        (["--accept", "s-1b=-1", "--strict"], "--strict goes with --certificate"),
        (["--config", "c.yaml", "--chain", "a,b"], "--chain goes with --accept"),
        (["--accept", "s-1b=-1", "--served", "no.jsonl"], "cannot read no.jsonl"),
    ],
)
def test_options_that_do_not_go_together_end_with_status_2(
    four: Path, capsys: Capture, arguments: list[str], words: str
) -> None:
    assert main(["replay", str(four), *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_sweep_keeps_what_no_other_policy_beats(four: Path, capsys: Capture) -> None:
    assert main(["sweep", str(four), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    front = [(one["chain"], one["figures"]["accuracy"]) for one in found["front"]]
    # The small model at -0.9 answers questions 0 to 2 (one right) and sends 3 on (wrong): 0.25 for
    # 350; at -0.2 it is right as in the test above, 0.5 for 600; at -0.1 it answers question 0
    # alone, 0.75 for 850, which is as often right as the big one alone, 0.75 for 1,000.
    assert [right for _, right in front] == [0.25, 0.5, 0.75]
    assert [one["figures"]["cost"] for one in found["front"]] == [350, 600, 850]
    # Thresholds: three scores as quantiles, and the last tier alone.
    assert found["n_policies"] == 4


def test_a_sweep_says_that_it_promises_nothing(cascade_csv: Path, capsys: Capture) -> None:
    assert main(["sweep", str(cascade_csv), "--steps", "3"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "no promise" in " ".join(printed.split())
